"""The surface that training walks on: its curvature, its shape, and how the walk itself is moved.

    H v = d/de grad L(w + e v)          forward over reverse, through the scans of a recurrence

    spectrum    the eigenvalues of H by Lanczos: the extreme ones first; their density by quadrature
                over random starts v, rho(s) = E sum_i (e_1' u_i)^2 N(s; theta_i, width^2) with the
                eigenpairs (theta_i, u_i) of the tridiagonal matrix           1901.10159
    plane       L(w + a d_1 + b d_2), each d random, its filters as long as those of w, and 0 for
                biases                                                        1712.09913
    walk        w_T after steps of gradient descent, differentiable in the rate, in the scale of the
                first weights, in whatever the loss depends on                1502.03492
    tangents    K(x, x') = (df(x)/dw) (df(x')/dw)^T, the neural tangent kernel: of f that moves by
                gradient flow on (f - y)^2 / 2, df/dt = -K (f - y)            1806.07572

All take a function of a pytree of weights; `problem` makes one of any layer of the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from seqjax.core.flow import Carry, Flow
from seqjax.core.ranges import Count, NotNegative, Positive, Seed
from seqjax.nn.base import Layer
from seqjax.nn.variables import from_real, to_real
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each

Loss = Callable[[Any], Array]
CLASSIC = tuple(map(LayerConfig, ("elman", "gru", "lstm", "lru")))


def hessian(loss: Loss, w: Any) -> Callable[[Array], Array]:
    """v -> H v of the numbers v [P] of the weights."""
    flat, back = ravel_pytree(w)

    def slope(flat: Array) -> Array:
        return jax.grad(lambda flat: loss(back(flat)))(flat)

    return lambda v: jax.jvp(slope, (flat,), (v,))[1]


class Tridiagonal(NamedTuple):
    """Q^T H Q: eigenvalues of H by those of a small matrix."""

    diagonal: Array  # [m]
    beside: Array  # [m - 1]

    def matrix(self) -> Array:
        return jnp.diag(self.diagonal) + jnp.diag(self.beside, 1) + jnp.diag(self.beside, -1)


def lanczos(product: Callable[[Array], Array], v: Array, steps: int) -> Tridiagonal:
    """Of a symmetric matrix that is known by its products, from v [P], in at most P steps.

    Every new vector is made orthogonal to all before, twice: without, eigenvalues come up again
    and again. Where the space of v ends before `steps`, the rest of the matrix is 0 beside it.
    """
    steps = min(steps, len(v))
    v = v / jnp.linalg.norm(v)

    def body(carry: tuple[Array, Array, Array], n: Array):
        Q, v, norm = carry
        Q = Q.at[n].set(v)
        u = product(v)
        a = u @ v
        for _ in range(2):
            u = u - (u @ Q.T) @ Q
        norm = jnp.maximum(norm, jnp.abs(a))
        b = jnp.linalg.norm(u)
        norm = jnp.maximum(norm, b)
        ended = b <= len(v) * jnp.finfo(v.dtype).eps * norm
        b = jnp.where(ended, 0, b)
        return (Q, jnp.where(ended, 0, u / jnp.where(ended, 1, b)), norm), (a, b)

    first = jnp.zeros((steps, len(v)), v.dtype), v, jnp.zeros((), v.dtype)
    _, (a, b) = lax.scan(body, first, jnp.arange(steps))
    return Tridiagonal(a, b[:-1])


def extremes(loss: Loss, w: Any, key: Array, *, steps: int = 40) -> Array:
    """[2], the least and the largest eigenvalue of the Hessian."""
    P = len(ravel_pytree(w)[0])
    found = lanczos(hessian(loss, w), jax.random.normal(key, (P,)), steps).matrix()
    return jnp.linalg.eigvalsh(found)[jnp.array([0, -1])]  # pyright: ignore


def density(
    loss: Loss,
    w: Any,
    at: Array,
    key: Array,
    *,
    width: Array | float,
    steps: int = 40,
    starts: int = 8,
) -> Array:
    """The share of the eigenvalues of the Hessian per unit near each of the places `at`, each
    eigenvalue a normal density of that width."""
    flat, _ = ravel_pytree(w)
    product = hessian(loss, w)

    def of_start(key: Array) -> Array:
        v = jax.random.rademacher(key, flat.shape, flat.dtype)
        theta, u = jnp.linalg.eigh(lanczos(product, v, steps).matrix())
        far = (at[:, None] - theta[None]) / width
        return jnp.exp(-(far**2) / 2) @ u[0] ** 2 / (width * (2 * jnp.pi) ** 0.5)

    return jnp.mean(lax.map(of_start, jax.random.split(key, starts)), axis=0)


def direction(w: Any, key: Array) -> Any:
    """Random, each filter, the weights into one unit, as long as that of w; 0 for vectors, which
    are biases and scales. Kernels are [inputs, outputs], other matrices [.., outputs, inputs]."""
    leaves, tree = jax.tree.flatten_with_path(w)

    def of_leaf(path: Any, v: Array, key: Array) -> Array:
        d = jax.random.normal(key, v.shape, v.dtype)
        if v.ndim < 2:
            return 0 * d
        axis = 0 if "kernel" in jax.tree_util.keystr(path) else -1
        length = jnp.linalg.norm(d, axis=axis, keepdims=True)
        return d / length * jnp.linalg.norm(v, axis=axis, keepdims=True)

    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([of_leaf(*leaf, key) for leaf, key in zip(leaves, keys, strict=True)])


def plane(loss: Loss, w: Any, one: Any, other: Any, at: Array) -> Array:
    """L(w + a one + b other) [n, n] for a and b in `at` [n]."""

    def moved(a: Array, b: Array) -> Array:
        return loss(jax.tree.map(lambda w, d, e: w + a * d + b * e, w, one, other))

    return lax.map(lambda a: lax.map(lambda b: moved(a, b), at), at)


def walk(loss: Loss, w: Any, rate: Array | float, steps: int, *, momentum: float = 0.9) -> Any:
    """The weights after so many steps of gradient descent, differentiable in all of it.

    Nothing is stored for each step but the weights: the way there is computed again.
    """

    @jax.checkpoint
    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        w, speed = carry
        speed = jax.tree.map(lambda m, g: momentum * m + g, speed, jax.grad(loss)(w))
        return (jax.tree.map(lambda w, m: w - rate * m, w, speed), speed), None

    still = jax.tree.map(jnp.zeros_like, w)
    return lax.scan(step, (w, still), length=steps)[0][0]


def tangents(f: Callable[[Any, Array], Array], w: Any, x: Array, other: Array) -> Array:
    """K [n, m] of f(w, x) -> a number, at x [n, ...] and `other` [m, ...], without any Jacobian of
    all: a pullback of each x, pushed forward along each of the others."""

    def row(x: Array) -> Array:
        slope = jax.grad(f)(w, x)
        return lax.map(lambda z: jax.jvp(lambda w: f(w, z), (w,), (slope,))[1], other)

    return lax.map(row, x)


class Problem(NamedTuple):
    """A layer and a linear readout that are to return, at the end, the first number they saw.

    gates [T]: before step t the state moves by so much of the way to that of the start: 1 is a
    reset, and what is smaller has a derivative.
    """

    weights: Any
    f: Callable[[Any, Array, Array], Array]  # weights, x [T, features], gates [T] -> a number
    x: Array  # [n, T, features]

    def loss(self, w: Any, gates: Array | None = None) -> Array:
        """Half of the mean square, of the numbers x[:, 0, 0]."""
        gates = jnp.zeros(self.x.shape[1], self.x.dtype) if gates is None else gates
        y = jax.vmap(lambda x: self.f(w, x, gates))(self.x)
        return jnp.mean((y - self.x[:, 0, 0]) ** 2) / 2


def problem(layer: Layer, key: Array, *, steps: int, examples: int) -> Problem:
    """Raises ValueError for a state that starts at infinity, to which there is no half way."""
    if not all(jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(layer.start())):
        raise ValueError(f"{type(layer).__name__} has a state that starts at infinity")
    graph, weights, rest = nnx.split(layer, nnx.Param, ...)
    keys = jax.random.split(key)
    x = jax.random.normal(keys[0], (examples, steps, layer.features))
    size = layer.out_features**-0.5
    read = {"kernel": size * jax.random.normal(keys[1], (layer.out_features, 1))}

    def f(w: Any, x: Array, gates: Array) -> Array:
        layer = nnx.merge(graph, w["layer"], rest)
        start = layer.start()

        def step(h: Any, given: tuple[Array, Array]) -> tuple[Any, Array]:
            x, gate = given
            pairs = to_real(h), to_real(start)
            mixed = jax.tree.map(lambda h, s: (1 - gate) * h + gate * s, *pairs)
            y, new = layer.example(x[None], Carry(from_real(h, mixed), start), Flow())
            return jax.tree.map(lambda old, v: v.astype(old.dtype), h, new), y[0]

        return (lax.scan(step, start, (x, gates))[1][-1] @ w["read"]["kernel"])[0]

    return Problem({"layer": weights, "read": read}, f, x)


class Walked(NamedTuple):
    """Where a walk ends, and what moves its end."""

    loss: Array
    weights: Any
    by: Any  # d log loss / d (log rate, log scale of the first weights, gates [T])


def walked(of: Problem, rate: float, updates: int) -> Walked:
    """Of the weights after training, and of the training itself."""

    def end(log_rate: Array, log_scale: Array, gates: Array) -> tuple[Array, Any]:
        first = jax.tree.map(lambda v: jnp.exp(log_scale) * v, of.weights)
        w = walk(lambda w: of.loss(w, gates), first, rate * jnp.exp(log_rate), updates)
        loss = of.loss(w, gates)
        return jnp.log(loss), (loss, w)

    zero = jnp.zeros((), of.x.dtype)
    at = zero, zero, jnp.zeros(of.x.shape[1], of.x.dtype)
    by, (loss, w) = jax.grad(end, (0, 1, 2), has_aux=True)(*at)
    return Walked(loss, w, by)


def landscapes(
    layer: Layers = CLASSIC,
    *,
    features: Count = 8,
    steps: Count = 10,
    examples: Count = 32,
    updates: Count = 200,
    rate: NotNegative = 0.02,
    products: Count = 30,
    width: Positive = 0.02,
    show: Literal["spectrum", "plane"] = "spectrum",
    seed: Seed = 0,
) -> Finding:
    """The curvature of the loss of a memory before and after training, its rise on the way to
    weights as far as they are long, what moves the loss that training ends at, and the tangent
    kernel it begins with.

    Args:
        layer: layers, each with a linear readout, that recall the first input at the end
        features: of the layers
        steps: of the sequences
        examples: sequences, all of them in every update
        updates: of gradient descent with momentum 0.9
        rate: of the updates
        products: with the Hessian, for a spectrum
        width: of each eigenvalue in the density that is drawn, a share of the largest one
        show: what is drawn: the density of eigenvalues, or the loss along a random direction, each
            filter as long as that of the weights, at several places along another one
        seed: of weights, inputs and directions
    """
    rows, curves = [], {}
    key, at, away = jax.random.key(seed), jnp.linspace(-0.5, 1.1, 161), jnp.linspace(-1, 1, 21)
    for label, one in each(layer, features, seed):
        of = problem(one, key, steps=steps, examples=examples)
        found = jax.jit(partial(walked, of, rate, updates))()

        @jax.jit
        def curvature(w: Any, of: Problem = of) -> tuple[Array, Array]:
            ends = extremes(of.loss, w, key, steps=products)
            size = jnp.max(jnp.abs(ends))
            near = density(of.loss, w, at * size, key, steps=products, width=width * size)
            return ends, near * size

        @jax.jit
        def kernel(w: Any, of: Problem = of) -> Array:
            gates = jnp.zeros(steps, of.x.dtype)
            return tangents(lambda w, x: of.f(w, x, gates), w, of.x, of.x)

        @jax.jit
        def around(w: Any, of: Problem = of) -> Array:
            one, other = (direction(w, key) for key in jax.random.split(key))
            return plane(of.loss, w, one, other, away)

        before, after = curvature(of.weights), curvature(found.weights)
        K = kernel(of.weights)
        rank = jnp.trace(K) ** 2 / jnp.sum(K**2)
        by_rate, by_scale, by_gates = found.by
        losses = (f"{float(loss):.3f}" for loss in (of.loss(of.weights), found.loss))
        ends = (f"{float(end):.2g}" for ends, _ in (before, after) for end in ends)
        seen = around(found.weights)
        rise = jnp.mean(seen[jnp.array([0, -1, 10, 10]), jnp.array([10, 10, 0, -1])])
        moved = (f"{float(v):+.2f}" for v in (by_rate, by_scale, by_gates[steps // 2]))
        rows.append((label, *losses, *ends, f"{float(rise):.2f}", *moved, f"{float(rank):.1f}"))
        if show == "spectrum":
            curves[label] = at, jnp.maximum(after[1], 1e-4)  # less is the tail of a normal density
        else:
            for n, name in ((5, "-1/2"), (10, "0"), (15, "1/2")):
                curves[f"{label}, {name} along the other"] = away, seen[:, n]
    columns = (
        "layer", "loss", "trained", "least", "largest", "trained least", "trained largest",
        "as far as w", "d log rate", "d log scale", "d gate", "rank of NTK",
    )  # fmt: skip
    title = f"recall of the first of {steps} steps, after {updates} updates"
    drawn = ("eigenvalue of the Hessian / largest", "density")
    if show == "plane":
        drawn = ("lengths of the filters along a random direction", "loss")
    return Finding(title, columns, rows, *drawn, curves, ("linear", "log"))
