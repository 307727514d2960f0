"""Induction heads (arXiv:2209.11895) as the sequence task of arXiv:2212.14052 and 2312.00752.

A sequence of uniformly random tokens holds the special token once, at a random place; it ends
with the special token again, and the answer is the token that followed it the first time.

    input    r r r S a r r r r S        target   a, on the last step only

arXiv:2312.00752 trains on 256 steps with a vocabulary of 16.  Here the special token is one more,
id 16, as in the generator published with arXiv:2212.14052.

Baseline: a guess among the ordinary tokens, accuracy 1/16 and loss log 16.
Length generalisation: train on 256 steps, test on 2^6 to 2^20: one pair, ever further back.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler, uniform_baseline


def induction_heads(*, vocabulary: Annotated[int, Range(1)] = 16) -> Task:
    """The token that followed the special token (id `vocabulary`), for any T >= 3."""
    special = vocabulary

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < 3:
            raise ValueError(f"induction_heads needs length >= 3 (S, answer, S), got {length}")
        key_tokens, key_place = jax.random.split(key)
        tokens = jax.random.randint(key_tokens, (batch, length), 0, vocabulary, jnp.int32)
        place = jax.random.randint(key_place, (batch, 1), 0, length - 2, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        last = jnp.broadcast_to(t == length - 1, tokens.shape)
        answer = jnp.take_along_axis(tokens, place + 1, axis=1)
        x = jnp.where((t == place) | last, special, tokens)
        return Batch(x, jnp.where(last, answer, 0), last.astype(jnp.float32))

    spec = Spec(Tokens(vocabulary + 1), Classes(vocabulary, per_step=True))
    return Task("induction_heads", spec, sample, lambda length: uniform_baseline(vocabulary))
