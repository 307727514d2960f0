"""Dyck-k: brackets of k kinds, well nested, up to a depth (arXiv:1911.03329, 2010.07515).

A sequence is the beginning of a word of Dyck-(k, m): with nothing open a bracket opens, with m open
ones the last of them closes, else a coin decides; the kind that opens is uniform.  The answer on
each step is the closing bracket that may come next, or none where nothing is open:

    input    ( [ ] ( ) ) [      opening brackets are 0 .. k - 1, closing ones k .. 2 k - 1
    target   ) ] ) ) ) - ]      0: none, i: that of the i-th kind

Any opening bracket may come next, too, so that this class names the whole set of symbols that may,
which the papers have as 0 and 1 for each symbol.  Their words end with nothing open; here they are
cut at T steps.  Metric: sequence_accuracy, the share of sequences without a mistake, is theirs.

Counting is enough for k = 1; k > 1 needs a stack, in m log k bits (arXiv:2010.07515).

Baseline: a predictor that knows t and the present symbol.  After an opening bracket it is right,
after a closing one it knows how likely nothing is open, and no kind.
Length generalisation: longer words, of the same depth; `depth` asks for more memory.
"""

import jax
import jax.numpy as jnp
import numpy as np

from seqjax.core.ranges import Count
from seqjax.tasks.task import Batch, Classes, Metrics, Spec, Task, Tokens, sampler

OPENING, CLOSING = "([{<", ")]}>"


def dyck(*, kinds: Count = 2, depth: Count = 10) -> Task:
    """The closing bracket that may come next, for any T.

    kinds: k, of brackets
    depth: m, of brackets that are open at once
    """

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        key_coin, key_kind = jax.random.split(key)
        coins = jax.random.bernoulli(key_coin, 0.5, (length, batch))
        drawn = jax.random.randint(key_kind, (length, batch), 0, kinds, jnp.int32)
        rows = jnp.arange(batch, dtype=jnp.int32)

        def step(carry, now):
            stack, size = carry  # the kinds that are open [B, depth], and how many they are
            coin, kind = now
            opens = (size == 0) | (coin & (size < depth))
            x = jnp.where(opens, kind, kinds + stack[rows, size - 1])
            stack = stack.at[rows, size].set(kind, mode="drop")  # above the top, unless it opens
            size = jnp.where(opens, size + 1, size - 1)
            y = jnp.where(size > 0, 1 + stack[rows, size - 1], 0)
            return (stack, size), (x, y)

        empty = jnp.zeros((batch, depth), jnp.int32), jnp.zeros(batch, jnp.int32)
        x, y = jax.lax.scan(step, empty, (coins, drawn))[1]
        return Batch(x.T, y.T, jnp.ones((batch, length), jnp.float32))

    def baseline(length: int) -> Metrics:
        p = np.eye(depth + 1)[0]  # of how many are open
        loss, accuracy = 0.0, 0.0
        for _ in range(length):
            opens = p * np.where(np.arange(depth + 1) == 0, 1, 0.5) * (np.arange(depth + 1) < depth)
            closes = p - opens
            p = np.roll(opens, 1) + np.roll(closes, -1)
            classes = np.array([closes[1], *[closes[2:].sum() / kinds] * kinds])
            positive = classes[classes > 0]
            loss -= float(positive @ np.log(positive / closes.sum())) if len(positive) else 0.0
            accuracy += float(opens.sum() + classes.max())
        return {"loss": loss / length, "accuracy": accuracy / length}

    named = kinds <= len(OPENING)
    opening = [OPENING[i] if named else f"({i + 1}" for i in range(kinds)]
    closing = [CLOSING[i] if named else f"){i + 1}" for i in range(kinds)]
    spec = Spec(Tokens(2 * kinds), Classes(kinds + 1, per_step=True))
    return Task(
        "dyck", spec, sample, baseline, tokens=[*opening, *closing], classes=["-", *closing]
    )
