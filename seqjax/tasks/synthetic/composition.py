"""k-fold composition of functions (arXiv:2402.08164): where did the father of her aunt study?

k functions on `size` values, each drawn uniformly and listed as its pairs (a, f(a)) in random
order after a mark, then one value: the answer is what all of them make of it, the first one first.

    input    f a f(a) a' f(a') .. f .. x       k (2 size + 1) + 1 steps
    target                                f_k(.. f_1(x))      one class per sequence

Tokens: the values 0 .. size - 1 and the mark.

Baseline: a guess among the values, accuracy 1 / size and loss log size.
Length generalisation: more functions, k = (length - 1) / (2 size + 1).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.core.ranges import Range
from seqjax.tasks.task import Batch, Classes, Spec, Task, Tokens, sampler, uniform_baseline


def composition(*, size: Annotated[int, Range(2)] = 8) -> Task:
    """The value of k = (length - 1) / (2 size + 1) functions on `size` values."""
    entry = 2 * size + 1

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        count, rest = divmod(length - 1, entry)
        if rest or count < 1:
            raise ValueError(
                f"composition has length {entry} k + 1 for k functions on {size} values, "
                f"got {length}"
            )
        key_f, key_a, key_x = jax.random.split(key, 3)
        f = jax.random.randint(key_f, (batch, count, size), 0, size, jnp.int32)
        value = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), f.shape)
        a = jax.random.permutation(key_a, value, axis=2, independent=True)
        pairs = jnp.stack([a, jnp.take_along_axis(f, a, axis=2)], axis=3)
        listed = jnp.pad(pairs.reshape(batch, count, 2 * size), ((0, 0), (0, 0), (1, 0)),
                         constant_values=size)  # fmt: skip
        x = jax.random.randint(key_x, (batch,), 0, size, jnp.int32)
        y = x
        for n in range(count):
            y = jnp.take_along_axis(f[:, n], y[:, None], axis=1)[:, 0]
        tokens = jnp.concatenate([listed.reshape(batch, -1), x[:, None]], axis=1)
        return Batch(tokens, y, jnp.ones(batch, jnp.float32))

    spec = Spec(Tokens(size + 1), Classes(size, per_step=False))
    return Task("composition", spec, sample, lambda length: uniform_baseline(size))
