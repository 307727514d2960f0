"""The finite automaton that a recurrence runs: read off its states, made minimal, compared.

States that are near each other and give the same answer are one state of the automaton, the first
of them its representative, as in Omlin & Giles (1996): every symbol is tried from every
representative, breadth first, until no new state comes up. What is found is a hypothesis: where
states drift, two that are near are not the same for long. So it is compared: with an automaton,
on all words at once (`difference`), and with the recurrence itself, on all words of a length
(`agreement`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from seqjax.tasks.synthetic.automata import Automaton
from seqjax.tasks.synthetic.state_tracking import GROUPS
from seqjax.theory.jacobians import numbers

Run = Callable[[Array, Any], tuple[Array, Any]]  # x [B, T] tokens, h -> scores [B, T, classes], h


def extract(
    run: Run, start: Any, symbols: int, *, tolerance: float = 1e-3, most: int = 200
) -> Automaton:
    """The automaton of a recurrence from the state `start` of one example.

    tolerance: largest difference of any number of two states that are one. The answer of the first
    state is -1 where nothing leads back to it. Raises ValueError where there are more than `most`.
    """

    @jax.jit
    def each(h: Any) -> tuple[Array, Any]:
        scores, after = jax.vmap(lambda x: run(x[None, None], h))(jnp.arange(symbols))
        return jnp.argmax(scores[:, 0, 0], axis=-1), after

    known = [np.asarray(numbers(start)[0])]
    answers, delta, queue = [-1], [], deque([start])
    while queue:
        found, after = jax.device_get(each(queue.popleft()))
        row = []
        for n, answer in enumerate(found):
            h = jax.tree.map(lambda part, n=n: part[n], after)
            at = np.asarray(numbers(h)[0])
            near = np.max(np.abs(np.stack(known) - at), axis=1) <= tolerance
            same = np.flatnonzero(near & np.isin(answers, (answer, -1)))
            if same.size:
                answers[same[0]] = int(answer)
                row.append(int(same[0]))
                continue
            row.append(len(known))
            known.append(at)
            answers.append(int(answer))
            queue.append(h)
        delta.append(row)
        if len(known) > most:
            raise ValueError(f"more than {most} states are further apart than {tolerance}")
    return Automaton(np.array(delta, np.int32).T, np.array(answers, np.int32))


def minimal(automaton: Automaton) -> Automaton:
    """The smallest one that answers the same (Moore 1956), its states in breadth-first order: two
    that answer the same are equal, table by table.

    A first state of which no answer is known joins any that goes where it goes.
    """
    delta, answer = automaton
    classes, count = np.unique(answer, return_inverse=True)[1], 0
    while classes.max() + 1 > count:  # a class is split by where its states go
        count = classes.max() + 1
        rows = np.concatenate([classes[None], classes[delta]]).T
        classes = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    if answer[0] < 0:
        same = np.all(classes[delta] == classes[delta[:, :1]], axis=0)
        same[0] = False
        classes[0] = classes[np.argmax(same)] if same.any() else classes[0]
    member = {int(c): n for n, c in reversed(list(enumerate(classes))) if answer[n] >= 0 or n == 0}
    order, queue = {int(classes[0]): 0}, deque([int(classes[0])])
    rows, answers = [], []
    while queue:
        state = member[queue.popleft()]
        if answer[state] < 0:  # of its class another one's is known
            state = next((n for n in np.flatnonzero(classes == classes[state]) if n), state)
        answers.append(answer[state])
        for to in classes[delta[:, state]]:
            if int(to) not in order:
                order[int(to)] = len(order)
                queue.append(int(to))
        rows.append([order[int(to)] for to in classes[delta[:, state]]])
    return Automaton(np.array(rows, np.int32).T, np.array(answers, np.int32))


def difference(one: Automaton, other: Automaton) -> tuple[int, ...] | None:
    """A shortest word that the two answer differently, of all words; None: there is none."""
    queue: deque[tuple[tuple[int, ...], int, int]] = deque([((), 0, 0)])
    seen = {(0, 0)}
    while queue:
        word, p, q = queue.popleft()
        for symbol in range(len(one.delta)):
            pair = int(one.delta[symbol, p]), int(other.delta[symbol, q])
            if one.answer[pair[0]] != other.answer[pair[1]]:
                return (*word, symbol)
            if pair not in seen:
                seen.add(pair)
                queue.append(((*word, symbol), *pair))
    return None


def agreement(run: Run, start: Any, automaton: Automaton, length: int) -> float:
    """The share of all words of that length whose every prefix the two answer alike.

    start: the state of as many examples as there are words, symbols^length, or None.
    """
    x = np.array(list(product(range(len(automaton.delta)), repeat=length)))
    state, right = np.zeros(len(x), int), np.ones(len(x), bool)
    answers = np.asarray(jnp.argmax(jax.jit(run)(jnp.asarray(x), start)[0], axis=-1))
    for t in range(length):
        state = automaton.delta[x[:, t], state]
        right &= automaton.answer[state] == answers[:, t]
    return float(right.mean())


def of_group(name: str, modulus: int = 5) -> Automaton:
    """The automaton of the word problem of a group of `state_tracking`."""
    table = GROUPS[name](modulus)
    return Automaton(table.T, np.arange(len(table), dtype=np.int32))
