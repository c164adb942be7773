"""What a trained belief knows on trials held out: predictions, tightening, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithms.elbo import sample_latents
from algorithms.elbo_batch import ElboBatch, is_high, make_batch
from algorithms.filtering import predict_rewards
from datasets.trials import Trials
from environments.base import TaskFamily
from models.decoders import CellRewardDecoder
from models.vae import Vae

Float64 = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

BINS = 10


@torch.no_grad()
def diagnose(
    vae: Vae, trials: Trials, family: TaskFamily, samples: int, generator: torch.Generator
) -> tuple[Arrays, dict[str, Any]]:
    """Arrays for figures and a summary of N held-out trials (validation loss apart).

    Arrays: belief_deviations (T + 1, L), mean over trials; with a reward decoder rewards and
    reward_predictions (N, T), predicted from the posterior mean before the step; with two-valued
    rewards reliability_predicted, _observed (bins,) and _counts; with cells cell_probabilities
    (N, T + 1, cells), averaged over `samples` latents, and, where the family knows it, the exact
    posterior (N, T + 1, cells).
    """
    device = vae.encoder.heads.weight.device
    batch = make_batch(trials, family, vae.config.reward_decoder, device)
    beliefs = vae.encode(batch.transitions)
    deviations = (0.5 * beliefs[..., vae.encoder.latent_dim :]).exp().mean(0)
    arrays: Arrays = {"belief_deviations": _numpy(deviations)}
    summary: dict[str, Any] = {
        "trials": trials.count,
        "episodes": trials.episodes,
        "horizon": trials.horizon,
        "latent_dim": vae.encoder.latent_dim,
        "deviation_prior": float(deviations[0].mean()),
        "deviation_final": float(deviations[-1].mean()),
    }
    if vae.reward_decoder is None:
        return arrays, summary
    _add_predictions(arrays, summary, vae, beliefs, batch, family)
    if isinstance(vae.reward_decoder, CellRewardDecoder):
        probabilities = _cell_probabilities(vae.reward_decoder, beliefs, samples, generator)
        arrays["cell_probabilities"] = _numpy(probabilities)
        _add_exact_posterior(arrays, summary, batch, family)
    return arrays, summary


def reliability(
    predicted: NDArray[Any], outcome: NDArray[Any]
) -> tuple[Float64, Float64, NDArray[np.int64], float]:
    """Mean prediction, mean outcome and count in equal bins of probability, and the ECE.

    The expected calibration error (Guo et al., 2017, eq. 3) is the mean of |prediction - outcome|
    over bins, weighted by their counts; empty bins are left out.
    """
    flat, truth = predicted.ravel().astype(np.float64), outcome.ravel().astype(np.float64)
    bins = np.clip((flat * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    used = counts > 0
    means = np.bincount(bins, flat, BINS)[used] / counts[used]
    observed = np.bincount(bins, truth, BINS)[used] / counts[used]
    error = float(np.abs(means - observed) @ counts[used] / counts.sum())
    return means, observed, counts[used], error


def _add_predictions(
    arrays: Arrays,
    summary: dict[str, Any],
    vae: Vae,
    beliefs: Tensor,
    batch: ElboBatch,
    family: TaskFamily,
) -> None:
    before = beliefs[:, :-1, : vae.encoder.latent_dim]
    predictions = _numpy(predict_rewards(vae, before, batch, family))
    rewards = _numpy(batch.transitions.rewards)
    arrays |= {"rewards": rewards, "reward_predictions": predictions}
    summary["prediction_error"] = float(np.abs(predictions - rewards).mean())
    binary = family.spec.binary_reward
    if binary is None:
        return
    low, high = binary
    probabilities = (predictions - low) / (high - low)
    predicted, observed, counts, error = reliability(probabilities, is_high(rewards, binary))
    arrays |= {
        "reliability_predicted": predicted,
        "reliability_observed": observed,
        "reliability_counts": counts,
    }
    summary["expected_calibration_error"] = error


def _cell_probabilities(
    decoder: CellRewardDecoder, beliefs: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """Probability of the high reward in each cell, averaged over latents; (N, T + 1, cells)."""
    shape = (*beliefs.shape[:2], beliefs.shape[2] // 2)
    total = torch.zeros((), device=beliefs.device)
    for _ in range(samples):
        noise = torch.randn(shape, generator=generator, device=beliefs.device)
        total = total + decoder(sample_latents(beliefs, noise)).sigmoid()
    return total / samples


def _add_exact_posterior(
    arrays: Arrays, summary: dict[str, Any], batch: ElboBatch, family: TaskFamily
) -> None:
    posterior = getattr(family, "posterior", None)
    if posterior is None or batch.cells is None:
        return
    exact = posterior(batch.cells.cpu().numpy(), _numpy(batch.transitions.rewards))
    arrays["posterior"] = exact.astype(np.float32)
    gap = np.abs(arrays["cell_probabilities"] - exact)
    *_, error = reliability(arrays["cell_probabilities"], exact)
    arrays["calibration_gaps"] = gap.mean((0, 2))  # (T + 1,)
    summary["calibration_error"] = float(gap.mean())
    summary["posterior_calibration_error"] = error


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()
