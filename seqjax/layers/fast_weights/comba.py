"""Comba (Hu et al. 2025, arXiv:2506.02475): a delta rule with closed-loop control.

    S_t = alpha_t S_{t-1} + beta_t k_t (v_t - S_{t-1}^T p_t)^T,   p_t = b k_t       S [heads, K, V]
    o_t = K^-1/2 S_t^T (q_t - d k_t)                                     read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    beta_t = sigmoid(W_beta x_t)
    log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)              one per head
    y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))

State feedback: b = sigmoid(w_b), one per head, corrects with less than what is written. Output
feedback: d, one per head, takes the key off the query; it starts at `d` (1; the authors use 0.02 in
small models), w_b at 1. Without `state_feedback` p_t = k_t, with d = None there is no output
feedback.

The correction reads the state before it decays, unlike that of Gated DeltaNet: the transition
alpha_t I - beta_t b k_t k_t^T is a scalar plus a rank of one, and its eigenvalue along k_t,
alpha_t - beta_t b, lies in (-1, 1) with beta_t in (0, 1), so there is no option `eigenvalues`. So
read the released kernels and their chunk-wise oracle; a naive function beside them, which decays
first, is none that their tests run.

The released kernel takes the corrections before the norms: it forms p and q - d p from what the
convolution gives and then divides q, k and p by their lengths, so that b drops out of p there; that
is `released`, with b and d for each of the key heads. Otherwise q and k get length one first, which
is the control law as the paper writes it. By default K = 3/4 features / heads and V = 2 K. With
fewer `key_heads` than heads each q and k serves several heads in a row. `conv=0` is no convolution;
a bias of it (off in the release) is not here. `closed_loop_delta_rule` is the recurrence alone.
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.nn.activations import sigmoid
from seqjax.nn.base import Precise
from seqjax.nn.norms import unit
from seqjax.ops.dplr import dplr


class Comba(GatedDeltaNet):
    ops = ("dplr",)

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        state_feedback: bool = True,
        d: float | None = 1.0,
        released: bool = False,
        output_gate: bool = True,
        conv: Annotated[int, Range(0)] = 4,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            key_heads=key_heads,
            key_size=key_size,
            value_size=value_size,
            output_gate=output_gate,
            conv=conv,
            norm_eps=norm_eps,
            rngs=rngs,
        )
        self.f, self.released = sigmoid, released
        heads = self.key_heads if released else heads
        self.w_b = Precise(jnp.ones(heads)) if state_feedback else None
        self.d = Precise(jnp.full(heads, d)) if d is not None else None

    def mapped(self, z):
        return jax.nn.silu(z) if self.released else super().mapped(z)

    def associate(self, x, q, k, v, S, flow):
        shared = self.heads // self.key_heads
        if not self.released:
            q, k = (jnp.repeat(z, shared, axis=1) for z in (q, k))
        p = k
        if self.w_b is not None:
            p = jax.nn.sigmoid(self.w_b[...])[None, :, None] * p
        if self.d is not None:
            q = q - self.d[...][None, :, None] * (p if self.released else k)
        if self.released:
            q, k, p = (jnp.repeat(unit(z), shared, axis=1) for z in (q, k, p))
        beta, log_alpha = self.beta(x), self.log_alpha(x)
        scale = self.K**-0.5
        return closed_loop_delta_rule(q, k, v, p, beta, log_alpha, S, scale=scale, flow=flow)


def closed_loop_delta_rule(q, k, v, p, beta, log_alpha, state=None, **options):
    """Outputs [B?, T, H, V] and the last S of the rule above; options as those of `dplr`.

    q, k, p [B?, T, H, K], v [B?, T, H, V], beta, log_alpha [B?, T, H].
    """
    bk = beta[..., None] * k
    return dplr(q, bk, v, p, -bk, log_alpha, state, **options)
