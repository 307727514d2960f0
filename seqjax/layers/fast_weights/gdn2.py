"""Gated DeltaNet-2 (arXiv:2605.22791): what is erased and what is written are gated apart.

    S_t = (I - k_t (b_t * k_t)^T) Diag(alpha_t) S_{t-1} + k_t (w_t * v_t)^T     S [heads, K, V]
    o_t = K^-1/2 S_t^T q_t                                             read after the write
    b_t = sigmoid(W_b x_t)        erase gate, one per key channel
    w_t = sigmoid(W_w x_t)        write gate, one per value channel

and q, k, v, alpha and the output as in Kimi Delta Attention (`seqjax.layers.fast_weights.kda`),
which is the case b_t = beta_t, w_t = beta_t. As released; eigenvalues "[-1,1]": b_t becomes
2 sigmoid(W_b x_t) (arXiv:2411.12537). `decoupled_delta_rule` is the recurrence alone. Its options,
and what of the release is not here, are those of `kda`.
"""

import jax
import jax.numpy as jnp

from seqjax.layers.fast_weights.kda import KDA
from seqjax.nn.gates import step_size
from seqjax.nn.linear import split_heads
from seqjax.ops.dplr import dplr


class GDN2(KDA):
    ops = ("dplr",)

    def add_gates(self, rngs):
        self.W_b = self.linear(self.heads * self.K, rngs)
        self.W_w = self.linear(self.heads * self.V, rngs)
        self.add_decay(rngs)

    def associate(self, x, q, k, v, S, flow):
        q, k = (jnp.repeat(z, self.heads // self.key_heads, axis=1) for z in (q, k))
        b = split_heads(step_size(self.W_b(x), self.eigenvalues), self.heads)
        w = split_heads(jax.nn.sigmoid(self.W_w(x)), self.heads)
        scale = self.K**-0.5
        return decoupled_delta_rule(q, k, v, b, w, self.log_alpha(x), S, scale=scale, flow=flow)


def decoupled_delta_rule(q, k, v, b, w, log_alpha, state=None, **options):
    """Outputs [B?, T, H, V] and the last S of the rule above; options as those of `dplr`.

    q, k, b, log_alpha [B?, T, H, K]; v, w [B?, T, H, V].
    """
    return dplr(q, k, w * v, jnp.exp(log_alpha) * b * k, -k, log_alpha, state, **options)
