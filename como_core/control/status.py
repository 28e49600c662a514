"""What a Controller is told, sends and tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from como_core.control.blending import Blend
from como_core.control.streams import StreamAge
from como_core.control.trajectory import Trajectory


class Phase(StrEnum):
    """What the controller is doing."""

    IDLE = "idle"
    WAITING = "waiting"  # for fresh streams and a first chunk; there is nothing to stop yet
    RUNNING = "running"
    LATCHED = "latched"


@dataclass(frozen=True)
class Settings:
    """How the controller runs; the interface says everything else.

    replan_hz       how often a chunk is asked for
    blend           how a new chunk takes over: blending.BLENDS
    blend_s         duration of a cross-fade from the old chunk to a new one
    ensemble_decay  of a temporal ensemble's weights, per chunk
    command_lead_s  the action due this much later is sent now, for a robot that acts late
    wall_rate       simulated seconds per wall second where below 1
    margin_s        a stream counts as stale this much before its max_age_s: two periods of whoever calls `check`
    deadman_max_age_s  a deadman switch must be held and heard within this; None where there is none
    estop_required  nothing is commanded until the e-stop has been heard
    history_s       how long before the newest images the policy sees earlier ones, in seconds
    uses_state      the policy looks at the state, so that the state of a picture's instant is worth waiting for
    """

    replan_hz: float = 10.0
    blend_s: float = 0.05
    command_lead_s: float = 0.0
    wall_rate: float = 1.0
    margin_s: float = 0.0
    blend: Blend = "cross_fade"
    ensemble_decay: float = 0.01
    deadman_max_age_s: float | None = None
    estop_required: bool = False
    history_s: tuple[float, ...] = ()
    uses_state: bool = True


@dataclass(frozen=True)
class Command:
    """What to send.

    values      float32 [len(Action.names)]; None where the target is a trajectory, or only the gripper is to move
    gripper     in [0, 1]; None where it has not changed
    trajectory  for target joint_trajectory, when a chunk has come
    """

    values: np.ndarray | None
    gripper: float | None = None
    trajectory: Trajectory | None = None


@dataclass(frozen=True)
class Status:
    """For logs and diagnostics. `waiting_for` is empty unless the phase is waiting; `cause` is the latch's."""

    phase: Phase
    cause: str | None
    waiting_for: tuple[str, ...]
    ages: dict[str, StreamAge | None]
    planned_steps: int
    planned_s: float
    chunks: int
    late_chunks: int
    commands: int
    bounded_commands: int
