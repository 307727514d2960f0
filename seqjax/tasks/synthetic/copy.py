"""The copy memory task (Hochreiter & Schmidhuber 1997), in the form of arXiv:1511.06464.

The alphabet a_0 .. a_9 has 8 symbols, a blank a_8 and a delimiter a_9.  For a delay T:

    input    10 symbols | T - 1 blanks | delimiter | 10 blanks        T + 20 steps
    target   T + 10 blanks                         | the 10 symbols

so the answer starts on the step after the delimiter.  The loss averages over all T + 20 steps,
as published; the accuracies look at the recalled symbols only.

Baseline: a memoryless model that knows the clock answers blank, then guesses: its loss is
10 log 8 / (T + 20), its accuracy 1/8.
Length generalisation: the same ten symbols over a longer delay, T = length - 20.
"""

from math import log
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler


def copy(
    *, symbols: Annotated[int, Range(1)] = 8, memorised: Annotated[int, Range(1)] = 10
) -> Task:
    """Recall `memorised` symbols out of `symbols` after a delay of length - 2 memorised steps."""
    blank, delimiter = symbols, symbols + 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        delay = length - 2 * memorised
        if delay < 1:
            raise ValueError(
                f"copy of {memorised} symbols needs length > {2 * memorised}, got {length}"
            )
        data = jax.random.randint(key, (batch, memorised), 0, symbols, jnp.int32)
        blanks = jnp.full((batch, delay + memorised), blank, jnp.int32)
        x = jnp.concatenate([data, blanks.at[:, delay - 1].set(delimiter)], axis=1)
        y = jnp.concatenate([blanks, data], axis=1)
        return Batch(x, y, jnp.ones((batch, length), jnp.float32))

    spec = Spec(Tokens(symbols + 2), Classes(symbols + 1, per_step=True, blank=blank))
    return Task(
        "copy",
        spec,
        sample,
        lambda length: {"loss": memorised * log(symbols) / length, "accuracy": 1 / symbols},
    )
