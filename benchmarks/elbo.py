"""Seconds a VAE update: the blockwise ELBO beside a plain loop over trials, in one process.

    python benchmarks/elbo.py [threads]

The plain loop is the usual way to write it: for every trial a GRU pass, and a decoder applied to
every (posterior, step) pair at once, differentiated by autograd. Both see the same weights, trials
and noise, and their losses are compared as well. The peaks of memory are the process's so far.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.config import ElboConfig
from algorithms.elbo import elbo, kl_chain, sample_latents
from algorithms.elbo_batch import ElboBatch
from models.config import EncoderConfig, RewardDecoderConfig, VaeModelConfig
from models.decoders import CellRewardDecoder
from models.inputs import Transitions
from models.vae import Vae

TRIALS = 64
REPEATS = 10


def make_case(domain: str) -> tuple[Vae, ElboBatch, Tensor]:
    """Model, random batch and noise with the sizes of a domain's published settings."""
    draw = torch.Generator().manual_seed(0)
    cells = domain == "gridworld"
    steps = 60 if cells else 120
    model = VaeModelConfig(
        encoder=EncoderConfig(
            gru_size=64 if cells else 128,
            action_embedding=0 if cells else 16,
            reward_embedding=8 if cells else 16,
        ),
        reward_decoder=RewardDecoderConfig(
            likelihood="bernoulli-per-cell" if cells else "squared-error"
        ),
    )
    lead = (TRIALS, steps)
    actions = (
        torch.randint(0, 5, (*lead, 1), generator=draw)
        if cells
        else torch.rand(*lead, 2, generator=draw) * 2 - 1
    )
    high = torch.randint(0, 2, lead, generator=draw).float()
    observations = torch.rand(TRIALS, steps + 1, 2, generator=draw)
    transitions = Transitions(observations[:, :-1], actions, high, observations[:, 1:])
    entered = torch.randint(0, 25, lead, generator=draw) if cells else None
    vae = Vae(model, 2, 1 if cells else 2, 5 if cells else None, 25 if cells else None, draw)
    return (
        vae,
        ElboBatch(transitions, transitions, high, entered),
        torch.randn(TRIALS, steps + 1, 5, generator=draw),
    )


def plain_loss(vae: Vae, batch: ElboBatch, noise: Tensor, config: ElboConfig) -> Tensor:
    """The same loss, trial by trial."""
    total = torch.zeros(())
    for trial in range(len(noise)):
        one = Transitions(*(part[trial : trial + 1] for part in batch.transitions))
        features = vae.encoder.embedding(
            {
                "action": one.actions.float() if batch.cells is None else None,
                "next_observation": one.next_observations,
                "reward": one.rewards[..., None],
            }
        )
        hidden = torch.cat(
            [torch.zeros(1, 1, vae.encoder.gru.hidden_size), vae.encoder.gru(features)[0]], 1
        )
        beliefs = vae.encoder.heads(hidden)
        latents = sample_latents(beliefs, noise[trial : trial + 1])[0]
        targets = batch.targets[trial].expand(len(latents), -1)
        if isinstance(vae.reward_decoder, CellRewardDecoder):
            logits = vae.reward_decoder(latents)[:, batch.cells[trial]]
            reward = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, targets, reduction="sum"
            )
        else:
            inputs = vae.decoder_inputs(one)
            reward = (vae.reward_decoder(latents[:, None], inputs)[..., 0] - targets).square().sum()
        total = total + reward + config.kl_weight * kl_chain(beliefs).sum()
    return total / len(noise)


def seconds(loss: Callable[[], Tensor], parameters: list[Tensor]) -> tuple[float, float]:
    """Least and median time of a loss with its gradients."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.autograd.grad(loss(), parameters)
        times.append(time.perf_counter() - start)
    return min(times), sorted(times)[REPEATS // 2]


def main() -> None:
    """Print one line a domain."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    config = ElboConfig()
    for domain in ("gridworld", "semi-circle"):
        vae, batch, noise = make_case(domain)
        parameters = list(vae.parameters())

        def ours(vae: Vae = vae, batch: ElboBatch = batch, noise: Tensor = noise) -> Tensor:
            return elbo(vae, batch, noise, config).loss

        def plain(vae: Vae = vae, batch: ElboBatch = batch, noise: Tensor = noise) -> Tensor:
            return plain_loss(vae, batch, noise, config)

        (least, median), memory = seconds(ours, parameters), peak_mb()
        difference = abs(float(ours().detach() / plain().detach()) - 1)
        slow_least, slow_median = seconds(plain, parameters)
        sys.stdout.write(
            f"{domain:12} {torch.get_num_threads()} threads: {least:.4f} s least, {median:.4f} s "
            f"median; plain loop {slow_least:.4f}, {slow_median:.4f}; {slow_median / median:.1f} "
            f"times as fast; losses differ by {difference:.0e}; peak {memory:.0f} MB, with the "
            f"loop {peak_mb():.0f} MB\n"
        )


def peak_mb() -> float:
    """Peak resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
