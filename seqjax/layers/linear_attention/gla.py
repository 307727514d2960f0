"""Gated linear attention (Yang et al. 2023, arXiv:2312.06635).

    S_t = Diag(alpha_t) S_{t-1} + k_t^T v_t            S [heads, key, value]           eq. 3
    o_t = K^-1/2 q_t S_t                               read after the write
    alpha_t = sigmoid(x_t W_alpha^1 W_alpha^2 + b_alpha)^(1/tau)      rank 16, tau = 16   sec. 4.4
    r_t = Swish(x_t W_r + b_r)
    y_t = (r_t * LN(o_t)) W_O                          LN over each head

By default the heads' keys add up to features / 2 and the values to features, as in the paper. The
scale K^-1/2 of q is that of the released code; LN makes it immaterial up to its epsilon.
eigenvalues "[-1,1]": alpha_t becomes 2 alpha_t - 1 (arXiv:2411.12537).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Layer, Precise, option
from seqjax.layers.gates import EIGENVALUES, signed_linear_attention
from seqjax.layers.parts import Norm, merge_heads, per_head, split_heads, wide
from seqjax.ops.linear_attention import LINEAR_ATTENTION


class GLA(Layer):
    evaluators = tuple(LINEAR_ATTENTION.evaluators)

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        rank: int = 16,
        tau: float = 16.0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.tau = heads, tau
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.K = key_size or per_head("features", features, 2 * heads)
        self.V = value_size or per_head("features", features, heads)
        keys, values = heads * self.K, heads * self.V

        def linear(n, m, bias=False):
            return nnx.Linear(n, m, use_bias=bias, rngs=rngs)

        self.W_q, self.W_k = linear(features, keys), linear(features, keys)
        self.W_v, self.W_r = linear(features, values), linear(features, values, bias=True)
        self.W_alpha1, self.W_alpha2 = linear(features, rank), linear(rank, keys)
        self.b_alpha = Precise(jnp.zeros(keys))
        self.norm = Norm(self.V, centre=True, bias=True, eps=1e-5)
        self.W_o = linear(values, features)

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.V))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        split = partial(split_heads, heads=self.heads)
        logits = self.W_alpha2(self.W_alpha1(x)) + self.b_alpha[...][None]
        o, h = signed_linear_attention(
            split(self.W_q(x)),
            split(self.W_k(x)),
            wide(split(self.W_v(x))),
            split(jax.nn.log_sigmoid(logits) / self.tau),
            h,
            eigenvalues=self.eigenvalues,
            scale=self.K**-0.5,
            resets=resets,
            mask=mask,
            reset_state=self.start(),
            evaluator=evaluator,
        )
        return self.W_o(jax.nn.silu(self.W_r(x)) * merge_heads(self.norm(o)).astype(x.dtype)), h
