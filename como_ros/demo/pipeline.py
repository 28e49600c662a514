"""The demo's stages in order, and its verdict."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from rich.console import Console

from como_core import config
from como_core.errors import ComoError
from como_core.resources import resources
from como_ros.demo import deploy, learn, record, report, trials
from como_ros.demo.plan import DemoPlan
from como_ros.demo.stages import Stage, run_stages

POLICIES = {"labels alone": "none", "labels + video": "decoded"}


def load_plan(name: str) -> DemoPlan:
    """A plan of config/demo by name, or the path of a YAML. Raises ConfigError with file, line and key."""
    known = resources("config/demo")
    if name in known:
        return config.load(DemoPlan, known[name])
    if not Path(name).is_file():
        raise ComoError(
            f"no demo plan {name!r}: expected {' or '.join(known)}, or the path of a YAML like {known['demo']}"
        )
    return config.load(DemoPlan, name)


def run_demo(plan_name: str, out: Path) -> int:
    """Run every stage that is not done yet, print the table and return 0; errors are raised."""
    console = Console()
    plan = load_plan(plan_name)
    out = out.resolve()
    logs = out / "logs"
    bags, videos, motion, labels = out / "bags", out / "videos", out / "motion", out / "relabeled"
    policies = {name: out / "policies" / name.replace(" ", "_").replace("+", "and") for name in POLICIES}
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ComoError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
    claim(out / "plan.yaml", plan)
    logging.captureWarnings(True)
    stages = [
        Stage("record", "Record labelled demonstrations over ROS 2", partial(record.record, plan, bags, logs)),
        Stage("video", "Film other episodes, without actions", partial(learn.film, plan, videos)),
        Stage("motion", "Learn latent motion from the video", partial(learn.learn_motion, plan, videos, motion)),
        Stage("relabel", "Relabel the video and a bag with latent motion",
              partial(learn.relabel, bags, videos, motion, labels)),
        Stage("policy", "Train both policies",
              partial(learn.train_policies, plan, bags, labels, policies, POLICIES, logs, out / "cache")),
        Stage("trials", "Trials stepped directly", partial(trials.direct, plan, policies, out / "trials")),
        Stage("deploy", "Trials over ROS 2", partial(deploy.deploy, plan, policies, out / "ros_trials", logs)),
    ]
    results = run_stages(stages, out / "stages", console)
    report.report(plan, results, out, console)
    return 0


def claim(path: Path, plan: DemoPlan) -> None:
    """Note the plan of this folder. Raises ComoError, naming the key, where it was begun under another plan."""
    if path.is_file():
        found = config.first_difference(config.load(DemoPlan, path), plan)
        if found:
            key, before, now = found
            raise ComoError(
                f"{path.parent} was begun with {key} = {before!r}, now it is {now!r}; results of two plans do not mix: "
                "choose another --out, or remove that folder"
            )
    else:
        config.save(plan, path)
