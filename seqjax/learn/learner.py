"""A learner: a pair of pure functions that turn a stream into gradients, window by window.

    state             = init(params)                      or init(params, key), where it draws
    loss, grads, state = grad(params, state, xs, ys)      one window, xs [T, ...], ys [T, ...]

The loss is the sum over the window of loss(y_t, target_t), so that gradients add up over windows,
and a window of one step is fully online. A learner is made of a cell and a loss and knows neither;
masks and weights of targets are the loss's business. For one stream; `batched` takes several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqjax.core.mesh import loop

Params = Any
Loss = Callable[[Any, Any], jax.Array]


class Learner(NamedTuple):
    """init(params, key=None) -> state; grad(params, state, xs, ys) -> (loss, grads, state)."""

    init: Callable[..., Any]
    grad: Callable[[Params, Any, Any, Any], tuple[jax.Array, Params, Any]]


def squared_error(y: jax.Array, target: jax.Array) -> jax.Array:
    """1/2 |y - target|^2."""
    return 0.5 * jnp.sum(jnp.square(y - target))


def cross_entropy(y: jax.Array, target: jax.Array) -> jax.Array:
    """-log softmax(y)[target] for an integer target; zero where the target is negative."""
    wanted = jnp.sum(jax.nn.one_hot(target, y.shape[-1], dtype=y.dtype) * jax.nn.log_softmax(y))
    return jnp.where(target < 0, 0, -wanted)


def summed(step: Callable[..., tuple[jax.Array, Params, Any]]) -> Callable[..., Any]:
    """`grad` of a window from one time step: step(params, state, x, y) -> (loss, grads, state)."""

    def grad(params, state, xs, ys):
        def body(carry, now):
            state, total, grads = carry
            loss, new, state = step(params, state, *now)
            return (state, total + loss, jax.tree.map(jnp.add, grads, new)), None

        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
        start = state, zero, jax.tree.map(jnp.zeros_like, params)
        (state, total, grads), _ = loop(body, start, (xs, ys))
        return total, grads, state

    return grad


def batched(learner: Learner, size: int) -> Learner:
    """The learner of `size` streams side by side: xs [size, T, ...]; means over the streams."""

    def init(params, key=None):
        if key is None:
            state = learner.init(params)
            return jax.tree.map(lambda s: jnp.broadcast_to(s[None], (size, *s.shape)), state)
        return jax.vmap(lambda key: learner.init(params, key))(jax.random.split(key, size))

    def grad(params, state, xs, ys):
        loss, grads, state = jax.vmap(learner.grad, (None, 0, 0, 0))(params, state, xs, ys)
        return jnp.mean(loss), jax.tree.map(lambda g: jnp.mean(g, axis=0), grads), state

    return Learner(init, grad)


class Trained(NamedTuple):
    """What `follow` returns: all that is needed to go on, and the losses on the way."""

    params: Params
    moments: Any  # state of the optimiser
    state: Any  # state of the learner
    losses: jax.Array  # [windows]


def follow(
    learner: Learner,
    optimiser: optax.GradientTransformation,
    params: Params,
    moments: Any,
    state: Any,
    xs: Any,
    ys: Any,
) -> Trained:
    """Learn along a stream cut into windows: xs, ys [windows, ...], one update after each.

    One compiled loop, in memory that does not grow with the number of windows.
    """

    def body(carry, window):
        params, moments, state = carry
        loss, grads, state = learner.grad(params, state, *window)
        updates, moments = optimiser.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, state), loss

    carry, losses = loop(body, (params, moments, state), (xs, ys))
    return Trained(*carry, losses)
