"""A log's trials as their family has them: shapes, states, ends and what follows an end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.checks import position
from datasets.early_ends import FILLED
from datasets.errors import DataError
from datasets.logs.source import LoggedTask
from datasets.trials import BoolArray, Trials
from environments.base import Sim, TaskFamily
from stages.errors import StageError


def where_of(log: LoggedTask) -> str:
    """How messages call a log."""
    return f"{log.name} ({log.files[0]})"


def fit_log(
    log: LoggedTask,
    trials: Trials,
    family: TaskFamily,
    task: NDArray[np.float64],
    without_states: bool = False,
) -> Trials:
    """The trials with the shapes and the infos of the family, and no others; with its ends.

    Args:
        log: where they are from.
        trials: as the log's reader gives them; at steps that are `FILLED` they repeat an end.
        family: what they are to be trials of.
        task: (task_dim,), theirs.
        without_states: whether they may lack the family's infos; they have none then, and keep
            their terminations where only states would tell them.

    Raises:
        DataError: they have other shapes, lack infos, or end where nobody knows what follows.
        StageError: they end elsewhere than the family does.
    """
    spec, where = family.spec, where_of(log)
    trials.validate(where, spec.n_actions)
    wanted = {
        "horizon": (trials.horizon, spec.horizon, "steps an episode"),
        "observations": (trials.observations.shape[3], spec.observation_dim, "numbers"),
        "actions": (trials.actions.shape[3], spec.action_dim, "numbers"),
    }
    for name, (found, right, unit) in wanted.items():
        if found != right:
            raise DataError(f"{where}: {name} of {found} {unit}, but {spec.name} has {right}")
    filled = trials.arrays.get(FILLED)
    infos = _states(trials, family, where, without_states)
    arrays = {n: a for n, a in trials.arrays.items() if not n.startswith("infos/")}
    trials = Trials.from_arrays(arrays | {f"infos/{name}": info for name, info in infos.items()})
    ends = _ends(trials, family, task)
    if ends is not None and log.knows_ends:
        lived = np.ones_like(ends) if filled is None else ~filled
        _check_ends(log, trials, ends, lived, family, task)
    elif ends is not None:
        trials = Trials.from_arrays(trials.arrays | {"terminations": ends})
    return trials if filled is None else _filled_up(trials, filled, family, task, where)


def transitions(trials: Trials) -> tuple[Any, Any, Any]:
    """Observations, actions and next observations, (N, K, H, ...), as a reward takes them."""
    return trials.observations[:, :, :-1], trials.actions, trials.next_observations


def sim_of(trials: Trials, task: NDArray[np.float64]) -> Sim | None:
    """What a reward needs beyond observations, where the trials have any."""
    lived = np.broadcast_to(task, (*trials.rewards.shape, len(task)))
    return {**trials.infos, "task": lived} if trials.infos else None


def lacks_states(trials: Trials, family: TaskFamily) -> bool:
    """Whether rewards of the trials cannot be recomputed."""
    return bool(family.spec.infos) and not trials.infos


def _states(
    trials: Trials, family: TaskFamily, where: str, without_states: bool
) -> dict[str, NDArray[np.float64]]:
    """The family's infos by name, (N, K, H, width); none where some are missing and may be."""
    spec, infos = family.spec, {}
    for name, width in spec.infos.items():
        if name not in trials.infos:
            if without_states:
                return {}
            raise DataError(
                f"{where} has no infos/{name}, which {spec.name} needs to recompute rewards; "
                "--without-states takes logs that lack them, for runs that relabel no rewards"
            )
        info = trials.infos[name].reshape(*trials.rewards.shape, -1)
        if info.shape[-1] != width:
            raise DataError(
                f"{where}: infos/{name} of width {info.shape[-1]}, but {spec.name} has {width}"
            )
        infos[name] = info.astype(np.float64)
    return infos


def _ends(trials: Trials, family: TaskFamily, task: NDArray[np.float64]) -> BoolArray | None:
    """Where the family ends, (N, K, H); None where only states that are missing would tell."""
    never = type(family).termination is TaskFamily.termination
    if lacks_states(trials, family) and not never:
        return None
    return np.asarray(family.termination(*transitions(trials), task, sim_of(trials, task)), bool)


def _check_ends(
    log: LoggedTask,
    trials: Trials,
    ends: BoolArray,
    lived: BoolArray,
    family: TaskFamily,
    task: NDArray[np.float64],
) -> None:
    """Refuse ends that are not the family's: what follows an end is worth nothing to an agent.

    Raises:
        StageError: names the task, how many steps, and the first.
    """
    odd = np.argwhere(lived & (trials.terminations != ends))
    if not len(odd):
        return
    first = tuple(int(i) for i in odd[0])
    named = family.spec.name
    at = position(first, f"{where_of(log)}, task {task.tolist()}", trials.horizon)
    same = int((lived & (trials.terminations != ends) & (ends == ends[first])).sum())
    if ends[first]:
        raise StageError(
            f"{at}: {named} ends there, but the log has no terminal, at {same} steps in all; "
            "mark where the environment itself ended, or check the domain"
        )
    raise StageError(
        f"{at}: a terminal, but {named} does not end there, at {same} steps in all; time limits "
        "belong into timeouts, and terminals are the environment's own ends only"
    )


def _filled_up(
    trials: Trials,
    filled: BoolArray,
    family: TaskFamily,
    task: NDArray[np.float64],
    where: str,
) -> Trials:
    """The steps after an early end as the family gives them: nothing moves, no action acts.

    Raises:
        DataError: the family goes on after such an end, or only missing states would tell.
    """
    spec = family.spec
    after = trials.observations[:, :, 1:][filled]  # (n, obs)
    actions = np.zeros_like(trials.actions)[filled]
    last = {name: info[filled] for name, info in trials.infos.items()}
    infos = family.ended_infos(last, after.shape[:1])
    at = position(tuple(np.argwhere(filled)[0]), where, trials.horizon)
    if spec.infos.keys() - infos.keys():
        raise DataError(
            f"{at}: the episode has ended before, and what {spec.name} gives from then on needs "
            f"infos/{min(spec.infos.keys() - infos.keys())}"
        )
    sim = {**infos, "task": np.broadcast_to(task, (len(after), len(task)))} if infos else None
    told = (after, actions, after, task, sim)
    if not np.all(family.termination(*told)):
        raise DataError(
            f"{at}: the episode has ended before, but {spec.name} goes on after such an end, so "
            "nobody knows what followed"
        )
    arrays = {name: array.copy() for name, array in trials.arrays.items()}
    arrays["actions"][filled] = actions
    arrays["rewards"][filled] = family.reward(*told)
    for name in trials.infos:
        arrays[f"infos/{name}"][filled] = infos[name]
    return Trials.from_arrays(arrays)
