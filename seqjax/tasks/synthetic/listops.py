"""ListOps, long (arXiv:2011.04006; the grammar of arXiv:1804.06028): the value of a nested list.

    input    [MAX 2 9 [MIN 4 7 ] 0 ]        target   9, once per sequence

An expression is drawn from the root: a node above the last level is an operator with probability
1/4, else a digit; an operator is uniform among MIN, MAX, MED and SM (the sum modulo 10) and has
2 to `arguments` arguments, their number uniform.  MED of an even number of arguments is the mean of
the middle two, rounded down.  Expressions that are not of `shortest` .. T tokens are drawn again,
shorter ones are padded.  The published set is `shortest` = 501, T = 1999 and the defaults here; its
generator is followed, its 96,000 expressions are not.

    tokens   the digits 0 .. 9, then [MIN [MAX [MED [SM and ]

A node is a token, so the tree is written as it is drawn: what is left to draw is a number of
arguments for each level that is open, and the whole is one loop that can be compiled.

Published accuracies (%): Transformer 36.37 (arXiv:2011.04006), S4 59.60 (arXiv:2111.00396),
S5 62.15 (arXiv:2208.04933).

Baseline: the likeliest value by its frequencies, in 1024 expressions.
Length generalisation: longer expressions, at the same depth.
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import Count, Range
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
END = 10 + len(OPERATORS)
NOTHING = -1
BRANCHING = 0.25  # of a node to be an operator
RAREST = 1e-3  # a share of expressions with so many tokens that can still be waited for


def listops(
    *,
    shortest: Count = 501,
    depth: Annotated[int, Range(2, 30)] = 10,
    arguments: Annotated[int, Range(2, 30)] = 10,
) -> Task:
    """The value of an expression of `shortest` to T tokens.

    shortest: tokens of the shortest expression
    depth: levels of the tree, the root's and that of digits only among them
    arguments: at most so many for an operator
    """

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        _check(length)
        x = draw(key, batch, length, shortest, depth, arguments)
        mask = jnp.ones(batch, jnp.float32)
        return Batch(jnp.maximum(x, 0), value(x, depth), mask, present=x != NOTHING)

    def baseline(length: int) -> Metrics:
        y = np.asarray(sample(jax.random.key(0), 1024, length).y)
        seen = y, np.ones(len(y), np.float32)
        return spec.outputs.baseline(seen, seen)

    def _check(length: int) -> None:
        share = length_law(length, depth, arguments)[shortest:].sum()
        if share < RAREST:
            raise ValueError(
                f"listops needs expressions of {shortest} to {length} tokens to be likelier than "
                f"{RAREST:g}: at depth {depth}, with {arguments} arguments, they are {share:.1g}"
            )

    spec = Spec(Tokens(END + 1), Classes(10, per_step=False))
    digits = [str(d) for d in range(10)]
    return Task("listops", spec, sample, baseline, tokens=[*digits, *OPERATORS, "]"],
                classes=digits)  # fmt: skip


def draw(
    key: jax.Array, batch: int, length: int, shortest: int, depth: int, arguments: int
) -> jax.Array:
    """Expressions [B, T], filled up with NOTHING.

    A first loop draws lengths only, each row until one is right, and keeps the key; a second one
    draws the trees of those keys with their tokens.
    """
    step = partial(next_token, depth=depth, arguments=arguments)
    keys = jax.random.split(key, batch)
    none = jnp.full(batch, -1, jnp.int32)
    start = jnp.zeros((batch, depth + 1), jnp.int32).at[:, 0].set(1)  # one root
    zeros = jnp.zeros(batch, jnp.int32)

    def words(attempt: jax.Array, t: jax.Array) -> jax.Array:
        """Three random words [B, 3] for token t of an attempt."""
        now = jax.vmap(jax.random.fold_in)(keys, attempt * (length + 1) + t)
        return jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(now)

    def again(carry):
        attempt, n, left, level, found = carry
        _, left, level = step(words(attempt, n), left, level)
        n, over = n + 1, left[:, 0] == 0  # the root is drawn, and closed
        over = over & (level == 0)
        right = over & (n >= shortest) & (n <= length)
        found = jnp.where(right & (found < 0), attempt, found)
        anew = over | (n > length)
        left = jnp.where(anew[:, None], start, left)
        level, n = jnp.where(anew, 0, level), jnp.where(anew, 0, n)
        return jnp.where(anew, attempt + 1, attempt), n, left, level, found

    found = jax.lax.while_loop(
        lambda carry: jnp.any(carry[-1] < 0), again, (zeros, zeros, start, zeros, none)
    )[-1]

    def write(carry, t):
        left, level = carry
        there = (left[:, 0] > 0) | (level > 0)
        token, left, level = step(words(found, t), left, level)
        return (left, level), jnp.where(there, token, NOTHING)

    x = jax.lax.scan(write, (start, zeros), jnp.arange(length, dtype=jnp.int32))[1]
    return x.T


def value(x: jax.Array, depth: int) -> jax.Array:
    """Of expressions [B, T] of at most `depth` levels, filled up with NOTHING: int32 [B]."""
    batch = len(x)
    rows, zeros = jnp.arange(batch, dtype=jnp.int32), jnp.zeros(batch, jnp.int32)

    def step(carry, token):
        # Of each level: how many arguments of each value it has so far, and its operator.
        level, counts, operator = carry
        opens, closes = (token >= 10) & (token < END), token == END
        reduced = reduce(counts[rows, level], operator[rows, level])
        level = level + jnp.where(opens, 1, jnp.where(closes, -1, 0))
        argument = jnp.where(closes, reduced, token)
        counts = counts.at[rows, level].multiply(jnp.where(opens, 0, 1)[:, None])
        operator = operator.at[rows, level].set(jnp.where(opens, token - 10, operator[rows, level]))
        counts = counts.at[rows, level, jnp.where((argument >= 0) & ~opens, argument, 10)].add(
            1, mode="drop"
        )
        return (level, counts, operator), None

    counts = jnp.zeros((batch, depth, 10), jnp.int32)
    start = zeros, counts, jnp.zeros((batch, depth), jnp.int32)
    counts = jax.lax.scan(step, start, x.T)[0][1]
    return jnp.argmax(counts[:, 0], axis=1).astype(jnp.int32)  # the root alone


def next_token(
    words: jax.Array, left: jax.Array, level: jax.Array, depth: int, arguments: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The token [B] drawn next, what is left [B, depth + 1] to draw at each level, and the level.

    Level 0 has the root to draw, level l + 1 the arguments of an operator at level l; at one with
    none left its operator closes.
    """
    rows = jnp.arange(len(level), dtype=jnp.int32)
    nested = words[:, 0] >> 30 == 0  # of probability 1 / 4
    which, more = (
        (words[:, i] % jnp.uint32(n)).astype(jnp.int32)
        for i, n in ((1, 10 * len(OPERATORS)), (2, arguments - 1))
    )
    closes = left[rows, level] == 0
    opens = ~closes & nested & (level < depth - 1)
    token = jnp.where(closes, END, jnp.where(opens, 10 + which % len(OPERATORS), which % 10))
    left = left.at[rows, level].add(jnp.where(closes, 0, -1))
    left = left.at[rows, level + 1].set(jnp.where(opens, 2 + more, left[rows, level + 1]))
    level = level + jnp.where(opens, 1, jnp.where(closes, -1, 0))
    return token, left, jnp.maximum(level, 0)  # what is over stays so


def reduce(counts: jax.Array, operator: jax.Array) -> jax.Array:
    """The value [B] of operators over arguments, of each of the ten values so many: [B, 10]."""
    digit = jnp.arange(10, dtype=jnp.int32)[None]
    n = jnp.sum(counts, axis=1, dtype=jnp.int32)[:, None]
    up_to = jnp.cumsum(counts, axis=1, dtype=jnp.int32)

    def ranked(place: jax.Array) -> jax.Array:
        """The argument at a place from 0, in order."""
        return jnp.sum((up_to <= place).astype(jnp.int32), axis=1, dtype=jnp.int32)

    values = [
        ranked(jnp.zeros_like(n)),
        ranked(n - 1),
        (ranked((n - 1) // 2) + ranked(n // 2)) // 2,
        jnp.sum(counts * digit, axis=1, dtype=jnp.int32) % 10,
    ]
    return jnp.stack(values)[operator, jnp.arange(len(operator), dtype=jnp.int32)]


def length_law(longest: int, depth: int, arguments: int) -> np.ndarray:
    """The probability [longest + 1] of each number of tokens, by the convolution of the levels."""
    law = np.eye(longest + 1)[1] if longest else np.zeros(1)  # on the last level a digit
    for _ in range(depth - 1):
        waves = np.fft.rfft(law, 2 * (longest + 1))
        several, power = np.zeros(longest + 1), law
        for _arguments in range(2, arguments + 1):
            power = np.fft.irfft(np.fft.rfft(power, len(waves) * 2 - 2) * waves)[: longest + 1]
            several += power / (arguments - 1)
        law = BRANCHING * np.pad(several, (2, 0))[: longest + 1]
        law[1:2] += 1 - BRANCHING
    return np.maximum(law, 0)  # of what cannot be the transform leaves some 1e-17
