"""D4RL's reference returns: a normalised return is 0 for a random policy and 1 for an expert.

Facts of Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), version 1.1
of its package, so that no import of it is needed: (return of a random policy, of an expert). D4RL's
tables show 100 times the normalised return.
"""

import re

_LOCOMOTION = "(random|medium|expert|medium-replay|medium-expert|full-replay)-v[0-2]"
_BULLET = "(random|medium|expert|medium-replay|medium-expert)-v0"
_HAND = "(human|cloned|expert)-v[01]"

REFERENCES: dict[str, tuple[float, float]] = {
    f"halfcheetah-{_LOCOMOTION}": (-280.178953, 12135.0),
    f"hopper-{_LOCOMOTION}": (-20.272305, 3234.3),
    f"walker2d-{_LOCOMOTION}": (1.629008, 4592.3),
    f"ant-{_LOCOMOTION}": (-325.6, 3879.7),
    "antmaze-(umaze|umaze-diverse|(medium|large)-(play|diverse))-v[02]": (0.0, 1.0),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-medium-v1": (13.13, 277.39),
    "maze2d-large-v1": (6.7, 273.99),
    "maze2d-open-dense-v0": (11.17817, 27.166538620695782),
    "maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    "maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    f"pen-{_HAND}": (96.262799, 3076.8331017826877),
    f"door-{_HAND}": (-56.512833, 2880.5693087298737),
    f"hammer-{_HAND}": (-274.856578, 12794.134825156867),
    f"relocate-{_HAND}": (-6.425911, 4233.877797728884),
    "kitchen-(complete|partial|mixed)-v0": (0.0, 4.0),
    "minigrid-fourrooms(-random)?-v0": (0.01442, 2.89685),
    "flow-ring-(random|controller)-v0": (-165.22, 24.42),
    "flow-merge-(random|controller)-v0": (118.67993, 330.03179),
    "carla-lane-v0": (-0.8503839912088142, 1023.5784385429523),
    "carla-town-v0": (-114.81579500772153, 2440.1772022247314),
    f"bullet-halfcheetah-{_BULLET}": (-1275.766996, 2381.6725),
    f"bullet-hopper-{_BULLET}": (20.058972, 1441.8059623430963),
    f"bullet-ant-{_BULLET}": (373.705955, 2650.495),
    f"bullet-walker2d-{_BULLET}": (16.523877, 1623.6476303317536),
    "bullet-maze2d-open-v0": (8.75, 64.15),
    "bullet-maze2d-umaze-v0": (32.46, 153.99),
    "bullet-maze2d-medium-v0": (14.87, 238.05),
    "bullet-maze2d-large-v0": (1.82, 285.92),
}
"""By patterns of data sets' names, which must match in full."""

_WIDTHS: dict[str, tuple[int, int]] = {
    "halfcheetah": (17, 6),
    "hopper": (11, 3),
    "walker2d": (17, 6),
    "ant": (111, 8),
    "antmaze": (29, 8),
    "maze2d": (4, 2),
    "pen": (45, 24),
    "door": (39, 28),
    "hammer": (46, 26),
    "relocate": (39, 30),
    "kitchen": (60, 9),
    "bullet-halfcheetah": (26, 6),
    "bullet-hopper": (15, 3),
    "bullet-walker2d": (22, 6),
    "bullet-ant": (28, 8),
    "bullet-maze2d": (4, 2),
}
"""Numbers of an observation and of an action; flow, carla and minigrid are not told by these."""


def reference(name: str) -> tuple[float, float] | None:
    """The two returns that normalise a data set's, or None if D4RL knows none of that name.

    D4RL's files write the first dash of a name as an underscore: `halfcheetah_medium-v2`.
    """
    dashed = _dashed(name)
    hits = [pair for pattern, pair in REFERENCES.items() if re.fullmatch(pattern, dashed)]
    return hits[0] if hits else None


def has_widths(name: str, observation_dim: int, action_dim: int) -> bool:
    """Whether a data set of that name can have these widths.

    A file may be called like one of D4RL's without being it; what other widths has is not.
    """
    match = re.match(r"(bullet-)?[a-z0-9]+", _dashed(name))
    return match is not None and _WIDTHS.get(match[0]) == (observation_dim, action_dim)


def normalised(name: str, episode_return: float) -> float | None:
    """An episode's return between random (0) and expert (1), or None as `reference`."""
    pair = reference(name)
    return None if pair is None else (episode_return - pair[0]) / (pair[1] - pair[0])


def _dashed(name: str) -> str:
    return name.replace("_", "-")
