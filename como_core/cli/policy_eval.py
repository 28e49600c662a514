"""`como policy eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from como_core.bounds import ABOVE_0, COUNT, FROM_0
from como_core.errors import ComoError

if TYPE_CHECKING:
    from como_core.formats.trials import Trial

LOG = "trials.jsonl"
WHOSE = "policy_sha256"  # the condition of a log that two policies to compare need not share


def evaluate(
    run: tyro.conf.Positional[Path],
    env: tuple[str, ...],
    trials: Annotated[int, COUNT] = 50,
    first_seed: Annotated[int, FROM_0] = 10_000,
    against: Path | None = None,
    films: bool = False,
    processes: Annotated[int, COUNT] = 2,
    batch: Annotated[int, COUNT] = 8,
    horizon_s: Annotated[float | None, ABOVE_0] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    device: str = "cpu",
) -> None:
    """Measure a policy in simulation: its success from fixed start states, with Wilson's 95 % interval.

    Trials are stepped directly, with the latency of the real loop, in parallel processes. They are logged one by one:
    run again, it does only what is missing. Writes OUTPUT/success.json, a sheet of film strips for each environment
    and, with --against, OUTPUT/comparison.json.

    Examples:
        como policy eval runs/policy --env metaworld:drawer-open-v3 --trials 50
        como policy eval runs/new --env metaworld:drawer-open-v3 metaworld:door-open-v3 --against runs/old

    Args:
        run: Folder of the policy, as `como policy train` wrote it.
        env: Environments, such as metaworld:drawer-open-v3, metaworld:drawer-open-v3@left, pusht or
            libero:libero_goal/turn_on_the_stove.
        trials: Start states per environment.
        first_seed: Seed of the first start state; the others follow it.
        against: Another policy to compare with, start state by start state: its folder, in which missing trials are
            run, or a trials.jsonl.
        films: Keep an mp4 of each trial in OUTPUT/films.
        processes: How many processes step simulators at once.
        batch: Trials that each process steps side by side; the policy is asked once for all of them.
        horizon_s: Simulated seconds after which a trial is a failure; that of the suite where not given.
        output: Folder for the log of trials and the results; RUN/eval where not given.
        device: Torch device of the policy, such as cpu or cuda.
    """
    import time

    from como_core.evaluation.report import (
        comparison_rows,
        comparison_table,
        print_table,
        success_rows,
        success_table,
    )
    from como_core.formats.result_file import require_replaceable, write_result
    from como_core.simulation.environment import canonical_name

    envs = tuple(dict.fromkeys(map(canonical_name, env)))
    plan = _Plan(envs, range(first_seed, first_seed + trials), processes, batch, horizon_s, device)
    folder = output or run / "eval"
    success, comparison = folder / "success.json", folder / "comparison.json"
    require_replaceable(success, "policy eval", ("env", "success", "low", "high", "k", "n"))
    if against is not None:
        require_replaceable(comparison, "policy eval", ("env", "difference", "low", "high", "p", "k_against"))
    began = time.monotonic()
    plan.check(run, folder)
    other = None if against is None else _Other.of(against, plan, run, folder)
    done = plan.run(run, folder, films)
    rows = success_rows(done)
    print_table(success_table(f"{run}, {trials} start states from seed {first_seed}", rows))
    wall_s = time.monotonic() - began
    print(f"wall time {wall_s:.1f} s with {processes} processes of {batch} trials side by side on {device}; inference "
          "is milliseconds a chunk, a call for several shared among those that it computes")
    write_result(success, rows)
    sheets = _write_sheets(done, folder)
    print("\n".join([f"the same numbers: {success}; every trial: {folder / LOG}",
                     *(f"film strips: {sheet}" for sheet in sheets)]))
    if films:
        print(f"films: {folder / 'films'} ({sum(trial.film is not None for trial in done)} of {len(done)} trials; "
              "those logged before without --films have none)")
    if other is not None:
        compared = comparison_rows(done, other.trials(plan))
        print_table(comparison_table(str(run), str(against), compared))
        write_result(comparison, compared)
        print(f"the same numbers: {comparison}")


@dataclass(frozen=True)
class _Plan:
    """Which trials, and how they are run."""

    envs: tuple[str, ...]
    seeds: range
    processes: int
    batch: int
    horizon_s: float | None
    device: str

    def check(self, policy: Path, folder: Path) -> None:
        """Refuse what is damaged or does not fit, in any environment or in folder/trials.jsonl, before any process is
        begun.
        """
        import torch

        from como_core.formats.trials import trials_under
        from como_core.policy.checkpoint import PolicyError, load_policy
        from como_core.simulation.environment import check_env, seen_from
        from como_core.simulation.rollout import env_for, periods_of

        if self.device == "cpu":
            torch.set_num_threads(1)  # as in processes of their own: simulators and networks share the cores
        loaded = load_policy(policy, self.device)
        interface = loaded.interface
        known: dict[object, str] = {}
        for name in self.envs:
            check_env(name)
            same = known.setdefault(seen_from(name, tuple(interface.cameras)), name)
            if same != name:
                raise ComoError(f"--env {same} {name}: for this policy, whose cameras are "
                                f"{', '.join(interface.cameras)}, these are one environment; name it once")
        for name in self.envs:
            env = env_for(interface, name)
            env.close()
            periods_of(env, self.horizon_s)
            if env.starts is not None and len(self.seeds) > env.starts:
                raise ComoError(f"--trials {len(self.seeds)}: {env.name} has {env.starts} start states; trying one "
                                "twice tells nothing new")
            try:
                loaded.require_instruction(env.instruction)
            except PolicyError as error:
                raise PolicyError(f"--env {name}: {error}") from error
        trials_under(folder / LOG, self.conditions(policy))

    def run(self, policy: Path, folder: Path, films: bool = False) -> list[Trial]:
        """The trials of a policy, those missing in folder/trials.jsonl run now."""
        from functools import partial

        from como_core.formats.trials import TrialLog
        from como_core.policy.checkpoint import load_policy
        from como_core.simulation.rollout import run_trials

        log = TrialLog(folder / LOG, self.conditions(policy))
        return run_trials(partial(load_policy, policy, self.device), self.envs, self.seeds, processes=self.processes,
                          horizon_s=self.horizon_s, log=log, films=folder / "films" if films else None,
                          strips=folder / "strips", batch=self.batch, title=f"trials of {policy}")

    def conditions(self, policy: Path) -> dict[str, object]:
        """What the trials of a log have in common: what makes the policy, file by file, and how it was run."""
        from como_core.formats.labels import sha256_of
        from como_core.training.checkpoint import CONFIG, INTERFACE, NORMALISER, TENSORS

        return {WHOSE: {name: sha256_of(policy / name) for name in (TENSORS, CONFIG, NORMALISER, INTERFACE)},
                **self.common()}

    def common(self) -> dict[str, object]:
        """What trials must have in common to be compared."""
        from como_core.simulation.chunk_player import REAL_TIME

        return {"horizon_s": self.horizon_s, "batch": self.batch, "timing": REAL_TIME}


@dataclass(frozen=True)
class _Other:
    """What to compare with: a policy, whose missing trials are still to run, or trials out of a log."""

    policy: Path
    logged: list[Trial] | None = None

    @classmethod
    def of(cls, against: Path, plan: _Plan, run: Path, folder: Path) -> _Other:
        """Raises ComoError where `run`, tried into `folder`, cannot be compared with it, before hours of trials."""
        import dataclasses

        from como_core import config
        from como_core.evaluation.trials import require_same_starts
        from como_core.formats.trials import TrialLogError, read_trials
        from como_core.simulation.environment import canonical_name
        from como_core.training.checkpoint import TENSORS

        if (against / TENSORS).is_file():
            plan.check(against, against / "eval")
            same_log = folder.resolve() == (against / "eval").resolve()
            if same_log and plan.conditions(against) != plan.conditions(run):
                raise ComoError(f"{folder}: is where the trials of {against} belong, which is another policy than "
                                f"{run}; choose another folder")
            return cls(against)
        path = next((p for p in (against / "eval" / LOG, against / LOG) if p.is_file()), against)
        if not path.is_file():
            raise ComoError(f"--against {against}: neither the folder of a policy nor a log of trials ({LOG})")
        conditions, trials = read_trials(path)
        found = config.first_difference({k: v for k, v in conditions.items() if k != WHOSE}, plan.common())
        if found:
            key, theirs, ours = found
            raise TrialLogError(f"{path}: its trials were run with {key} = {theirs!r}, these with {ours!r}; only "
                                "trials under the same conditions can be compared")
        wanted = {(env, seed) for env in plan.envs for seed in plan.seeds}
        named = [dataclasses.replace(trial, env=canonical_name(trial.env)) for trial in trials]
        kept = list({trial.start: trial for trial in named if trial.start in wanted}.values())
        if not kept:
            seeds = sorted({trial.seed for trial in trials})
            raise ComoError(f"--against {path}: no trial from the start states of this evaluation (seeds "
                            f"{plan.seeds[0]} to {plan.seeds[-1]} of {', '.join(plan.envs)}); it has "
                            f"{f'seeds {seeds[0]} to {seeds[-1]}' if seeds else 'none'} of "
                            f"{', '.join(sorted({trial.env for trial in trials})) or 'no environment'}")
        require_same_starts(wanted, [trial.start for trial in kept])
        return cls(against, kept)

    def trials(self, plan: _Plan) -> list[Trial]:
        """Its trials; those that a policy still lacks are run."""
        return plan.run(self.policy, self.policy / "eval") if self.logged is None else self.logged


def _write_sheets(trials: Sequence[Trial], folder: Path) -> list[Path]:
    from como_core.evaluation.report import strip_sheet
    from como_core.formats.png import write_png
    from como_core.simulation.rollout import picture_name

    written = []
    for env in dict.fromkeys(trial.env for trial in trials):
        mine = [trial for trial in trials if trial.env == env]
        strips = {trial.seed: folder / "strips" / f"{picture_name(env, trial.seed)}.png" for trial in mine}
        sheet = strip_sheet(mine, strips)
        if sheet is not None:
            written.append(folder / f"strips_{picture_name(env)}.png")
            write_png(written[-1], sheet)
    return written
