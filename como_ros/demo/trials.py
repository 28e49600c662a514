"""Stage: the many trials that the intervals need, stepped directly in parallel processes, with the loop's latency."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from como_core.formats.labels import sha256_of
from como_core.formats.trials import TrialLog
from como_core.policy.checkpoint import load_policy
from como_core.simulation.rollout import run_trials
from como_ros.demo.plan import DemoPlan
from como_ros.demo.stages import Result


def direct(plan: DemoPlan, policies: dict[str, Path], out: Path) -> Result:
    """Run `direct_trials` start states per task for each named policy; every trial leaves a film below `out`."""
    results: Result = {}
    for name, checkpoint in policies.items():
        folder = out / checkpoint.name
        films = folder / "films"
        films.mkdir(parents=True, exist_ok=True)
        trials = run_trials(
            partial(load_policy, checkpoint),
            plan.envs,
            plan.trial_seeds(plan.direct_trials),
            processes=plan.processes,
            horizon_s=plan.horizon_s,
            log=TrialLog(folder / "trials.jsonl", {"policy_sha256": sha256_of(checkpoint)}),
            films=films,
            title=name,
        )
        results[name] = {
            "trials": [
                {
                    "task": trial.env.partition(":")[2],
                    "seed": trial.seed,
                    "success": trial.success,
                    "duration_s": trial.duration_s,
                    "film": str(films / trial.film) if trial.film else None,
                }
                for trial in trials
            ]
        }
    return results
