"""Escape room: a point leaves a round room by a door it must find (Dorfman et al., BOReL).

The task is the angle of the door's centre, U(0, pi), on the unit circle; the door is pi / 8 wide.
Reward 1 for a step that ends outside, ||s'|| > 1, else 0; H = 60, K = 2. Evaluation starts at the
origin; collection from angle U(-pi, pi) and radius U(0, 1), which is denser near the centre.
Tasks differ in dynamics (where the wall lets through), so rewards cannot be relabelled.

A step whose segment meets the circle away from the door ends on the side that it came from, in
the direction of where it was going, at radius 0.99 (inside) or 1.01 (outside).

Deliberate deviations from the published code: the wall is an exact circle instead of a thin ring
of two polygons; the door's angular distance wraps around, so a door near pi keeps the part beyond
it; and the wall blocks both ways, so a step from outside stays outside (there it lands inside).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from environments.base import Actions, Bool, Float32, Float64, Spec
from environments.planar import PlanarFamily, on_circle, proposed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOOR_HALF_WIDTH = np.pi / 16
INNER_RADIUS, OUTER_RADIUS = 0.99, 1.01
"""Where a blocked step ends, from inside and from outside."""
_AIM_MARGIN = 1e-3
"""How far inside the door's edge the oracle aims, so that rounding cannot make it miss."""
_AIM_RADIUS = 1.2
"""Further out than a step reaches beyond the wall, so that the oracle never slows down inside."""


class EscapeRoom(PlanarFamily):
    """Tasks that differ in where the wall has its door."""

    spec: ClassVar[Spec] = Spec(
        name="escape_room",
        observation_names=("x", "y"),
        action_dim=2,
        horizon=60,
        episodes=2,
        task_names=("door_angle",),
        tasks_differ_in="dynamics",
        binary_reward=(0.0, 1.0),
    )

    def task_bounds(self) -> tuple[float, float]:
        """Angles of the door's centre, in radians."""
        return 0.0, np.pi

    def wide_starts(self, tasks: Float64, rng: np.random.Generator) -> Float32:
        """Uniform in angle and in radius, (n, 2)."""
        angles = rng.uniform(-np.pi, np.pi, len(tasks))
        radii = rng.uniform(0.0, 1.0, (len(tasks), 1))
        return (radii * on_circle(angles)).astype(np.float32)

    def transition(self, observations: Float32, actions: Actions, tasks: Float64) -> Float32:
        """s + 0.1 a, unless the wall is in the way, in float64 and rounded once to float32."""
        before = observations.astype(np.float64)
        # Rounded first, so that rounding afterwards cannot carry a point through the wall.
        after = proposed(observations, actions).astype(np.float32).astype(np.float64)
        passes = may_pass(before, after, tasks[..., 0])
        radius = np.where(_outside(before), OUTER_RADIUS, INNER_RADIUS)
        # A blocked step ends near the wall, never near the centre, so this divides by no zero.
        length = np.where(passes, 1.0, np.hypot(after[..., 0], after[..., 1]))
        scale = np.where(passes, 1.0, radius / length)
        return (scale[..., None] * after).astype(np.float32)

    def in_goal(self, positions: Float64, tasks: Float64) -> Bool:
        """Whether positions (..., 2) lie outside the room, (...,)."""
        return _outside(positions)

    def oracle_actions(self, observations: Float32, tasks: Float64) -> Float32:
        """Straight through the door, nearest to a diagonal, then stay; (..., 2).

        Both axes move as fast as they can on a diagonal, so from the centre the door's point
        that is nearest to one is reached first. A step that the wall blocks slides along it.
        """
        door = tasks[..., 0]
        diagonal = np.where(door < np.pi / 2, np.pi / 4, 3 * np.pi / 4)
        slack = DOOR_HALF_WIDTH - _AIM_MARGIN
        aim = _AIM_RADIUS * on_circle(np.clip(diagonal, door - slack, door + slack))
        position = observations.astype(np.float64)
        gap = aim - position
        full = gap / np.maximum(np.abs(gap).max(axis=-1, keepdims=True), 1e-9)
        return np.where(_outside(position)[..., None], 0.0, full).astype(np.float32)

    def draw_arena(self, axes: Axes, task: Float64) -> None:
        """Draw the wall and its door."""
        from environments.plots import draw_wall

        draw_wall(axes, float(task[0]), DOOR_HALF_WIDTH)


def may_pass(before: Float64, after: Float64, door: Float64) -> Bool:
    """Whether the segment between two points (..., 2) meets the wall nowhere but in the door.

    With d = after - before it meets the circle where ||before + t d|| = 1: at the roots of
    (d.d) t^2 + 2 (before.d) t + (before.before - 1). The smaller one enters the room, the larger
    one leaves it. Which of them count follows from the sides of the two points, not from the
    roots' own rounding; a segment from outside to outside may cut a corner and count both.
    """
    step = after - before
    squared = (step * step).sum(axis=-1)
    half = (before * step).sum(axis=-1)
    radicand = half**2 - squared * ((before * before).sum(axis=-1) - 1.0)
    root = np.sqrt(np.maximum(radicand, 0.0))
    divisor = np.where(squared > 0.0, squared, 1.0)
    enter, leave = (-half - root) / divisor, (-half + root) / divisor
    was_out, is_out = _outside(before), _outside(after)
    cuts = was_out & is_out & (radicand > 0.0) & (enter > 0.0) & (enter < 1.0)
    bad_enter = ((was_out & ~is_out) | cuts) & ~_in_door(before, step, enter, door)
    bad_leave = ((~was_out & is_out) | cuts) & ~_in_door(before, step, leave, door)
    passes: Bool = ~(bad_enter | bad_leave)
    return passes


def _in_door(before: Float64, step: Float64, time: Float64, door: Float64) -> Bool:
    """Whether before + time * step lies at an angle of the door, wrapping around, (...,)."""
    point = before + np.clip(time, 0.0, 1.0)[..., None] * step
    gap = np.arctan2(point[..., 1], point[..., 0]) - door
    inside: Bool = np.abs((gap + np.pi) % (2 * np.pi) - np.pi) <= DOOR_HALF_WIDTH
    return inside


def _outside(positions: Float64) -> Bool:
    """Whether positions (..., 2) lie outside the unit circle, (...,)."""
    outside: Bool = np.hypot(positions[..., 0], positions[..., 1]) > 1.0
    return outside
