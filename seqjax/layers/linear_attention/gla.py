"""Gated linear attention (Yang et al. 2023, arXiv:2312.06635).

    S_t = Diag(alpha_t) S_{t-1} + k_t^T v_t            S [heads, key, value]           eq. 3
    o_t = K^-1/2 q_t S_t                               read after the write
    alpha_t = sigmoid(x_t W_alpha^1 W_alpha^2 + b_alpha)^(1/tau)      rank 16, tau = 16   sec. 4.4
    r_t = Swish(x_t W_r + b_r)
    y_t = (r_t * LN(o_t)) W_O                          LN over each head

By default the heads' keys add up to features / 2 and the values to features, as in the paper. The
scale K^-1/2 of q is that of the released code; LN makes it immaterial up to its epsilon.
eigenvalues "[-1,1]": alpha_t becomes 2 alpha_t - 1 (arXiv:2411.12537).

The paper's general gate is the outer product alpha_t^T beta_t (sec. 4.1); it goes on with beta = 1.
With `value_gate` beta_t is as alpha_t, one per value: S_t = Diag(alpha_t) S_{t-1} Diag(beta_t) + ..
With fewer `kv_heads` each k, v and alpha, and its state, serves several heads of q in a row, as the
release has it. Its other feature maps, short convolutions and gate functions are not here.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.gates import EIGENVALUES, signed_linear_attention
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm


class GLA(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        rank: int = 16,
        tau: float = 16.0,
        value_gate: bool = False,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads, self.tau = heads, kv_heads or heads, tau
        per_head("heads", heads, self.kv_heads)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.K = key_size or per_head("features", features, 2 * heads)
        self.V = value_size or per_head("features", features, heads)
        keys, values = self.kv_heads * self.K, self.kv_heads * self.V

        def linear(n, m, bias=False):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, keys)
        self.W_v, self.W_r = linear(features, values), linear(features, heads * self.V, bias=True)
        self.W_alpha1, self.W_alpha2 = linear(features, rank), linear(rank, keys)
        self.b_alpha = Precise(jnp.zeros(keys))
        self.W_beta1 = linear(features, rank) if value_gate else None
        self.W_beta2 = linear(rank, values) if value_gate else None
        self.b_beta = Precise(jnp.zeros(values)) if value_gate else None
        self.norm = Norm(self.V, centre=True, bias=True, eps=1e-5)
        self.W_o = linear(heads * self.V, features)

    def initial(self):
        return jnp.zeros((self.kv_heads, self.K, self.V))

    def log_gate(self, x, W_1, W_2, b):
        """log sigmoid(x W_1 W_2 + b) / tau [T, kv_heads, ..]."""
        return split_heads(jax.nn.log_sigmoid(W_2(W_1(x)) + b[...][None]) / self.tau, self.kv_heads)

    def run(self, x, h, flow):
        log_b = None
        if self.W_beta1 is not None:
            log_b = self.log_gate(x, self.W_beta1, self.W_beta2, self.b_beta)
        o, h = signed_linear_attention(
            split_heads(self.W_q(x), self.heads),
            split_heads(self.W_k(x), self.kv_heads),
            wide(split_heads(self.W_v(x), self.kv_heads)),
            self.log_gate(x, self.W_alpha1, self.W_alpha2, self.b_alpha),
            h,
            log_b=log_b,
            eigenvalues=self.eigenvalues,
            scale=self.K**-0.5,
            flow=flow,
        )
        return self.W_o(jax.nn.silu(self.W_r(x)) * merge_heads(self.norm(o)).astype(x.dtype)), h
