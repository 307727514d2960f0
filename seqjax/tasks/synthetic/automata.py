"""Finite automata as tables: what `state_tracking` knows beside groups.

An automaton reads symbols 0 .. k - 1 from state 0: delta [k, states] is the next state, and
`answer` [states] the target on each step.

    cycle_navigation   stay, forward, backward on a cycle of `modulus` places; the place
                       (arXiv:2207.02098)
    tomita1 .. 7       the languages over {0, 1} of Tomita (1982); whether the prefix is in it
    random             `modulus` states and as many symbols, drawn once from a fixed key; the state

    1   1*                               5   even numbers of 0 and of 1
    2   (1 0)*                           6   as many 0 as 1, modulo 3
    3   no odd run of 1, then an odd     7   0* 1* 0* 1*
        run of 0, then an end or a 1
    4   no 0 0 0
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Automaton(NamedTuple):
    delta: np.ndarray  # int32 [symbols, states]
    answer: np.ndarray  # int32 [states]


def by_rows(*rows: tuple[int, int], accepts: set[int]) -> Automaton:
    """Over {0, 1}, from the next states (after 0, after 1) of each state."""
    answer = np.array([state in accepts for state in range(len(rows))], np.int32)
    return Automaton(np.array(rows, np.int32).T, answer)


def cycle(places: int) -> Automaton:
    place = np.arange(places, dtype=np.int32)
    moves = (place, (place + 1) % places, (place - 1) % places)
    return Automaton(np.stack(moves).astype(np.int32), place)


def drawn(states: int) -> Automaton:
    delta = np.random.default_rng(states).integers(0, states, (states, states))
    return Automaton(delta.astype(np.int32), np.arange(states, dtype=np.int32))


TOMITA = {
    1: by_rows((1, 0), (1, 1), accepts={0}),
    2: by_rows((2, 1), (0, 2), (2, 2), accepts={0}),
    # even ones, odd ones, then odd zeros, even zeros; lost
    3: by_rows((0, 1), (2, 0), (3, 4), (2, 1), (4, 4), accepts={0, 1, 3}),
    4: by_rows((1, 0), (2, 0), (3, 0), (3, 3), accepts={0, 1, 2}),
    5: by_rows((1, 2), (0, 3), (3, 0), (2, 1), accepts={0}),
    6: by_rows((1, 2), (2, 0), (0, 1), accepts={0}),
    7: by_rows((0, 1), (2, 1), (2, 3), (4, 3), (4, 4), accepts={0, 1, 2, 3}),
}
AUTOMATA: dict[str, Callable[[int], Automaton]] = {  # name -> modulus -> tables
    "cycle_navigation": cycle,
    **{f"tomita{n}": lambda modulus, n=n: TOMITA[n] for n in TOMITA},
    "random": drawn,
}
