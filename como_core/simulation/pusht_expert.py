"""A scripted expert of PushT: it tries straight pushes in a simulation of its own and carries out the best, again and
again.

A push begins beside the block's outline and goes inwards, more or less along the normal. It is judged by how far the
block's corners then are from where they belong, and a little by its length and the way to it. Lengths are pixels of
gym-pusht here, a millimetre each.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
import shapely
from gym_pusht.envs.pusht import PushTEnv

from como_core.simulation.pusht import BOARD_M, M_PER_PIXEL

NOISE_PX = 20.0  # what full noise moves a target by

_RADIUS = 15.0  # of the pusher
_GAP = 3.0  # between pusher and block before a push
_SPACING = 12.0  # of the places along the outline
_TILT_RAD = 0.6  # of a push against the normal, at most
_TRIES = 120
_PUSH_STEP, _WAY_STEP = 24.0, 45.0  # at most so far from one target to the next
_DETOUR_RADIUS, _DETOUR_STEP_RAD = 105.0, 0.45  # around the block, where it stands between pusher and push
_MIDDLE = np.array([0.0, 45.0])  # of the block, in its own frame
_MARGIN = 15.0
_BOARD = BOARD_M / M_PER_PIXEL
_TRAVEL_COST, _LENGTH_COST = 0.004, 0.02  # pixels of distance that a pixel on the way, or of pushing, must gain


class PushTExpert:
    """Gives targets for the pusher, one a period, from `PushT.privileged()`; plans anew after each push."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._trial = PushTEnv(obs_type="state")
        weakref.finalize(self, self.__dict__.clear)  # as in PushT
        self._trial.reset(seed=0)
        shapes = [np.array(shape.get_vertices()) for shape in self._trial._block_shapes]
        self._corners = np.concatenate(shapes)
        self._outline = shapely.unary_union([shapely.Polygon(corners) for corners in shapes])
        self._contacts = self._places()
        self._mark = self._placed(self._trial.goal_pose[:2], float(self._trial.goal_pose[2]))
        self._targets: deque[np.ndarray] = deque()

    def act(self, privileged: np.ndarray) -> np.ndarray:
        """The next target [x, y] in metres, float64 [2]."""
        if not self._targets:
            pusher, block, angle = privileged[:2] / M_PER_PIXEL, privileged[2:4] / M_PER_PIXEL, float(privileged[4])
            push = self._best_push(pusher, block, angle, _TRIES) or self._best_push(pusher, block, angle, 4 * _TRIES)
            self._targets.extend([*self._way(pusher, push[0], block, angle), *push] if push else [pusher])
        return self._targets.popleft() * M_PER_PIXEL

    def _best_push(self, pusher: np.ndarray, block: np.ndarray, angle: float, tries: int) -> list[np.ndarray] | None:
        """Targets of the push, the place before it first, that brings the block nearest; None where none helps."""
        turn = _rotation(angle)
        least, best = self._distance(block, angle), None
        reach = least + 6.0
        for _ in range(tries):
            contact, inwards = self._contacts[self._rng.integers(len(self._contacts))]
            start = turn @ contact + block
            direction = turn @ _rotation(self._rng.uniform(-_TILT_RAD, _TILT_RAD)) @ inwards
            length = _GAP + min(160.0, self._rng.uniform(0.2, 2.0) * reach)
            end = start + direction * length
            if not (_on_board(start) and _on_board(end)):
                continue
            targets = [start, *_line(start, end, _PUSH_STEP, least=2), end, end]  # twice: the pusher lags
            after = self._tried(start, block, angle, targets[1:])
            cost = after + _TRAVEL_COST * float(np.linalg.norm(start - pusher)) + _LENGTH_COST * length
            if cost < least:
                least, best = cost, targets
        return best

    def _tried(self, pusher: np.ndarray, block: np.ndarray, angle: float, targets: list[np.ndarray]) -> float:
        """How far the block is from its mark after a push in the expert's own simulation."""
        trial = self._trial
        trial.agent.position, trial.agent.velocity = tuple(pusher), (0.0, 0.0)
        trial.block.angle, trial.block.position = angle, tuple(block)  # in this order: turning moves the block
        trial.block.velocity, trial.block.angular_velocity = (0.0, 0.0), 0.0
        for body in (trial.agent, trial.block):
            trial.space.reindex_shapes_for_body(body)
        for x, y in targets:
            self._follow(x, y)
        return self._distance(np.array(trial.block.position), trial.block.angle)

    def _follow(self, x: float, y: float) -> None:
        """A period of gym-pusht's controller, without its measuring, which takes ten times as long."""
        trial = self._trial
        for _ in range(round(1 / (trial.dt * trial.control_hz))):
            at, speed = trial.agent.position, trial.agent.velocity
            trial.agent.velocity = (
                speed[0] + (trial.k_p * (x - at[0]) - trial.k_v * speed[0]) * trial.dt,
                speed[1] + (trial.k_p * (y - at[1]) - trial.k_v * speed[1]) * trial.dt)
            trial.space.step(trial.dt)

    def _way(self, pusher: np.ndarray, start: np.ndarray, block: np.ndarray, angle: float) -> list[np.ndarray]:
        """Targets from the pusher to the start of a push, around the block where it is between them."""
        turn = _rotation(angle)
        line = shapely.LineString([(pusher - block) @ turn, (start - block) @ turn])
        stops = [start]
        if self._outline.distance(line) < _RADIUS + 1:
            middle = turn @ _MIDDLE + block
            stops = [*min((self._arc(pusher, start, middle, other_way) for other_way in (False, True)),
                          key=lambda arc: len(arc) + 3 * sum(not _on_board(place) for place in arc)), start]
        way, at = [], pusher
        for stop in stops:
            stop = np.clip(stop, _MARGIN, _BOARD - _MARGIN)
            way += _line(at, stop, _WAY_STEP, least=0)
            at = stop
        return way

    def _arc(self, pusher: np.ndarray, start: np.ndarray, middle: np.ndarray, other_way: bool) -> list[np.ndarray]:
        """Places around the block, from the pusher's side to that of the push."""
        first, last = (np.arctan2(*(place - middle)[::-1]) for place in (pusher, start))
        turn = (last - first + np.pi) % (2 * np.pi) - np.pi
        if other_way:
            turn -= np.copysign(2 * np.pi, turn)
        angles = first + np.linspace(0, turn, 1 + max(1, int(abs(turn) / _DETOUR_STEP_RAD)))
        return list(middle + _DETOUR_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1))

    def _places(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where pushes may begin, and inwards from there, in the block's frame."""
        ring, found = self._outline.exterior, []
        for along in np.arange(0, ring.length - _SPACING / 2, _SPACING):
            place, next_to = (np.array(ring.interpolate(a).coords[0]) for a in (along, along + 0.5))
            tangent = (next_to - place) / np.linalg.norm(next_to - place)
            outwards = np.array([tangent[1], -tangent[0]])
            if self._outline.contains(shapely.Point(place + 2 * outwards)):
                outwards = -outwards
            contact = place + outwards * (_RADIUS + _GAP)
            if self._outline.distance(shapely.Point(contact)) > _RADIUS + 0.5:  # not in the corners of the T
                found.append((contact, -outwards))
        return found

    def _placed(self, position: np.ndarray, angle: float) -> np.ndarray:
        corners: np.ndarray = self._corners @ _rotation(angle).T + position
        return corners

    def _distance(self, position: np.ndarray, angle: float) -> float:
        """Mean distance of the block's corners from where they belong."""
        return float(np.linalg.norm(self._placed(position, angle) - self._mark, axis=1).mean())


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _line(start: np.ndarray, end: np.ndarray, step: float, least: int) -> list[np.ndarray]:
    """Places from `start`, itself left out, to `end`."""
    count = max(least, int(np.ceil(np.linalg.norm(end - start) / step)))
    return [start + (end - start) * (i + 1) / count for i in range(count)]


def _on_board(place: np.ndarray) -> bool:
    return bool(np.all((place >= _MARGIN) & (place <= _BOARD - _MARGIN)))
