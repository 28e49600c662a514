"""What a person says to the robot's motion: stop (e-stop), only while I hold it (deadman), pause.

None of this is functional safety: messages can be lost, and so can this process.
"""

from __future__ import annotations


class Operator:
    """The newest word of each switch.

    deadman_max_age_s  the deadman switch counts as released when its newest message is older than this; None where
                       there is no such switch
    estop_required     nothing may be commanded until the e-stop has been heard
    """

    def __init__(self, deadman_max_age_s: float | None = None, estop_required: bool = False) -> None:
        self._deadman_max_age_s, self._estop_required = deadman_max_age_s, estop_required
        self._held_s: float | None = None
        self.pressed: bool | None = None
        self.paused = False

    def deadman(self, held: bool, wall_s: float) -> None:
        """A message of the deadman switch, arrived at `wall_s` on the wall."""
        self._held_s = wall_s if held else None

    @property
    def stop(self) -> str | None:
        """Why nothing may be commanded until a person resets the latch, or None."""
        return "the e-stop is pressed" if self.pressed else None

    def hold(self, wall_s: float) -> str | None:
        """Why nothing may be commanded for the present, or None."""
        if self._estop_required and self.pressed is None:
            return "the e-stop has not been heard"
        if self.paused:
            return "paused by the operator"
        if self._deadman_max_age_s is None:
            return None
        if self._held_s is None:
            return "the deadman switch is not held"
        age_s = wall_s - self._held_s
        if age_s > self._deadman_max_age_s:
            return (f"the deadman switch was last heard {age_s:.2f} s ago, "
                    f"deadman_max_age_s is {self._deadman_max_age_s:g}")
        return None
