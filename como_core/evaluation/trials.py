"""What trials say: the success rate of a policy, and whether another one is better from the same start states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from como_core.errors import ComoError
from como_core.evaluation.statistics import Interval, mcnemar_exact, paired_bootstrap, wilson
from como_core.formats.trials import Trial


@dataclass(frozen=True)
class Rate:
    """A success rate: k of n."""

    successes: int
    trials: int

    @property
    def share(self) -> float:
        """Successes per trial."""
        return self.successes / self.trials

    @property
    def interval(self) -> Interval:
        """Wilson's 95 % interval."""
        return wilson(self.successes, self.trials)

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return f"{self.successes}/{self.trials} = {self.share:.1%} [{low:.1%}, {high:.1%}]"


@dataclass(frozen=True)
class Comparison:
    """Two policies over the same start states.

    difference  rate of `other` minus rate of `base`
    interval    95 % of the difference: paired bootstrap, stratified by environment
    p_value     McNemar's exact test, two-sided
    """

    base: Rate
    other: Rate
    difference: float
    interval: Interval
    p_value: float


def rate(trials: Sequence[Trial]) -> Rate:
    """The success rate of trials. Raises ComoError where there is none."""
    if not trials:
        raise ComoError("no trials: a success rate needs at least one")
    return Rate(sum(trial.success for trial in trials), len(trials))


def rates_by_env(trials: Sequence[Trial]) -> dict[str, Rate]:
    """Environment -> success rate, in the order in which the environments appear."""
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(trial.env, []).append(trial)
    return {env: rate(group) for env, group in grouped.items()}


def compare(base: Sequence[Trial], other: Sequence[Trial]) -> Comparison:
    """Compare two policies start state by start state.

    Raises ComoError, naming a start state, where one was tried by only one of them or twice by the same.
    """
    ours, theirs = _by_start(base), _by_start(other)
    require_same_starts(ours, theirs)
    starts = sorted(ours)
    a, b = [ours[start] for start in starts], [theirs[start] for start in starts]
    base_rate, other_rate = rate(base), rate(other)
    return Comparison(base_rate, other_rate, other_rate.share - base_rate.share,
                      paired_bootstrap(a, b, [env for env, _ in starts]), mcnemar_exact(a, b))


def require_same_starts(one: Iterable[tuple[str, int]], other: Iterable[tuple[str, int]]) -> None:
    """Raise ComoError, naming the first (environment, seed), where there are start states of one policy alone."""
    alone = set(one) ^ set(other)
    if alone:
        env, seed = min(alone)
        raise ComoError(f"the policies were not tried from the same start states: {len(alone)} were tried by one only, "
                        f"such as {env} from seed {seed}; run the missing trials")


def _by_start(trials: Sequence[Trial]) -> dict[tuple[str, int], bool]:
    found: dict[tuple[str, int], bool] = {}
    for trial in trials:
        if trial.start in found:
            raise ComoError(f"{trial.env} from seed {trial.seed} stands twice among the trials of one policy")
        found[trial.start] = trial.success
    return found
