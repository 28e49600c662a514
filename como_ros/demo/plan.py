"""What the demo does: tasks, seeds and budgets, from config/demo/*.yaml. Chosen before any trial is seen."""

from __future__ import annotations

from dataclasses import dataclass

# Disjoint seeds, so that no start state of a trial was ever trained on or tuned on.
LABEL_SEEDS_FROM = 0
VIDEO_SEEDS_FROM = 1000
PROBE_SEEDS_FROM = 3000

LEAST_PROBED = 10


@dataclass(frozen=True)
class DemoPlan:
    """The demo's choices.

    tasks                 Meta-World tasks, co-trained into one policy
    labels_per_task       demonstrations recorded over ROS 2, with actions
    videos_per_task       episodes rendered to mp4, without any action
    probe_per_task        episodes with actions that only the linear probe sees, never a policy
    direct_trials         trials per task and policy stepped directly, for the intervals
    ros_trials            trials per task and policy over DDS, from the first of the same start states
    trial_seeds_from      first start state of the trials; 9000 is for reporting, development stays below
    horizon_s             a trial ends here as a failure, simulated seconds
    rate_factor           wall speed of the simulated arm; 1.0 is real time
    interface             the simulated arm's interface, a file of this package
    processes             worker processes of the stages that step the simulation directly
    """

    tasks: tuple[str, ...]
    labels_per_task: int
    videos_per_task: int
    probe_per_task: int
    direct_trials: int
    ros_trials: int
    horizon_s: float
    motion_preset: str
    motion_steps: int
    policy_preset: str
    policy_steps: int
    trial_seeds_from: int = 9000
    rate_factor: float = 1.0
    interface: str = "config/interfaces/metaworld.yaml"
    processes: int = 2

    def __post_init__(self) -> None:
        for name in ("labels_per_task", "videos_per_task", "direct_trials", "ros_trials", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.probe_per_task * len(self.tasks) < LEAST_PROBED:
            raise ValueError(f"probe_per_task: {self.probe_per_task} episodes of {len(self.tasks)} tasks are too few "
                             f"to split; give {LEAST_PROBED} or more in all")
        if self.ros_trials > self.direct_trials:
            raise ValueError(f"ros_trials ({self.ros_trials}) start from the first of the direct trials' states, "
                             f"so they cannot outnumber direct_trials ({self.direct_trials})")
        if self.rate_factor <= 0 or self.horizon_s <= 0:
            raise ValueError("rate_factor and horizon_s must be above 0")

    @property
    def envs(self) -> tuple[str, ...]:
        """Environment ids of the tasks, as `make_env` takes them."""
        return tuple(f"metaworld:{task}" for task in self.tasks)

    def trial_seeds(self, count: int) -> list[int]:
        """The first `count` start states of the trials; the same for every policy and for ROS and direct trials."""
        return list(range(self.trial_seeds_from, self.trial_seeds_from + count))
