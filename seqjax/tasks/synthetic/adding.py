"""The adding task (Hochreiter & Schmidhuber 1997), in the form of arXiv:1511.06464.

Every step shows a number u1(t), uniform in (0, 1), and a marker u2(t) that is 1 at two steps,
ta in the first half and tb in the second, and 0 elsewhere.  At the end the answer is the sum
u1(ta) + u1(tb).  The original drew from (-1, 1), halved the sum and put both marks early.

    x [B, T, 2] = (u1, u2)      y [B, 1] = u1(ta) + u1(tb)      one answer per sequence

Baseline: always 1, the mean of the sum, has mse 2/12 = 1/6 = 0.1667, the variance of the sum
(arXiv:1504.00941 prints 0.1767).
Length generalisation: the same two numbers, further apart, among more distractors.
"""

import jax
import jax.numpy as jnp

from seqjax.tasks.task import Batch, Features, Spec, Task, Values, sampler


def adding() -> Task:
    """The sum of two marked numbers, for any T >= 2."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        if length < 2:
            raise ValueError(f"adding needs a step in each half: length >= 2, got {length}")
        key_u, key_a, key_b = jax.random.split(key, 3)
        u = jax.random.uniform(key_u, (batch, length), jnp.float32)
        half = length // 2
        ta = jax.random.randint(key_a, (batch, 1), 0, half, jnp.int32)
        tb = jax.random.randint(key_b, (batch, 1), half, length, jnp.int32)
        t = jnp.arange(length, dtype=jnp.int32)[None]
        marker = (t == ta) | (t == tb)
        y = jnp.sum(jnp.where(marker, u, 0), axis=1, keepdims=True)
        x = jnp.stack([u, marker.astype(jnp.float32)], axis=-1)
        return Batch(x, y, jnp.ones(batch, jnp.float32))

    spec = Spec(Features(2), Values(1, per_step=False))
    return Task("adding", spec, sample, lambda length: {"loss": 1 / 6, "mse": 1 / 6})
