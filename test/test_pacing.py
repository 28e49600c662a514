"""The loop keeps its rate: without drift, without a negative sleep, without a burst after a long stop."""

from como_ros.pacing import PATIENCE_S, Pacer


class HandClock:
    """Time that only moves when told, or slept."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time_s += seconds


def test_periods_add_up_whatever_the_work_takes() -> None:
    clock = HandClock()
    pacer = Pacer(clock.now, clock.sleep)
    for step in range(1000):
        clock.time_s += 0.001 * (step % 20)
        pacer.wait(0.025)
    assert abs(clock.time_s - 125.0) < 1e-6


def test_a_slow_step_is_made_up_for_without_a_negative_sleep() -> None:
    clock = HandClock()
    pacer = Pacer(clock.now, clock.sleep)
    clock.time_s += 0.06
    assert abs(pacer.wait(0.025) - 0.035) < 1e-9
    assert abs(pacer.wait(0.025) - 0.010) < 1e-9
    assert pacer.wait(0.025) == 0.0
    assert abs(clock.time_s - 100.075) < 1e-9
    assert all(seconds >= 0.0 for seconds in clock.sleeps)


def test_a_long_stop_is_given_up_instead_of_caught_up() -> None:
    clock = HandClock()
    pacer = Pacer(clock.now, clock.sleep)
    clock.time_s += 60.0
    assert pacer.wait(0.025) > PATIENCE_S
    assert pacer.wait(0.025) == 0.0
    assert abs(clock.sleeps[-1] - 0.025) < 1e-9
