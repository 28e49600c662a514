"""When a line of the leakage audit is fine, and what it means if not. The numbers are judgements, kept in one place.

They were set so that a z of future features, which describes the frame, is told from one of motion: on scripted
Meta-World episodes and on clips of real robots and hands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "leak", "not applicable"]


@dataclass(frozen=True)
class Rule:
    """Bounds of one line: fine at `ok` or better, a leak beyond `leak`, a warning between.

    higher_is_better  the direction
    ok, leak          bounds; leak None: the line never says more than warn
    quantity          what the number is
    means             a sentence for each verdict
    """

    higher_is_better: bool
    ok: float
    leak: float | None
    quantity: str
    means: dict[str, str]

    def verdict(self, value: float) -> Verdict:
        sign = 1 if self.higher_is_better else -1
        if sign * value >= sign * self.ok:
            return "ok"
        if self.leak is None or sign * value >= sign * self.leak:
            return "warn"
        return "leak"

    @property
    def threshold(self) -> str:
        """The bounds in words."""
        better, worse = (">=", "<") if self.higher_is_better else ("<=", ">")
        leak = f", leak {worse} {self.leak:g}" if self.leak is not None else ""
        return f"ok {better} {self.ok:g}{leak}"


RULES: dict[str, Rule] = {
    "shuffle gap": Rule(
        True, 0.05, None, "reconstruction gain lost when z is exchanged between pairs", {
            "ok": "forward dynamics needs the z of this pair",
            "warn": "forward dynamics hardly listens to z: z may carry nothing"}),
    "scene cut": Rule(
        False, 0.3, 0.6, "gain on pairs cut between scenes over gain on true pairs", {
            "ok": "z cannot paint another scene",
            "warn": "z rebuilds part of another scene",
            "leak": "z carries the picture of the second frame, not the motion to it"}),
    "transfer": Rule(
        True, 0.5, 0.2, "z drives a frame of another scene and is read again: cosine above floor, over that at home", {
            "ok": "z means the same motion in another scene",
            "warn": "z means partly the same in another scene",
            "leak": "z of one scene means nothing in another: it is bound to what the scene looks like"}),
    "static pairs": Rule(
        False, 0.25, 0.75, "|z| of two equal frames over the median |z|", {
            "ok": "no motion gives nearly no z",
            "warn": "two equal frames have a z: rest does not lie at zero",
            "leak": "z of two equal frames is about as long as that of a motion: it describes the frame"}),
    "appearance": Rule(
        False, 0.5, 0.8,
        "a linear classifier tells the recording from z: above chance, over the same from the frame or, if that is "
        "more, from z", {
            "ok": "z tells much less of the recording than a frame does",
            "warn": "z tells recordings apart: by their motion, or by how they look",
            "leak": "z tells recordings apart nearly as a frame does: it carries appearance"}),
    "reversal": Rule(
        True, 0.5, 0.0, "cos(z(a, b), -z(b, a))", {
            "ok": "going back is the opposite of going there",
            "warn": "going back is hardly the opposite of going there",
            "leak": "going there and back point the same way: z describes the scene rather than the direction"}),
    "composition": Rule(
        False, 0.5, None, "|z(a, m) + z(m, c) - z(a, c)| over |z(a, c)|, m the frame in the middle", {
            "ok": "motions of half the gap add up to that of the gap",
            "warn": "motions do not add up: z is no vector of motion, whatever else it is"}),
}
