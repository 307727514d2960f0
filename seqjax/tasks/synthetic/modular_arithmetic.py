"""Modular arithmetic, with brackets and without (arXiv:2207.02098; 2405.04517, 2411.12537).

An expression of exactly T symbols, and its value modulo `modulus` as the answer at its end.

    input    ( ( 3 * - 2 ) - ( 4 ) )      target   0  (of -10 modulo 5)

With brackets an expression is drawn as published: of T >= 5 symbols it is (left op right), the
operator uniform among + - * and the T - 3 symbols shared out uniformly; of 4, 3, 2 and 1 symbols it
is (-d), (d), -d and d.  That is a deterministic context-free language. Without brackets, T odd,
digits and operators alternate and a product goes before a sum: a finite automaton is enough.

    tokens   the digits 0 .. modulus - 1, then + - * ( )

With `every` the answer is due after each digit and each bracket that closes: the value of what
stands since the innermost bracket that is open, at the end that of the whole.

    input    ( ( 3 * - 2 ) - ( 4 ) )      target   . . 3 . . 4 4 . . 4 0 0

Metric: accuracy.  The papers train on lengths up to 40 and test on longer ones up to 500
(arXiv:2207.02098) or 256 (arXiv:2405.04517).

Baseline: the likeliest value, by its exact distribution at length T (0 is likely: products), with
`every` by its frequencies in 1024 expressions.
Length generalisation: longer expressions, with brackets deeper ones.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler

OPERATORS = "+-*"


def modular_arithmetic(
    *, modulus: Annotated[int, Range(2, 1000)] = 5, brackets: bool = True, every: bool = False
) -> Task:
    """The value of an expression of T symbols; T must be odd without brackets.

    modulus: of the digits and of the value
    brackets: off for digits and operators alone
    every: the value so far on every step at which there is one
    """
    draw = with_brackets if brackets else without_brackets

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if not brackets and length % 2 == 0:
            raise ValueError(
                f"modular_arithmetic without brackets needs an odd length, got {length}"
            )
        x = draw(key, batch, length, modulus)
        y, due = values(x, modulus)
        if every:
            return Batch(x, jnp.where(due, y, 0), due.astype(jnp.float32))
        return Batch(x, y[:, -1], jnp.ones(batch, jnp.float32))

    def baseline(length: int) -> Metrics:
        if every:
            drawn = sample(jax.random.key(0), 1024, length)
            seen = np.asarray(drawn.y), np.asarray(drawn.mask)
            return spec.outputs.baseline(seen, seen)
        p = (bracketed_law if brackets else flat_law)(length, modulus)
        return {"loss": float(-p[p > 0] @ np.log(p[p > 0])), "accuracy": float(p.max())}

    spec = Spec(Tokens(modulus + 5), Classes(modulus, per_step=every))
    digits = [str(d) for d in range(modulus)]
    return Task("modular_arithmetic", spec, sample, baseline,
                tokens=[*digits, *OPERATORS, *"()"], classes=digits)  # fmt: skip


def without_brackets(key: jax.Array, batch: int, length: int, modulus: int) -> jax.Array:
    key_d, key_o = jax.random.split(key)
    digit = jax.random.randint(key_d, (batch, length), 0, modulus, jnp.int32)
    operator = modulus + jax.random.randint(key_o, (batch, length), 0, 3, jnp.int32)
    return jnp.where(jnp.arange(length)[None] % 2 == 0, digit, operator)


def with_brackets(key: jax.Array, batch: int, length: int, modulus: int) -> jax.Array:
    """What is left to write is a stack: n > 0 an expression of n symbols, -1 - s the symbol s.

    Whatever is on top, one symbol is written at each step.
    """
    minus, opening, closing = modulus + 1, modulus + 3, modulus + 4
    rows = jnp.arange(batch, dtype=jnp.int32)

    def step(carry, key):
        stack, size = carry
        key_d, key_o, key_n = jax.random.split(key, 3)
        digit = jax.random.randint(key_d, (batch,), 0, modulus, jnp.int32)
        operator = modulus + jax.random.randint(key_o, (batch,), 0, 3, jnp.int32)
        n = stack[rows, size - 1]
        left = jax.random.randint(key_n, (batch,), 1, jnp.maximum(n - 3, 2), jnp.int32)
        written = jnp.where(n < 0, -1 - n, jnp.where(n == 1, digit, jnp.where(
            n == 2, minus, opening)))  # fmt: skip
        # what follows, the last first
        rest = jnp.stack([jnp.full(batch, -1 - closing, jnp.int32), n - 3 - left,
                          -1 - operator, left])  # fmt: skip
        rest = jnp.where(n == 2, 1, jnp.where((n == 3) | (n == 4), rest.at[1].set(n - 2), rest))
        count = jnp.where(n < 2, 0, jnp.where(n == 2, 1, jnp.where(n < 5, 2, 4)))
        for i in range(4):
            at = jnp.where(i < count, size - 1 + i, length)  # beyond the end: not written
            stack = stack.at[rows, at].set(rest[i], mode="drop")
        return (stack, size - 1 + count), written

    start = jnp.zeros((batch, length), jnp.int32).at[:, 0].set(length)
    ones = jnp.ones(batch, jnp.int32)
    return jax.lax.scan(step, (start, ones), jax.random.split(key, length))[1].T


def values(x: jax.Array, modulus: int) -> tuple[jax.Array, jax.Array]:
    """Of expressions [B, T]: the value of what stands since the innermost bracket that is open,
    int32 [B, T], and whether there is one, behind a digit or a bracket that closes.

    In each bracket the value so far is a + b, b the last product: + and - add b to a, a digit and a
    bracket that closes multiply b.  A minus after a digit or a bracket is the operator.
    """
    batch, length = x.shape
    rows, zeros = jnp.arange(batch, dtype=jnp.int32), jnp.zeros(batch, jnp.int32)
    plus, minus, opening, closing = modulus, modulus + 1, modulus + 3, modulus + 4

    def step(carry, token):
        stack, depth, a, b, after = carry  # after: a digit or a bracket that closes
        opens, closes, digit = token == opening, token == closing, token < modulus
        kept = jnp.where(opens, depth, length)  # beyond the end: not written
        stack = stack.at[rows, kept].set(jnp.stack([a, b], axis=1), mode="drop")
        outer = stack[rows, depth - 1]
        adds = (token == plus) | ((token == minus) & after)
        factor = jnp.where(digit, token, jnp.where(closes, a + b, jnp.where(token == minus, -1, 1)))
        new_a = jnp.where(opens, 0, jnp.where(closes, outer[:, 0], jnp.where(adds, a + b, a)))
        new_b = jnp.where(opens | adds, 1, jnp.where(closes, outer[:, 1], b)) * factor
        depth = depth + jnp.where(opens, 1, jnp.where(closes, -1, 0))
        now = (new_a + new_b) % modulus, digit | closes
        return (stack, depth, new_a % modulus, new_b % modulus, now[1]), now

    start = (jnp.zeros((batch, length, 2), jnp.int32), zeros, zeros, zeros + 1, zeros > 0)
    found, due = jax.lax.scan(step, start, x.T)[1]
    return found.T, due.T


def bracketed_law(length: int, modulus: int) -> np.ndarray:
    """The distribution [modulus] of the value of an expression of so many symbols."""
    d = np.arange(modulus)
    tables = [
        (f(d[:, None], d[None]) % modulus).ravel() for f in (np.add, np.subtract, np.multiply)
    ]
    laws = [np.full(modulus, 1 / modulus)] * min(length, 4)
    for n in range(5, length + 1):
        lefts = np.arange(1, n - 3)
        pairs = np.mean([np.outer(laws[m - 1], laws[n - 4 - m]) for m in lefts], axis=0)
        laws.append(np.mean([np.bincount(t, pairs.ravel(), modulus) for t in tables], axis=0))
    return laws[length - 1]


def flat_law(length: int, modulus: int) -> np.ndarray:
    d = np.arange(modulus)
    a, b = (v.ravel() for v in np.meshgrid(d, d, indexing="ij"))
    p = np.zeros((modulus, modulus))  # of the sum a before the last product b
    p[0] = 1 / modulus
    for _ in range(length // 2):
        new = np.zeros_like(p)
        for digit in d:
            for target in (((a + b) % modulus, digit), ((a + b) % modulus, -digit % modulus),
                           (a, b * digit % modulus)):  # fmt: skip
                np.add.at(new, target, p.ravel() / (3 * modulus))
        p = new
    return np.bincount((a + b) % modulus, p.ravel(), modulus)
