r"""Reconstruction loss of all (posterior, step) pairs, in blocks, with its gradient in one pass.

The loss is $\sum_b \sum_i \sum_s \ell(f(z_{b,i}, x_{b,s}), y_{b,s})$ over P posteriors and S steps
of B trials. The decoder's first layer is split, so f starts at $\mathrm{relu}(p_{b,i} + q_{b,s})$
with p and q already projected. Autograd over all pairs at once would hold every activation of
B P S pairs (gigabytes); here each block of pairs is decoded, differentiated by hand and forgotten,
so memory is bounded and only the small gradients of p, q and the layers are kept. On a CPU that
is compiled loops (`models.kernels.belief`) over a few hundred pairs at a time, which stay in the
cache; elsewhere it is matrix products over `block_pairs` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.kernels.belief import pair_losses
from models.kernels.parts import takes

PairLikelihood = Literal["bernoulli", "squared-error"]


def pair_loss(
    latents: Tensor,
    transitions: Tensor,
    targets: Tensor,
    layers: nn.ModuleList,
    likelihood: PairLikelihood,
    block_pairs: int,
) -> Tensor:
    """The summed loss of all pairs, a scalar, differentiable in everything but the targets.

    latents p (B, P, W), transitions q (B, S, W), targets (B, S, D), or (B, P, S, D) where a target
    depends on the posterior; `layers` are the linear layers above the first, the last of D outputs.
    Bernoulli targets lie in [0, 1]. At most `block_pairs` pairs, or one posterior
    with all steps if that is more, are in memory at once.
    """
    parameters = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
    differentiable = torch.is_grad_enabled()
    if takes(latents):
        compiled: Tensor = _CompiledPairLoss.apply(  # type: ignore[no-untyped-call]
            likelihood == "bernoulli", differentiable, targets, latents, transitions, *parameters
        )
        return compiled
    loss: Tensor = _PairLoss.apply(  # type: ignore[no-untyped-call]
        likelihood, block_pairs, differentiable, targets, latents, transitions, *parameters
    )
    return loss


def blocks(trials: int, posteriors: int, steps: int, pairs: int) -> Iterator[tuple[slice, slice]]:
    """Slices of trials and of posteriors that make blocks of at most `pairs` pairs, if they can."""
    whole = max(1, min(trials, pairs // (posteriors * steps)))
    part = posteriors if posteriors * steps <= pairs else max(1, pairs // steps)
    for first in range(0, trials, whole):
        for start in range(0, posteriors, part):
            yield slice(first, first + whole), slice(start, start + part)


class _CompiledPairLoss(torch.autograd.Function):
    """The loops of `models.kernels.belief`, which give the gradients along with the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        bernoulli: bool,
        differentiable: bool,
        targets: Tensor,
        latents: Tensor,
        transitions: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """Sum the loss; keep the gradients of everything differentiable."""
        arrays = [parameter.detach().contiguous().numpy() for parameter in parameters]
        losses, gradients = pair_losses(
            latents.detach().contiguous().numpy(),
            transitions.detach().mT.contiguous().numpy(),
            targets.mT.contiguous().numpy(),
            arrays[::2],
            arrays[1::2],
            bernoulli,
            differentiable,
        )
        if differentiable:
            by_latents, by_transitions, *others = map(torch.from_numpy, gradients)
            ctx.save_for_backward(by_latents, by_transitions.mT, *others)
        return latents.new_tensor(losses.sum())

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients kept by the forward pass."""
        (scale,) = outputs
        return (None, None, None, *(scale * gradient for gradient in ctx.saved_tensors))


class _PairLoss(torch.autograd.Function):
    """Computes the gradients along with the loss: the blocks' activations are gone afterwards."""

    @staticmethod
    def forward(
        ctx: Any,
        likelihood: PairLikelihood,
        block_pairs: int,
        differentiable: bool,
        targets: Tensor,
        latents: Tensor,
        transitions: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        """Sum the loss over blocks; keep the gradients of everything differentiable."""
        weights, biases = parameters[::2], parameters[1::2]
        tensors = (latents, transitions, *parameters)
        gradients = [torch.zeros_like(tensor) for tensor in tensors] if differentiable else []
        total = latents.new_zeros(())
        count, posteriors_count, steps = *latents.shape[:2], transitions.shape[1]
        for trials, posteriors in blocks(count, posteriors_count, steps, block_pairs):
            p, q, y = latents[trials, posteriors], transitions[trials], targets[trials]
            y = y[:, None] if y.ndim == 3 else y[:, posteriors]
            activations = _activations(p, q, weights, biases)
            output = activations.pop().view(*p.shape[:2], *y.shape[2:])
            loss, delta = _loss(output, y, likelihood, differentiable)
            total += loss
            if not differentiable:
                continue
            pairs = _backpropagate(delta, activations, weights, gradients[2:])
            pairs = pairs.view(*p.shape[:2], *q.shape[1:])
            gradients[0][trials, posteriors] += pairs.sum(2)
            gradients[1][trials] += pairs.sum(1)
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients kept by the forward pass."""
        (scale,) = outputs
        return (None, None, None, None, *(scale * gradient for gradient in ctx.saved_tensors))


def _activations(
    p: Tensor, q: Tensor, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]
) -> list[Tensor]:
    """Hidden activations (pairs, W) of every layer, and the output (pairs, D) last."""
    hidden = (p[:, :, None] + q[:, None]).relu_().flatten(0, 2)
    activations = [hidden]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        activations.append(torch.addmm(bias, activations[-1], weight.T).relu_())
    activations.append(torch.addmm(biases[-1], activations[-1], weights[-1].T))
    return activations


def _loss(
    predicted: Tensor, wanted: Tensor, likelihood: PairLikelihood, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Summed loss of outputs (B, P, S, D) and its derivative by them, (pairs, D)."""
    width = predicted.shape[-1]
    if likelihood == "squared-error":
        error = predicted - wanted
        return error.square().sum(), error.mul_(2).view(-1, width)
    # -log p(y) = softplus(logit) - y logit, which neither overflows nor takes a log of zero.
    loss = nn.functional.softplus(predicted).sum() - (predicted * wanted).sum()
    if not gradient:
        return loss, predicted
    return loss, predicted.sigmoid().sub_(wanted).view(-1, width)


def _backpropagate(
    delta: Tensor, activations: list[Tensor], weights: tuple[Tensor, ...], gradients: list[Tensor]
) -> Tensor:
    """Add a block's gradients of weights and biases; return that of the first sum, (pairs, W)."""
    for layer in reversed(range(len(weights))):
        hidden = activations[layer]
        gradients[2 * layer].addmm_(delta.T, hidden)
        gradients[2 * layer + 1].add_(delta.sum(0))
        # One output: an outer product, which broadcasting does twice as fast as a matrix product.
        weight = weights[layer]
        delta = delta * weight if len(weight) == 1 else delta @ weight
        torch.ops.aten.threshold_backward.grad_input(delta, hidden, 0, grad_input=delta)
    return delta
