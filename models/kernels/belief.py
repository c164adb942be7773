"""The loops of beliefs: a GRU over sequences, the loss of all pairs, an encoder without gradient.

*The GRU.* A step multiplies the hidden states of a handful of trials by the recurrent weights. As
one product a step for all trials, with a pass over memory for every elementwise operation, that is
far from what a core can do; here six trials go through all their steps on one core, each weight
that is loaded serves all six, and gates and products are one loop. On the way back gradients by
weights are summed every few steps, while what they are made of is still in the cache.

*The loss of all pairs* of a posterior and a step, with its gradients: a decoder's layers run over a
few hundred pairs at a time, whose activations stay in the cache from the first layer to the
gradients of the last.

*The encoder without gradient*: all its layers a step, for trials that are read or that are acted
just now. Nothing between the inputs and the beliefs goes through memory, and one call stands where
ten would cost more than their arithmetic.

*Products* are written in instructions on vectors (`_product_tile`, `_outer_tile`): a tile of the
result stays in registers from the first term of its sums to the last, twice as fast as the best
loop that a compiler was found to make of it.

Trials are independent, and sums over them are taken six at a time and in order, so no result
depends on how they are spread over threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from models.kernels.parts import FAST, LOOSE, Float32, spread

_LANES = 16 if get_host_cpu_features().get("avx512f") else 8
_PANEL = 2 * _LANES  # columns of a product at a time: with _ROWS rows their sums fill registers
_ROWS = 6  # trials that share a load of the weights
_STEPS = 32  # between two sums of gradients by weights: what they need stays in the cache
_PAIRS = 512  # decoded at once: their activations stay in the cache
_PADDED = _PAIRS + 16  # a row of them: at 512 apart all rows would want the same lines of a cache

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


def _product_tile(rows: int) -> Any:
    """A function of compiled loops: out (rows, _PANEL) += left (rows, K) @ right (K, _PANEL).

    It takes arrays with more rows and columns than that, and K. The sums stay in registers from the
    first k to the last; written as loops they would be loaded and stored for every one of them.
    """

    @intrinsic
    def multiply(typing: Any, out: Any, left: Any, right: Any, inner: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            tiles = _Tiles(context, builder, signature, values)
            lanes = range(0, _PANEL, _LANES)
            sums = [[tiles.variable(tiles.load(0, row, x)) for x in lanes] for row in range(rows)]
            with cgutils.for_range(builder, values[3]) as loop:
                weights = [tiles.load(2, loop.index, lane) for lane in lanes]
                for row in range(rows):
                    factor = tiles.spread(1, row, loop.index)
                    for total, weight in zip(sums[row], weights, strict=True):
                        tiles.add(total, factor, weight)
            for row in range(rows):
                for total, lane in zip(sums[row], lanes, strict=True):
                    tiles.store(builder.load(total), 0, row, lane)
            return context.get_dummy_value()

        return types.void(out, left, right, inner), generate

    return multiply


def _outer_tile(rows: int, columns: int) -> Any:
    """A function of compiled loops: out (rows, columns) += left (rows, N) @ right (columns, N)'.

    It takes arrays with more rows and columns than that, and N, a multiple of _LANES.
    """

    @intrinsic
    def multiply(typing: Any, out: Any, left: Any, right: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            tiles = _Tiles(context, builder, signature, values)
            places = [(row, column) for row in range(rows) for column in range(columns)]
            sums = [tiles.variable(ir.Constant(tiles.vector, None)) for _ in places]
            parts = builder.udiv(values[3], tiles.index(_LANES))
            with cgutils.for_range(builder, parts) as loop:
                start = builder.mul(loop.index, tiles.index(_LANES))
                lefts = [tiles.load(1, row, start) for row in range(rows)]
                rights = [tiles.load(2, column, start) for column in range(columns)]
                for (row, column), total in zip(places, sums, strict=True):
                    tiles.add(total, lefts[row], rights[column])
            for (row, column), total in zip(places, sums, strict=True):
                tiles.store_sum(builder.load(total), 0, row, column)
            return context.get_dummy_value()

        return types.void(out, left, right, count), generate

    return multiply


class _Tiles:
    """Vectors of _LANES numbers in and out of the arrays that a tile's function is called with."""

    vector = ir.VectorType(ir.FloatType(), _LANES)

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any) -> None:
        """The first three values are arrays (rows, columns) f4."""
        self._builder = builder
        self._arrays = []
        for kind, value in zip(signature.args[:3], values[:3], strict=True):
            array = context.make_array(kind)(context, builder, value)
            start = builder.bitcast(array.data, ir.FloatType().as_pointer())
            strides = cgutils.unpack_tuple(builder, array.strides, 2)  # type: ignore[no-untyped-call]
            self._arrays.append((start, [builder.sdiv(each, self.index(4)) for each in strides]))

    def index(self, number: Any) -> Any:
        """A whole number, known now or when the loop runs."""
        return ir.Constant(ir.IntType(64), number) if isinstance(number, int) else number

    def _at(self, array: int, row: Any, column: Any, kind: Any) -> Any:
        start, (by_row, by_column) = self._arrays[array]
        place = self._builder.add(
            self._builder.mul(self.index(row), by_row),
            self._builder.mul(self.index(column), by_column),
        )
        return self._builder.bitcast(self._builder.gep(start, [place]), kind.as_pointer())

    def load(self, array: int, row: Any, column: Any) -> Any:
        """A vector of a row, which is contiguous."""
        return self._builder.load(self._at(array, row, column, self.vector), align=4)

    def spread(self, array: int, row: Any, column: Any) -> Any:
        """A number, in every lane of a vector."""
        number = self._builder.load(self._at(array, row, column, ir.FloatType()), align=4)
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self._builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        return self._builder.shuffle_vector(first, nothing, zeros)

    def variable(self, value: Any) -> Any:
        """Somewhere to add to: a register, once the compiler has seen that nobody looks at it."""
        place = cgutils.alloca_once(self._builder, self.vector)  # type: ignore[no-untyped-call]
        self._builder.store(value, place)
        return place

    def add(self, total: Any, left: Any, right: Any) -> None:
        """total += left * right."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{_LANES}f32"
        module = self._builder.module
        fma = cgutils.get_or_insert_function(module, kind, name)  # type: ignore[no-untyped-call]
        added = self._builder.call(fma, [left, right, self._builder.load(total)])
        self._builder.store(added, total)

    def store(self, value: Any, array: int, row: Any, column: Any) -> None:
        """The reverse of `load`."""
        self._builder.store(value, self._at(array, row, column, self.vector), align=4)

    def store_sum(self, value: Any, array: int, row: Any, column: Any) -> None:
        """Add a vector's lanes, pairwise, to one number."""
        lanes = _LANES
        while lanes > 1:
            lanes //= 2
            order = [lane + lanes for lane in range(lanes)] + [0] * (_LANES - lanes)
            places = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), order)
            value = self._builder.fadd(value, self._builder.shuffle_vector(value, value, places))
        place = self._at(array, row, column, ir.FloatType())
        total = self._builder.extract_element(value, ir.Constant(ir.IntType(32), 0))
        self._builder.store(self._builder.fadd(self._builder.load(place), total), place)


_tile_6, _tile_4, _tile_2, _tile_1 = map(_product_tile, (_ROWS, 4, 2, 1))
_outer_4x2, _outer_1x4, _outer_1x1 = _outer_tile(4, 2), _outer_tile(1, 4), _outer_tile(1, 1)


@njit(inline="always")
def _add_product(out: Any, left: Any, panels: Any) -> None:
    """out (_ROWS, P _PANEL) += left (_ROWS, K) @ panels (P, K, _PANEL)."""
    for panel in range(len(panels)):
        right = panels[panel]
        _tile_6(out[:, panel * _PANEL :], left, right, len(right))


@njit(error_model="numpy")
def _add_any_product(out: Any, left: Any, right: Any, columns: Any) -> None:
    """out (M, columns) += left (M, K) @ right (K, columns), whole panels of columns.

    Rows of `out` and `right` are contiguous, and as long as all panels.
    """
    rows, inner = left.shape
    for column in range(0, columns, _PANEL):
        panel, row = right[:, column:], 0
        while row + _ROWS <= rows:
            _tile_6(out[row:, column:], left[row:], panel, inner)
            row += _ROWS
        if row + 4 <= rows:
            _tile_4(out[row:, column:], left[row:], panel, inner)
            row += 4
        if row + 2 <= rows:
            _tile_2(out[row:, column:], left[row:], panel, inner)
            row += 2
        if row < rows:
            _tile_1(out[row:, column:], left[row:], panel, inner)


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
    x_n, u, v_n = x[2 * width :], s[width:], s[2 * width :]  # x and s may be longer
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
    inputs: Any,
    weight_in: Any,
    bias_in: Any,
    weight: Any,
    bias: Any,
    states: Any,
    gates: Any,
    candidates: Any,
    products: Any,
) -> None:
    steps, width = inputs.shape[1], states.shape[2]
    keeps = len(gates) > 0
    given = np.zeros((_ROWS, inputs.shape[2]), np.float32)
    hidden = np.zeros((_ROWS, width), np.float32)
    projected = np.zeros((_ROWS, len(weight) * _PANEL), np.float32)
    summed = np.zeros((_ROWS, len(weight) * _PANEL), np.float32)
    candidate = np.empty(width, np.float32)
    for start in range(first, last, _ROWS):
        rows = min(_ROWS, last - start)
        hidden[:] = 0
        states[start : start + rows, 0] = 0
        for step in range(steps):
            for row in range(rows):
                _copy(inputs[start + row, step], given[row])
            for row in range(_ROWS):
                _copy(bias_in, projected[row, : 3 * width])
                _copy(bias, summed[row, : 3 * width])
            _add_product(projected, given, weight_in)
            _add_product(summed, hidden, weight)
            for row in range(rows):
                trial, s = start + row, summed[row]
                _cell(projected[row], s, hidden[row], candidate)
                _copy(hidden[row], states[trial, step + 1])
                if keeps:
                    _copy(s[: 2 * width], gates[trial, step])
                    _copy(candidate, candidates[trial, step])
                    _copy(s[2 * width : 3 * width], products[trial, step])


@njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)
def _backward(
    first: int,
    last: int,
    by_states: Any,
    inputs: Any,
    states: Any,
    gates: Any,
    candidates: Any,
    products: Any,
    weight_in: Any,
    weight: Any,
    by_inputs: Any,
    by_weight_in: Any,
    by_weight: Any,
    by_bias_in: Any,
    by_bias: Any,
) -> None:
    steps, width, size = candidates.shape[1], candidates.shape[2], inputs.shape[2]
    wide = by_weight.shape[2]  # 3 G, up to a whole panel
    carried = np.zeros((_ROWS, len(weight) * _PANEL), np.float32)
    embedded = np.zeros((_ROWS, len(weight_in) * _PANEL), np.float32)
    by_projected = np.zeros((_STEPS, _ROWS, wide), np.float32)
    by_summed = np.zeros((_STEPS, _ROWS, wide), np.float32)  # by V h + c
    given = np.zeros((_STEPS, _ROWS, size), np.float32)
    before = np.zeros((_STEPS, _ROWS, width), np.float32)
    by_state = np.empty(width, np.float32)
    for start in range(first, last, _ROWS):
        rows, group = min(_ROWS, last - start), start // _ROWS
        carried[:] = 0
        if rows < _ROWS:
            by_projected[:] = 0
            by_summed[:] = 0
        for lowest in range((steps - 1) // _STEPS * _STEPS, -1, -_STEPS):
            count = min(_STEPS, steps - lowest)
            for place in range(count - 1, -1, -1):
                step = lowest + place
                for row in range(rows):
                    trial = start + row
                    r, n, p = gates[trial, step], candidates[trial, step], products[trial, step]
                    h, above = before[place, row], by_states[trial, step + 1]
                    u, c = r[width:], carried[row, :width]
                    by_x, by_s = by_projected[place, row], by_summed[place, row]
                    by_n, by_u, by_p = by_x[2 * width :], by_s[width:], by_s[2 * width :]
                    _copy(inputs[trial, step], given[place, row])
                    _copy(states[trial, step], h)
                    for j in range(width):
                        by_state[j] = above[j] + c[j]
                    for j in range(width):
                        by_n[j] = by_state[j] * (_ONE - u[j]) * (_ONE - n[j] * n[j])
                    for j in range(width):
                        by_s[j] = by_n[j] * p[j] * r[j] * (_ONE - r[j])
                    for j in range(width):
                        by_u[j] = by_state[j] * (h[j] - n[j]) * u[j] * (_ONE - u[j])
                    for j in range(width):
                        by_p[j] = by_n[j] * r[j]
                    for j in range(width):
                        c[j] = by_state[j] * u[j]
                    _copy(by_s[: 2 * width], by_x[: 2 * width])
                embedded[:] = 0
                _add_product(carried, by_summed[place], weight)
                _add_product(embedded, by_projected[place], weight_in)
                for row in range(rows):
                    _copy(embedded[row, :size], by_inputs[start + row, step])
            samples = count * _ROWS
            for by_sum, seen, by_matrix, by_shift in (
                (by_projected, given, by_weight_in[group], by_bias_in[group]),
                (by_summed, before, by_weight[group], by_bias[group]),
            ):
                flat = by_sum[:count].reshape(samples, wide)
                left = seen[:count].reshape(samples, seen.shape[2]).T
                _add_any_product(by_matrix, left, flat, wide)
                for sample in range(samples):
                    line = flat[sample]
                    for j in range(wide):
                        by_shift[j] += line[j]


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
    widest = -(-widths.max() // _PANEL) * _PANEL
    inputs = np.zeros((_ROWS, widest), np.float32)
    embedded = np.zeros((_ROWS, widest), np.float32)
    before = np.zeros((_ROWS, width), np.float32)
    candidate = np.empty(width, np.float32)
    projected = np.zeros((_ROWS, len(weight) * _PANEL), np.float32)
    summed = np.zeros((_ROWS, len(weight) * _PANEL), np.float32)
    read = np.zeros((_ROWS, len(heads) * _PANEL), np.float32)
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
                panels = -(-outer // _PANEL)
                size = panels * inner * _PANEL
                matrix = embeddings[weights : weights + size].reshape(panels, inner, _PANEL)
                for row in range(_ROWS):
                    _copy(embedding_biases[biases : biases + outer], embedded[row, :outer])
                _add_product(embedded, inputs, matrix)
                for row in range(_ROWS):
                    line = embedded[row]
                    for j in range(outer):
                        line[j] = max(line[j], np.float32(0))
                inputs, embedded = embedded, inputs
                weights, biases = weights + size, biases + outer
            for row in range(_ROWS):
                _copy(bias_in, projected[row, : 3 * width])
                _copy(bias, summed[row, : 3 * width])
                _copy(heads_bias, read[row, : beliefs.shape[2]])
            _add_product(projected, inputs, weight_in)
            _add_product(summed, before, weight)
            for row in range(rows):
                _cell(projected[row], summed[row], before[row], candidate)
            _add_product(read, before, heads)
            for row in range(rows):
                _copy(read[row, : beliefs.shape[2]], beliefs[start + row, step + 1])
        for row in range(rows):
            _copy(before[row], hidden[start + row])


@njit(error_model="numpy")
def _affine(out: Any, weight: Any, bias: Any, inputs: Any, count: Any) -> None:
    """out (N, count) = weight (N, K) @ inputs (K, count) + bias (N,); whole panels of columns."""
    for row in range(len(bias)):
        line, start = out[row], bias[row]
        for j in range(count):
            line[j] = start
    _add_any_product(out, weight, inputs, count)


@njit(inline="always")
def _add_outer(out: Any, left: Any, right: Any, count: Any) -> None:
    """out (N, K) += left (N, count) @ right (K, count) transposed; whole panels of columns."""
    outer, inner = out.shape
    paired, quadrupled = inner - inner % 2, inner - inner % 4
    fours = outer - outer % 4
    for row in range(0, fours, 4):
        for column in range(0, paired, 2):
            _outer_4x2(out[row:, column:], left[row:], right[column:], count)
        for single in range(row, row + 4 * (inner - paired)):
            _outer_1x1(out[single:, paired:], left[single:], right[paired:], count)
    for row in range(fours, outer):
        for column in range(0, quadrupled, 4):
            _outer_1x4(out[row:, column:], left[row:], right[column:], count)
        for column in range(quadrupled, inner):
            _outer_1x1(out[row:, column:], left[row:], right[column:], count)


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
    # Columns beyond the last pair, up to a whole panel, are zero on the way back.
    hidden = np.zeros((widths.sum(), _PADDED), np.float32)  # of every layer, below each other
    above = np.zeros((widths.max(), _PADDED), np.float32)
    below = np.zeros((widths.max(), _PADDED), np.float32)
    part = min(steps, _PAIRS)
    group = max(1, _PAIRS // part)
    for trial in range(first, last):
        total = 0.0
        for start in range(0, steps, part):
            each = min(part, steps - start)  # columns of a posterior
            for leader in range(0, posteriors, group):
                members = min(group, posteriors - leader)
                count = members * each
                padded = -(-count // _PANEL) * _PANEL
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
                    _affine(results, matrix, biases[bias : bias + outer], inputs, padded)
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
                for output in range(outputs):
                    above[output, count:padded] = 0
                for layer in range(layers - 1, -1, -1):
                    inner, outer = widths[layer], widths[layer + 1]
                    row, weight, bias = row - inner, weight - outer * inner, bias - outer
                    inputs = hidden[row : row + inner]
                    by_weight = by_weights[trial, weight : weight + outer * inner]
                    _add_outer(by_weight.reshape(outer, inner), above, inputs, padded)
                    for unit in range(outer):
                        summed, line = np.float32(0), above[unit]
                        for j in range(count):
                            summed += line[j]
                        by_biases[trial, bias + unit] += summed
                    matrix = transposed[weight : weight + outer * inner].reshape(inner, outer)
                    _affine(below, matrix, no_bias, above, padded)
                    for unit in range(inner):
                        line, value = below[unit], inputs[unit]
                        for j in range(padded):
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


@njit(cache=True)
def to_panels(matrix: Any) -> Any:
    """A matrix (K, N) as products read it: (P, K, _PANEL), columns of zeros behind the last."""
    inner, outer = matrix.shape
    panels = np.zeros((-(-outer // _PANEL), inner, _PANEL), np.float32)
    for panel in range(len(panels)):
        for k in range(inner):
            for column in range(panel * _PANEL, min(outer, (panel + 1) * _PANEL)):
                panels[panel, k, column - panel * _PANEL] = matrix[k, column]
    return panels


def gru_forward(
    inputs: Float32,
    weight_in: Float32,
    weight: Float32,
    bias_in: Float32,
    bias: Float32,
    *,
    keep: bool,
) -> tuple[Float32, Float32, Float32, Float32]:
    """Hidden states of a GRU from zero, and what its gradient needs.

    Args:
        inputs: (B, T, E).
        weight_in: (3G, E) W, for gates r, u and candidate n in this order.
        weight: (3G, G) V.
        bias_in: (3G,) b.
        bias: (3G,) c.
        keep: whether a gradient will be asked for; else the last three results are empty.

    Returns:
        states (B, T + 1, G), zero first; gates r, u (B, T, 2G), candidates n (B, T, G) and
        V_n h + c_n (B, T, G).
    """
    trials, steps, width = inputs.shape[0], inputs.shape[1], weight.shape[1]
    kept = trials if keep else 0
    states = np.empty((trials, steps + 1, width), np.float32)
    gates = np.empty((kept, steps, 2 * width), np.float32)
    candidates = np.empty((kept, steps, width), np.float32)
    products = np.empty((kept, steps, width), np.float32)
    matrices = (to_panels(weight_in.T), bias_in, to_panels(weight.T), bias)
    arrays = (inputs, *matrices, states, gates, candidates, products)
    spread(_forward, trials, arrays, _ROWS)
    return states, gates, candidates, products


def gru_backward(
    by_states: Float32,
    inputs: Float32,
    states: Float32,
    gates: Float32,
    candidates: Float32,
    products: Float32,
    weight_in: Float32,
    weight: Float32,
) -> tuple[Float32, Float32, Float32, Float32, Float32]:
    """Gradients by inputs (B, T, E), W (3G, E), V (3G, G), b and c (3G,).

    by_states (B, T + 1, G) is the gradient by the states; the rest is what `gru_forward` was given
    and what it returned.
    """
    trials, _, width = candidates.shape
    groups, wide = -(-trials // _ROWS), -(-3 * width // _PANEL) * _PANEL
    by_inputs = np.empty_like(inputs)
    sums = [
        np.zeros((groups, *shape, wide), np.float32)
        for shape in ((inputs.shape[2],), (width,), (), ())
    ]
    arrays = (by_states, inputs, states, gates, candidates, products)
    matrices = (to_panels(weight_in), to_panels(weight))
    spread(_backward, trials, (*arrays, *matrices, by_inputs, *sums), _ROWS)
    by_weight_in, by_weight, by_bias_in, by_bias = (
        # a fused optimiser takes gradients to lie as their parameters do
        np.ascontiguousarray(part.sum(0)[..., : 3 * width].T)
        for part in sums
    )
    return by_inputs, by_weight_in, by_weight, by_bias_in, by_bias


def belief_steps(
    weights: Sequence[NDArray[Any]], features: Float32, hidden: Float32, keep: bool
) -> tuple[Float32, Float32]:
    """Beliefs of n trials after each of T more steps, from hidden states (n, G) on.

    They are (n, T + 1, 2L); the first one, before these steps, is the caller's to fill in.

    Args:
        weights: widths of the embedding's layers, all their matrices (in, out) and biases, each
            flat; W transposed (E, 3G) and b; V transposed (G, 3G) and c; the heads' (G, 2L), (2L,).
            Matrices are `to_panels`'.
        features: (n, T, F), the inputs side by side.
        hidden: replaced in place by those after the last step.
        keep: whether the hidden states before each step are wanted, the second result (n, T, G);
            else that is empty.
    """
    lead = features.shape[:2]
    beliefs = np.empty((lead[0], lead[1] + 1, len(weights[-1])), np.float32)
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
