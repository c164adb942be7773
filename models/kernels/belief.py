"""The loops of beliefs: a GRU over sequences, the loss of all pairs, an encoder without gradient.

*The GRU.* A step multiplies the hidden states of a handful of trials by the recurrent weights. As
one product a step for all trials, with a pass over memory for every elementwise operation, that is
far from what a core can do; here four trials go through all their steps on one core, each weight
that is loaded serves all four, and gates and product are one loop.

*The loss of all pairs* of a posterior and a step, with its gradients: a decoder's layers run over a
few hundred pairs at a time, whose activations stay in the cache from the first layer to the
gradients of the last.

*The encoder without gradient*: all its layers a step, for trials that are read or that are acted
just now. Nothing between the inputs and the beliefs goes through memory, and one call stands where
ten would cost more than their arithmetic.

Trials are independent, so no result depends on how they are spread over threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.kernels.parts import FAST, LOOSE, Float32, spread

_ROWS = 4  # trials that share a load of the weights
_PAIRS = 512  # decoded at once: their activations stay in the cache

_HALF, _ONE = np.float32(0.5), np.float32(1.0)


@njit(fastmath=FAST, error_model="numpy", inline="always")
def _tanh(x: Any) -> Any:
    """tanh as a quotient of odd and even polynomials, within 3e-7: unlike a call, it vectorises."""
    x = min(max(x, np.float32(-7.905311)), np.float32(7.905311))  # rounds to +-1 outside
    square = x * x
    odd = np.float32(-2.76076847742355e-16)
    odd = odd * square + np.float32(2.00018790482477e-13)
    odd = odd * square + np.float32(-8.60467152213735e-11)
    odd = odd * square + np.float32(5.12229709037114e-08)
    odd = odd * square + np.float32(1.48572235717979e-05)
    odd = odd * square + np.float32(6.37261928875436e-04)
    odd = odd * square + np.float32(4.89352455891786e-03)
    even = np.float32(1.19825839466702e-06)
    even = even * square + np.float32(1.18534705686654e-04)
    even = even * square + np.float32(2.26843463243900e-03)
    even = even * square + np.float32(4.89352518554385e-03)
    return x * odd / even


@njit(fastmath=FAST, error_model="numpy", inline="always")
def _add_product(out: Any, left: Any, right: Any, count: Any) -> None:
    """out (4, count) += left (4, K) @ right (K, count), four rows of `right` at a time."""
    inner = left.shape[1]
    even = inner - inner % 4
    out0, out1, out2, out3 = out[0], out[1], out[2], out[3]
    for k in range(0, even, 4):
        row0, row1, row2, row3 = right[k], right[k + 1], right[k + 2], right[k + 3]
        a0, a1, a2, a3 = left[0, k], left[0, k + 1], left[0, k + 2], left[0, k + 3]
        b0, b1, b2, b3 = left[1, k], left[1, k + 1], left[1, k + 2], left[1, k + 3]
        c0, c1, c2, c3 = left[2, k], left[2, k + 1], left[2, k + 2], left[2, k + 3]
        d0, d1, d2, d3 = left[3, k], left[3, k + 1], left[3, k + 2], left[3, k + 3]
        for j in range(count):
            w0, w1, w2, w3 = row0[j], row1[j], row2[j], row3[j]
            out0[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            out1[j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
            out2[j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
            out3[j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for k in range(even, inner):
        row0 = right[k]
        a0, b0, c0, d0 = left[0, k], left[1, k], left[2, k], left[3, k]
        for j in range(count):
            out0[j] += a0 * row0[j]
            out1[j] += b0 * row0[j]
            out2[j] += c0 * row0[j]
            out3[j] += d0 * row0[j]


@njit(inline="always")
def _copy(source: Any, target: Any) -> None:
    """Element by element, which is quicker than assigning a slice of a few hundred."""
    for j in range(len(target)):
        target[j] = source[j]


# Loops below touch few arrays each: a compiler vectorises what it can check for overlaps.


@njit(fastmath=FAST, error_model="numpy", inline="always")
def _cell(x: Any, s: Any, h: Any, candidate: Any) -> None:
    """A step of one trial from W x + b and s = V h + c; h becomes h', s holds the gates r, u."""
    width = len(h)
    x_n, u, v_n = x[2 * width :], s[width:], s[2 * width :]
    for j in range(2 * width):
        s[j] = _HALF + _HALF * _tanh(_HALF * (x[j] + s[j]))
    for j in range(width):
        candidate[j] = _tanh(x_n[j] + s[j] * v_n[j])
    for j in range(width):
        h[j] = candidate[j] + u[j] * (h[j] - candidate[j])


@njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)
def _forward(
    first: int,
    last: int,
    projected: Any,
    weight: Any,
    bias: Any,
    states: Any,
    gates: Any,
    candidates: Any,
    products: Any,
) -> None:
    steps, width = projected.shape[1], states.shape[2]
    keeps = len(gates) > 0
    hidden = np.zeros((_ROWS, width), np.float32)
    summed = np.empty((_ROWS, 3 * width), np.float32)
    candidate = np.empty(width, np.float32)
    for start in range(first, last, _ROWS):
        rows = min(_ROWS, last - start)
        hidden[:] = 0
        states[start : start + rows, 0] = 0
        for step in range(steps):
            for row in range(_ROWS):
                _copy(bias, summed[row])
            _add_product(summed, hidden, weight, 3 * width)
            for row in range(rows):
                trial, s = start + row, summed[row]
                _cell(projected[trial, step], s, hidden[row], candidate)
                _copy(hidden[row], states[trial, step + 1])
                if keeps:
                    _copy(s[: 2 * width], gates[trial, step])
                    _copy(candidate, candidates[trial, step])
                    _copy(s[2 * width :], products[trial, step])


@njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)
def _backward(
    first: int,
    last: int,
    by_states: Any,
    states: Any,
    gates: Any,
    candidates: Any,
    products: Any,
    weight: Any,
    by_projected: Any,
    by_products: Any,
) -> None:
    steps, width = candidates.shape[1], candidates.shape[2]
    carried = np.zeros((_ROWS, width), np.float32)
    summed = np.zeros((_ROWS, 3 * width), np.float32)  # by V h + c
    by_state = np.empty(width, np.float32)
    by_candidate = np.empty(width, np.float32)
    for start in range(first, last, _ROWS):
        rows = min(_ROWS, last - start)
        carried[:] = 0
        for step in range(steps - 1, -1, -1):
            for row in range(rows):
                trial = start + row
                r, n, p = gates[trial, step], candidates[trial, step], products[trial, step]
                before, above = states[trial, step], by_states[trial, step + 1]
                u, c = r[width:], carried[row]
                by_r, by_u, by_p = summed[row], summed[row, width:], summed[row, 2 * width :]
                for j in range(width):
                    by_state[j] = above[j] + c[j]
                for j in range(width):
                    by_candidate[j] = by_state[j] * (_ONE - u[j]) * (_ONE - n[j] * n[j])
                for j in range(width):
                    by_r[j] = by_candidate[j] * p[j] * r[j] * (_ONE - r[j])
                for j in range(width):
                    by_u[j] = by_state[j] * (before[j] - n[j]) * u[j] * (_ONE - u[j])
                for j in range(width):
                    by_p[j] = by_candidate[j] * r[j]
                for j in range(width):
                    c[j] = by_state[j] * u[j]
                _copy(summed[row, : 2 * width], by_projected[trial, step, : 2 * width])
                _copy(by_candidate, by_projected[trial, step, 2 * width :])
                _copy(by_p, by_products[trial, step])
            _add_product(carried, summed, weight, width)


@njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)
def _steps(
    first: int,
    last: int,
    features: Any,
    widths: Any,
    embeddings: Any,
    embedding_biases: Any,
    weight_in: Any,
    bias_in: Any,
    weight: Any,
    bias: Any,
    heads: Any,
    heads_bias: Any,
    hidden: Any,
    beliefs: Any,
    states: Any,
) -> None:
    steps, width, layers = features.shape[1], hidden.shape[1], len(widths) - 1
    keeps = len(states) > 0
    inputs = np.zeros((_ROWS, widths.max()), np.float32)
    embedded = np.zeros((_ROWS, widths.max()), np.float32)
    before = np.zeros((_ROWS, width), np.float32)
    candidate = np.empty(width, np.float32)
    projected = np.empty((_ROWS, 3 * width), np.float32)
    summed = np.empty((_ROWS, 3 * width), np.float32)
    read = np.empty((_ROWS, beliefs.shape[2]), np.float32)
    for start in range(first, last, _ROWS):
        rows = min(_ROWS, last - start)
        for row in range(rows):
            _copy(hidden[start + row], before[row])
        for step in range(steps):
            for row in range(rows):
                _copy(features[start + row, step], inputs[row, : widths[0]])
                if keeps:
                    _copy(before[row], states[start + row, step])
            weights = biases = 0
            for layer in range(layers):
                inner, outer = widths[layer], widths[layer + 1]
                matrix = embeddings[weights : weights + inner * outer].reshape(inner, outer)
                for row in range(_ROWS):
                    _copy(embedding_biases[biases : biases + outer], embedded[row, :outer])
                _add_product(embedded, inputs[:, :inner], matrix, outer)
                for row in range(_ROWS):
                    line = embedded[row]
                    for j in range(outer):
                        line[j] = max(line[j], np.float32(0))
                inputs, embedded = embedded, inputs
                weights, biases = weights + inner * outer, biases + outer
            for row in range(_ROWS):
                _copy(bias_in, projected[row])
                _copy(bias, summed[row])
                _copy(heads_bias, read[row])
            _add_product(projected, inputs[:, : widths[-1]], weight_in, 3 * width)
            _add_product(summed, before, weight, 3 * width)
            for row in range(rows):
                _cell(projected[row], summed[row], before[row], candidate)
            _add_product(read, before, heads, beliefs.shape[2])
            for row in range(rows):
                _copy(read[row], beliefs[start + row, step])
        for row in range(rows):
            _copy(before[row], hidden[start + row])


@njit(fastmath=FAST, error_model="numpy", inline="always")
def _affine(out: Any, weight: Any, bias: Any, inputs: Any, count: Any) -> None:
    """out (N, count) = weight (N, K) @ inputs (K, count) + bias (N,)."""
    outer, inner = weight.shape
    for row in range(outer):
        line, start = out[row], bias[row]
        for j in range(count):
            line[j] = start
    even = outer - outer % 4
    for row in range(0, even, 4):
        _add_product(out[row : row + 4], weight[row : row + 4], inputs, count)
    for row in range(even, outer):
        line = out[row]
        for k in range(inner):
            source, factor = inputs[k], weight[row, k]
            for j in range(count):
                line[j] += factor * source[j]


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _add_outer(out: Any, left: Any, right: Any, count: Any) -> None:
    """out (N, K) += left (N, count) @ right (K, count) transposed, tiles of 2 x 4."""
    outer, inner = out.shape
    for row in range(0, outer, 2):
        x0, x1 = left[row], left[min(row + 1, outer - 1)]
        for column in range(0, inner - inner % 4, 4):
            y0, y1, y2, y3 = right[column], right[column + 1], right[column + 2], right[column + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
            for j in range(count):
                a0 += x0[j] * y0[j]
                a1 += x0[j] * y1[j]
                a2 += x0[j] * y2[j]
                a3 += x0[j] * y3[j]
                b0 += x1[j] * y0[j]
                b1 += x1[j] * y1[j]
                b2 += x1[j] * y2[j]
                b3 += x1[j] * y3[j]
            out[row, column] += a0
            out[row, column + 1] += a1
            out[row, column + 2] += a2
            out[row, column + 3] += a3
            if row + 1 < outer:
                out[row + 1, column] += b0
                out[row + 1, column + 1] += b1
                out[row + 1, column + 2] += b2
                out[row + 1, column + 3] += b3
        for column in range(inner - inner % 4, inner):
            y0 = right[column]
            a0 = b0 = np.float32(0)
            for j in range(count):
                a0 += x0[j] * y0[j]
                b0 += x1[j] * y0[j]
            out[row, column] += a0
            if row + 1 < outer:
                out[row + 1, column] += b0


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _bernoulli(logits: Any, wanted: Any, chance: Any, count: Any) -> Any:
    """Sum of -log p; `chance` becomes the derivative by the logits.

    softplus(x) - x y = max(x, 0) - x y - log sigmoid(|x|), and a sum of logarithms of numbers from
    [0.5, 1] is the logarithm of their product, a few at a time.
    """
    linear = np.float32(0)
    for j in range(count):
        x = logits[j]
        linear += max(x, np.float32(0)) - x * wanted[j]
        chance[j] = _HALF + _HALF * _tanh(_HALF * abs(x))
    logarithms = 0.0
    for start in range(0, count, 16):
        product = _ONE
        for j in range(start, min(start + 16, count)):
            product *= chance[j]
        logarithms += np.log(product)
    for j in range(count):
        chance[j] = (chance[j] if logits[j] > 0 else _ONE - chance[j]) - wanted[j]
    return linear - logarithms


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _squared_error(predicted: Any, wanted: Any, error: Any, count: Any) -> Any:
    """Sum of squares; `error` becomes the derivative by the prediction."""
    total = np.float32(0)
    for j in range(count):
        difference = predicted[j] - wanted[j]
        total += difference * difference
        error[j] = difference + difference
    return total


@njit(fastmath=LOOSE, error_model="numpy", nogil=True, cache=True)
def _pairs(
    first: int,
    last: int,
    latents: Any,
    transitions: Any,
    targets: Any,
    widths: Any,
    weights: Any,
    transposed: Any,
    biases: Any,
    bernoulli: Any,
    losses: Any,
    by_latents: Any,
    by_transitions: Any,
    by_weights: Any,
    by_biases: Any,
) -> None:
    posteriors, steps = latents.shape[1], transitions.shape[2]
    layers, outputs = len(widths) - 1, widths[-1]
    differentiable = len(by_latents) > 0
    no_bias = np.zeros(widths.max(), np.float32)
    hidden = np.empty((widths.sum(), _PAIRS), np.float32)  # of every layer, below each other
    above = np.empty((widths.max(), _PAIRS), np.float32)
    below = np.empty((widths.max(), _PAIRS), np.float32)
    part = min(steps, _PAIRS)
    group = max(1, _PAIRS // part)
    for trial in range(first, last):
        total = 0.0
        for start in range(0, steps, part):
            each = min(part, steps - start)  # columns of a posterior
            for leader in range(0, posteriors, group):
                members = min(group, posteriors - leader)
                count = members * each
                for unit in range(widths[0]):
                    q = transitions[trial, unit, start:]
                    for member in range(members):
                        line = hidden[unit, member * each :]
                        shift = latents[trial, leader + member, unit]
                        for j in range(each):
                            line[j] = max(shift + q[j], np.float32(0))
                row = weight = bias = 0
                for layer in range(layers):
                    inner, outer = widths[layer], widths[layer + 1]
                    matrix = weights[weight : weight + outer * inner].reshape(outer, inner)
                    inputs, results = hidden[row : row + inner], hidden[row + inner :]
                    _affine(results, matrix, biases[bias : bias + outer], inputs, count)
                    if layer < layers - 1:
                        for unit in range(outer):
                            line = results[unit]
                            for j in range(count):
                                line[j] = max(line[j], np.float32(0))
                    row, weight, bias = row + inner, weight + outer * inner, bias + outer
                for output in range(outputs):
                    for member in range(members):
                        place = member * each
                        posterior = leader + member if targets.shape[1] > 1 else 0
                        wanted = targets[trial, posterior, output, start:]
                        line, slope = hidden[row + output, place:], above[output, place:]
                        if bernoulli:
                            total += _bernoulli(line, wanted, slope, each)
                        else:
                            total += _squared_error(line, wanted, slope, each)
                if not differentiable:
                    continue
                for layer in range(layers - 1, -1, -1):
                    inner, outer = widths[layer], widths[layer + 1]
                    row, weight, bias = row - inner, weight - outer * inner, bias - outer
                    inputs = hidden[row : row + inner]
                    by_weight = by_weights[trial, weight : weight + outer * inner]
                    _add_outer(by_weight.reshape(outer, inner), above, inputs, count)
                    for unit in range(outer):
                        summed, line = np.float32(0), above[unit]
                        for j in range(count):
                            summed += line[j]
                        by_biases[trial, bias + unit] += summed
                    matrix = transposed[weight : weight + outer * inner].reshape(inner, outer)
                    _affine(below, matrix, no_bias, above, count)
                    for unit in range(inner):
                        line, value = below[unit], inputs[unit]
                        for j in range(count):
                            line[j] = line[j] if value[j] > 0 else np.float32(0)
                    above, below = below, above
                for unit in range(widths[0]):
                    by_q = by_transitions[trial, unit, start:]
                    for member in range(members):
                        line = above[unit, member * each :]
                        summed = np.float32(0)
                        for j in range(each):
                            summed += line[j]
                            by_q[j] += line[j]
                        by_latents[trial, leader + member, unit] += summed
        losses[trial] = total


def gru_forward(
    projected: Float32, weight: Float32, bias: Float32, keep: bool
) -> tuple[Float32, Float32, Float32, Float32]:
    """Hidden states of a GRU from zero, and what its gradient needs.

    Args:
        projected: (B, T, 3G) W x + b of every step, gates r, u and candidate n in this order.
        weight: (G, 3G) V transposed, contiguous.
        bias: (3G,) c.
        keep: whether a gradient will be asked for; else the last three results are empty.

    Returns:
        states (B, T + 1, G), zero first; gates r, u (B, T, 2G), candidates n (B, T, G) and
        V_n h + c_n (B, T, G).
    """
    trials, steps, width = projected.shape[0], projected.shape[1], len(weight)
    kept = trials if keep else 0
    states = np.empty((trials, steps + 1, width), np.float32)
    gates = np.empty((kept, steps, 2 * width), np.float32)
    candidates = np.empty((kept, steps, width), np.float32)
    products = np.empty((kept, steps, width), np.float32)
    arrays = (projected, weight, bias, states, gates, candidates, products)
    spread(_forward, trials, arrays, _ROWS)
    return states, gates, candidates, products


def gru_backward(
    by_states: Float32,
    states: Float32,
    gates: Float32,
    candidates: Float32,
    products: Float32,
    weight: Float32,
) -> tuple[Float32, Float32]:
    """Gradients by W x + b, (B, T, 3G), and by V_n h + c_n, (B, T, G).

    by_states (B, T + 1, G) is the gradient by the states, `weight` (3G, G) is V; the rest is what
    `gru_forward` returned. The gradients by V_r h + c_r and V_u h + c_u are those by W x + b.
    """
    trials, steps, width = candidates.shape
    by_projected = np.empty((trials, steps, 3 * width), np.float32)
    by_products = np.empty((trials, steps, width), np.float32)
    arrays = (by_states, states, gates, candidates, products, weight, by_projected, by_products)
    spread(_backward, trials, arrays, _ROWS)
    return by_projected, by_products


def belief_steps(
    weights: Sequence[NDArray[Any]], features: Float32, hidden: Float32, keep: bool
) -> tuple[Float32, Float32]:
    """Beliefs (n, T, 2L) after each of T more steps of n trials, from hidden states on (n, G).

    Args:
        weights: widths of the embedding's layers, all their matrices (in, out) and biases, each
            flat; W transposed (E, 3G) and b; V transposed (G, 3G) and c; the heads' (G, 2L), (2L,).
        features: (n, T, F), the inputs side by side.
        hidden: replaced in place by those after the last step.
        keep: whether the hidden states before each step are wanted, the second result (n, T, G);
            else that is empty.
    """
    lead = features.shape[:2]
    beliefs = np.empty((*lead, len(weights[-1])), np.float32)
    states = np.empty((*lead, hidden.shape[1]) if keep else (0, 0, 0), np.float32)
    rows = _ROWS if lead[1] > 1 else len(features)  # one step is not worth waking a thread
    spread(_steps, len(features), (features, *weights, hidden, beliefs, states), rows)
    return beliefs, states


def pair_losses(
    latents: Float32,
    transitions: Float32,
    targets: Float32,
    matrices: Sequence[Float32],
    biases: Sequence[Float32],
    bernoulli: bool,
    differentiable: bool,
) -> tuple[NDArray[np.float64], list[Float32]]:
    """Loss of every trial's (posterior, step) pairs, and its gradients.

    Args:
        latents: (B, P, W), the posteriors' share of the first layer.
        transitions: (B, W, S), the steps' share.
        targets: (B, D, S), or (B, P, D, S) where they depend on the posterior.
        matrices: (out, in) of the layers above the first, the last of D outputs.
        biases: (out,) of the same.
        bernoulli: whether outputs are logits of targets in [0, 1]; else squared errors are summed.
        differentiable: whether gradients are wanted; else there are none.

    Returns:
        losses (B,), and gradients by latents (B, P, W), transitions (B, W, S), and each matrix
        and bias in turn.
    """
    trials, posteriors, width = latents.shape
    targets = targets if targets.ndim == 4 else targets[:, None]
    widths = np.array([width, *(len(bias) for bias in biases)])
    kept = trials if differentiable else 0
    losses = np.empty(trials)
    by_latents = np.zeros((kept, posteriors, width), np.float32)
    by_transitions = np.zeros((kept, *transitions.shape[1:]), np.float32)
    by_weights = np.zeros((kept, sum(matrix.size for matrix in matrices)), np.float32)
    by_biases = np.zeros((kept, sum(widths[1:])), np.float32)
    arrays = (
        latents,
        transitions,
        np.ascontiguousarray(targets),
        widths,
        np.concatenate([matrix.ravel() for matrix in matrices]),
        np.concatenate([matrix.T.ravel() for matrix in matrices]),
        np.concatenate(biases),
        bernoulli,
        losses,
        by_latents,
        by_transitions,
        by_weights,
        by_biases,
    )
    spread(_pairs, trials, arrays)
    if not differentiable:
        return losses, []
    gradients = [by_latents, by_transitions]
    weights, shifts = by_weights.sum(0), by_biases.sum(0)
    edges = np.cumsum([matrix.size for matrix in matrices])[:-1]
    for matrix, by_matrix, by_bias in zip(
        matrices,
        np.split(weights, edges),
        np.split(shifts, np.cumsum(widths[1:])[:-1]),
        strict=True,
    ):
        gradients += [by_matrix.reshape(matrix.shape), by_bias]
    return losses, gradients
