"""Real-gated linear recurrent unit (De et al. 2024, arXiv:2402.19427 sec. 2.4).

    r_t = sigmoid(W_a x_t + b_a)                                    recurrence gate, eq. 1
    i_t = sigmoid(W_x x_t + b_x)                                    input gate, eq. 2
    log a_t = -c softplus(Lambda) r_t,   c = 8                      eq. 3, 6
    h_t = a_t * h_{t-1} + sqrt(1 - a_t^2) * (i_t * x_t) = y_t       eq. 4        h [features]

W_a and W_x are block-diagonal with `blocks` equal blocks. Lambda is drawn such that a^c = a_t at
r_t = 1 is uniform in [0.9, 0.999] (sec. 2.4; our Lambda is minus the paper's, whose a is
sigmoid(Lambda); the released code draws a, not a^c, and by area).

unscaled_start: the first step of a sequence, and the step of a reset, take i_t * x_t with the
    multiplier 1 in place of sqrt(1 - a_t^2), as the released code does.
eigenvalues "[-1,1]": a_t becomes 2 a_t - 1 (arXiv:2411.12537).
The derivative of the square root is bounded by 1000, as in the released code.

Of the release's options not here: complex gates (only_real=False), which the paper's models do
without, a least radius other than the paper's 0.9, and scales of initial weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.monoid import diagonal
from seqjax.core.scan import scan
from seqjax.nn.base import Precise, option
from seqjax.nn.gates import EIGENVALUES, decay, one_minus_square
from seqjax.nn.linear import per_head
from seqjax.nn.recurrent import Associative

C = 8.0


class RGLRUState(NamedTuple):
    """The state with `unscaled_start`; without it the state is h alone."""

    h: jax.Array  # [features]
    fresh: jax.Array  # bool [], no step was taken yet


@jax.custom_jvp
def bounded_sqrt(x):
    """sqrt(x) for x >= 0 with a derivative of at most 1000."""
    return jnp.sqrt(x)


@bounded_sqrt.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return jnp.sqrt(x), dx * jax.lax.rsqrt(jnp.maximum(4 * x, 1e-6))


class RGLRU(Associative):
    monoid = diagonal

    def __init__(
        self,
        features: int,
        *,
        blocks: int = 1,
        unscaled_start: bool = False,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.blocks, self.width = blocks, per_head("features", features, blocks)
        self.unscaled_start = unscaled_start
        self.sequence_parallel = not unscaled_start  # which step is the first, is counted here
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)

        def gate():
            init = nnx.initializers.lecun_normal(batch_axis=0)
            return nnx.Param(init(rngs.params(), (blocks, self.width, self.width)))

        self.W_a, self.W_x = gate(), gate()
        self.b_a, self.b_x = Precise(jnp.zeros(features)), Precise(jnp.zeros(features))
        u = jax.random.uniform(rngs.params(), (features,), minval=0.9, maxval=0.999)
        self.Lambda = Precise(jnp.log(jnp.expm1(-jnp.log(u) / C)))

    def initial(self):
        h = jnp.zeros(self.features)
        return RGLRUState(h, jnp.ones((), bool)) if self.unscaled_start else h

    def drive(self, x):
        """(log a_t, i_t * x_t) of all steps."""
        inputs = x.reshape(len(x), self.blocks, self.width)

        def gate(W, b):
            z = jnp.einsum("tgi,gij->tgj", inputs, W[...]).reshape(x.shape)
            return jax.nn.sigmoid(z + b[...][None])

        log_a = -C * jax.nn.softplus(self.Lambda[...])[None] * gate(self.W_a, self.b_a)
        return log_a, gate(self.W_x, self.b_x) * x

    def lift(self, z, first=None):
        log_a, u = z
        scale = bounded_sqrt(one_minus_square(log_a, self.eigenvalues))
        if first is not None:
            scale = jnp.where(first, 1, scale)
        return decay(log_a, self.eigenvalues), scale * u

    def states(self, x, h, flow):
        if not self.unscaled_start:
            return super().states(x, h, flow)
        taken = jnp.ones(len(x), bool) if flow.mask is None else flow.mask
        count, fresh = jnp.cumsum(taken), h.now.fresh
        first = fresh & (count == 1)
        if flow.resets is not None:
            first = first | flow.resets
        elements = jax.vmap(self.lift)(self.drive(x), first)
        hs, last = scan(diagonal, elements, h.h, flow=flow)
        return RGLRUState(hs, fresh & (count == 0)), RGLRUState(last, fresh & ~jnp.any(taken))

    def step(self, h, z):
        if not self.unscaled_start:
            return super().step(h, z)
        return RGLRUState(diagonal.act(self.lift(z, h.fresh), h.h), jnp.zeros_like(h.fresh))

    def readout(self, h, x):
        return h.h if self.unscaled_start else h
