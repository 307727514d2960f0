"""Phone-book look-up (arXiv:2402.01032): copying out of a long context.

N entries of a name and its number, of `digits` digits, then one of the names again: the answer is
its number, digit by digit, each seen before the next is due.  The names of a book are all
different, the digits drawn independently.

    input    n1 d..d n2 d..d .. nN d..d ? n_q d..d      T = N (digits + 1) + digits + 1
    target                                 d..d         the number of n_q, from its name on

Tokens: the digits 0 .. 9, the question mark 10, the names from 11.  The last digit is no input.
The paper has names and numbers as text, with two solved examples before the question.

Baseline: a guess among ten digits, accuracy 1/10 and loss log 10.
Length generalisation: a thicker book, up to one entry for each of `names`.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import (
    Batch,
    Classes,
    Spec,
    Task,
    Tokens,
    draw_distinct,
    sampler,
    uniform_baseline,
)

QUESTION, FIRST = 10, 11


def phonebook(
    *, names: Annotated[int, Range(1)] = 200, digits: Annotated[int, Range(1)] = 7
) -> Task:
    """A number of `digits` digits among N = (length - digits - 1) / (digits + 1) <= `names`."""
    entry = digits + 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        count, rest = divmod(length, entry)
        count -= 1
        if rest or not 1 <= count <= names:
            raise ValueError(
                f"phonebook has length {entry} (N + 1) with 1 <= N <= {names} entries: "
                f"a multiple of {entry} from {2 * entry} to {(names + 1) * entry}, got {length}"
            )
        key_n, key_d, key_q = jax.random.split(key, 3)
        name = draw_distinct(key_n, jnp.zeros(names, jnp.float32), batch, count)
        number = jax.random.randint(key_d, (batch, count, digits), 0, 10, jnp.int32)
        which = jax.random.randint(key_q, (batch, 1), 0, count, jnp.int32)
        book = jnp.concatenate([name[..., None] + FIRST, number], axis=2)
        right = jnp.take_along_axis(number, which[..., None], axis=1)[:, 0]
        mark = jnp.full((batch, 1), QUESTION, jnp.int32)
        query = jnp.take_along_axis(name, which, axis=1) + FIRST
        x = jnp.concatenate([book.reshape(batch, -1), mark, query, right[:, :-1]], axis=1)
        y = jnp.pad(right, ((0, 0), (length - digits, 0)))
        due = (jnp.arange(length) >= length - digits).astype(jnp.float32)
        return Batch(x, y, jnp.broadcast_to(due, (batch, length)))

    spec = Spec(Tokens(FIRST + names), Classes(10, per_step=True))
    return Task("phonebook", spec, sample, lambda length: uniform_baseline(10))
