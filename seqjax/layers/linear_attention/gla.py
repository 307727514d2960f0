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
As the release has them: with fewer `kv_heads` each k, v and alpha, and its state, serves several
heads of q in a row; norm "rms" is RMSNorm, "plain" one without weights; q, k and v pass through
SiLU(conv(.)) with `conv` > 0, q and k then through `qk_map`; no log alpha_t is below `lower_bound`;
r_t may do without b_r (`gate_bias`), or without the gate (`output_gate`).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import Convolved, ShortConv, convolved
from seqjax.nn.feature_maps import QK_MAPS
from seqjax.nn.gates import EIGENVALUES, negative_bound, signed_linear_attention
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import NORMS, Norm


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
        norm: str = "layer",
        norm_eps: float = 1e-5,
        output_gate: bool = True,
        gate_bias: bool = True,
        qk_map: str = "identity",
        conv: Annotated[int, Range(0)] = 0,
        lower_bound: Annotated[float | None, Range(below=0)] = None,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads, self.tau = heads, kv_heads or heads, tau
        per_head("heads", heads, self.kv_heads)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.lower_bound = negative_bound(lower_bound)
        self.qk_map = QK_MAPS[option("qk_map", qk_map, QK_MAPS)]
        self.K = key_size or per_head("features", features, 2 * heads)
        self.V = value_size or per_head("features", features, heads)
        keys, values = self.kv_heads * self.K, self.kv_heads * self.V

        def linear(n, m, bias=False):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, keys)
        self.W_v = linear(features, values)
        self.W_r = linear(features, heads * self.V, bias=gate_bias) if output_gate else None
        channels = heads * self.K + keys + values
        self.conv = ShortConv(channels, conv, bias=False, rngs=rngs) if conv else None
        self.W_alpha1, self.W_alpha2 = linear(features, rank), linear(rank, keys)
        self.b_alpha = Precise(jnp.zeros(keys))
        self.W_beta1 = linear(features, rank) if value_gate else None
        self.W_beta2 = linear(rank, values) if value_gate else None
        self.b_beta = Precise(jnp.zeros(values)) if value_gate else None
        self.norm = Norm(self.V, eps=norm_eps, **NORMS[option("norm", norm, NORMS)])
        self.W_o = linear(heads * self.V, features)

    def initial(self):
        S = jnp.zeros((self.kv_heads, self.K, self.V))
        return S if self.conv is None else Convolved(self.conv.initial(), S)

    def log_gate(self, x, W_1, W_2, b):
        """log sigmoid(x W_1 W_2 + b) / tau [T, kv_heads, ..]."""
        log_gate = jax.nn.log_sigmoid(W_2(W_1(x)) + b[...][None]) / self.tau
        return split_heads(log_gate, self.kv_heads)

    def run(self, x, h, flow):
        log_alpha = self.log_gate(x, self.W_alpha1, self.W_alpha2, self.b_alpha)
        if self.lower_bound is not None:
            log_alpha = jnp.maximum(log_alpha, self.lower_bound)
        log_b = None
        if self.W_beta1 is not None:
            log_b = self.log_gate(x, self.W_beta1, self.W_beta2, self.b_beta)
        qkv, window, S = (self.W_q(x), self.W_k(x), self.W_v(x)), (), h
        if self.conv is not None:
            qkv, window = convolved(self.conv, qkv, h.window, flow)
            qkv, S = [jax.nn.silu(z) for z in qkv], h.S
        q, k, v = (split_heads(z, n) for z, n in zip(qkv, (self.heads, *(self.kv_heads,) * 2)))
        o, S = signed_linear_attention(
            self.qk_map(q),
            self.qk_map(k),
            wide(v),
            log_alpha,
            S,
            log_b=log_b,
            eigenvalues=self.eigenvalues,
            scale=self.K**-0.5,
            flow=flow,
        )
        y = merge_heads(self.norm(o)).astype(x.dtype)
        if self.W_r is not None:
            y = jax.nn.silu(self.W_r(x)) * y
        return self.W_o(y), S if self.conv is None else Convolved(window, S)
