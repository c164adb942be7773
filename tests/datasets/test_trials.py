"""Trials in memory: shapes, selection, and everything that `validate` refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.trials import Trials

SIZES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "count": st.integers(1, 5),
        "episodes": st.integers(1, 3),
        "horizon": st.integers(1, 4),
        "observation_dim": st.integers(1, 3),
        "action_dim": st.integers(1, 3),
        "n_actions": st.none() | st.integers(1, 5),
        "infos": st.booleans(),
    }
)


def assert_equal(found: Trials, wanted: Trials) -> None:
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES)
def test_valid_trials_pass_and_know_their_sizes(make_trials: Any, sizes: dict[str, Any]) -> None:
    trials: Trials = make_trials(**sizes)
    assert trials.validate("task 0", sizes["n_actions"]) is trials
    assert (trials.count, trials.episodes, trials.horizon, trials.steps) == (
        sizes["count"], sizes["episodes"], sizes["horizon"], sizes["episodes"] * sizes["horizon"]
    )  # fmt: skip
    np.testing.assert_array_equal(trials.next_observations, trials.observations[:, :, 1:])
    assert_equal(Trials.from_arrays(trials.arrays), trials)


@settings(max_examples=50, deadline=None)
@given(sizes=SIZES, steps=st.integers(1, 4), pieces=st.integers(1, 3))
def test_pieces_hold_the_steps_in_order(
    make_trials: Any, sizes: dict[str, Any], steps: int, pieces: int
) -> None:
    trials: Trials = make_trials(**{**sizes, "horizon": steps * pieces})
    cut = trials.cut(steps).validate("pieces", sizes["n_actions"])
    assert (cut.episodes, cut.horizon) == (trials.episodes * pieces, steps)
    flat = (trials.count, trials.steps)
    for name in trials.arrays:
        if name == "observations":
            ours, theirs = cut.observations[:, :, :-1], trials.observations[:, :, :-1]
            after = cut.next_observations.reshape(*flat, -1)
            np.testing.assert_array_equal(after, trials.next_observations.reshape(*flat, -1))
        else:
            ours, theirs = cut.arrays[name], trials.arrays[name]
        np.testing.assert_array_equal(ours.reshape(*flat, -1), theirs.reshape(*flat, -1))
    assert_equal(trials.cut(trials.horizon), trials)


@pytest.mark.parametrize("steps", [0, -1, 3, 8])
def test_unequal_pieces_are_refused(make_trials: Any, steps: int) -> None:
    trials = make_trials(0, 2, 2, 4, 2, 1, None, False)
    with pytest.raises(DataError, match=f"episodes of 4 steps .* pieces of {steps}"):
        trials.cut(steps)


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, cut=st.integers(0, 5))
def test_cutting_and_joining_is_the_identity(
    make_trials: Any, sizes: dict[str, Any], cut: int
) -> None:
    trials: Trials = make_trials(**sizes)
    parts = [trials.select(slice(None, cut)), trials.select(slice(cut, None))]
    assert_equal(Trials.concatenate(parts), trials)
    order = np.arange(trials.count)
    assert_equal(trials.select(order), trials)
    assert_equal(trials.select(order >= 0), trials)
    assert_equal(trials.select(list(order)), trials)


def test_a_slice_copies_nothing(make_trials: Any) -> None:
    trials: Trials = make_trials()
    assert np.shares_memory(trials.select(slice(1, 3)).observations, trials.observations)


def test_what_does_not_belong_together_is_not_joined(make_trials: Any) -> None:
    with pytest.raises(DataError, match="no trials"):
        Trials.concatenate([])
    with pytest.raises(DataError, match=r"part 1: observations is .* \(2, 5, 3\) .* \(2, 5, 4\)"):
        Trials.concatenate([make_trials(observation_dim=4), make_trials()])
    with pytest.raises(DataError, match="part 1: actions is int64"):
        Trials.concatenate([make_trials(), make_trials(n_actions=3)])
    with pytest.raises(DataError, match=r"part 1 has .*infos/qpos"):
        Trials.concatenate([make_trials(), make_trials(infos=True)])


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("rewards", (2, 1, 3), np.nan, "task 3, trial 2, step 7: reward is NaN"),
        ("rewards", (0, 0, 1), np.inf, r"task 3, trial 0, step 1: reward is \+Inf"),
        ("rewards", (0, 0, 1), -np.inf, "task 3, trial 0, step 1: reward is -Inf"),
        ("actions", (1, 0, 2, 1), np.nan, "task 3, trial 1, step 2: action is NaN"),
        ("actions", (1, 1, 0, 0), 1.5, r"trial 1, step 4: action is 1.5, outside \[-1, 1\]"),
        ("actions", (1, 1, 0, 0), -1.01, "trial 1, step 4: action is -1.01, outside"),
        ("observations", (2, 1, 0, 1), np.nan, "task 3, trial 2, step 4: observation is NaN"),
        ("observations", (2, 0, 4, 1), np.nan, "trial 2, after step 3: observation is NaN"),
        ("infos/qpos", (1, 0, 3, 6), np.inf, "trial 1, step 3: infos/qpos is .Inf"),
    ],
)
def test_bad_numbers_are_refused_with_trial_and_step(
    make_trials: Any, field: str, index: tuple[int, ...], value: float, message: str
) -> None:
    trials: Trials = make_trials(infos=True)
    trials.arrays[field][index] = value
    with pytest.raises(DataError, match=message):
        trials.validate("task 3")


@settings(max_examples=100, deadline=None)
@given(data=st.data(), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_no_bad_number_hides_anywhere(make_trials: Any, data: st.DataObject, value: float) -> None:
    trials: Trials = make_trials()
    field = data.draw(st.sampled_from(["observations", "actions", "rewards"]))
    array = trials.arrays[field]
    array.flat[data.draw(st.integers(0, array.size - 1))] = value
    with pytest.raises(DataError, match=r"trial [0-2], (after )?step [0-7]: "):
        trials.validate()


@pytest.mark.parametrize(("value", "n_actions"), [(-1, None), (-1, 5), (5, 5)])
def test_discrete_actions_out_of_bounds_are_refused(
    make_trials: Any, value: int, n_actions: int | None
) -> None:
    trials: Trials = make_trials(n_actions=5)
    trials.actions[1, 1, 2, 0] = value
    with pytest.raises(DataError, match=f"trial 1, step 6: action is {value}, outside"):
        trials.validate("task 3", n_actions)


def test_continuous_actions_for_a_discrete_family_are_refused(make_trials: Any) -> None:
    with pytest.raises(DataError, match="actions are float32; n_actions 5 needs int64"):
        make_trials().validate("task 3", 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            lambda t: {"observations": t.observations[:, :, 1:]},
            r"observations of shape \(3, 2, 4, 3\), but \(3, 2, 5, any\) is needed",
        ),
        (
            lambda t: {"observations": t.observations[..., :0]},
            r"observations of shape \(3, 2, 5, 0\), but",
        ),
        (lambda t: {"actions": t.actions[..., 0]}, r"actions of shape \(3, 2, 4\), but \(3, 2, 4"),
        (lambda t: {"rewards": t.rewards[:, :, :0]}, r"rewards of shape \(3, 2, 0\), but \(any"),
        (lambda t: {"rewards": t.rewards[:0]}, r"rewards of shape \(0, 2, 4\)"),
        (lambda t: {"rewards": t.rewards.astype("O")}, "rewards of dtype object, but float32"),
        (lambda t: {"rewards": t.rewards.astype("f8")}, "rewards of dtype float64, but float32"),
        (lambda t: {"rewards": [[[1.0]]]}, "rewards is a list; a numpy array is needed"),
        (lambda t: {"actions": t.actions.astype("i4")}, "actions of dtype int32, but float32 or"),
        (lambda t: {"terminations": t.rewards}, "terminations of dtype float32, but bool"),
        (lambda t: {"truncations": t.truncations[:1]}, r"truncations of shape \(1, 2, 4\), but"),
        (lambda t: {"infos": {"a": np.array(["x"])}}, "infos/a of dtype <U1, but bool or int64"),
        (lambda t: {"infos": {"a": np.zeros((3, 2))}}, r"infos/a of shape \(3, 2\), but \(3, 2, 4"),
        (lambda t: {"infos": {"a": np.array([None])}}, "infos/a of dtype object"),
    ],
)
def test_wrong_shapes_and_types_are_refused_naming_both(
    make_trials: Any, changes: Any, message: str
) -> None:
    trials: Trials = make_trials()
    with pytest.raises(DataError, match=f"^task 3: {message}"):
        replace(trials, **changes(trials)).validate("task 3")
