"""Comba (Hu et al. 2025, arXiv:2506.02475): a delta rule with closed-loop control.

    S_t = alpha_t S_{t-1} + beta_t k_t (v_t - (alpha_t S_{t-1})^T p_t)^T,   p_t = b k_t
    o_t = K^-1/2 S_t^T (q_t - d k_t)                         S [heads, K, V], read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    beta_t = sigmoid(W_beta x_t)
    log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)              one per head
    y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))

State feedback: b = sigmoid(w_b), one per head, corrects with less than what is written (the
transition alpha_t (I - beta_t b k_t k_t^T) is a scalar plus a rank of one). Output feedback: d, one
per head, takes the key off the query; it starts at `d` (1; the authors use 0.02 in small models),
w_b at 1. The decay comes before the read of the correction, as released.

The released kernel takes the corrections before the norms: it forms p and q - d p from what the
convolution gives and then divides q, k and p by their lengths, so that b drops out of p there. Here
q and k get length one first, which is the control law as the paper writes it. By default
K = 3/4 features / heads and V = 2 K. eigenvalues "[-1,1]": beta_t becomes 2 sigmoid(W_beta x_t)
(arXiv:2411.12537). `closed_loop_delta_rule` is the recurrence alone.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Precise
from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.layers.gates import step_size
from seqjax.layers.parts import sigmoid
from seqjax.ops.dplr import DPLR, dplr


class Comba(DeltaProduct):
    evaluators = tuple(DPLR.evaluators)

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        d: float = 1.0,
        conv: int = 4,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            n_h=1,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            conv=conv,
            norm_eps=1e-5,
            eigenvalues=eigenvalues,
            rngs=rngs,
        )
        self.f = sigmoid
        self.w_b = Precise(jnp.ones(heads))
        self.d = Precise(jnp.full(heads, d))

    def associate(self, x, q, k, v, S, **options):
        per_head = lambda z: z[None, :, None]  # noqa: E731
        return closed_loop_delta_rule(
            q - per_head(self.d[...]) * k,
            k,
            v,
            per_head(jax.nn.sigmoid(self.w_b[...])) * k,
            step_size(self.W_beta(x), self.eigenvalues),
            self.log_alpha(x),
            S,
            scale=self.K**-0.5,
            **options,
        )


def closed_loop_delta_rule(q, k, v, p, beta, log_alpha, initial_state=None, **options):
    """Outputs [B?, T, H, V] and the last S of the rule above; options as those of `dplr`.

    q, k, p [B?, T, H, K], v [B?, T, H, V], beta, log_alpha [B?, T, H].
    """
    bk = beta[..., None] * k
    a = jnp.exp(log_alpha)[..., None] * p
    return dplr(q, bk, v, a, -bk, log_alpha, initial_state, **options)
