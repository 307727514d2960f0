"""What a state keeps of the inputs before it, and how stable it is while it keeps it.

    C[y] = 1 - min_{w, b} <(y_t - w' h_t - b)^2> / <(y_t - <y>)^2>    the capacity for a target y_t

Of inputs u_t, independent and uniform on [-1, 1], and targets that are products of Legendre
polynomials of them,

    y_t = prod_k sqrt(2 d_k + 1) P_{d_k}(u_{t-k})         degree sum_k d_k       Dambre et al. 2012

the targets are orthogonal, each capacity lies between 0 and 1, and all of them add up to at most
the N numbers of the state, and to N where the past fades and the numbers are independent
functions of it. Degree 1 is the linear memory capacity of Jaeger (2002). A state of N numbers so
trades memory for nonlinearity. Chance gives N / T to each target of T steps; capacities
below `significance` times that count as 0.

    lambda_i = lim 1/T log |R_ii|,  J_t Q_{t-1} = Q_t R_t           the Lyapunov exponents

The largest is negative where the state forgets where it started (fading memory, the echo state
property), and positive in chaos; between is the edge, near which states remember longest
(arXiv:2307.14823). With lambda_1 + .. + lambda_j >= 0 for the last time at j the dimension of an
attractor is j + (lambda_1 + .. + lambda_j) / |lambda_{j+1}| (Kaplan & Yorke 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from seqjax.core.ranges import Count, NotNegative, Seed
from seqjax.nn.base import Layer
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import jacobians, numbers, step_of, stretches

RESERVOIRS = tuple(
    LayerConfig("esn", dict(hidden=60, spectral_radius=radius, input_scale=0.1))
    for radius in (0.5, 0.8, 0.9, 0.95, 0.99, 1.05, 1.3)
)


def legendre(x: Array, degree: int) -> Array:
    """sqrt(2 d + 1) P_d(x), of variance 1 for x uniform on [-1, 1]."""
    before, now = jnp.ones_like(x), x
    if degree == 0:
        return before
    for d in range(1, degree):
        before, now = now, ((2 * d + 1) * x * now - d * before) / (d + 1)
    return now * (2 * degree + 1) ** 0.5


def targets(u: Array, degree: int, longest: int) -> Array:
    """y [T - longest, K] of u [T]: every product of that degree of u_t .. u_{t-longest}."""
    T = len(u)

    def product(delays: Sequence[int]) -> Array:
        y = jnp.ones(T - longest, u.dtype)
        for k in sorted(set(delays)):
            y = y * legendre(u[longest - k : T - k], delays.count(k))
        return y

    every = combinations_with_replacement(range(longest + 1), degree)
    return jnp.stack([product(delays) for delays in every], axis=1)


def capacities(h: Array, y: Array) -> Array:
    """C [K] of states h [T, N] for targets y [T, K]."""
    h, y = (v - jnp.mean(v, axis=0, keepdims=True) for v in (h, y))
    # directions that hold nothing but rounding are not of the state
    U, size, _ = jnp.linalg.svd(h, full_matrices=False)
    held = size > size[0] * len(h) * jnp.finfo(h.dtype).eps
    return jnp.sum(jnp.where(held[:, None], U.T @ y, 0) ** 2, axis=0) / jnp.sum(y**2, axis=0)


def states(layer: Layer, u: Array, v: Array) -> Array:
    """The numbers [T, N] of the state after each step of the inputs u_t v, u [T], v [features]."""
    step = step_of(layer)

    def body(h: Any, u: Array) -> tuple[Any, Array]:
        h = step(h, u * v)
        return h, numbers(h)[0]

    return lax.scan(body, layer.start(), u)[1]


def lyapunov(step: Callable[[Array], Array], h: Array, steps: int, *, skip: int = 0) -> Array:
    """The exponents [N], largest first, of h_t = step(h_{t-1}), over `steps` after `skip`."""

    def body(h: Array, _: None) -> tuple[Array, Array]:
        return step(h), jax.jacfwd(step)(h)

    J = lax.scan(body, h, length=skip + steps)[1]
    return jnp.sort(jnp.mean(stretches(J)[skip:], axis=0))[::-1]  # Q, too, needs time to settle


def lyapunov_of(layer: Layer, x: Array, *, skip: int = 0) -> Array:
    """The exponents [N] of a layer on inputs x [T, features], after `skip` steps."""
    J, _ = jacobians(layer, x)
    return jnp.sort(jnp.mean(stretches(J)[skip:], axis=0))[::-1]


def dimension(exponents: Any) -> float:
    """Of Kaplan and Yorke: of the attractor that has these exponents, largest first."""
    total = 0.0
    for n, one in enumerate(map(float, exponents)):
        if total + one < 0:
            return n + total / -one
        total += one
    return float(len(exponents))


def memory_capacity(
    layer: Layers = RESERVOIRS,
    *,
    features: Count = 1,
    steps: Count = 6000,
    longest: Count = 100,
    degree: Count = 3,
    significance: NotNegative = 3.0,
    seed: Seed = 0,
) -> Finding:
    """Capacities by degree, and the largest Lyapunov exponent, of each of several layers.

    Args:
        layer: layers, each by itself, with their options
        features: of the layers, each of which is the input or minus it
        steps: of the inputs
        longest: delay of the targets of degree 1; of higher degrees d, that to the power of 1 / d
        degree: highest degree
        significance: capacities below so many times chance are 0
        seed: of weights and inputs
    """
    if steps < 10 * longest:
        raise ValueError(f"steps must be at least 10 times longest = {longest}, got {steps}")
    draw = np.random.default_rng(seed)
    u = jnp.asarray(draw.uniform(-1, 1, steps))
    v = jnp.asarray(draw.choice([-1.0, 1.0], features))
    rows, curves = [], {}
    for label, one in each(layer, features, seed):
        h = jax.jit(partial(states, one))(u, v)
        by_degree = []
        for d in range(1, degree + 1):
            reach = longest if d == 1 else int(longest ** (1 / d))
            found = capacities(h[longest:], targets(u, d, reach)[longest - reach :])
            found = jnp.where(found < significance * h.shape[1] / steps, 0, found)
            by_degree.append(float(jnp.sum(found)))
            if d == 1:
                curves[label] = (range(reach + 1), found)
        few = u[: min(steps, 300), None] * v[None]
        largest = jax.jit(partial(lyapunov_of, one, skip=len(few) // 3))(few)[0]
        capacity = [f"{total:.1f}" for total in (*by_degree, sum(by_degree))]
        rows.append((label, str(h.shape[1]), *capacity, f"{float(largest):.3f}"))
    columns = ("layer", "N", *(f"degree {d}" for d in range(1, degree + 1)), "sum", "Lyapunov")
    title = f"memory capacity, {steps} steps"
    return Finding(title, columns, rows, "delay k", "capacity for u_{t-k}", curves)
