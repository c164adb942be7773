"""Double Q-learning of many agents: a block of a batch at a time, from states to gradients.

As whole-array calls three evaluations of a small network and a way back are some forty passes over
memory and as many calls. Here a block's activations, features by rows, stay in the cache from the
first layer to the gradients of the last, and loops run along rows, of which there are always many.

Blocks have a fixed size and their gradients are summed in order: no result depends on the number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.kernels.parts import FAST, LOOSE, Float32, spread, summed_blocks

_BLOCK = 512  # rows at a time
_PADDED = _BLOCK + 16  # a line of them: at 512 apart all lines want the same places of a cache

_ZERO = np.float32(0)


@njit(fastmath=FAST, error_model="numpy")
def _add_product(out: Any, left: Any, right: Any, count: Any) -> None:
    """out (N, count) += left (N, K) @ right (K, count), four lines by four."""
    outer, inner = left.shape
    even = inner - inner % 4
    for row in range(0, outer - outer % 4, 4):
        out0, out1, out2, out3 = out[row], out[row + 1], out[row + 2], out[row + 3]
        for k in range(0, even, 4):
            x0, x1, x2, x3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            a0, a1, a2, a3 = left[row, k], left[row, k + 1], left[row, k + 2], left[row, k + 3]
            b0, b1 = left[row + 1, k], left[row + 1, k + 1]
            b2, b3 = left[row + 1, k + 2], left[row + 1, k + 3]
            c0, c1 = left[row + 2, k], left[row + 2, k + 1]
            c2, c3 = left[row + 2, k + 2], left[row + 2, k + 3]
            d0, d1 = left[row + 3, k], left[row + 3, k + 1]
            d2, d3 = left[row + 3, k + 2], left[row + 3, k + 3]
            for j in range(count):
                w0, w1, w2, w3 = x0[j], x1[j], x2[j], x3[j]
                out0[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                out1[j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                out2[j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                out3[j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
        for k in range(even, inner):
            x0 = right[k]
            a0, b0, c0, d0 = left[row, k], left[row + 1, k], left[row + 2, k], left[row + 3, k]
            for j in range(count):
                out0[j] += a0 * x0[j]
                out1[j] += b0 * x0[j]
                out2[j] += c0 * x0[j]
                out3[j] += d0 * x0[j]
    for row in range(outer - outer % 4, outer):
        line = out[row]
        for k in range(inner):
            x0, a0 = right[k], left[row, k]
            for j in range(count):
                line[j] += a0 * x0[j]


@njit(fastmath=LOOSE, error_model="numpy")
def _outer(out: Any, left: Any, right: Any, count: Any) -> None:
    """out (N, K) = left (N, count) @ right (K, count) transposed, tiles of 2 by 4."""
    outer, inner = out.shape
    for row in range(0, outer, 2):
        below = min(row + 1, outer - 1)
        x0, x1 = left[row], left[below]
        for column in range(0, inner - inner % 4, 4):
            y0, y1, y2, y3 = right[column], right[column + 1], right[column + 2], right[column + 3]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = _ZERO
            for j in range(count):
                a0 += x0[j] * y0[j]
                a1 += x0[j] * y1[j]
                a2 += x0[j] * y2[j]
                a3 += x0[j] * y3[j]
                b0 += x1[j] * y0[j]
                b1 += x1[j] * y1[j]
                b2 += x1[j] * y2[j]
                b3 += x1[j] * y3[j]
            out[below, column], out[below, column + 1] = b0, b1
            out[below, column + 2], out[below, column + 3] = b2, b3
            out[row, column], out[row, column + 1] = a0, a1
            out[row, column + 2], out[row, column + 3] = a2, a3
        for column in range(inner - inner % 4, inner):
            y0 = right[column]
            a0 = b0 = _ZERO
            for j in range(count):
                a0 += x0[j] * y0[j]
                b0 += x1[j] * y0[j]
            out[below, column] = b0
            out[row, column] = a0


@njit(fastmath=FAST, error_model="numpy")
def _evaluate(states: Any, weights: Any, biases: Any, member: Any, layers: Any) -> None:
    """Fill `layers` (sum of the widths, _PADDED), the states' features first, by states (n, S)."""
    count, row = len(states), states.shape[1]
    for unit in range(row):
        line = layers[unit]
        for j in range(count):
            line[j] = states[j, unit]
    below = layers[:row]
    for layer in range(len(weights)):
        weight, bias = weights[layer][member], biases[layer][member, 0]
        above = layers[row : row + len(bias)]
        for unit in range(len(bias)):
            line, start = above[unit], bias[unit]
            for j in range(count):
                line[j] = start
        _add_product(above, weight.T, below, count)
        if layer < len(weights) - 1:
            for unit in range(len(bias)):
                line = above[unit]
                for j in range(count):
                    line[j] = max(line[j], _ZERO)
        below, row = above, row + len(bias)


@njit(inline="always")
def _widths(states: Any, weights: Any) -> Any:
    """How wide all layers are together, the states included, and the widest."""
    total = widest = states.shape[2]
    for weight in weights:
        total, widest = total + weight.shape[2], max(widest, weight.shape[2])
    return total, widest


@njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)
def _best_values(
    first: int,
    last: int,
    states: Any,
    weights: Any,
    biases: Any,
    target_weights: Any,
    target_biases: Any,
    values: Any,
) -> None:
    batch, (total, _) = states.shape[1], _widths(states, weights)
    layers = np.zeros((total, _PADDED), np.float32)
    best = np.empty(_BLOCK, np.int64)
    actions = biases[-1].shape[2]
    blocks = -(-batch // _BLOCK)
    for job in range(first, last):
        member, start = job // blocks, job % blocks * _BLOCK
        stop = min(batch, start + _BLOCK)
        part, outputs = states[member, start:stop], layers[total - actions :]
        _evaluate(part, weights, biases, member, layers)
        for j in range(stop - start):
            best[j] = 0
            for action in range(1, actions):
                if outputs[action, j] > outputs[best[j], j]:
                    best[j] = action
        _evaluate(part, target_weights, target_biases, member, layers)
        for j in range(stop - start):
            values[member, start + j] = outputs[best[j], j]


@njit(fastmath=LOOSE, error_model="numpy", nogil=True, cache=True)
def _squared_errors(
    first: int,
    last: int,
    states: Any,
    actions: Any,
    targets: Any,
    weights: Any,
    biases: Any,
    losses: Any,
    chosen: Any,
    by_weights: Any,
    by_biases: Any,
) -> None:
    batch, (total, widest) = states.shape[1], _widths(states, weights)
    layers = np.zeros((total, _PADDED), np.float32)
    above = np.zeros((widest, _PADDED), np.float32)
    below = np.zeros((widest, _PADDED), np.float32)
    count_actions, share = biases[-1].shape[2], np.float32(1 / batch)
    blocks = -(-batch // _BLOCK)
    for job in range(first, last):
        member, block = job // blocks, job % blocks
        start, stop = block * _BLOCK, min(batch, (block + 1) * _BLOCK)
        count = stop - start
        _evaluate(states[member, start:stop], weights, biases, member, layers)
        outputs = layers[total - count_actions :]
        above[:count_actions] = _ZERO
        loss = value = _ZERO
        for j in range(count):
            action = actions[member, start + j]
            error = outputs[action, j] - targets[member, start + j]
            loss += error * error
            value += outputs[action, j]
            above[action, j] = (error + error) * share
        losses[member, block], chosen[member, block] = loss * share, value * share
        row = total - count_actions
        for layer in range(len(weights) - 1, -1, -1):
            weight = weights[layer][member]
            inner, outer = weight.shape
            row -= inner
            inputs = layers[row : row + inner]
            _outer(by_weights[layer][member, block], inputs, above, count)
            for unit in range(outer):
                line, summed = above[unit], _ZERO
                for j in range(count):
                    summed += line[j]
                by_biases[layer][member, block, unit] = summed
            if layer == 0:
                continue
            below[:inner, :count] = _ZERO
            _add_product(below, weight, above, count)
            for unit in range(inner):
                line, seen = below[unit], inputs[unit]
                for j in range(count):
                    line[j] = line[j] if seen[j] > _ZERO else _ZERO
            above, below = below, above


def best_values(
    states: Float32,
    weights: Sequence[Float32],
    biases: Sequence[Float32],
    target_weights: Sequence[Float32],
    target_biases: Sequence[Float32],
) -> Float32:
    """The targets' values (A, B) of the actions that are best by the networks.

    Args:
        states: (A, B, S), contiguous.
        weights: (A, in, out) of each layer.
        biases: (A, 1, out) of each layer.
        target_weights: as `weights`.
        target_biases: as `biases`.
    """
    values = np.empty(states.shape[:2], np.float32)
    arrays = (tuple(weights), tuple(biases), tuple(target_weights), tuple(target_biases))
    spread(_best_values, len(states) * _blocks(states), (states, *arrays, values))
    return values


def squared_errors(
    states: Float32,
    actions: NDArray[np.int64],
    targets: Float32,
    weights: Sequence[Float32],
    biases: Sequence[Float32],
) -> tuple[Float32, Float32, list[Float32], list[Float32]]:
    """Mean squared errors (A,) of the values of actions (A, B) beside targets (A, B).

    Returns:
        the losses; the means (A,) of the values; and the losses' gradients by weights and biases.
    """
    agents, blocks = len(states), _blocks(states)
    losses, chosen = np.empty((2, agents, blocks), np.float32)
    by_weights = [np.empty((agents, blocks, *weight.shape[1:]), np.float32) for weight in weights]
    by_biases = [np.empty((agents, blocks, weight.shape[2]), np.float32) for weight in weights]
    sides = (losses, chosen, tuple(by_weights), tuple(by_biases))
    arrays = (states, actions, targets, tuple(weights), tuple(biases), *sides)
    spread(_squared_errors, agents * blocks, arrays)
    errors, values = summed_blocks([losses, chosen])
    shifts = [part[:, None] for part in summed_blocks(by_biases)]
    return errors, values, summed_blocks(by_weights), shifts


def _blocks(states: Float32) -> int:
    """How many blocks a batch is."""
    batch: int = states.shape[1]
    return -(-batch // _BLOCK)
