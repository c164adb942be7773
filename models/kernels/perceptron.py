"""Multilayer perceptrons of many members, a block of a batch at a time through all their layers.

As whole-array calls a layer's product is followed by passes over memory for the bias, the rectifier
and, on the way back, its gate and the sum for the bias; here they run over a block that is still in
the cache, and each block is a job of its own, so that threads meet once and not in every operation.
Products are BLAS calls but for layers of a few outputs, which BLAS is slow at.

Blocks have a fixed size and their gradients are summed in order: no result depends on the number of
threads.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from threadpoolctl import ThreadpoolController

from models.kernels.parts import LOOSE, Float32, spread, summed_blocks

_BLOCK = 512  # rows: at a few hundred features a layer of them stays in the second-level cache
_NARROW = 8  # outputs up to which a layer is a loop

_ZERO, _ONE = np.float32(0), np.float32(1)
_EPSILON = np.float32(1e-5)  # in a normalisation's deviation, as torch has it


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _layer(inputs: Any, weight: Any, bias: Any, column: Any, outputs: Any, rectifies: Any) -> None:
    """outputs (N, out) = inputs (N, in) @ weight (in, out) + bias, rectified or not."""
    inner, outer = weight.shape
    if outer <= _NARROW:
        for unit in range(outer):
            for k in range(inner):
                column[k] = weight[k, unit]
            for row in range(len(inputs)):
                line, total = inputs[row], _ZERO
                for k in range(inner):
                    total += line[k] * column[k]
                outputs[row, unit] = total
    else:
        np.dot(inputs, weight, outputs)
    for row in range(len(outputs)):
        line = outputs[row]
        if rectifies:
            for unit in range(outer):
                line[unit] = max(line[unit] + bias[unit], _ZERO)
        else:
            for unit in range(outer):
                line[unit] += bias[unit]


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _normalise(lines: Any, norms: Any) -> None:
    """Lines (N, width) to mean 0 and deviation 1 each, in place.

    norms (N, 2) become 1 / deviation, and what a rectified 0 has become: the least of its line.
    """
    width = lines.shape[1]
    for row in range(len(lines)):
        line, total = lines[row], _ZERO
        for unit in range(width):
            total += line[unit]
        mean, total = total / np.float32(width), _ZERO
        for unit in range(width):
            total += (line[unit] - mean) * (line[unit] - mean)
        scale = _ONE / np.sqrt(total / np.float32(width) + _EPSILON)
        for unit in range(width):
            line[unit] = (line[unit] - mean) * scale
        norms[row, 0], norms[row, 1] = scale, (_ZERO - mean) * scale


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _by_normalised(line: Any, normalised: Any, scale: Any) -> None:
    """The gradient by a line that was normalised, in place of that by its result."""
    width = np.float32(len(line))
    total = along = _ZERO
    for unit in range(len(line)):
        total += line[unit]
        along += line[unit] * normalised[unit]
    total, along = total / width, along / width
    for unit in range(len(line)):
        line[unit] = scale * (line[unit] - total - along * normalised[unit])


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _by_inputs(upper: Any, weight: Any, column: Any, lower: Any) -> None:
    """lower (N, in) = upper (N, out) @ weight (in, out) transposed."""
    inner, outer = weight.shape
    if outer > _NARROW:
        np.dot(upper, weight.T, lower)
        return
    lower[:] = _ZERO
    for unit in range(outer):
        for k in range(inner):
            column[k] = weight[k, unit]
        for row in range(len(upper)):
            line, factor = lower[row], upper[row, unit]
            for k in range(inner):
                line[k] += factor * column[k]


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _by_parameters(below: Any, upper: Any, column: Any, by_weight: Any, by_bias: Any) -> None:
    """by_weight (in, out) = below (N, in) transposed @ upper (N, out), by_bias (out,) its sum."""
    inner, outer = by_weight.shape
    by_bias[:] = _ZERO
    for row in range(len(upper)):
        line = upper[row]
        for unit in range(outer):
            by_bias[unit] += line[unit]
    if outer > _NARROW:
        np.dot(below.T, upper, by_weight)
        return
    for unit in range(outer):
        column[:] = _ZERO
        for row in range(len(upper)):
            line, factor = below[row], upper[row, unit]
            for k in range(inner):
                column[k] += factor * line[k]
        for k in range(inner):
            by_weight[k, unit] = column[k]


@njit(fastmath=LOOSE, error_model="numpy", inline="always")
def _widest(weights: Any) -> int:
    widest = 0
    for weight in weights:
        widest = max(widest, weight.shape[1], weight.shape[2])
    return widest


@njit(fastmath=LOOSE, error_model="numpy", nogil=True, cache=True)
def _evaluate(
    first: int,
    last: int,
    inputs: Any,
    weights: Any,
    biases: Any,
    results: Any,
    norms: Any,
    keeps: Any,
    normalises: Any,
) -> None:
    groups, batch, _ = inputs.shape
    layers, widest = len(weights), _widest(weights)
    blocks = -(-batch // _BLOCK)
    scratch = np.empty((2, 0 if keeps else min(batch, _BLOCK) * widest), np.float32)
    column = np.empty(widest, np.float32)
    norm = np.empty((min(batch, _BLOCK), 2), np.float32)
    for job in range(first, last):
        member, start = job // blocks, job % blocks * _BLOCK
        stop = min(start + _BLOCK, batch)
        below = inputs[member % groups, start:stop]
        for layer in range(layers):
            weight, bias = weights[layer][member], biases[layer][member, 0]
            if keeps or layer == layers - 1:
                above = results[layer][member, start:stop]
            else:
                count = (stop - start) * weight.shape[1]
                above = scratch[layer % 2, :count].reshape(stop - start, weight.shape[1])
            _layer(below, weight, bias, column[: len(weight)], above, layer < layers - 1)
            if normalises and layer < layers - 1:
                _normalise(above, norms[layer, member, start:stop] if keeps else norm)
            below = above


@njit(fastmath=LOOSE, error_model="numpy", nogil=True, cache=True)
def _differentiate(
    first: int,
    last: int,
    inputs: Any,
    weights: Any,
    results: Any,
    norms: Any,
    gradient: Any,
    by_inputs: Any,
    by_weights: Any,
    by_biases: Any,
    trains: Any,
    normalises: Any,
) -> None:
    groups, batch, _ = inputs.shape
    layers, widest = len(weights), _widest(weights)
    blocks = -(-batch // _BLOCK)
    scratch = np.empty((2, min(batch, _BLOCK) * widest), np.float32)
    column = np.empty(widest, np.float32)
    places = np.empty(min(batch, _BLOCK), np.int64)
    for job in range(first, last):
        member, block = job // blocks, job % blocks
        start, stop = block * _BLOCK, min(block * _BLOCK + _BLOCK, batch)
        above = gradient[member, start:stop]
        outputs, count = above.shape[1], 0
        upper = scratch[0, : above.size].reshape(above.shape)
        for row in range(stop - start):  # without training, rows of zeros are left out
            some = trains
            for unit in range(outputs):
                some |= above[row, unit] != 0
            if some:
                places[count] = row
                for unit in range(outputs):
                    upper[count, unit] = above[row, unit]
                count += 1
        upper = scratch[0, : count * outputs].reshape(count, outputs)
        for layer in range(layers - 1, -1, -1):
            weight = weights[layer][member]
            inner = len(weight)
            below = inputs[member % groups, start:stop]
            if layer > 0:
                below = results[layer - 1][member, start:stop]
            if trains:
                by_weight = by_weights[layer][member, block]
                by_bias = by_biases[layer][member, block]
                _by_parameters(below, upper, column[:inner], by_weight, by_bias)
            if layer > 0 or by_inputs.size > 0:
                lower = scratch[(layers - layer) % 2, : count * inner].reshape(count, inner)
                _by_inputs(upper, weight, column[:inner], lower)
                upper = lower
            if layer > 0:
                for row in range(count):
                    line, values, least = upper[row], below[places[row]], _ZERO
                    if normalises:
                        norm = norms[layer - 1, member, start + places[row]]
                        least = norm[1]
                        _by_normalised(line, values, norm[0])
                    for k in range(inner):
                        line[k] = _ZERO if values[k] <= least else line[k]
        if by_inputs.size > 0:
            target = by_inputs[member, start:stop]
            target[:] = _ZERO
            for row in range(count):
                target[places[row]] = upper[row]


def evaluate(
    inputs: Float32,
    weights: Sequence[Float32],
    biases: Sequence[Float32],
    keep: bool,
    normalise: bool,
) -> tuple[list[Float32], Float32]:
    """Outputs of every layer, rectified (and normalised) but for the last one's.

    Args:
        inputs: (groups, B, in), contiguous; member i reads inputs[i % groups].
        weights: (members, in, out) of each layer, contiguous.
        biases: (members, 1, out) of each layer.
        keep: whether hidden layers are wanted, for a gradient; else their arrays are empty.
        normalise: whether hidden layers are normalised over their features.

    Returns:
        (members, B, out) of each layer; and of the normalisations, (hidden layers, members, B, 2),
        1 / deviation and what a zero has become.
    """
    _one_thread_a_product()
    members, batch = len(weights[0]), inputs.shape[1]
    results = [np.empty((members if keep else 0, batch, w.shape[2]), np.float32) for w in weights]
    results[-1] = np.empty((members, batch, weights[-1].shape[2]), np.float32)
    kept = (len(weights) - 1, members, batch, 2) if keep and normalise else (0, 0, 0, 0)
    norms = np.empty(kept, np.float32)
    arrays = (inputs, tuple(weights), tuple(biases), tuple(results), norms, keep, normalise)
    spread(_evaluate, members * -(-batch // _BLOCK), arrays)
    return results, norms


def differentiate(
    inputs: Float32,
    weights: Sequence[Float32],
    results: Sequence[Float32],
    norms: Float32,
    gradient: Float32,
    wants_inputs: bool,
    wants_parameters: bool,
) -> tuple[Float32 | None, list[Float32], list[Float32]]:
    """Gradients by inputs (members, B, in), weights and biases, where they are wanted.

    gradient (members, B, out) is that by the outputs; the rest is what `evaluate` was given and
    what it returned, hidden layers kept. Hidden layers were normalised if there are `norms`.
    """
    members, batch = gradient.shape[:2]
    blocks = -(-batch // _BLOCK)
    sides = blocks if wants_parameters else 0
    by_inputs = np.empty((members if wants_inputs else 0, batch, inputs.shape[2]), np.float32)
    by_weights = [np.empty((members, sides, *weight.shape[1:]), np.float32) for weight in weights]
    by_biases = [np.empty((members, sides, weight.shape[2]), np.float32) for weight in weights]
    arrays = (
        inputs,
        tuple(weights),
        tuple(results),
        norms,
        gradient,
        by_inputs,
        tuple(by_weights),
        tuple(by_biases),
        wants_parameters,
        norms.size > 0,
    )
    spread(_differentiate, members * blocks, arrays)
    wanted = by_inputs if wants_inputs else None
    if not wants_parameters:
        return wanted, [], []
    return wanted, summed_blocks(by_weights), [array[:, None] for array in summed_blocks(by_biases)]


@cache
def _one_thread_a_product() -> None:
    """Keep OpenBLAS, which numba calls through SciPy, from dividing a block's product again."""
    importlib.import_module("scipy.linalg.cython_blas")  # else it may not be loaded yet
    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == "openblas":
            library.set_num_threads(1)
