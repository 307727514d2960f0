"""The T-maze (Bakker, "Reinforcement learning with long short-term memory", NIPS 2001, sec. 4).

    north goal, or not            start   0 1 1  the goal is north, 1 1 0  south
                     |            corridor 1 0 1
    start - - - - junction        junction 0 1 0
                     |
    south goal, or not

The agent goes north, east, south or west; the junction is `corridor` steps east of the start. At
the junction a step to the north or south ends the episode, with reward 4 on the side of the goal
and -0.1 on the other; to stand still, against a wall, is -0.1, and every other step 0. Where the
goal is can be seen at the start alone, so it must be remembered along the corridor.

Closed forms: the optimum is 4. Without a memory nothing that is seen at the junction depends on the
goal, so the best is (4 - 0.1) / 2 = 1.95.
Departure: an episode ends after `limit` steps too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Count
from seqjax.tasks.control.environments.environment import Environment

NORTH, EAST, SOUTH, WEST = range(4)
RIGHT, WRONG = 4.0, -0.1
MEMORYLESS = (RIGHT + WRONG) / 2


class State(NamedTuple):
    place: jax.Array  # int32: steps east of the start
    goal: jax.Array  # int32: NORTH or SOUTH


@dataclass(frozen=True)
class TMaze(Environment):
    """A corridor of so many steps, and a junction at its end."""

    corridor: Count = 10
    limit: Count = 50

    actions = ("north", "east", "south", "west")
    observation = 3

    def reset(self, key):
        goal = jnp.where(jax.random.bernoulli(key), NORTH, SOUTH).astype(jnp.int32)
        state = State(jnp.int32(0), goal)
        return state, self.seen(state)

    def step(self, state, action, key):
        del key
        side, east, west = (action == NORTH) | (action == SOUTH), action == EAST, action == WEST
        done = side & (state.place == self.corridor)
        moved = state.place + east.astype(jnp.int32) - west.astype(jnp.int32)
        place = jnp.clip(moved, 0, self.corridor)
        stood = ~done & (place == state.place)
        reward = jnp.where(done, jnp.where(action == state.goal, RIGHT, WRONG),
                           jnp.where(stood, WRONG, 0.0))  # fmt: skip
        state = State(place, state.goal)
        return state, self.seen(state), reward.astype(jnp.float32), done

    def seen(self, state: State) -> jax.Array:
        """The observation of a state."""
        north = state.goal == NORTH
        start = jnp.stack([~north, jnp.array(True), north])
        o = jnp.where(state.place == self.corridor, jnp.array([False, True, False]),
                      jnp.array([True, False, True]))  # fmt: skip
        return jnp.where(state.place == 0, start, o).astype(jnp.float32)

    def draw(self, state):
        line = ["."] * self.corridor + ["T"]
        line[int(state.place)] = "@"
        return f"{''.join(line)}  the goal is {self.actions[int(state.goal)]}"

    @property
    def optimum(self) -> float | None:
        return RIGHT if self.limit > self.corridor else None
