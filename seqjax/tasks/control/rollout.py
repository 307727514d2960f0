"""Playing an environment with a policy, B side by side, and what its steps were worth.

    (y_hat, h) = act(h, x, fresh)      x [B, D], fresh: bool [B], an episode begins: forget the past

`act` is a model step by step, a rule, or anything else that goes from a state h and what is seen to
what the head of a model answers. Actions are drawn from it. Each row is a stream of episodes: where
one ends the next begins.

Letters: B rows, T steps, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.answers import Actions
from seqjax.tasks.control.environments import Environment

Act = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


class World(NamedTuple):
    """One environment between two steps."""

    state: Any
    x: jax.Array  # float32 [D]: what is seen
    fresh: jax.Array  # bool: an episode begins
    age: jax.Array  # int32: steps of the episode so far
    total: jax.Array  # float32: its rewards so far


class Played(NamedTuple):
    """Steps, leaves [T, B, ...]."""

    before: World
    y: jax.Array  # the action and its log-probability, as `Actions.sample` returns them
    value: jax.Array  # V of what was seen
    reward: jax.Array
    over: jax.Array  # bool: the episode ends with this step
    age: jax.Array  # steps that the episode then has
    total: jax.Array  # its return then
    success: jax.Array  # bool


def width(environment: Environment, previous: bool) -> int:
    """D; previous: with the action before, one-hot, and its reward; zeros where there was none."""
    return environment.observation + (len(environment.actions) + 1 if previous else 0)


def play(
    environment: Environment,
    answer: Actions,
    act: Act,
    h: Any,
    keys: jax.Array,
    length: int,
    *,
    previous: bool = False,
) -> tuple[Played, jax.Array]:
    """T = `length` steps, and V [B] of what is seen after them.

    keys: raw, uint32 [B, 2]; a row goes by its own alone.
    """
    split = jax.vmap(lambda key: jax.random.split(key, (length, 3)))
    keys, kinds = split(jax.random.wrap_key_data(keys)), len(environment.actions)

    def begin(key: jax.Array) -> World:
        state, x = environment.reset(key)
        if previous:
            x = jnp.concatenate([x, jnp.zeros(kinds + 1, jnp.float32)])
        return World(state, x, jnp.array(True), jnp.int32(0), jnp.float32(0))

    def entered(world: World, key: jax.Array) -> World:
        return jax.tree.map(lambda new, on: jnp.where(world.fresh, new, on), begin(key), world)

    def move(world: World, y_hat: jax.Array, choose: jax.Array, go: jax.Array):
        y = answer.sample(choose, y_hat)
        action = y[0].astype(jnp.int32)
        state, x, reward, done = environment.step(world.state, action, go)
        if previous:
            one_hot = (jnp.arange(kinds, dtype=jnp.int32) == action).astype(jnp.float32)
            x = jnp.concatenate([x, one_hot, reward[None]])
        age, total = world.age + 1, world.total + reward
        over = done | (age >= environment.limit)
        success = over & environment.success(reward, done)
        played = Played(world, y, y_hat[-1], reward, over, age, total, success)
        return World(state, x, over, age, total), played

    def step(carry: tuple[World, Any], now: jax.Array) -> tuple[tuple[World, Any], Played]:
        worlds, h = carry
        worlds = jax.vmap(entered)(worlds, now[:, 0])
        y_hat, h = act(h, worlds.x, worlds.fresh)
        y_hat = y_hat.astype(jnp.float32)
        worlds, played = jax.vmap(move)(worlds, y_hat, now[:, 1], now[:, 2])
        return (worlds, h), played

    none = jax.tree.map(
        lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(jax.vmap(begin), keys[:, 0, 0])
    )
    first = none._replace(fresh=jnp.ones(len(keys), bool))
    (worlds, h), played = lax.scan(step, (first, h), jnp.swapaxes(keys, 0, 1))
    return played, act(h, worlds.x, worlds.fresh)[0][:, -1].astype(jnp.float32)


def uniform(answer: Actions) -> Act:
    """All actions alike, and no value."""
    return lambda h, x, fresh: (jnp.zeros((len(x), answer.size), jnp.float32), h)


def advantages(
    reward: jax.Array,
    value: jax.Array,
    over: jax.Array,
    last: jax.Array,
    gamma: float,
    lambda_: float,
) -> jax.Array:
    """Generalised advantage estimates [T, B] (arXiv:1506.02438, eq. 16), backwards in time:

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lambda A_{t+1}

    with nothing after the end of an episode, V_{t+1} and A_{t+1} 0. last: V [B] of what is seen
    after the last step.
    """
    on = 1 - over.astype(value.dtype)
    delta = reward + gamma * on * jnp.concatenate([value[1:], last[None]]) - value

    def back(A, now):
        delta, on = now
        A = delta + gamma * lambda_ * on * A
        return A, A

    return lax.scan(back, jnp.zeros_like(last), (delta, on), reverse=True)[1]
