"""The contract of a task family, as executable checks.

Each check takes a family and a seed and raises `BrokenContractError` with one sentence: what is
wrong and what would be right. They use only the public interface of `TaskFamily` and `Simulator`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from environments.base import Actions, Difference, Float64, Simulator, TaskFamily
from environments.probe import Rollout, roll_out, some_tasks
from environments.requirements import require, require_array, require_refused

Seed = np.random.SeedSequence
TOLERANCE = 1e-6
CHECKS: dict[str, Callable[[TaskFamily, Seed], None]] = {}


def check(name: str) -> Callable[[Callable[[TaskFamily, Seed], None]], Any]:
    """Register a check under the promise that it makes sure of."""

    def register(function: Callable[[TaskFamily, Seed], None]) -> Any:
        CHECKS[name] = function
        return function

    return register


@check("spec is sane")
def _spec(family: TaskFamily, seed: Seed) -> None:
    spec = family.spec
    name = spec.name
    legal = re.fullmatch(r"[a-z][a-z0-9_]*(/[a-z][a-z0-9-]*)?", name)
    require(legal, f"name is {name!r}, expected snake_case, or benchmark/task-set")
    for field in ("observation_dim", "action_dim", "task_dim", "horizon", "episodes"):
        value = getattr(spec, field)
        require(value >= 1, f"{field} is {value}, expected at least 1")
    differ, known = spec.tasks_differ_in, get_args(Difference)
    require(differ in known, f"tasks_differ_in is {differ!r}, expected {' or '.join(known)}")
    if spec.n_actions is not None:
        require(spec.n_actions >= 2, f"n_actions is {spec.n_actions}, expected at least 2")
        require(spec.action_dim == 1, f"action_dim is {spec.action_dim}, discrete needs 1")
    if spec.binary_reward is not None:
        low, high = spec.binary_reward
        require(low < high, f"binary_reward is {spec.binary_reward}, expected (low, high)")


@check("tasks are distinct, finite and repeat with the seed")
def _sampling(family: TaskFamily, seed: Seed) -> None:
    first, again = some_tasks(family, seed), some_tasks(family, seed)
    require_array("sample_tasks", first, (len(first), family.spec.task_dim), np.float64)
    require(len(np.unique(first, axis=0)) == len(first), "sample_tasks drew one task twice")
    require(np.array_equal(first, again), "sample_tasks drew other tasks from the same seed")
    family.validate_tasks(first)
    everything = family.all_tasks()
    if everything is not None:
        family.validate_tasks(everything)
        distinct = len(np.unique(everything, axis=0))
        require(distinct == len(everything), "all_tasks holds one task twice")


@check("illegal tasks are refused")
def _refuses_tasks(family: TaskFamily, seed: Seed) -> None:
    tasks = some_tasks(family, seed)
    bad = tasks.copy()
    bad[-1, 0] = np.nan
    require_refused("a NaN task (validate_tasks)", lambda: family.validate_tasks(bad))
    require_refused("a NaN task (simulator)", lambda: family.simulator(bad))
    wide = np.concatenate([tasks, tasks], axis=1)
    require_refused("a task vector of twice the width", lambda: family.validate_tasks(wide))


@check("episodes repeat with the seed")
def _determinism(family: TaskFamily, seed: Seed) -> None:
    for start in ("origin", "wide"):
        first = roll_out(family, seed, start=start)
        again = roll_out(family, seed, start=start)
        for field in ("observations", "next_observations", "rewards"):
            same = np.array_equal(getattr(first, field), getattr(again, field))
            require(same, f"two {start} runs from one seed differ in {field}")


@check("shapes and types are right")
def _shapes(family: TaskFamily, seed: Seed) -> None:
    tasks, spec = some_tasks(family, seed), family.spec
    n, rng = len(tasks), np.random.default_rng(seed)
    simulator = family.simulator(tasks)
    require_array(
        "the observation of reset", simulator.reset(rng), (n, spec.observation_dim), np.float32
    )
    step = simulator.step(family.random_actions((n,), rng))
    require_array("Step.observations", step.observations, (n, spec.observation_dim), np.float32)
    require_array("Step.rewards", step.rewards, (n,), np.float32)
    require_array("Step.terminations", step.terminations, (n,), np.bool_)
    require_array("Step.successes", step.successes, (n,), np.bool_)
    found = set(step.infos)
    require(found == set(spec.infos), f"Step.infos has {found}, the spec names {set(spec.infos)}")
    for name, width in spec.infos.items():
        require_array(f"Step.infos[{name!r}]", step.infos[name], (n, width), np.float64)
    kind = np.float32 if spec.n_actions is None else np.int64
    if not family.has_oracle:
        return
    actions = family.oracle_actions(step.observations, tasks)
    require_array("oracle_actions", actions, (n, spec.action_dim), kind)
    noisy = family.scripted_actions(step.observations, tasks, rng, 0.5)
    require_array("scripted_actions", noisy, (n, spec.action_dim), kind)


@check("actions out of range are refused")
def _refuses_actions(family: TaskFamily, seed: Seed) -> None:
    tasks, spec = some_tasks(family, seed), family.spec
    rng = np.random.default_rng(seed)
    legal = family.random_actions((len(tasks),), rng)
    shape = legal.shape

    def refuse(what: str, actions: Actions) -> None:
        simulator = family.simulator(tasks)
        simulator.reset(rng)
        require_refused(what, lambda: simulator.step(actions))

    if spec.n_actions is None:
        refuse("an action of 1.5", np.full(shape, 1.5, np.float32))
        refuse("a NaN action", np.full(shape, np.nan, np.float32))
    else:
        refuse(f"action {spec.n_actions}", np.full(shape, spec.n_actions))
        refuse("action -1", np.full(shape, -1))
        refuse("a continuous action", legal.astype(np.float32))
    refuse("actions for too few environments", legal[:-1])


@check("origin starts are fixed, wide starts vary")
def _starts(family: TaskFamily, seed: Seed) -> None:
    tasks = np.repeat(some_tasks(family, seed)[:1], 32, axis=0)
    generators = [np.random.default_rng(child) for child in seed.spawn(2)]
    origin = family.simulator(tasks, "origin")
    starts = np.concatenate([origin.reset(rng) for rng in generators])
    require((starts == starts[0]).all(), "origin starts of one task differ")
    wide = family.simulator(tasks, "wide")
    first, second = (wide.reset(rng) for rng in generators)
    require(len(np.unique(first, axis=0)) > 1, "wide starts are all the same")
    require(not np.array_equal(first, second), "wide starts do not change with the generator")


@check("returned observations are not overwritten")
def _aliasing(family: TaskFamily, seed: Seed) -> None:
    tasks, rng = some_tasks(family, seed), np.random.default_rng(seed)
    simulator = family.simulator(tasks)
    held = [simulator.reset(rng)]
    kept = [held[0].copy()]
    for _ in range(3):
        held.append(simulator.step(family.random_actions((len(tasks),), rng)).observations)
        kept.append(held[-1].copy())
    same = all(np.array_equal(h, k) for h, k in zip(held, kept, strict=True))
    require(same, "a later step changed observations returned by an earlier one")


@check("reward, termination and success equal those of step")
def _recomputed(family: TaskFamily, seed: Seed) -> None:
    data = roll_out(family, seed)
    told = (*data.transitions(), data.tasks[:, None], data.sim())
    gap = np.abs(family.reward(*told) - data.rewards).max()
    require(gap <= TOLERANCE, f"reward differs from that of step by up to {gap:.3g}")
    ends = np.array_equal(family.termination(*told), data.terminations)
    require(ends, "termination differs from that of step")
    succeeds = np.array_equal(family.success(*told), data.successes)
    require(succeeds, "success differs from that of step")


@check("reward is pure and vectorised over leading axes")
def _vectorised(family: TaskFamily, seed: Seed) -> None:
    data = roll_out(family, seed)
    transitions, tasks, sim = data.transitions(), data.tasks[:, None].copy(), data.sim()
    for array in (*transitions, tasks, *(sim or {}).values()):
        array.flags.writeable = False  # an impure reward fails here, and is reported
    rewards = family.reward(*transitions, tasks, sim)
    shape = data.rewards.shape
    require_array("reward of (tasks, H, ...) arrays", rewards, shape, np.float32)
    before, actions, after = transitions
    for at in ((0, 0), (-1, 0), (0, -1), (-1, -1)):
        there = None if sim is None else {name: array[at] for name, array in sim.items()}
        alone = family.reward(before[at], actions[at], after[at], data.tasks[at[0]], there)
        require(np.shape(alone) == (), f"reward of one transition has shape {np.shape(alone)}")
        near = abs(float(alone) - float(rewards[at])) <= TOLERANCE
        require(near, "reward of one transition differs from that inside a batch")
    # Every transition under every task, which code written for rows would not broadcast.
    crossed = family.reward(
        *data.transitions(extra_axis=True), data.tasks, data.sim(extra_axis=True)
    )
    full = (*shape, len(data.tasks))
    require_array("reward of (tasks, H, 1, ...) under (tasks) tasks", crossed, full, np.float32)
    own = np.einsum("ihi->ih", crossed)
    require(np.abs(own - rewards).max() <= TOLERANCE, "reward changes when tasks are broadcast")


@check("reward depends on the task where the spec says so")
def _reward_differs(family: TaskFamily, seed: Seed) -> None:
    if family.spec.tasks_differ_in != "reward" or family.spec.goal != "hidden":
        return
    data = roll_out(family, seed, start="origin", oracle=True)
    crossed = family.reward(
        *data.transitions(extra_axis=True), data.tasks, data.sim(extra_axis=True)
    )
    changes = np.abs(crossed - data.rewards[:, :, None]).max() > TOLERANCE
    require(changes, "reward is the same under every task, though tasks differ in reward")


@check("dynamics depend on the task where the spec says so")
def _dynamics_differ(family: TaskFamily, seed: Seed) -> None:
    data = roll_out(family, seed, start="origin", oracle=True)
    if not (data.observations[:, 0] == data.observations[0, 0]).all():
        return  # starts depend on the task, so paths say nothing about dynamics
    if family.spec.solid_goal:
        return  # said so, and told to whoever relabels
    differ = any(_paths_differ(family, data, leader) for leader in range(len(data.tasks)))
    if family.spec.tasks_differ_in == "reward":
        require(not differ, "tasks differ in dynamics, though the spec says in reward only")
    else:
        require(differ, "the same actions lead to the same places under every task")


def _paths_differ(family: TaskFamily, data: Rollout, leader: int) -> bool:
    """Whether one task's actions, applied to every task, lead to different places."""
    simulator = family.simulator(data.tasks)
    simulator.reset(np.random.default_rng(0))
    for actions in data.actions[leader]:
        after = simulator.step(np.repeat(actions[None], len(data.tasks), axis=0)).observations
        if (after != after[0]).any():
            return True
    return False


@check("rewards take the two values that the spec names")
def _binary(family: TaskFamily, seed: Seed) -> None:
    if family.spec.binary_reward is None:
        return
    rewards = roll_out(family, seed, oracle=True).rewards
    legal = np.isin(rewards, np.array(family.spec.binary_reward, dtype=np.float32))
    require(legal.all(), f"rewards {np.unique(rewards)[:5]} are not {family.spec.binary_reward}")


@check("n environments step as n single ones do")
def _batch(family: TaskFamily, seed: Seed) -> None:
    data = roll_out(family, seed, start="origin")
    for index in range(len(data.tasks)):
        single = family.simulator(data.tasks[index : index + 1])
        single.reset(np.random.default_rng(seed))
        for time in range(data.rewards.shape[1]):
            step = single.step(data.actions[index : index + 1, time])
            near = np.abs(step.observations[0] - data.next_observations[index, time]).max()
            require(near <= TOLERANCE, f"environment {index} steps differently in a batch")


@check("cells index the reward head")
def _cells(family: TaskFamily, seed: Seed) -> None:
    data, cells = roll_out(family, seed), family.spec.cells
    if cells is None:
        require_refused("cell without cells in the spec", lambda: family.cell(data.observations))
        return
    index = family.cell(data.observations)
    require_array("cell", index, data.observations.shape[:-1], np.int64)
    require(index.min() >= 0 and index.max() < cells, f"cell indices leave [0, {cells})")


@check("the oracle is at least as good as random")  # where there is one
def _oracle(family: TaskFamily, seed: Seed) -> None:
    tasks, episodes = some_tasks(family, seed), family.spec.episodes
    search = family.search_returns(tasks)
    if search is not None:
        require_array("search_returns", search, (len(tasks), episodes), np.float64)
    oracle = family.oracle_returns(tasks)
    if oracle is None:
        return
    require_array("oracle_returns", oracle, (len(tasks), episodes), np.float64)
    random = _random_returns(family.simulator(tasks), family, seed)
    message = f"the oracle's mean return {oracle.mean():.3g} is below random's {random.mean():.3g}"
    require(oracle.mean() >= random.mean(), message)


def _random_returns(simulator: Simulator, family: TaskFamily, seed: Seed) -> Float64:
    """Return of one episode of uniform actions, (tasks,)."""
    rng = np.random.default_rng(seed)
    simulator.reset(rng)
    returns = np.zeros(simulator.count)
    for _ in range(family.spec.horizon):
        returns += simulator.step(family.random_actions((simulator.count,), rng)).rewards
    return returns


@check("a rollout can be drawn")
def _plot(family: TaskFamily, seed: Seed) -> None:
    from matplotlib.figure import Figure  # without pyplot, so that no display is looked for

    data = roll_out(family, seed, oracle=True)
    axes = Figure().subplots()
    path = np.concatenate([data.observations[0], data.next_observations[0, -1:]])
    family.plot_rollout(axes, np.stack([path] * family.spec.episodes), data.tasks[0])
    require(axes.has_data(), "plot_rollout drew nothing")
