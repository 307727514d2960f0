"""Learning to continue a sequence: the cell reads what came before, the targets or its own.

The data are ys [T, ...]; step t reads feed(params, y_{t-1}, x_t), where x_t is any further input
(xs may be None), and returns a readout that y_t is compared with. y_0 of a stream is followed from
`start`. What the model itself generates is draw(key, readout), a constant of the step.

    teacher_forcing      y_{t-1} is that of the data                         Williams & Zipser 1989
    scheduled_sampling   a coin is thrown at each step: with probability eps_i in window i that of
                         the data, else the model's own                      arXiv:1506.03099
    professor_forcing    teacher forcing, and a discriminator that tells its states and readouts
                         from those of the model on its own; the model learns to fool it
                                                                             arXiv:1610.09038

Backpropagation through each window. Time O(T cost(step)), memory O(T n); professor forcing runs
the window twice, and the discriminator over both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.mesh import loop
from seqjax.core.monoid import select
from seqjax.layers.classic.bidirectional import Bidirectional
from seqjax.layers.classic.gru import GRU
from seqjax.learn.bptt import BPTTState, bptt
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.influence import to_vector
from seqjax.learn.learner import Learner, Loss
from seqjax.nn.base import cast_parameters

Feed = Callable[[Params, Any, Any], Any]  # (params, y_{t-1}, x_t) -> what the cell reads
Draw = Callable[[Array, Any], Any]  # (key, readout) -> what the model generates, like a y
Schedule = Callable[[Array], Array]  # window i -> probability of the truth


def previous_only(params: Params, previous: Any, x: Any) -> Any:
    """The cell reads y_{t-1} as it is; an embedding of it is a cell's or another feed's."""
    del params, x
    return previous


def itself(key: Array, y: Any) -> Any:
    """The readout is what is generated: for real-valued sequences."""
    del key
    return y


def most_likely(key: Array, y: Array) -> Array:
    """The token of the largest logit."""
    del key
    return jnp.argmax(y, axis=-1)


def sampled(key: Array, y: Array) -> Array:
    """A token drawn from softmax(y)."""
    return jax.random.categorical(key, y)


def fed(cell: Cell, feed: Feed = previous_only) -> Cell:
    """The cell that takes the pair (y_{t-1}, x_t) for its input, as any learner may train it."""
    return Cell(
        cell.start,
        lambda params, h, x: cell.step(params, h, feed(params, *x)),
        lambda params, h, x: cell.readout(params, h, feed(params, *x)),
    )


# ---- teacher forcing ----------------------------------------------------------------------------


class TeacherState(NamedTuple):
    h: State
    previous: Any  # y_{t-1} of the data


def teacher_forcing(cell: Cell, loss: Loss, start: Any, *, feed: Feed = previous_only) -> Learner:
    """Every step reads the y before it. start: what is read before the first y."""
    inner = bptt(fed(cell, feed), loss)

    def init(params: Params, key: Any = None) -> TeacherState:
        del key
        return TeacherState(cell.start(params), jax.tree.map(jnp.asarray, start))

    def grad(params, state, xs, ys):
        before, last = _shifted(state.previous, ys)
        total, grads, (h,) = inner.grad(params, BPTTState(state.h), (before, xs), ys)
        return total, grads, TeacherState(h, last)

    return Learner(init, grad)


def _shifted(previous, ys):
    """y_{t-1} for every t, and the last y."""
    before = jax.tree.map(lambda p, y: jnp.concatenate([p[None].astype(y.dtype), y[:-1]]),
                          previous, ys)  # fmt: skip
    return before, jax.tree.map(lambda p, y: y[-1].astype(p.dtype), previous, ys)


# ---- scheduled sampling -------------------------------------------------------------------------


def linear(slope: float, floor: float = 0.0, first: float = 1.0) -> Schedule:
    """eps_i = max(floor, first - slope i)."""
    return lambda i: jnp.maximum(floor, first - slope * i.astype(float))


def exponential(k: float) -> Schedule:
    """eps_i = k^i, k < 1."""
    if not 0 < k < 1:
        raise ValueError(f"an exponential schedule needs 0 < k < 1, got {k}")
    return lambda i: k ** i.astype(float)


def inverse_sigmoid(k: float) -> Schedule:
    """eps_i = k / (k + exp(i / k)), k >= 1."""
    if k < 1:
        raise ValueError(f"an inverse sigmoid schedule needs k >= 1, got {k}")
    return lambda i: jax.nn.sigmoid(jnp.log(k) - i.astype(float) / k)


class SamplingState(NamedTuple):
    h: State
    previous: Any  # y_{t-1} of the data
    own: Any  # what the model generated at t - 1
    window: Array  # int32: how many there were
    key: Array


def scheduled_sampling(
    cell: Cell,
    loss: Loss,
    start: Any,
    *,
    schedule: Schedule,
    draw: Draw = sampled,
    feed: Feed = previous_only,
) -> Learner:
    """The truth is read with a probability that falls: `linear`, `exponential`, `inverse_sigmoid`.

    No gradient passes through what was drawn. `init` takes a random key.
    """
    run = fed(cell, feed)

    def init(params: Params, key: Array | None = None) -> SamplingState:
        if key is None:
            raise ValueError("scheduled_sampling throws coins: init(params, key)")
        first = jax.tree.map(jnp.asarray, start)
        return SamplingState(cell.start(params), first, first, jnp.zeros((), jnp.int32), key)

    def grad(params, state, xs, ys):
        truth = schedule(state.window)

        def objective(params):
            def body(carry, now):
                (h, previous, own, key), (x, y) = carry, now
                coin, drawn, key = jax.random.split(key, 3)
                before = select(jax.random.bernoulli(coin, truth), previous, own)
                h = run.step(params, h, (before, x))
                out = run.readout(params, h, (before, x))
                carry = h, _like(previous, y), _like(own, draw(drawn, out)), key
                return carry, loss(out, y)

            begin = state.h, state.previous, state.own, state.key
            end, losses = loop(body, begin, (xs, ys))
            return jnp.sum(losses), end

        (total, end), grads = jax.value_and_grad(objective, has_aux=True)(params)
        h, previous, own, key = end
        return total, grads, SamplingState(h, previous, own, state.window + 1, key)

    return Learner(init, grad)


def _like(old, new):
    """`new` as a constant in the dtypes of `old`."""
    return jax.tree.map(lambda o, n: lax.stop_gradient(n).astype(o.dtype), old, new)


# ---- professor forcing --------------------------------------------------------------------------


class Players(NamedTuple):
    """Parameters of professor forcing."""

    generator: Params
    discriminator: Params


class ProfessorState(NamedTuple):
    h: State
    previous: Any  # y_{t-1} of the data
    accuracy: Array  # of the discriminator, a running mean; 1/2 at first
    key: Array


def professor_forcing(
    cell: Cell,
    loss: Loss,
    start: Any,
    discriminate: Callable[[Params, Array], Array],
    *,
    draw: Draw = sampled,
    feed: Feed = previous_only,
    band: tuple[float, float] = (0.75, 0.99),
    decay: float = 0.9,
    weight: float = 1.0,
    both: bool = False,
) -> Learner:
    """A learner of `Players`, with D(b) = sigmoid(discriminate(params, b)) for every step.

        generator       loss + weight C_f [+ weight C_t, with `both`]
        C_f = - sum log D(b of the model on its own)       C_t = - sum log(1 - D(b forced))
        discriminator   C_d = - sum log D(b forced) - sum log(1 - D(b of the model on its own))

    Behaviour b [T, F]: the cell's state and readout at every step, as one vector (the paper takes
    what is before the tanh, and the softmax). Both runs start from the state given. C_f and C_t
    reach the generator only when the discriminator's accuracy is above band[0]; C_d trains the
    discriminator only when it is not above band[1]. It is run at every step, and the losses are
    sums, so that they add up over windows like the loss.

    discriminate: (params, b [T, F]) -> logits [T]; one is made by `discriminator`.
    decay: of the running accuracy, over windows; 0 is that of the window, as in the paper.
    The loss returned is that of teacher forcing. `init` takes a random key.
    """
    run = fed(cell, feed)

    def init(params: Players, key: Array | None = None) -> ProfessorState:
        if key is None:
            raise ValueError("professor_forcing draws what the model generates: init(params, key)")
        h = cell.start(params.generator)
        half = jnp.full((), 0.5, to_vector(h).dtype)
        return ProfessorState(h, jax.tree.map(jnp.asarray, start), half, key)

    def grad(params, state, xs, ys):
        before, last = _shifted(state.previous, ys)
        free_key, key = jax.random.split(state.key)
        keys = jax.random.split(free_key, len(jax.tree.leaves(ys)[0]))

        def objective(theta):
            def body(h, now):
                x, y = now
                h = run.step(theta, h, x)
                out = run.readout(theta, h, x)
                return h, (loss(out, y), _behaviour(h, out))

            h, (losses, b) = loop(body, state.h, ((before, xs), ys))
            return jnp.sum(losses), b, h

        def alone(theta):
            def body(carry, now):
                h, own = carry
                key, x = now
                h = run.step(theta, h, (own, x))
                out = run.readout(theta, h, (own, x))
                return (h, _like(own, draw(key, out))), _behaviour(h, out)

            return loop(body, (state.h, state.previous), (keys, xs))[1]

        def judged(theta):
            total, forced, h = objective(theta)
            free = alone(theta)
            logits = [discriminate(params.discriminator, b) for b in (forced, free)]
            fooled = _surprise(logits[1]) + (_surprise(-logits[0]) if both else 0)
            return (total, fooled), (lax.stop_gradient((forced, free)), logits, h)

        (total, _), back, (behaviours, logits, h) = jax.vjp(judged, params.generator, has_aux=True)
        right = jnp.mean(jnp.concatenate([logits[0] > 0, logits[1] <= 0]), dtype=total.dtype)
        accuracy = decay * state.accuracy + (1 - decay) * right.astype(state.accuracy.dtype)
        learn = jnp.where(accuracy > band[0], weight, 0).astype(total.dtype)
        generator = back((jnp.ones_like(total), learn))[0]

        def recognised(phi):
            forced, free = (discriminate(phi, b) for b in behaviours)
            return _surprise(forced) + _surprise(-free)

        discriminator = jax.grad(recognised)(params.discriminator)
        blank = jax.tree.map(jnp.zeros_like, discriminator)
        discriminator = select(accuracy <= band[1], discriminator, blank)
        return total, Players(generator, discriminator), ProfessorState(h, last, accuracy, key)

    return Learner(init, grad)


def _behaviour(h, out) -> Array:
    return jnp.concatenate([to_vector(h), to_vector(out)])


def _surprise(logits: Array) -> Array:
    """- sum log sigmoid(logits)."""
    return jnp.sum(jax.nn.softplus(-logits))


class Discriminator(nnx.Module):
    """A bidirectional GRU and, at every step, three layers of ReLU and one number."""

    def __init__(self, features: int, *, hidden: int = 32, rngs: nnx.Rngs):
        def gru(features, *, rngs):
            return GRU(features, hidden=hidden, rngs=rngs)

        self.reader = Bidirectional(features, layer=gru, rngs=rngs)
        sizes = (2 * hidden, hidden, hidden, hidden)
        self.mlp = nnx.List(
            nnx.Linear(n, m, rngs=rngs) for n, m in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.head = nnx.Linear(hidden, 1, rngs=rngs)

    def __call__(self, b: Array) -> Array:
        z = self.reader(b[None])[0][0]
        for layer in self.mlp:
            z = jax.nn.relu(layer(z))
        return self.head(z)[:, 0]


def discriminator(
    features: int, *, hidden: int = 32, rngs: nnx.Rngs
) -> tuple[Callable[[Params, Array], Array], Params]:
    """`Discriminator` as (params, b [T, features]) -> logits [T], and its parameters."""
    module = Discriminator(features, hidden=hidden, rngs=rngs)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def discriminate(params: Params, b: Array) -> Array:
        return cast_parameters(nnx.merge(graph, params, rest), b.dtype)(b)

    return discriminate, params
