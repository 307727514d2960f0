"""Which steps compose: an associative element for two of them, or a counterexample.

    act(q, act(p, h)) == act(p . q, h),   (p . q) . r == p . (q . r)

A step h -> f(h, x) always composes as a function. It can be scanned in parallel where two steps are
again one of as many numbers. Of any step there are four measures here:

    curvature   |d^2 f / dh^2|, the largest along lines between states that occur
    bend        |f((g + h) / 2) - (f(g) + f(h)) / 2|: affine maps alone have 0 everywhere, and a
                maximum, whose second derivative is 0 almost everywhere, has not
    numbers     rank of d (f_k .. f_1) / d (x_1, .., x_k): how many k steps need, to be known as
                one. It stays where a finite monoid has them, and grows with k where none has
    residual    the largest breach of the two laws above that a search finds: random points, then
                ascent along the gradient from the worst

Affine steps are a monoid (Blelloch 1990, sec. 1.4); affine in h is what gates of x alone give
(arXiv:2410.01201) and what tanh and gates of h take away. Not every monoid is affine: where a step
is none, another description of the same state may be one, `OPERATIONS` has pairs of them:

    tanh(h + x)           tanh(artanh h + artanh x): addition, seen through a bijection
    clip(h + x, -1, 1)    min(max(h + a, low), high): three numbers, whatever the number of steps
    (h + x) / 2           (n, x): a mean that carries what it divides by
    1 / (h + x)           (a h + b) / (c h + d), whose composition is the product of 2x2 matrices

An operation claims x . y of its inputs, an `Associative` layer its monoid; of any other layer the
claim is the affine one, with the Jacobians of its steps at one state, which is broken exactly where
the step is not affine in h. A layer that keeps a window of the past, or several scans, each driven
by the one before, is not affine as a whole, though each of its scans is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from seqjax.core.flow import Flow
from seqjax.core.monoid import dense, diagonal, maxplus, stabilised
from seqjax.core.ranges import Count, Positive, Seed
from seqjax.nn.base import Layer
from seqjax.nn.recurrent import Associative
from seqjax.stacks.config import LayerConfig
from seqjax.testing.promises import distance
from seqjax.theory.finding import Finding, Layers, each
from seqjax.theory.jacobians import numbers, step_of

SIX = tuple(map(LayerConfig, ("elman", "gru", "lstm", "min_gru", "lru", "mlstm")))
ROUNDING = 1e-12  # of float64, in what a few steps compute; a breach is above


class Search(NamedTuple):
    drawn: Array  # the largest residual of the points that were drawn
    largest: Array  # and after the ascent
    at: Any  # the point where it is


def search(
    residual: Callable[[Any], Array], points: Any, *, steps: int = 100, rate: float = 0.05
) -> Search:
    """The largest residual(point) that is found, of a pytree of points [n, ...].

    From the worst point drawn, steps of `rate` along the gradient of its logarithm, within the box
    that the points lie in: however small it is there, its slope is seen.
    """
    drawn = jax.vmap(residual)(points)
    worst = jnp.argmax(drawn)
    ends = [jax.tree.map(lambda x, end=end: end(x, axis=0), points) for end in (jnp.min, jnp.max)]
    tiny = jnp.finfo(drawn.dtype).tiny

    def height(point: Any) -> tuple[Array, Array]:
        value = residual(point)
        return jnp.log(value + tiny), value

    def climb(carry: Any, _: None) -> tuple[Any, None]:
        point, best = carry
        (_, value), slope = jax.value_and_grad(height, has_aux=True)(point)
        best = jax.tree.map(
            lambda new, old: jnp.where(value > best[0], new, old), (value, point), best
        )
        slope = jax.tree.map(jnp.nan_to_num, slope)
        steepest = ravel_pytree(jax.tree.map(jnp.abs, slope))[0].max()
        size = jnp.where(steepest > 0, steepest, 1)

        def move(x: Array, slope: Array, low: Array, high: Array) -> Array:
            return jnp.clip(x + rate * (high - low) * slope / size, low, high)

        return (jax.tree.map(move, point, slope, *ends), best), None

    first = jax.tree.map(lambda x: x[worst], points)
    (_, best), _ = lax.scan(climb, (first, (drawn[worst], first)), length=steps)
    return Search(drawn[worst], *best)


def associator(combine: Callable[[Any, Any], Any], p: Any, q: Any, r: Any) -> Array:
    """|(p . q) . r - p . (q . r)|, relative to 1 + the largest number."""
    return distance(combine(combine(p, q), r), combine(p, combine(q, r)))


class Step(NamedTuple):
    """h [N] -> step(h, x) [N], inputs x [D], and what is claimed of three of them and a state."""

    step: Callable[[Array, Array], Array]
    states: Array  # [n, N], some that occur
    inputs: Array  # [n, 8, D]
    claim: Callable[[Array, Array], Array]  # (h, x [3, D]) -> the residual of its laws
    name: str  # of the claim


def curvature(step: Callable[[Array], Array], g: Array, h: Array) -> Array:
    """The largest |d^2 step(h + s v) / ds^2|, v of length 1 from g to h, at either end."""
    away = h - g
    v = away / jnp.maximum(jnp.linalg.norm(away), jnp.finfo(h.dtype).tiny)

    def slope(at: Array) -> Array:
        return jax.jvp(step, (at,), (v,))[1]

    return jnp.max(jnp.abs(jnp.stack([jax.jvp(slope, (at,), (v,))[1] for at in (g, h)])))


def bend(step: Callable[[Array], Array], g: Array, h: Array) -> Array:
    """How far the step of the mean is from the mean of the steps, relative to 1 + the largest."""
    return distance(step((g + h) / 2), (step(g) + step(h)) / 2)


def composed(step: Callable[[Array, Array], Array], states: Array, x: Array) -> Array:
    """How many numbers [K] the first 1 .. K of the steps x [K, D] have as one function.

    The rank of the derivative, by x_1 .. x_k, of where the states [n, N] go; n N is to be more than
    K D. Singular values below 1e-9 of the largest are rounding.
    """

    def after(x: Array) -> Array:
        def body(h: Array, x: Array) -> tuple[Array, Array]:
            h = jax.vmap(lambda h: step(h, x))(h)
            return h, h

        return lax.scan(body, states, x)[1]

    K, D = x.shape
    J = jax.jacfwd(after)(x).reshape(K, -1, K * D)  # of later steps it is 0
    size = jnp.linalg.svd(J, compute_uv=False)
    return jnp.sum(size > 1e-9 * size[:, :1], axis=1)


class Measured(NamedTuple):
    curvature: Array
    bend: Array
    numbers: Array  # [8], what 1 .. 8 steps need as one
    found: Search


def measure(one: Step) -> Measured:
    """Over all pairs of neighbours among the states."""

    def bent(g: Array, h: Array, x: Array) -> tuple[Array, Array]:
        def step(h: Array) -> Array:
            return one.step(h, x[0])

        return curvature(step, g, h), bend(step, g, h)

    second, off = jax.vmap(bent)(one.states, jnp.roll(one.states, 1, axis=0), one.inputs)
    found = search(lambda at: one.claim(*at), (one.states, one.inputs[:, :3]))
    few = one.states[: max(1, 8 * one.inputs.shape[2]) + 4]
    return Measured(jnp.max(second), jnp.max(off), composed(one.step, few, one.inputs[0]), found)


def of_layer(layer: Layer, key: Array, *, draws: int = 64, scale: float = 1.0) -> Step:
    """Its step on the real numbers of its state; states are those after 8 random inputs, moved by
    about a tenth: at initialisation some numbers of them may all be the same."""
    whole = step_of(layer)
    back = numbers(layer.start())[1]
    *keys, last = jax.random.split(key, 3)
    before, inputs = (scale * jax.random.normal(k, (draws, 8, layer.features)) for k in keys)
    states = jax.vmap(
        lambda x: numbers(lax.scan(lambda h, x: (whole(h, x), None), layer.start(), x)[0])[0]
    )(before)
    states = states + 0.1 * (1 + jnp.abs(states)) * jax.random.normal(last, states.shape)

    def step(h: Array, x: Array) -> Array:
        return numbers(whole(back(h), x))[0].astype(h.dtype)

    def of_monoid(h: Array, x: Array) -> Array:
        assert isinstance(layer, Associative)
        combine, act = layer.monoid.combine, layer.monoid.act
        lifted = jax.vmap(layer.lift)(layer.driven(x, Flow()))
        p, q, r = (jax.tree.map(lambda e, n=n: e[n], lifted) for n in range(3))
        state = back(h)
        sides = (
            (act(combine(combine(p, q), r), state), act(combine(p, combine(q, r)), state)),
            (act(combine(p, q), state), act(q, act(p, state))),
        )
        return jnp.maximum(*(distance(*map(layer.canonical, pair)) for pair in sides))

    def of_affine(h: Array, x: Array) -> Array:
        at = states[0]

        def element(x: Array) -> tuple[Array, Array]:
            A = jax.jacfwd(step)(at, x)
            return A, step(at, x) - A @ at

        both = dense.combine(element(x[0]), element(x[1]))
        return distance(dense.act(both, h), step(step(h, x[0]), x[1]))

    own = isinstance(layer, Associative) and numbers(layer.start())[0].size
    claim, name = (of_monoid, "its monoid") if own else (of_affine, "affine")
    return Step(step, states, inputs, claim, name)


def _normal(*shape: int) -> Callable[[Array], Array]:
    return lambda key: jax.random.normal(key, shape)


def _within(*shape: int) -> Callable[[Array], Array]:
    return lambda key: jax.random.uniform(key, shape, minval=-0.9, maxval=0.9)


def _positive(*shape: int) -> Callable[[Array], Array]:
    return lambda key: jax.random.uniform(key, shape, minval=0.1, maxval=2.0)


class Operation(NamedTuple):
    """x . y of inputs [D], and what x does to a state [N]; both drawn from a key."""

    combine: Callable[[Array, Array], Array]
    act: Callable[[Array, Array], Array]  # (x, h)
    x: Callable[[Array], Array]
    h: Callable[[Array], Array]


def _itself(combine: Callable[[Array, Array], Array], draw: Callable[..., Any]) -> Operation:
    """States and inputs are the same, and acting is combining."""
    return Operation(combine, lambda x, h: combine(h, x), draw, draw)


def _pairs(monoid: Any) -> Operation:
    """An algebra of elements (a, b) of one unit."""
    return Operation(
        lambda p, q: jnp.stack(monoid.combine(tuple(p), tuple(q))),
        lambda x, h: monoid.act(tuple(x[:, None]), h),
        _normal(2),
        _normal(1),
    )


def _clipped(p: Array, q: Array) -> Array:
    (a, low, high), (more, floor, ceiling) = p, q
    return jnp.stack([a + more, *(jnp.clip(end + more, floor, ceiling) for end in (low, high))])


def _counted(p: Array, q: Array) -> Array:
    n = p[0] + q[0]
    return jnp.stack([n, (p[0] * p[1] + q[0] * q[1]) / n])


def _log_affine(p: Array, q: Array) -> Array:
    return jnp.stack([p[0] + q[0], jnp.logaddexp(p[1] + q[0], q[1])])


OPERATIONS: dict[str, Operation] = {
    "tanh(h + x)": _itself(lambda p, q: jnp.tanh(p + q), _normal(1)),
    "tanh(artanh h + artanh x)": _itself(lambda p, q: (p + q) / (1 + p * q), _within(1)),
    "clip(h + x, -1, 1)": _itself(lambda p, q: jnp.clip(p + q, -1, 1), _normal(1)),
    "min(max(h + a, low), high)": Operation(
        _clipped,
        lambda x, h: jnp.clip(h + x[0], x[1], x[2]),
        lambda key: jax.random.uniform(key, (3,)) + jnp.array([-0.5, -1, 0]),
        _normal(1),
    ),
    "(h + x) / 2": _itself(lambda p, q: (p + q) / 2, _normal(1)),
    "(n, mean of n)": _itself(_counted, _positive(2)),
    "1 / (h + x)": _itself(lambda p, q: 1 / (p + q), _positive(1)),
    "(a h + b) / (c h + d)": Operation(
        lambda p, q: (q.reshape(2, 2) @ p.reshape(2, 2)).reshape(4),
        lambda x, h: (x[0] * h + x[1]) / (x[2] * h + x[3]),
        _positive(4),
        _positive(1),
    ),
    "a h + b": _pairs(diagonal),
    "max(h + a, b)": _pairs(maxplus),
    "log(exp(h + a) + exp(b))": Operation(
        _log_affine, lambda x, h: jnp.logaddexp(h + x[0], x[1]), _normal(2), _normal(1)
    ),
    "f h + exp(i) v, kept as exp(m) x": Operation(
        lambda p, q: jnp.stack(stabilised.combine(tuple(p), tuple(q))),
        lambda x, h: jnp.stack(stabilised.act(tuple(x), tuple(h))),
        _normal(3),
        _normal(2),
    ),
}


def of_operation(one: Operation, key: Array, *, draws: int = 64) -> Step:
    """Its action as a step, and the claim that it is associative and acts."""
    keys = jax.random.split(key, (2, draws))
    states = jax.vmap(one.h)(keys[0])
    inputs = jax.vmap(jax.vmap(one.x))(jax.vmap(lambda k: jax.random.split(k, 8))(keys[1]))

    def claim(h: Array, x: Array) -> Array:
        p, q, r = x
        acts = distance(one.act(one.combine(p, q), h), one.act(q, one.act(p, h)))
        return jnp.maximum(associator(one.combine, p, q, r), acts)

    return Step(lambda h, x: one.act(x, h), states, inputs, claim, "x . y")


def associativity(
    layer: Layers = SIX,
    *,
    features: Count = 4,
    operations: bool = True,
    scale: Positive = 1.0,
    seed: Seed = 0,
) -> Finding:
    """Whether steps compose, each measured: affine in the state or not, counterexamples, and how
    many numbers k steps need as one. In float64.

    Args:
        layer: layers, each by itself, with their options
        features: of the layers
        operations: with the pairs of an operation that does not compose and one that does
        scale: standard deviation of the inputs, which are normal
        seed: of weights and inputs
    """
    rows, curves = [], {}
    with jax.enable_x64(True):
        key = jax.random.key(seed)
        every = [
            (f"h' = {name}", of_operation(one, key))
            for name, one in (OPERATIONS.items() if operations else ())
        ]
        every += [
            (name, of_layer(one, key, scale=scale)) for name, one in each(layer, features, seed)
        ]
        for label, one in every:
            found = jax.jit(lambda one=one: measure(one))()
            affine = bool(found.bend < ROUNDING and found.curvature < ROUNDING)
            composes = bool(found.found.largest < ROUNDING)
            curves[label] = (range(1, 9), found.numbers)
            rows.append(
                (
                    label,
                    str(one.states.shape[1]),
                    f"{float(found.curvature):.1e}",
                    f"{float(found.bend):.1e}",
                    "yes" if affine else "no",
                    " ".join(str(int(found.numbers[k - 1])) for k in (1, 2, 4, 8)),
                    f"{float(found.found.drawn):.1e}",
                    f"{float(found.found.largest):.1e}",
                    one.name,
                    "holds" if composes else "broken",
                )
            )
    columns = ("step", "N", "curvature", "bend", "affine", "numbers of 1, 2, 4, 8 steps",
               "drawn", "largest", "claim", "law")  # fmt: skip
    return Finding("steps that compose, and steps that do not", columns, rows, "k steps",
                   "numbers that they need as one", curves)  # fmt: skip
