"""State tracking: the word problem of a finite group (arXiv:2404.08819; 2411.12537 for parity),
or the answers of a finite automaton (`seqjax.tasks.synthetic.automata`).

Each step shows an element x_t of a group G, uniformly random; the answer on each step is the
running product

    y_t = y_(t-1) x_t,    y_0 the identity,    the earlier factor acting first.

`parity` is the group of two elements, `modular_addition` the residues of `modulus`; both commute
and a diagonal transition tracks them, if its eigenvalues may be negative or complex.  S3 does not
commute but is solvable.  A5 and S5 are not solvable: their word problem is complete for NC1, so no
fixed stack of attention or diagonal recurrences solves it unless TC0 = NC1 (arXiv:2404.08819).

    x int32 [B, T] in 0 .. |G| - 1      y int32 [B, T], the same ids; the identity is 0

Permutations are numbered in lexicographic order of their one-line form; p q is "p, then q".

Baseline: y_t is uniform and independent of x_t for t > 1, so a model without memory has accuracy
1/|G| there and loss log |G|; that is the baseline stated.  Of an automaton it is the predictor that
knows the distribution of y_t and no symbol.
Length generalisation: the rule is the same on every step; test far beyond the trained length.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import Range
from seqjax.tasks.synthetic.automata import AUTOMATA, Automaton
from seqjax.tasks.task import (
    Batch,
    Classes,
    Metrics,
    Spec,
    Task,
    Tokens,
    sampler,
    uniform_baseline,
)


def cyclic(order: int) -> np.ndarray:
    """Composition table [order, order] of addition modulo `order`."""
    element = np.arange(order, dtype=np.int32)
    return (element[:, None] + element[None]) % np.int32(order)


def symmetric(n: int) -> np.ndarray:
    """Composition table of S_n: entry [p, q] is the permutation "p, then q"."""
    return _permutation_table(list(permutations(range(n))))


def alternating(n: int) -> np.ndarray:
    """Composition table of A_n, the permutations of n with an even number of inversions."""

    def even(p: tuple[int, ...]) -> bool:
        return sum(p[i] > p[j] for j in range(n) for i in range(j)) % 2 == 0

    return _permutation_table([p for p in permutations(range(n)) if even(p)])


def _permutation_table(elements: list[tuple[int, ...]]) -> np.ndarray:
    number = {p: i for i, p in enumerate(elements)}
    table = [[number[tuple(q[i] for i in p)] for q in elements] for p in elements]
    return np.array(table, np.int32)


GROUPS: dict[str, Callable[[int], np.ndarray]] = {  # name -> modulus -> composition table
    "parity": lambda modulus: cyclic(2),
    "modular_addition": cyclic,
    "S3": lambda modulus: symmetric(3),
    "A5": lambda modulus: alternating(5),
    "S5": lambda modulus: symmetric(5),
}


def state_tracking(*, group: str = "parity", modulus: Annotated[int, Range(2, 2**15)] = 5) -> Task:
    """The running product in `group`, a name of `GROUPS`, or an automaton, one of `AUTOMATA`.

    modulus: of modular_addition; the places of cycle_navigation; the states of "random".
    """
    if group in AUTOMATA:
        return of_automaton(AUTOMATA[group](modulus))
    if group not in GROUPS:
        known = ", ".join([*GROUPS, *AUTOMATA])
        raise ValueError(f"no group {group!r}: state_tracking knows {known}")
    if modulus < 2:
        raise ValueError(f"modular_addition needs modulus >= 2, got {modulus}")
    table = GROUPS[group](modulus)
    order = len(table)

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        x = jax.random.randint(key, (batch, length), 0, order, jnp.int32)
        product = jnp.asarray(table)
        y = jax.lax.associative_scan(lambda p, q: product[p, q], x, axis=1)
        return Batch(x, y, jnp.ones((batch, length), jnp.float32))

    spec = Spec(Tokens(order), Classes(order, per_step=True))
    return Task("state_tracking", spec, sample, lambda length: uniform_baseline(order))


def of_automaton(automaton: Automaton) -> Task:
    """The answer of the state after each symbol; symbols are uniform."""
    delta, answer = automaton
    symbols, states = delta.shape
    classes = int(answer.max()) + 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        x = jax.random.randint(key, (batch, length), 0, symbols, jnp.int32)

        def then(f: jax.Array, g: jax.Array) -> jax.Array:
            return jnp.take_along_axis(g, f, axis=-1)  # maps of states, f first

        passed = jax.lax.associative_scan(then, jnp.asarray(delta)[x], axis=1)
        y = jnp.asarray(answer)[passed[..., 0]]
        return Batch(x, y, jnp.ones((batch, length), jnp.float32))

    def baseline(length: int) -> Metrics:
        step = np.zeros((states, states))
        np.add.at(step, (np.tile(np.arange(states), symbols), delta.ravel()), 1 / symbols)
        p, loss, accuracy = np.eye(states)[0], 0.0, 0.0
        for _ in range(length):
            p = p @ step
            q = np.bincount(answer, p, classes)
            loss -= float(q[q > 0] @ np.log(q[q > 0])) / length
            accuracy += float(q.max()) / length
        return {"loss": loss, "accuracy": accuracy}

    spec = Spec(Tokens(symbols), Classes(classes, per_step=True))
    return Task("state_tracking", spec, sample, baseline)
