"""The curse of memory: the longer a state remembers, the more a parameter moves it.

    h_t = lambda h_{t-1} + gamma x_t,   E[x_s x_t] = rho^|s - t|           arXiv:2405.21064, sec. 2

No gradient vanishes or explodes where |lambda| <= 1, and still, of a state after many steps,

    E|h|^2            = m / (1 - s)
    E|dh / dlambda|^2 = (1 + s) m / (1 - s)^3 + 2 Re(z / (1 - z)^2) / (1 - s)^2
    s = |lambda|^2,   z = rho lambda,   m = 1 + 2 Re(z / (1 - z)),   gamma = 1

grow without bound as |lambda| goes to 1. The second is also the curvature, by lambda, of the loss
E|h - h*|^2 / 2 where h* is the state at the same lambda: sharp exactly where memory is long. The
state, and how far parameters of modulus and phase move it, in powers of 1 - |lambda|:

    lambda = r exp(i theta), gamma = 1                      -1    -3    -3
      normalised: gamma = sqrt(1 - r^2)                      0    -2    -2
      exponential: r = exp(-exp(nu))                        -1    -1    -3
      both, which the paper finds in LRU and its kin         0     0    -2
      zero-order hold: gamma = 1 - r, exponential           +1    +1    -1        S4D

where 1 - |lambda| is much less than 1 - rho. The modulus is cured by both; the phase is not, unless
what is learned is a phase per unit of time and the time step is what becomes small (S4D). All of
these are derivatives of one covariance, E[h(p) conj h(q)], by p and q.

Layers of `MODES` are taken with a single eigenvalue, whose distance to 1 is set, and asked for the
same numbers: of their outputs y, from the response to an impulse, whose quadratic form with
rho^|s - t| is E y^2, without samples. There gamma and lambda are parameters apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.common import unknown
from seqjax.core.ranges import Fraction, Seed
from seqjax.nn.base import Layer
from seqjax.ops.linear_scan import linear_scan
from seqjax.stacks.config import LayerConfig, show_pattern
from seqjax.theory.finding import Finding, Layers, each

GAPS = tuple(np.geomspace(1e-1, 1e-3, 5))  # 1 - |lambda|
LONG = 25_000  # steps: 1e-3 of them times 25 is e^-25
CURED = (
    LayerConfig("lru", dict(exp_param=False, gamma_norm=False)),
    LayerConfig("lru", dict(exp_param=False)),
    LayerConfig("lru", dict(gamma_norm=False)),
    LayerConfig("lru", {}),
    LayerConfig("s4d", {}),
)


def second_moment(lam: Array, rho: float | Array = 0.0) -> Array:
    """E|h|^2, gamma = 1."""
    z = rho * lam
    return (1 + 2 * (z / (1 - z)).real) / (1 - jnp.abs(lam) ** 2)


def sensitivity(lam: Array, rho: float | Array = 0.0) -> Array:
    """E|dh / dlambda|^2, gamma = 1."""
    z, s = rho * lam, jnp.abs(lam) ** 2
    first = (1 + s) / (1 - s) ** 3 * (1 + 2 * (z / (1 - z)).real)
    return first + 2 * (z / (1 - z) ** 2).real / (1 - s) ** 2


class Parametrised(NamedTuple):
    """(modulus p[0], phase p[1]) -> lambda, and gamma; `at` is the way back of a modulus."""

    modulus: Callable[[Array], Array]
    gain: Callable[[Array], Array]  # of the modulus
    at: Callable[[Any], Any]


def _plain(r: Any) -> Any:
    return r


def _one(r: Array) -> Array:
    return jnp.ones_like(r)


def _unit(r: Array) -> Array:
    return jnp.sqrt(1 - r**2)


def _exponential(nu: Array) -> Array:
    return jnp.exp(-jnp.exp(nu))


def _nu(r: Any) -> Array:
    return jnp.log(-jnp.log(r))


PARAMETRISED: dict[str, Parametrised] = {
    "lambda": Parametrised(_plain, _one, _plain),
    "normalised": Parametrised(_plain, _unit, _plain),
    "exponential": Parametrised(_exponential, _one, _nu),
    "normalised, exponential": Parametrised(_exponential, _unit, _nu),
    "zero-order hold, exponential": Parametrised(_exponential, lambda r: 1 - r, _nu),
}


def covariance(one: Parametrised, p: Array, q: Array, rho: float | Array) -> Array:
    """Re E[h(p) conj h(q)] of p, q [2], the parameters of modulus and phase."""
    (r, a), (s, c) = ((one.modulus(v[0]), v[1]) for v in (p, q))
    gains = one.gain(r) * one.gain(s)
    r, s = lax.complex(r * jnp.cos(a), r * jnp.sin(a)), lax.complex(s * jnp.cos(c), -s * jnp.sin(c))
    return gains * ((1 / (1 - rho * r) + 1 / (1 - rho * s) - 1) / (1 - r * s)).real


def moved(
    one: Parametrised, gap: float | Array, phase: float = 0.0, rho: float | Array = 0.0
) -> Array:
    """[3]: E|h|^2, and E|dh / dp|^2 by both parameters, at |lambda| = 1 - gap."""
    p = jnp.array([one.at(1 - gap), phase])
    both = partial(covariance, one, rho=rho)
    mixed = jax.jacfwd(jax.grad(both, 0), 1)(p, p)
    return jnp.stack([both(p, p), mixed[0, 0], mixed[1, 1]])


class Mode(NamedTuple):
    """A layer with one eigenvalue: its options at a modulus r, its parameters by which it moves."""

    options: Callable[[float], Mapping[str, Any]]
    modulus: tuple[str, ...]  # the first of these names that the layer has
    phase: tuple[str, ...]


MODES: dict[str, Mode] = {
    "lru": Mode(
        lambda r: dict(state=1, r_min=r, r_max=r, max_phase=0.0),
        ("nu_log", "nu"),
        ("theta_log", "theta"),
    ),
    "s4d": Mode(
        lambda r: dict(state=2, init="real", dt_min=-np.log(r), dt_max=-np.log(r), mix=False),
        ("log_A_re",),
        ("A_im",),
    ),
}


def variance(k: Array, rho: float | Array) -> Array:
    """E|sum_n k_n x_{t-n}|^2 of k [T]: sum_n k_n (2 w_n - k_n), w_n = rho w_{n-1} + k_n."""
    w, _ = linear_scan(jnp.full(1, rho, k.dtype), k[:, None])
    return jnp.sum(k * (2 * w[:, 0] - k))


def impulse(steps: int) -> Array:
    return jnp.zeros((1, steps, 1)).at[0, 0].set(1)


def response(layer: Layer, name: str, value: Array, x: Array) -> Array:
    """y [T] of x [1, T, 1], of a layer of one feature, its parameter `name` being `value`."""
    graph, weights = nnx.split(layer)
    weights: Any
    weights[name] = weights[name].replace(value)
    layer = nnx.merge(graph, weights)
    return layer(x)[0][0, :, 0]


def moved_of(layer: Layer, name: str, x: Array, rho: float) -> tuple[Array, Array]:
    """E y^2, and E(dy / dp)^2 by the parameter of that name, x being the impulse."""
    value = getattr(layer, name)[...]
    k, dk = jax.jvp(lambda v: response(layer, name, v, x), (value,), (jnp.ones_like(value),))
    return variance(k, rho), variance(dk, rho)


def single(config: LayerConfig, gap: float, seed: int) -> tuple[Layer, tuple[str, str]]:
    """The layer with one eigenvalue at 1 - gap, without what passes it by, and its parameters."""
    if config.name not in MODES:
        raise ValueError(unknown("layer of one eigenvalue", config.name, MODES))
    mode = MODES[config.name]
    options = dict(config.options) | dict(mode.options(float(1 - gap)))
    ((_, layer),) = each([LayerConfig(config.name, options)], 1, seed)
    layer.D[...] = jnp.zeros_like(layer.D[...])
    first = (next(n for n in names if hasattr(layer, n)) for names in (mode.modulus, mode.phase))
    modulus, phase = first
    return layer, (modulus, phase)


def slope(gaps: Any, values: Any) -> float:
    """Of log values against log gaps, least squares."""
    return float(np.polyfit(np.log(np.asarray(gaps)), np.log(np.asarray(values)), 1)[0])


def curse_of_memory(
    layer: Layers = CURED,
    *,
    correlation: Fraction = 0.0,
    seed: Seed = 0,
) -> Finding:
    """How far a parameter moves a state, as |lambda| goes to 1, in powers of 1 - |lambda|: in
    closed form, and of layers with one eigenvalue.

    Args:
        layer: layers that are known with one eigenvalue (lru, s4d), with their options
        correlation: rho of the inputs, of one step and the next; 0 is white noise
        seed: of weights
    """
    rows, curves = [], {}
    with jax.enable_x64(True):
        found = {}
        for name, one in PARAMETRISED.items():
            found[name] = np.stack([moved(one, gap, 0.0, correlation) for gap in GAPS])
        for config in layer:
            every = [single(config, gap, seed) for gap in GAPS]
            graph = nnx.split(every[0][0])[0]  # all are one program

            @partial(jax.jit, static_argnums=1)
            def by(weights: Any, name: str, x: Array, graph: Any = graph) -> tuple[Array, Array]:
                return moved_of(nnx.merge(graph, weights), name, x, correlation)

            at = []
            for one, names in every:
                (size, modulus), (_, phase) = (by(nnx.state(one), n, impulse(LONG)) for n in names)
                at.append([size, modulus, phase])
            found[" ".join(show_pattern((config,)))] = np.asarray(at, float)
    for label, values in found.items():
        powers = (f"{slope(GAPS, column):+.2f}" for column in values.T)
        rows.append((label, *powers, f"{values[-1, 1] / values[-1, 0]:.2g}"))
        curves[label] = (GAPS, values[:, 1])
    columns = (
        "lambda and gamma",
        "E|h|^2",
        "modulus",
        "phase",
        f"at {GAPS[-1]:g}: modulus / E|h|^2",
    )
    title = f"powers of 1 - |lambda|, inputs of correlation {correlation:g}"
    return Finding(title, columns, rows, "1 - |lambda|", "E|dh / dp|^2 by the modulus", curves,
                   scale=("log", "log"))  # fmt: skip
