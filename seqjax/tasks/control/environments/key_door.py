"""A room with a key and two doors, of which the agent sees the nine squares before it.

    #####A#        a, b   the key, red or blue
    #     #        A, B   the red and the blue door, in walls that face each other
    # b   #        ^      the agent: left and right turn it, forward goes on, use takes a key that
    #   ^ #               lies before it, or opens a door
    #####B#

In the manner of MiniGrid (arXiv:2306.13831). Exactly one key lies in the room, of a colour that is
drawn with all places anew in each episode. The door of its colour ends the episode with reward 1,
the other one with 0; a door that is used without the key stays shut. The agent does not see what it
holds: it must remember that it has the key, and of which colour, and where the doors were.

    o    of the 3 x 3 squares, two ahead to its own and from left to right, one of
         (floor, wall, red key, blue key, red door, blue door)       54 numbers

Closed form: the optimum is 1, where `limit` has the steps to search the room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Count, Range
from seqjax.tasks.control.environments.environment import Environment

FLOOR, WALL, KEY, DOOR, KINDS = 0, 1, 2, 4, 6  # of keys and doors the colour, 0 or 1, is added
HEADINGS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # rows down, columns right: north, east, south, west
LEFT, RIGHT, FORWARD, USE = range(4)


class State(NamedTuple):
    room: jax.Array  # int32 [side + 2, side + 2]: the kind of each square, walls around
    place: jax.Array  # int32 [2]: of the agent
    heading: jax.Array  # int32, of HEADINGS
    held: jax.Array  # int32: the colour of the key that it holds; -1: none


@dataclass(frozen=True)
class KeyDoor(Environment):
    """A square room of side x side squares."""

    side: Annotated[int, Range(2, 50)] = 4
    limit: Count = 60

    actions = ("left", "right", "forward", "use")
    observation = 9 * KINDS

    def reset(self, key):
        n = self.side
        choices = jnp.array([n * n, n * n - 1, n, n, 2, 2, 2, 4], jnp.float32)
        drawn = jnp.floor(jax.random.uniform(key, (8,), jnp.float32) * choices).astype(jnp.int32)
        one, two, first, last, colour, upper, flip, heading = drawn
        two = two + (two >= one).astype(jnp.int32)  # another square than that of the key
        room = jnp.full((n + 2, n + 2), WALL, jnp.int32).at[1:-1, 1:-1].set(FLOOR)
        room = room.at[one // n + 1, one % n + 1].set(KEY + colour)
        room = room.at[0, first + 1].set(DOOR + upper).at[n + 1, last + 1].set(DOOR + 1 - upper)
        place = jnp.stack([two // n, two % n]) + 1
        room, place = jnp.where(flip > 0, room.T, room), jnp.where(flip > 0, place[::-1], place)
        state = State(room, place, heading, jnp.int32(-1))
        return state, self.seen(state)

    def step(self, state, action, key):
        del key
        room, place, heading, held = state
        ahead = place + jnp.array(HEADINGS, jnp.int32)[heading]
        kind = room[ahead[0], ahead[1]]
        use, coloured = action == USE, kind % 2  # KEY and DOOR are even
        done = use & (kind >= DOOR) & (held >= 0)
        reward = (done & (coloured == held)).astype(jnp.float32)
        taken = use & (kind >= KEY) & (kind < DOOR)
        turn = (action == RIGHT).astype(jnp.int32) - (action == LEFT).astype(jnp.int32)
        state = State(
            room.at[ahead[0], ahead[1]].set(jnp.where(taken, FLOOR, kind)),
            jnp.where((action == FORWARD) & (kind == FLOOR), ahead, place),
            (heading + turn) % 4,
            jnp.where(taken, coloured, held),
        )
        return state, self.seen(state), reward, done

    def seen(self, state: State) -> jax.Array:
        """The observation of a state."""
        ahead = jnp.array(HEADINGS, jnp.int32)[state.heading]
        right = jnp.stack([ahead[1], -ahead[0]])
        far, aside = (jnp.array(steps, jnp.int32)[:, None] for steps in ((2, 1, 0), (-1, 0, 1)))
        squares = (
            (far * ahead[None])[:, None] + (aside * right[None])[None] + state.place[None, None]
        )
        y, x = squares[..., 0], squares[..., 1]
        inside = (y >= 0) & (x >= 0) & (y < self.side + 2) & (x < self.side + 2)
        last = self.side + 1
        kinds = state.room[jnp.clip(y, 0, last), jnp.clip(x, 0, last)]
        kinds = jnp.where(inside, kinds, WALL).reshape(9, 1)
        return (kinds == jnp.arange(KINDS, dtype=jnp.int32)[None]).astype(jnp.float32).reshape(-1)

    def draw(self, state):
        rows = [[" #abAB"[int(kind)] for kind in row] for row in state.room]
        rows[int(state.place[0])][int(state.place[1])] = "^>v<"[int(state.heading)]
        held = "nothing" if state.held < 0 else f"key {'ab'[int(state.held)]}"
        return "\n".join(["".join(row) for row in rows] + [f"holds {held}"])

    @property
    def optimum(self) -> float | None:
        """None where `limit` is below the steps to a corner, through all squares and to a door."""
        n = self.side
        return 1.0 if self.limit >= n**2 + 6 * n + 10 else None
