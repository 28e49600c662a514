"""Stage: a scripted expert drives the simulated arm over ROS 2, and the recorder writes labelled demonstrations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mcap.reader import make_reader

from como_core.errors import ComoError
from como_core.training.progress import track
from como_ros.demo.plan import LABEL_SEEDS_FROM, DemoPlan
from como_ros.demo.session import Session
from como_ros.demo.stages import Result, read_json, write_json

# The expert's action noise differs from episode to episode within these bounds, as a share of full speed.
NOISE_RANGE = (0.05, 0.4)
REDRAWS = 10


def record(plan: DemoPlan, out: Path, logs: Path) -> Result:
    """Record `labels_per_task` successful episodes of each task as bags below `out`; failed attempts are discarded.

    Returns what was recorded and what an independent reader (mcap's own) finds in the files.
    Raises ComoError where a task cannot be demonstrated or a bag does not read back as it was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    index = out / "index.json"
    known = (read_json(index) or {}).get("episodes", [])
    done = {entry["key"]: entry for entry in known if Path(entry["bag"]).exists()}
    numbers = range(plan.labels_per_task)
    wanted = [(task, env, number) for task, env in zip(plan.tasks, plan.envs, strict=True) for number in numbers]
    if any(f"{task}/{number}" not in done for task, _, number in wanted):
        with Session(plan, logs) as session:
            session.start("recorder_node", interface=session.interface_path, output=out)
            session.start("expert_node")
            for task, env, number in track(wanted, "recording demonstrations"):
                key = f"{task}/{number}"
                if key not in done:
                    done[key] = {"key": key, "task": task, **_demonstrate(session, env, number)}
                    write_json(index, {"episodes": list(done.values())})
    episodes = list(done.values())
    for entry in episodes:
        _check_independently(Path(entry["bag"]), entry["messages"])
    return {"episodes": episodes, "messages": sum(sum(e["messages"].values()) for e in episodes)}


def _demonstrate(session: Session, env: str, number: int) -> Result:
    """One successful episode: its seed, its bag and the messages in it by topic."""
    operator = session.operator
    for seed in _seeds(number):
        low, high = NOISE_RANGE
        noise = low + (high - low) * ((seed * 0.618034) % 1.0)
        session.reset(env, seed)
        operator.set_parameters("expert_node", seed=seed, noise_std=noise)
        operator.begin_watch()
        operator.trigger("record/start")
        operator.trigger("expert/start")
        success = operator.wait_success(session.plan.horizon_s / session.plan.rate_factor, session.require_alive)
        if success:
            operator.settle(0.1 / session.plan.rate_factor)
        operator.trigger("expert/stop")
        if not success:
            operator.trigger("record/discard")
            continue
        episode = operator.trigger_json("record/stop")
        return {"seed": seed, "bag": episode["path"], "messages": episode["messages"]}
    raise ComoError(f"the scripted expert did not succeed at {env} in {REDRAWS} attempts; choose another task")


def _seeds(number: int) -> Iterator[int]:
    """Start states of one demonstration: its own first, then others, far from those of other demonstrations."""
    for attempt in range(REDRAWS):
        yield LABEL_SEEDS_FROM + number + 100 * attempt


def _check_independently(bag: Path, written: dict[str, int]) -> None:
    """Count the bag's messages with mcap's reader; raise ComoError where a count differs from what was recorded."""
    counts: dict[str, int] = {}
    for file in sorted(bag.glob("*.mcap")):
        with file.open("rb") as stream:
            for _, channel, _ in make_reader(stream).iter_messages():
                counts[channel.topic] = counts.get(channel.topic, 0) + 1
    for topic, count in written.items():
        found = next((n for name, n in counts.items() if re.search(rf"(^|/){re.escape(topic.lstrip('/'))}$", name)), 0)
        if found != count:
            raise ComoError(f"{bag}: {count} messages of {topic} were recorded, mcap's reader finds {found}")
