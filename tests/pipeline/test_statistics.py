"""Statistics against closed forms and against plain loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.statistics import (
    estimate,
    grand_mean,
    interquartile_mean,
    stratified_bootstrap,
)

Float64 = NDArray[np.float64]


def trimmed_mean(values: list[float]) -> float:
    """The mean without floor(n / 4) values at either end, written from the definition."""
    ordered = sorted(values)
    cut = int(0.25 * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    return math.fsum(kept) / len(kept)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 2), (3, 5), (5, 20), (4, 26)])
def test_iqm_is_the_trimmed_mean_over_runs_and_tasks(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(trimmed_mean(scores.ravel().tolist()), 1e-12)


def test_iqm_of_a_progression_is_its_middle_and_ignores_outliers() -> None:
    scores = np.arange(100, dtype=np.float64).reshape(5, 20)
    assert interquartile_mean(scores) == 49.5
    scores[-1, -10:] = 1e9
    scores[0, :10] = -1e9
    assert interquartile_mean(scores) == 49.5


def test_statistics_map_over_leading_axes() -> None:
    scores = np.random.default_rng(1).normal(size=(7, 3, 4))
    for statistic in (interquartile_mean, grand_mean):
        one_by_one = [float(statistic(one)) for one in scores]
        np.testing.assert_allclose(statistic(scores), one_by_one, rtol=1e-14)


def test_one_run_has_no_spread() -> None:
    summary = estimate([[1.0, 2.0, 3.0, 4.0, 10.0]])
    assert (summary.mean, summary.iqm) == (4.0, 3.0)
    assert (summary.low, summary.high) == (3.0, 3.0)
    assert (summary.mean_low, summary.mean_high) == (4.0, 4.0)


def test_equal_runs_have_no_spread_though_tasks_differ() -> None:
    """Resampling is of runs within each task, never of tasks."""
    interval = stratified_bootstrap(np.tile([1.0, 5.0, 100.0, -7.0], (5, 1)))
    assert interval.low == interval.high == 3.0


def test_two_runs_of_one_task_give_the_binomial_quantiles() -> None:
    """The bootstrap mean of {0, 1} is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    scores = [[0.0], [1.0]]
    wide = stratified_bootstrap(scores, grand_mean, confidence=0.95)
    assert (wide.low, wide.high) == (0.0, 1.0)
    narrow = stratified_bootstrap(scores, grand_mean, confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_tasks_are_resampled_each_on_its_own() -> None:
    """With independent strata the mean over n tasks has variance 1 / (4 * 2 * n), not 1 / 8."""
    tasks = 200
    scores = np.array([[0.0] * tasks, [1.0] * tasks])
    interval = stratified_bootstrap(scores, grand_mean, resamples=4000)
    deviation = math.sqrt(1 / (8 * tasks))
    assert interval.low == pytest.approx(0.5 - 1.96 * deviation, abs=0.15 * deviation)
    assert interval.high == pytest.approx(0.5 + 1.96 * deviation, abs=0.15 * deviation)


def test_the_interval_of_many_runs_is_the_normal_one() -> None:
    scores = np.random.default_rng(2).normal(size=(200, 3))
    interval = stratified_bootstrap(scores, grand_mean, resamples=4000)
    spread = 1.96 * math.sqrt(float(scores.var(axis=0).sum()) / 200) / 3
    assert interval.high - interval.low == pytest.approx(2 * spread, rel=0.05)
    assert (interval.low + interval.high) / 2 == pytest.approx(scores.mean(), abs=0.05 * spread)


def loop_bootstrap(scores: Float64, resamples: int, seed: int) -> list[float]:
    """The same draws in a plain loop."""
    runs, tasks = scores.shape
    drawn = np.random.default_rng(seed).integers(runs, size=(resamples, runs, tasks))
    return [
        trimmed_mean([scores[one[r, t], t] for r in range(runs) for t in range(tasks)])
        for one in drawn
    ]


def test_the_interval_equals_a_plain_loop() -> None:
    scores = np.random.default_rng(3).normal(size=(5, 4))
    values = loop_bootstrap(scores, 300, seed=9)
    interval = stratified_bootstrap(scores, resamples=300, seed=9)
    low, high = np.quantile(values, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=1e-12)
    assert interval.high == pytest.approx(high, abs=1e-12)


def test_blocks_bound_the_memory_and_change_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(4).normal(size=(5, 4))
    whole = stratified_bootstrap(scores, resamples=100)
    monkeypatch.setattr("pipeline.statistics._BLOCK_VALUES", 20 * 7)
    assert stratified_bootstrap(scores, resamples=100) == whole


def test_the_same_scores_give_the_same_interval() -> None:
    scores = np.random.default_rng(5).normal(size=(5, 20))
    assert estimate(scores) == estimate(scores.copy())
    assert estimate(scores).low < estimate(scores).iqm < estimate(scores).high


@pytest.mark.parametrize("scores", [[], [1.0], [[]], [[[1.0]]], [[math.nan]], [[1.0, math.inf]]])
def test_only_finite_matrices(scores: list[object]) -> None:
    with pytest.raises(ValueError, match="must be a finite"):
        estimate(scores)
