"""A pole on a cart (Barto, Sutton & Anderson 1983) whose velocities are hidden.

    m_p = 0.1    m = 1.1    l = 0.5 (half the pole)    g = 9.8    F = -10 or 10    tau = 0.02

    a        = (F + m_p l theta'^2 sin theta) / m
    theta''  = (g sin theta - a cos theta) / (l (4/3 - m_p cos^2 theta / m))
    x''      = a - m_p l theta'' cos theta / m
    (x, x', theta, theta') <- (x, x', theta, theta') + tau (x', x'', theta', theta'')    Euler

A step has reward 1; the episode ends where |x| > 2.4 or |theta| > 12 degrees, and is a success if
it does not within `limit` steps. What is seen are x and theta alone, each divided by its bound: the
velocities are differences over time, which a policy without memory does not have (as in the
position-only form of arXiv:2303.01859).

Closed form: the optimum is `limit`; the pole can be held up for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Count
from seqjax.tasks.control.environments.environment import Environment

GRAVITY, POLE, MASS, HALF, FORCE, TAU = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
X, THETA = 2.4, 12 * pi / 180
START = 0.05


class State(NamedTuple):
    x: jax.Array
    dx: jax.Array
    theta: jax.Array
    dtheta: jax.Array


@dataclass(frozen=True)
class CartPole(Environment):
    """Held up for so many steps."""

    limit: Count = 200

    actions = ("left", "right")
    observation = 2

    def reset(self, key):
        state = State(*jax.random.uniform(key, (4,), jnp.float32, -START, START))
        return state, self.seen(state)

    def step(self, state, action, key):
        del key
        x, dx, theta, dtheta = state
        force = jnp.where(action == 1, FORCE, -FORCE).astype(jnp.float32)
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        a = (force + POLE * HALF * dtheta**2 * sin) / MASS
        ddtheta = (GRAVITY * sin - a * cos) / (HALF * (4 / 3 - POLE * cos**2 / MASS))
        ddx = a - POLE * HALF * ddtheta * cos / MASS
        new = State(x + TAU * dx, dx + TAU * ddx, theta + TAU * dtheta, dtheta + TAU * ddtheta)
        done = (jnp.abs(new.x) > X) | (jnp.abs(new.theta) > THETA)
        return new, self.seen(new), jnp.float32(1), done

    def success(self, reward, done):
        return ~done

    def seen(self, state: State) -> jax.Array:
        """The observation of a state."""
        return jnp.stack([state.x / X, state.theta / THETA])

    def draw(self, state):
        x, dx, theta, dtheta = map(float, state)
        return f"x {x:+.3f}  theta {theta:+.3f}  hidden: x' {dx:+.3f}  theta' {dtheta:+.3f}"

    @property
    def optimum(self) -> float:
        return float(self.limit)
