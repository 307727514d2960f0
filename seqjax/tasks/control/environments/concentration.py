"""Concentration, the game of pairs: 2 n cards face down, two of each of n ranks (as in the game of
arXiv:2303.01859).

An action turns one card up. If it is the second of a turn, two of the same rank stay up, with
reward 1 / n, and two others are turned down again by the next action. To turn up a card that is up
already is a step lost. The episode ends when all are up, which is a success, or after `limit`
steps. What is seen are the ranks of the cards that are up: where others are must be remembered.

Closed form: `optimum`, the expected return of the best play with a perfect memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Count, Range
from seqjax.tasks.control.environments.environment import Environment


class State(NamedTuple):
    ranks: jax.Array  # int32 [2 n], from 0
    found: jax.Array  # bool [2 n]: up for good
    turned: jax.Array  # bool [2 n]: up in this turn: none, one, or two that differ


@dataclass(frozen=True)
class Concentration(Environment):
    """Pairs n of cards, and how many steps there are to find them."""

    pairs: Annotated[int, Range(1, 26)] = 4
    limit: Count = 12

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(map(str, range(2 * self.pairs)))

    @property
    def observation(self) -> int:
        return 2 * self.pairs * (self.pairs + 1)

    def reset(self, key):
        order = jnp.argsort(jax.random.uniform(key, (2 * self.pairs,), jnp.float32))
        none = jnp.zeros(2 * self.pairs, bool)
        state = State(order.astype(jnp.int32) // 2, none, none)
        return state, self.seen(state)

    def step(self, state, action, key):
        del key
        ranks, found, turned = state
        turned = turned & (jnp.sum(turned, dtype=jnp.int32) < 2)  # a turn that failed is over
        card = jnp.arange(2 * self.pairs, dtype=jnp.int32) == action
        idle = jnp.any(card & (found | turned))
        mates = turned & ~idle & (ranks == ranks[action])
        match = jnp.any(mates)
        found = found | jnp.where(match, card | mates, False)
        turned = jnp.where(match, False, turned | (card & ~idle))
        state = State(ranks, found, turned)
        reward = jnp.where(match, 1 / self.pairs, 0.0).astype(jnp.float32)
        return state, self.seen(state), reward, jnp.all(found)

    def seen(self, state: State) -> jax.Array:
        """Of each card that it is down, or its rank: one of n + 1."""
        shown = jnp.where(state.found | state.turned, state.ranks + 1, 0)
        kinds = jnp.arange(self.pairs + 1, dtype=jnp.int32)
        return (shown[:, None] == kinds[None]).astype(jnp.float32).reshape(-1)

    def draw(self, state):
        def card(rank, found, turned):
            letter = chr(ord("a") + int(rank))
            return f"[{letter.upper()}]" if found else f"[{letter}]" if turned else f" {letter} "

        return "".join(map(card, *state)) + "  in brackets: up; capital: found"

    @property
    def optimum(self) -> float:
        return expected_pairs(self.pairs, self.limit) / self.pairs


def expected_pairs(pairs: int, steps: int) -> float:
    """The expected number of pairs that the best play with a perfect memory finds in these steps.

    By recursion over what is known: `new` cards were never up, of which `single` are the mates of
    cards that were; `double` pairs were seen whole, and are not found yet. The values are of the
    cards alone, so that all ranks and places are alike.
    """

    @lru_cache(None)
    def first(new: int, single: int, double: int, left: int) -> float:
        """At the first card of a turn, `left` steps left."""
        choices = [0.0]
        if left and double:
            choices.append(second(new, single, double, True, left - 1))
        if left and single:  # a card that is known, whose mate is not
            choices.append(second(new, single, double, False, left - 1))
        if left and new:
            value = 0.0
            if single:
                value += single * second(new - 1, single - 1, double + 1, True, left - 1)
            if new > single:
                value += (new - single) * second(new - 1, single + 1, double, False, left - 1)
            choices.append(value / new)
        return max(choices)

    @lru_cache(None)
    def second(new: int, single: int, double: int, mate: bool, left: int) -> float:
        """At the second card; mate: whether the place of the mate of the first is known."""
        choices = [0.0]
        if left and mate:
            choices.append(1 + first(new, single, double - 1, left - 1))
        if left and new:
            value, others = 0.0, single - (not mate)  # whose mate is not that of the first
            if not mate:
                value += 1 + first(new - 1, single - 1, double, left - 1)
            if others:
                value += others * first(new - 1, single - 1, double + 1, left - 1)
            if new > single:
                value += (new - single) * first(new - 1, single + 1, double, left - 1)
            choices.append(value / new)
        return max(choices)

    return first(2 * pairs, 0, 0, steps)
