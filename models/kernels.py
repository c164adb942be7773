r"""The loops of a GRU over sequences, compiled: a few trials at a time, their states in the cache.

A step multiplies the hidden states of a handful of trials by the recurrent weights. As one product
a step for all trials, with a pass over memory for every elementwise operation, that is far from
what a core can do; here four trials go through all their steps on one core, each weight that is
loaded serves all four, and gates and product are one loop. Trials are independent, so the result
does not depend on how they are spread over threads.

Compiled at first use and kept on disk beside this file, or in the user's cache.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_ROWS = 4  # trials that share a load of the weights
_FAST = {"contract", "nsz"}  # fused multiply-adds; sums keep their order

_HALF, _ONE = np.float32(0.5), np.float32(1.0)


@njit(fastmath=_FAST, error_model="numpy", inline="always")
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


@njit(fastmath=_FAST, error_model="numpy", inline="always")
def _add_product(out: Any, left: Any, right: Any) -> None:
    """out (4, N) += left (4, K) @ right (K, N), four rows of `right` at a time."""
    inner, outer = right.shape
    even = inner - inner % 4
    out0, out1, out2, out3 = out[0], out[1], out[2], out[3]
    for k in range(0, even, 4):
        row0, row1, row2, row3 = right[k], right[k + 1], right[k + 2], right[k + 3]
        a0, a1, a2, a3 = left[0, k], left[0, k + 1], left[0, k + 2], left[0, k + 3]
        b0, b1, b2, b3 = left[1, k], left[1, k + 1], left[1, k + 2], left[1, k + 3]
        c0, c1, c2, c3 = left[2, k], left[2, k + 1], left[2, k + 2], left[2, k + 3]
        d0, d1, d2, d3 = left[3, k], left[3, k + 1], left[3, k + 2], left[3, k + 3]
        for j in range(outer):
            w0, w1, w2, w3 = row0[j], row1[j], row2[j], row3[j]
            out0[j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            out1[j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
            out2[j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
            out3[j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3
    for k in range(even, inner):
        for row in range(4):
            for j in range(outer):
                out[row, j] += left[row, k] * right[k, j]


@njit(inline="always")
def _copy(source: Any, target: Any) -> None:
    """Element by element, which is quicker than assigning a slice of a few hundred."""
    for j in range(len(target)):
        target[j] = source[j]


# Loops below touch few arrays each: a compiler vectorises what it can check for overlaps.


@njit(fastmath=_FAST, error_model="numpy", nogil=True, cache=True)
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
            _add_product(summed, hidden, weight)
            for row in range(rows):
                trial = start + row
                x, s, h = projected[trial, step], summed[row], hidden[row]
                x_n, u, v_n = x[2 * width :], s[width:], s[2 * width :]
                for j in range(2 * width):
                    s[j] = _HALF + _HALF * _tanh(_HALF * (x[j] + s[j]))
                for j in range(width):
                    candidate[j] = _tanh(x_n[j] + s[j] * v_n[j])
                for j in range(width):
                    h[j] = candidate[j] + u[j] * (h[j] - candidate[j])
                _copy(h, states[trial, step + 1])
                if keeps:
                    _copy(s[: 2 * width], gates[trial, step])
                    _copy(candidate, candidates[trial, step])
                    _copy(v_n, products[trial, step])


@njit(fastmath=_FAST, error_model="numpy", nogil=True, cache=True)
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
            _add_product(carried, summed, weight)


def gru_forward(
    projected: Float32, weight: Float32, bias: Float32, keep: bool, threads: int
) -> tuple[Float32, Float32, Float32, Float32]:
    """Hidden states of a GRU from zero, and what its gradient needs.

    Args:
        projected: (B, T, 3G) W x + b of every step, gates r, u and candidate n in this order.
        weight: (G, 3G) V transposed, contiguous.
        bias: (3G,) c.
        keep: whether a gradient will be asked for; else the last three results are empty.
        threads: how many to use.

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
    _spread(_forward, trials, threads, arrays)
    return states, gates, candidates, products


def gru_backward(
    by_states: Float32,
    states: Float32,
    gates: Float32,
    candidates: Float32,
    products: Float32,
    weight: Float32,
    threads: int,
) -> tuple[Float32, Float32]:
    """Gradients by W x + b, (B, T, 3G), and by V_n h + c_n, (B, T, G).

    by_states (B, T + 1, G) is the gradient by the states, `weight` (3G, G) is V; the rest is what
    `gru_forward` returned. The gradients by V_r h + c_r and V_u h + c_u are those by W x + b.
    """
    trials, steps, width = candidates.shape
    by_projected = np.empty((trials, steps, 3 * width), np.float32)
    by_products = np.empty((trials, steps, width), np.float32)
    arrays = (by_states, states, gates, candidates, products, weight, by_projected, by_products)
    _spread(_backward, trials, threads, arrays)
    return by_projected, by_products


def _spread(kernel: Any, trials: int, threads: int, arrays: tuple[Float32, ...]) -> None:
    """Run a kernel over all trials, in as many parts of whole blocks as there are threads."""
    blocks = -(-trials // _ROWS)
    parts = max(1, min(threads, blocks))
    edges = [min(trials, blocks * part // parts * _ROWS) for part in range(parts + 1)]
    if parts == 1:
        kernel(0, trials, *arrays)
        return
    spans = list(pairwise(edges))
    others = [_pool().submit(kernel, first, last, *arrays) for first, last in spans[1:]]
    kernel(*spans[0], *arrays)
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that live as long as the process; the kernels let go of Python's lock."""
    return ThreadPoolExecutor(thread_name_prefix="gru")
