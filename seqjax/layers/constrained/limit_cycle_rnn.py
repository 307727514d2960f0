"""A start in limit cycles (Park et al. 2023, arXiv:2308.12585).

    h_t = tanh(W x_t + U h_{t-1} + b) = y_t                                        h [hidden]
    U = diag(R_1, R_2, ..),   R_j = gain [[cos t_j, -sin t_j], [sin t_j, cos t_j]]

An `elman` network whose pairs of units oscillate by themselves at first: gain > 1 drives them away
from 0 and tanh holds them in, on a cycle of about 2 pi / t_j steps. On an attracting cycle the
phase keeps what was put into it, and gradients along it neither vanish nor explode, which needs no
fine tuning as a line of fixed points does: for timing, and dependencies over long times.

As in the authors' code gain is 1.5 and t_j uniform in [pi / 21, pi / 3.8].
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.elman import Elman


class LimitCycleRNN(Elman):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        gain: float = 1.5,
        rngs: nnx.Rngs,
    ):
        super().__init__(features, hidden=hidden, rngs=rngs)
        if self.hidden % 2:
            raise ValueError(f"hidden must be even, for pairs of units, got {self.hidden}")
        pairs, low, high = self.hidden // 2, math.pi / 21, math.pi / 3.8
        t = jax.random.uniform(rngs.params(), (pairs,), minval=low, maxval=high)
        R = jnp.stack([jnp.cos(t), -jnp.sin(t), jnp.sin(t), jnp.cos(t)], axis=1)
        R = gain * R.reshape(pairs, 2, 2)
        self.U = nnx.Param(jax.scipy.linalg.block_diag(*R))
