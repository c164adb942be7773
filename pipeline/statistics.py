"""Summaries over runs and tasks: interquartile mean and stratified bootstrap intervals.

After "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (Agarwal et al.,
NeurIPS 2021) and the definitions of its rliable: scores are (runs, tasks); the IQM drops a quarter
of all runs x tasks at either end; the bootstrap draws runs with replacement, for each task on its
own, and takes percentiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Statistic = Callable[[Float64], Float64]
"""Maps scores (..., runs, tasks) to values (...)."""

RESAMPLES = 5000
_BLOCK_VALUES = 4_000_000  # bootstrap values in memory at once


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval; both ends are the estimate itself when there is one run only."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """Mean and interquartile mean of (runs, tasks) scores; `low` and `high` are the IQM's."""

    mean: float
    iqm: float
    low: float
    high: float
    mean_low: float
    mean_high: float


def interquartile_mean(scores: Float64) -> Float64:
    r"""Mean of the middle half of the last two axes together, (..., runs, tasks) -> (...).

    \[ \mathrm{IQM}(x) = \frac{1}{n - 2\lfloor n/4 \rfloor}
       \sum_{i=\lfloor n/4 \rfloor + 1}^{n - \lfloor n/4 \rfloor} x_{(i)} \]
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    middle: Float64 = flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)
    return middle


def grand_mean(scores: Float64) -> Float64:
    """Mean over the last two axes, (..., runs, tasks) -> (...)."""
    mean: Float64 = scores.mean(axis=(-2, -1))
    return mean


def stratified_bootstrap(
    scores: ArrayLike,
    statistic: Statistic = interquartile_mean,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `statistic` over resampled runs; each task is a stratum.

    Args:
        scores: (runs, tasks).
        resamples: how many bootstrap samples.
        confidence: of the interval, in (0, 1).
        seed: of the resampling, so that a table gives the same interval twice.

    Raises:
        ValueError: `scores` is not a finite matrix with at least one entry.
    """
    matrix = _matrix(scores)
    runs, tasks = matrix.shape
    rng = np.random.default_rng(seed)
    columns = np.arange(tasks)
    block = max(1, _BLOCK_VALUES // matrix.size)
    values = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(runs, size=(count, runs, tasks))
        values.append(statistic(matrix[drawn, columns]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return Interval(float(low), float(high))


def estimate(scores: ArrayLike) -> Estimate:
    """Mean and IQM of (runs, tasks) scores with their 95 % intervals.

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    matrix = _matrix(scores)
    iqm = stratified_bootstrap(matrix, interquartile_mean)
    mean = stratified_bootstrap(matrix, grand_mean)
    return Estimate(
        mean=float(grand_mean(matrix)),
        iqm=float(interquartile_mean(matrix)),
        low=iqm.low,
        high=iqm.high,
        mean_low=mean.low,
        mean_high=mean.high,
    )


def _matrix(scores: ArrayLike) -> Float64:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(
            f"scores must be a finite (runs, tasks) matrix, not of shape {matrix.shape}"
        )
    return matrix
