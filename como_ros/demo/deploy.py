"""Stage: both policies drive the simulated arm closed loop over ROS 2, from the same start states."""

from __future__ import annotations

import time
from pathlib import Path

from como_core.errors import ComoError
from como_core.training.progress import track
from como_ros.demo.plan import DemoPlan
from como_ros.demo.session import Session
from como_ros.demo.stages import Result, read_json, write_json

REPLAN_HZ = 10.0
# A policy that works moves the arm at least this far; less means that commands did not arrive.
LEAST_TRAVEL_M = 0.02


def deploy(plan: DemoPlan, policies: dict[str, Path], out: Path, logs: Path) -> Result:
    """Run `ros_trials` per task for each named policy through `policy_node` over DDS.

    Returns the trials and the node's own loop timing, by policy.
    Raises ComoError where no command crossed or the arm did not move.
    """
    out.mkdir(parents=True, exist_ok=True)
    results: Result = {}
    for name, checkpoint in policies.items():
        record = out / f"{name}.json"
        finished = read_json(record)
        if finished is None:
            finished = _run_policy(plan, name, checkpoint, out, logs)
            write_json(record, finished)
        results[name] = finished
    return results


def _run_policy(plan: DemoPlan, name: str, checkpoint: Path, out: Path, logs: Path) -> Result:
    seeds = plan.trial_seeds(plan.ros_trials)
    starts = [(task, env, seed) for task, env in zip(plan.tasks, plan.envs, strict=True) for seed in seeds]
    timing = out / f"{name}_timing.json"
    timing.unlink(missing_ok=True)
    trials = []
    with Session(plan, logs) as session:
        node = session.start(
            "policy_node",
            policy=checkpoint,
            interface=session.interface_path,
            enable_output=True,
            replan_hz=REPLAN_HZ,
            timing_file=timing,
        )
        session.operator.transition("policy_node", "configure")
        for task, env, seed in track(starts, f"{name} over ROS 2"):
            trials.append(_trial(session, task, env, seed))
        node.stop()
    moved = sum(trial["travel_m"] for trial in trials)
    commands = sum(trial["commands"] for trial in trials)
    if commands == 0 or moved < LEAST_TRAVEL_M:
        raise ComoError(
            f"{name}: {commands} commands crossed and the arm moved {moved:.3f} m; see {logs}/policy_node.log"
        )
    measured = read_json(timing)
    if measured is None:
        raise ComoError(f"{name}: policy_node left no loop timing at {timing}; see {logs}/policy_node.log")
    return {"trials": trials, "timing": measured}


def _trial(session: Session, task: str, env: str, seed: int) -> Result:
    operator = session.operator
    answer = session.reset(env, seed)
    operator.instruct(str(answer["instruction"]))
    operator.begin_watch()
    operator.transition("policy_node", "activate")
    start = time.monotonic()
    success = operator.wait_success(session.plan.horizon_s / session.plan.rate_factor, session.require_alive)
    duration_s = (time.monotonic() - start) * session.plan.rate_factor
    operator.transition("policy_node", "deactivate")
    watched = {"travel_m": operator.travel_m(), "commands": operator.commands_seen()}
    return {"task": task, "seed": seed, "success": success, "duration_s": duration_s, **watched}
