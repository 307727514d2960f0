"""Chaotic and nonlinear series, as pure functions of where they start.

    mackey_glass   dx/dt = a x(t - tau) / (1 + x(t - tau)^n) - b x            Mackey & Glass 1977
    lorenz         x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z        Lorenz 1963
    rossler        x' = -y - z, y' = x + a y, z' = b + z (x - c)                    Rossler 1976
    henon          x' = 1 - a x^2 + y, y' = b x                                       Henon 1976
    logistic       x' = r x (1 - x)                                                     May 1976
    narma          y_{t+1} = a1 y_t + a2 y_t sum_{i<order} y_{t-i} + b u_{t-order+1} u_t + c
                                                                         Atiya & Parlos 2000
    superposed     sum_i sin(f_i t + phase_i), multiple superimposed oscillators

The first number of each is the one given. Differential equations take `substeps` steps of the
fourth order by Runge and Kutta between two numbers; the delayed term of `mackey_glass` is then
needed between two of its own, and is their mean. reservoirpy has other forms of two of them,
`form="reservoirpy"`: its step of Mackey-Glass holds the delayed term, does not scale it by h, and
is not the textbook's (k3 and k4 use twice the increments); its NARMA sums over y_{t-1} ..
y_{t-order} and multiplies u_t by u_{t-order}.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from seqjax.core.common import unknown

FORMS = ("textbook", "reservoirpy")


def checked(form: str) -> str:
    if form not in FORMS:
        raise ValueError(unknown("form", form, FORMS))
    return form


def iterated(step: Callable[[Array], Array], x: Array, steps: int) -> Array:
    """x, step(x), step(step(x)), ..: [steps, ...]."""
    return lax.scan(lambda x, _: (step(x), x), x, None, length=steps)[1]


def runge_kutta(slope: Callable[[Array], Array], h: float, substeps: int) -> Callable:
    """The step of h of dx/dt = slope(x)."""
    dt = h / substeps

    def once(_: int, x: Array) -> Array:
        k1 = slope(x)
        k2 = slope(x + dt / 2 * k1)
        k3 = slope(x + dt / 2 * k2)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + dt * k3))

    return lambda x: lax.fori_loop(0, substeps, once, x)


def mackey_glass(
    past: Array,
    steps: int,
    *,
    a: float = 0.2,
    b: float = 0.1,
    n: int = 10,
    h: float = 0.1,
    form: str = "textbook",
) -> Array:
    """x [steps] in steps of h, from the past x(-tau), x(h - tau), .., x(0): [tau / h + 1]."""

    def slope(x: Array, before: Array) -> Array:
        return a * before / (1 + before**n) - b * x

    def textbook(x: Array, first: Array, last: Array) -> Array:
        middle = (first + last) / 2
        k1 = slope(x, first)
        k2 = slope(x + h / 2 * k1, middle)
        k3 = slope(x + h / 2 * k2, middle)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, last))

    def released(x: Array, first: Array, last: Array) -> Array:
        del last
        k1 = -b * h * x + a * first / (1 + first**n)
        k2 = 2 * k1 - b * h * k1
        k3 = 2 * k1 - b * h * k2
        k4 = k1 - b * h * k3
        return x + (k1 + k2 + k3 + k4) / 6

    move = textbook if checked(form) == "textbook" else released

    def step(past: Array, _: None) -> tuple[Array, Array]:
        x = move(past[-1], past[0], past[1])
        return jnp.append(past[1:], x), past[-1]

    return lax.scan(step, past, None, length=steps)[1]


def lorenz(
    x: Array,
    steps: int,
    *,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    h: float = 0.02,
    substeps: int = 4,
) -> Array:
    """[steps, 3], h apart, from x [3]."""

    def slope(z: Array) -> Array:
        return jnp.stack(
            [sigma * (z[1] - z[0]), z[0] * (rho - z[2]) - z[1], z[0] * z[1] - beta * z[2]]
        )

    return iterated(runge_kutta(slope, h, substeps), x, steps)


def rossler(
    x: Array,
    steps: int,
    *,
    a: float = 0.2,
    b: float = 0.2,
    c: float = 5.7,
    h: float = 0.1,
    substeps: int = 4,
) -> Array:
    """[steps, 3], h apart, from x [3]."""

    def slope(z: Array) -> Array:
        return jnp.stack([-z[1] - z[2], z[0] + a * z[1], b + z[2] * (z[0] - c)])

    return iterated(runge_kutta(slope, h, substeps), x, steps)


def henon(x: Array, steps: int, *, a: float = 1.4, b: float = 0.3) -> Array:
    """[steps, 2] from x [2]."""
    return iterated(lambda z: jnp.stack([1 - a * z[0] ** 2 + z[1], b * z[0]]), x, steps)


def logistic(x: Array, steps: int, *, r: float = 3.9) -> Array:
    """[steps] from x []."""
    return iterated(lambda z: r * z * (1 - z), x, steps)


def narma(
    u: Array,
    past: Array | None = None,
    *,
    before: Array | None = None,
    order: int = 10,
    a1: float = 0.3,
    a2: float = 0.05,
    b: float = 1.5,
    c: float = 0.1,
    most: float = math.inf,
    form: str = "textbook",
) -> Array:
    """y [T] driven by u [T]; past [order + 1]: y_{-order} .. y_0, zeros if absent, as are the last
    `order` inputs `before` u. most: what y is held at; without it some u lead to infinity.
    """
    older = checked(form) == "reservoirpy"
    past = jnp.zeros(order + 1, u.dtype) if past is None else past
    before = jnp.zeros(order, u.dtype) if before is None else before
    delayed = jnp.concatenate([before, u])[0 if older else 1 :][: len(u)]

    def step(past: Array, us: tuple[Array, Array]) -> tuple[Array, Array]:
        now, then = us
        seen = past[:-1] if older else past[1:]
        y = a1 * past[-1] + a2 * past[-1] * jnp.sum(seen) + b * then * now + c
        return jnp.append(past[1:], jnp.minimum(y, most)), past[-1]

    return lax.scan(step, past, (u, delayed))[1]


def superposed(frequencies: Array, phases: Array, steps: int) -> Array:
    """[steps] of sum_i sin(f_i t + phase_i)."""
    t = jnp.arange(steps, dtype=phases.dtype)
    return jnp.sin(t[:, None] * frequencies[None] + phases[None]).sum(1)


KEYED = ("mackey_glass", "lorenz", "rossler", "henon", "logistic", "superposed")


def from_key(name: str, key: Array, steps: int, skip: int) -> Array:
    """A series [steps, D] of the attractor: started anywhere by the key, after `skip` steps."""

    def drawn(shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32)

    every = 10  # steps of 0.1 of Mackey-Glass to a unit of time
    match name:
        case "mackey_glass":  # a constant past of any level: noise would be averaged out
            past = jnp.full(171, 0.4 + 0.9 * drawn(()))
            found = mackey_glass(past, (skip + steps) * every)[::every, None]
        case "lorenz":
            found = lorenz(20 * drawn((3,)) - 10, skip + steps)
        case "rossler":
            found = rossler(4 * drawn((3,)) - 2, skip + steps)
        case "henon":
            found = henon(0.1 * drawn((2,)), skip + steps)
        case "logistic":
            found = logistic(0.1 + 0.8 * drawn(()), skip + steps)[:, None]
        case "superposed":
            both = jnp.asarray((0.2, 0.311), jnp.float32)
            found = superposed(both, 2 * math.pi * drawn((2,)), skip + steps)[:, None]
        case _:
            raise ValueError(unknown("series", name, KEYED))
    return found[skip:].astype(jnp.float32)
