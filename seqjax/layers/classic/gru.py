"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).

    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c_n))       reset "after": cuDNN, torch
    n_t = tanh(W_n x_t + b_n + U_n (r_t * h_{t-1}))             reset "before": the paper, eq. 8
    h_t = z_t * h_{t-1} + (1 - z_t) * n_t                       eq. 7

Rows of W, U and b are stacked in the order r, z, n (torch's). The reset is "before" by default, as
in the paper; "after" needs one matrix product a step instead of two.
z keeps: with `chrono`, the longest time scale expected, b_z starts at log U[1, chrono - 1] instead
of 0 (arXiv:1804.11188). U starts orthogonal, block by block, or by `recurrent_init`. `bias`
False takes b and c out.

heads: the state is cut into so many, [heads, size], and U has a block for each, [3, heads, size,
size]: what one forgets and reads is its own. As many as units give U as a diagonal, the form that
ParaRNN solves by Newton's method (arXiv:2510.21450): the Jacobian of a step is block diagonal.

norm (arXiv:1607.06450), with reset "after": LN(W x) + b and LN(U h), + c_n, in place of W x + b and
U h, each LayerNorm over all three blocks at once and with weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise, option
from seqjax.nn.initialisation import gate_bias, recurrent, recurrent_weights
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent

RESETS = ("before", "after")


class GRU(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        heads: int | None = None,
        reset: str = "before",
        norm: bool = False,
        bias: bool = True,
        chrono: float | None = None,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.reset = option("reset", reset, RESETS)
        if norm and reset == "before":
            raise ValueError("the norm is of U h as a whole, which reset='after' has")
        if norm and heads is not None:
            raise ValueError("the norm is of U h as a whole: leave heads out")
        if chrono is not None and not bias:
            raise ValueError("chrono is how the biases start: it needs bias=True")

        def bias_init(key, shape, dtype):
            b_z = gate_bias(key, H, 0.0, chrono).astype(dtype)
            return jnp.zeros(shape, dtype).at[H : 2 * H].set(b_z)

        # carries b, but with norms theirs does
        use_bias = bias and not norm
        self.W = nnx.Linear(features, 3 * H, use_bias=use_bias, bias_init=bias_init, rngs=rngs)
        self.norm_x, self.norm_h = (
            Norm(3 * H, centre=True, bias=shifts, eps=1e-5) if norm else None
            for shifts in (bias, False)
        )
        if self.norm_x is not None and bias:
            self.norm_x.bias = Precise(bias_init(rngs.params(), (3 * H,), jnp.float32))
        U = recurrent_weights(H, 3, heads=heads, init=recurrent_init, rngs=rngs)
        self.U, self.heads = nnx.Param(U), heads
        self.jacobian = "dense" if heads is None else "block_diagonal"
        self.c_n = nnx.Param(jnp.zeros(H)) if reset == "after" and bias else None

    def initial(self):
        h = jnp.zeros(self.out_features)
        return h if self.heads is None else h.reshape(self.heads, -1)

    def drive(self, x):
        return self.W(x) if self.norm_x is None else self.norm_x(self.W(x))

    def step(self, h, z):
        n = 2 * self.out_features  # where the rows of n begin
        gates, of_n = jnp.split(self.U[...], [n if self.heads is None else 2])
        after, before = self.reset == "after", h.reshape(-1)
        mixed = recurrent(self.U[...] if after else gates, h)
        mixed = mixed if self.norm_h is None else self.norm_h(mixed)
        r, z_ = jnp.split(jax.nn.sigmoid(z[:n] + mixed[:n]), 2)
        if after:
            inner = r * (mixed[n:] if self.c_n is None else mixed[n:] + self.c_n[...])
        else:
            inner = recurrent(of_n, (r * before).reshape(h.shape))
        return (z_ * before + (1 - z_) * jnp.tanh(z[n:] + inner)).reshape(h.shape)

    def readout(self, h, x):
        return h.reshape(-1)
