"""All fixed points and cycles of piecewise-linear recurrences, and where they come and go.

SCYFI (Eisenmann et al. 2023, arXiv:2310.17561) for the forms of `plrnn`, each of which is

    z' = A z + U relu(V z + c) + h            D = 1[V z + c > 0] in a region, where
    z' = (A + U D V) z + U D c + h = W_D z + h_D

A cycle of k points through regions D_1, ..., D_k begins at the solution of

    z_1 = W_k ... W_1 z_1 + sum_j W_k ... W_{j+1} h_{D_j}

and is one if its points lie in those regions (else it is virtual). Trying all regions takes 2^(m k)
solutions, m the number of ReLUs. SCYFI draws regions at random, solves, and where the points found
lie in other regions, goes on with those; after `inner` solutions it draws anew, `outer` times
(their algorithm 1). Of our draws each second one has the regions of a path from a random point, for
most choices of ReLUs are no region where there are more of them than units. What it finds are
cycles, to rounding; that it finds all has no proof, and more tries find no fewer.

A cycle is stable if all eigenvalues of W_k ... W_1 lie in the unit circle. As a parameter moves,
cycles appear and go where a point meets a border of its region, or change their stability where an
eigenvalue leaves the circle: `bifurcations` has the counts. `cycle` is differentiable: with the
regions given, points are a smooth function of the weights.

As a system of the survey this counts among the learners; it looks at trained networks and trains
none, so it stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.core.ranges import Count, NotNegative, Seed
from seqjax.layers.ode.plrnn import PLRNN
from seqjax.stacks.config import LayerConfig
from seqjax.theory.finding import Finding, Layers, each

SHALLOW = (LayerConfig("plrnn", {"width": 8}),)


class Piecewise(NamedTuple):
    """z' = A z + U relu(V z + c) + h."""

    A: Any  # [N], a diagonal
    U: Any  # [N, m]
    V: Any  # [m, N]
    c: Any  # [m]
    h: Any  # [N]

    def step(self, z: Any) -> Any:
        return self.A * z + self.U @ jnp.maximum(self.V @ z + self.c, 0) + self.h


class Cycle(NamedTuple):
    """points [k, N], from the lexicographically smallest; the regions [k, m] they lie in."""

    points: np.ndarray
    regions: np.ndarray
    eigenvalues: np.ndarray  # [N], of the Jacobian over one period, the largest first

    @property
    def stable(self) -> bool:
        return bool(abs(self.eigenvalues[0]) < 1)


def piecewise(layer: PLRNN) -> Piecewise:
    """The map of a PLRNN on no input. Raises ValueError where steps are clipped or forced."""
    if not isinstance(layer, PLRNN):
        raise ValueError(f"scyfi takes plrnn, in any of its forms; got {type(layer).__name__}")
    if layer.clip is not None or layer.forcing:
        raise ValueError("scyfi takes a plrnn with clip=None and without forcing")
    h, N = layer.h[...], layer.out_features
    clipped = layer.form.startswith("clipped")
    if layer.AW is None:
        assert layer.A is not None and layer.h_2 is not None
        A, U, V, c = layer.A[...], layer.W_1[...], layer.W_2[...], layer.h_2[...]
        if clipped:
            U, V = jnp.concatenate([U, -U], axis=1), jnp.concatenate([V, V])
            c = jnp.concatenate([c, 0 * c])
    else:
        A, AW = jnp.diag(layer.AW[...]), layer.AW[...]
        W, V = AW - jnp.diag(A), jnp.eye(N, dtype=AW.dtype)
        U, c = W, jnp.zeros(N, AW.dtype)
        if layer.theta is not None and layer.alpha is not None:
            alpha, theta = layer.alpha[...], layer.theta[...].T  # [bases], [bases, N]
            parts = [(a * W, V, t) for a, t in zip(alpha, theta, strict=True)]
            parts += [(-jnp.sum(alpha) * W, V, c)] if clipped else []
            Us, Vs, cs = zip(*parts, strict=True)
            U, V, c = jnp.concatenate(Us, axis=1), jnp.concatenate(Vs), jnp.concatenate(cs)
    if layer.centred:
        V = V - jnp.mean(V, axis=1, keepdims=True)
    return Piecewise(A, U, V, c, h)


def cycle(of: Piecewise, regions: Any) -> Array:
    """The points [k, N] that map into each other through regions [k, m]: a linear solution."""
    eye = jnp.eye(len(of.h), dtype=jnp.result_type(of.h))
    product, total, maps = eye, jnp.zeros_like(of.h), []
    for D in jnp.asarray(regions, eye.dtype):
        W, h = jnp.diag(of.A) + (of.U * D[None]) @ of.V, of.U @ (D * of.c) + of.h
        maps.append((W, h))
        product, total = W @ product, W @ total + h
    points = [jnp.linalg.solve(eye - product, total)]
    for W, h in maps[:-1]:
        points.append(W @ points[-1] + h)
    return jnp.stack(points)


def cycles(
    of: Piecewise, order: int, *, outer: int = 200, inner: int = 50, seed: int = 0
) -> list[Cycle]:
    """Cycles of up to `order` points, by period and first point. In float64, by numpy."""
    A, U, V, c, h = weights = Piecewise(*(np.asarray(v, np.float64) for v in of))
    draw, found = np.random.default_rng(seed), []
    for k in range(1, order + 1):
        for n in range(outer):
            D = draw.random((k, len(c))) < 0.5
            if n % 2:
                z, D = draw.normal(size=len(h)) * 10 ** draw.uniform(-1, 1.5), []
                for _ in range(k):
                    D.append(V @ z + c > 0)
                    z = A * z + U @ (D[-1] * (V @ z + c)) + h
                D = np.stack(D)
            for _ in range(inner):
                points = _solved(weights, D)
                if points is None:
                    break
                lies = points @ V.T + c > 0
                if (lies == D).all():
                    _add(found, points, D, weights)
                    break
                D = lies
    return sorted(found, key=lambda one: (len(one.points), *one.points[0]))


def _solved(of: Piecewise, D: np.ndarray) -> np.ndarray | None:
    """`cycle` in numpy; None where there is no one solution."""
    product, total, maps = np.eye(len(of.h)), np.zeros_like(of.h), []
    for on in D:
        W, h = np.diag(of.A) + (of.U * on) @ of.V, of.U @ (on * of.c) + of.h
        maps.append((W, h))
        product, total = W @ product, W @ total + h
    try:
        points = [np.linalg.solve(np.eye(len(of.h)) - product, total)]
    except np.linalg.LinAlgError:
        return None
    for W, h in maps[:-1]:
        points.append(W @ points[-1] + h)
    return np.stack(points)


def _add(found: list[Cycle], points: np.ndarray, D: np.ndarray, of: Piecewise) -> None:
    """A cycle that is not there yet, and no shorter one walked several times."""
    close = 1e-8 * max(1.0, float(np.abs(points).max()))
    if any(np.abs(points[0] - later).max() < close for later in points[1:]):
        return
    near = (one for one in found if len(one.points) == len(points))
    if any(np.abs(one.points - points[0]).max(axis=1).min() < close for one in near):
        return
    first = min(range(len(points)), key=lambda n: tuple(points[n]))
    points, D = np.roll(points, -first, axis=0), np.roll(D, -first, axis=0)
    product = np.eye(len(of.h))
    for on in D:
        product = (np.diag(of.A) + (of.U * on) @ of.V) @ product
    values = np.linalg.eigvals(product)
    found.append(Cycle(points, D, values[np.argsort(-np.abs(values))]))


def bifurcations(
    of: Callable[[float], Piecewise], values: Iterable[float], order: int, **options: Any
) -> list[tuple[float, list[Cycle]]]:
    """The cycles of of(s) for every s: between two of them, the counts say what came and went."""
    return [(float(s), cycles(of(s), order, **options)) for s in values]


def scyfi(
    layer: Layers = SHALLOW,
    *,
    features: Count = 2,
    order: Count = 3,
    gain: NotNegative = 8.0,
    points: Count = 61,
    outer: Count = 50,
    seed: Seed = 1,
) -> Finding:
    """Fixed points and cycles of PLRNNs, and how they come and go as their nonlinear part grows.

    Args:
        layer: plrnn, in several forms or sizes, each by itself
        features: of the layers, whose inputs are zero
        order: the longest cycle
        gain: U is multiplied by 1 to `gain`
        points: so many values of it
        outer: draws of regions for every period
        seed: of weights and draws
    """
    rows, curves = [], {}
    for label, one in each(layer, features, seed):
        own = piecewise(one)
        grown = bifurcations(
            lambda s, own=own: own._replace(U=s * own.U), np.linspace(1, gain, points), order,
            outer=outer, seed=seed,
        )  # fmt: skip
        for s, found in dict((grown[0], grown[-1])).items():
            for c in found:
                first = ", ".join(f"{v:.3f}" for v in c.points[0][:4])
                size, stable = f"{abs(c.eigenvalues[0]):.3f}", "yes" if c.stable else "no"
                rows.append((label, f"{s:g}", str(len(c.points)), first, size, stable))
        curves |= _branches(label, grown)
    columns = ("layer", "gain", "period", "first point", "|eigenvalue|", "stable")
    return Finding(
        "Fixed points and cycles", columns, rows, x="gain", y="first unit", curves=curves
    )


def _branches(label: str, grown: Sequence[tuple[float, list[Cycle]]]) -> dict[str, tuple[Any, Any]]:
    """By period and stability, the first unit of every point: a dash as wide as a step of gain."""
    half = (grown[-1][0] - grown[0][0]) / max(len(grown) - 1, 1) / 2
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for s, found in grown:
        for c in found:
            kind = "stable" if c.stable else "unstable"
            x, y = curves.setdefault(f"{label}: period {len(c.points)}, {kind}", ([], []))
            for point in c.points[:, 0]:
                x += [s - half, s + half, np.nan]
                y += [point, point, np.nan]
    return dict(sorted(curves.items()))
