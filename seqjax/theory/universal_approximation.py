"""A linear recurrence keeps its whole input, as well as a Vandermonde matrix is conditioned.

    h_T = sum_t lambda^{T - t} x_t = V^T x,  V[t, n] = lambda_n^{T - t}     arXiv:2307.11888, sec. 3

N different eigenvalues keep N inputs without loss: V is invertible, and what a network makes of h_T
may be any function of x_1 .. x_T. The decoder is linear, so a multilayer perceptron has it as two
layers: P V^T = I as P relu(h) - P relu(-h). In floating point the error of x is up to that of h
times the condition number of V,

    1            for the T-th roots of unity: V is a Fourier matrix, times sqrt(T)
    r^-(T - 1)   for r times these: the first input is kept r^(T - 1) times as large as the last
    grows exponentially with T for eigenvalues in an arc; on the real line fastest of all
                 (Gautschi & Inglese 1988)

which is why the phases of eigenvalues are to be spread, over half of the circle where inputs are
real, and their moduli to be near 1 (sec. 4). For layers the same is measured of d h_T / d x, the
matrix of what a state keeps, and of inputs that are read from the state by least squares, rounded
to float32 as a model has it. A layer that is not linear in its inputs is read near 0, where `scale`
is small.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.ranges import Count, Positive, Seed
from seqjax.nn.base import Layer
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import numbers, step_of

HELD = 0.01  # of the size of the inputs: an error below it is none
KEEPERS = (
    LayerConfig("lru", dict(state=32)),
    LayerConfig("lru", dict(state=32, r_min=0.9)),
    LayerConfig("lru", dict(state=32, r_min=0.99, max_phase=0.3)),
    LayerConfig("s4d", dict(state=64, mix=False)),
    LayerConfig("s4d", dict(state=64, mix=False, init="real")),
    LayerConfig("elman", dict(hidden=32)),
    LayerConfig("gru", dict(hidden=32)),
)


def vandermonde(lam: Array, steps: int) -> Array:
    """V [T, N] of lambda [N], the last step last."""
    factors = jnp.broadcast_to(lam, (steps, *lam.shape)).at[0].set(1)
    return jnp.cumprod(factors, axis=0)[::-1]


def arc(count: int, modulus: float | Array, share: float | Array) -> Array:
    """`count` eigenvalues in even steps on that share of a circle; of all of it, roots of unity."""
    angle = 2 * jnp.pi * share * jnp.arange(float(count)) / count
    return modulus * lax.complex(jnp.cos(angle), jnp.sin(angle))


def condition(kept: Array) -> Array:
    """The condition number of what is kept of real inputs, [T, N], real or complex.

    Infinite where there are more inputs than numbers, or one leaves nothing; where it is so large
    that rounding hides it, it is what rounding makes of it, about 1e16.
    """
    if jnp.iscomplexobj(kept):
        kept = jnp.concatenate([kept.real, kept.imag], axis=1)
    if kept.shape[1] < len(kept):
        return jnp.asarray(jnp.inf, kept.dtype)
    size = jnp.linalg.svd(kept, compute_uv=False)
    return jnp.where(size[-1] > 0, size[0] / size[-1], jnp.inf)


def after(layer: Layer, x: Array) -> Array:
    """The numbers [N] of the state after x [T, features], from the layer's first state."""
    step = step_of(layer)
    return numbers(lax.scan(lambda h, x: (step(h, x), None), layer.start(), x)[0])[0]


def kept_of(layer: Layer, steps: int) -> Array:
    """d h_T / d x [T, N], of the first feature, at x = 0."""
    x = jnp.zeros((steps, layer.features))
    return jax.jacfwd(lambda u: after(layer, x.at[:, 0].set(u)))(x[:, 0]).T


def read(layer: Layer, kept: Array, x: Array) -> Array:
    """Errors [T], relative to the size of the inputs, of reading the last 1, 2 .. T of x [T] from a
    state, with zeros before them, by least squares from its numbers as float32 has them."""
    T = len(x)
    zero = jnp.zeros((T, layer.features))
    first = after(layer, zero)

    def error(n: Array) -> Array:
        last = jnp.arange(T) >= T - n
        given = jnp.where(last, x, 0)
        h = after(layer, zero.at[:, 0].set(given)).astype(jnp.float32).astype(x.dtype) - first
        found = jnp.linalg.pinv(jnp.where(last, kept.T, 0)) @ h
        return jnp.linalg.norm(found - given) / jnp.linalg.norm(given)

    return lax.map(error, jnp.arange(1, T + 1))


def longest(errors: Any) -> int:
    """How many of the last inputs are read, before the first error that is one."""
    wrong = np.flatnonzero(~(np.asarray(errors) < HELD))
    return int(wrong[0]) if len(wrong) else len(errors)


def universal_approximation(
    layer: Layers = KEEPERS,
    *,
    length: Count = 16,
    steps: Count = 64,
    scale: Positive = 1e-3,
    seed: Seed = 0,
) -> Finding:
    """How many inputs a state keeps: condition numbers, and the longest sequence that is read from
    a state of float32. The curves are condition numbers by the arc that eigenvalues lie in.

    Args:
        layer: layers, each by itself, with their options
        length: of the inputs, and number of eigenvalues, of the curves
        steps: of the longest sequence that is tried
        scale: standard deviation of the inputs, which are normal
        seed: of weights and inputs
    """
    rows, curves = [], {}
    shown = sorted({min(n, steps) for n in (8, 16, 32)})
    with jax.enable_x64(True):
        x = scale * jax.random.normal(jax.random.key(seed), (steps,))
        for label, one in each(layer, 1, seed):
            kept = jax.jit(partial(kept_of, one, steps))()
            by = (f"{float(condition(kept[-n:])):.1e}" for n in shown)
            errors = jax.jit(partial(read, one))(kept, x)
            at = [f"{float(errors[n - 1]):.1e}" for n in shown]
            most = longest(errors)
            more = f"{most}" if most < steps else f"all {steps}"
            rows.append((label, str(kept.shape[1]), *by, *at, more))
        shares = jnp.linspace(1 / 16, 1, 31)
        for modulus in (1.0, 0.95, 0.8):
            by_share = jax.vmap(lambda s, r=modulus: condition(
                vandermonde(arc(length, r, s), length)))  # fmt: skip
            curves[f"in even steps, |lambda| = {modulus:g}"] = (shares, by_share(shares))
        drawn = [
            [
                condition(vandermonde(one.eigenvalues(), length))
                for k in range(5)
                for options in (dict(state=length, r_min=0.95, max_phase=float(share) * 2 * np.pi),)
                for _, one in each((LayerConfig("lru", options),), 1, seed + k)
            ]
            for share in shares
        ]
        curves["lru as it starts, r_min = 0.95"] = (shares, np.median(drawn, axis=1))
    columns = ("layer", "N", *(f"condition, {n}" for n in shown), *(f"error, {n}" for n in shown),
               "inputs read")  # fmt: skip
    title = f"what a state keeps; condition of {length} eigenvalues for {length} inputs"
    return Finding(title, columns, rows, "share of the circle that eigenvalues lie on",
                   "condition number", curves, scale=("linear", "log"))  # fmt: skip
