"""D4RL's reference returns: a normalised return is 0 for a random policy and 1 for an expert.

Facts of Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020), version 1.1
of its package, so that no import of it is needed: (return of a random policy, of an expert). D4RL's
tables show 100 times the normalised return.
"""

import re

_LOCOMOTION = "(random|medium|expert|medium-replay|medium-expert|full-replay)-v[0-2]"
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
    f"pen-{_HAND}": (96.262799, 3076.8331017826877),
    f"door-{_HAND}": (-56.512833, 2880.5693087298737),
    f"hammer-{_HAND}": (-274.856578, 12794.134825156867),
    f"relocate-{_HAND}": (-6.425911, 4233.877797728884),
    "kitchen-(complete|partial|mixed)-v0": (0.0, 4.0),
}
"""By patterns of data sets' names, which must match in full."""


def reference(name: str) -> tuple[float, float] | None:
    """The two returns that normalise a data set's, or None if D4RL knows none of that name.

    D4RL's files write the first dash of a name as an underscore: `halfcheetah_medium-v2`.
    """
    dashed = name.replace("_", "-")
    hits = [pair for pattern, pair in REFERENCES.items() if re.fullmatch(pattern, dashed)]
    return hits[0] if hits else None


def normalised(name: str, episode_return: float) -> float | None:
    """An episode's return between random (0) and expert (1), or None as `reference`."""
    pair = reference(name)
    return None if pair is None else (episode_return - pair[0]) / (pair[1] - pair[0])
