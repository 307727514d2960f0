"""HGRN2 (Qin et al. 2024, arXiv:2404.07904): HGRN whose state is expanded by outer products.

    f_t = gamma + (1 - gamma) * sigmoid(W_f x_t + b_f)              forget gate, at least gamma
    S_t = Diag(f_t) S_{t-1} + (1 - f_t) v_t^T                       S [heads, key, value]
    o_t = q_t^T S_t                                                 read after the write
    q = sigmoid(W_q x + b_q),   v = SiLU(W_v x + b_v)
    y_t = W_o LN(o_t) + b_o                                         LN over all heads at once

The input gate 1 - f is the key, and the output gate of HGRN is the query; neither is scaled. A
head has `expansion` keys and values (128 in the paper's language models), so that there are
features / expansion of them. gamma is `lower_bound`: the paper lets it grow from layer to layer.
eigenvalues "[-1,1]": the f_t that multiplies S_{t-1} becomes 2 f_t - 1 (arXiv:2411.12537), which is
negative only where gamma < 1/2; the key stays 1 - f_t. Of the constructor of flash-linear-attention
not here: short convolutions (off in it).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, option
from seqjax.nn.gates import EIGENVALUES, signed_linear_attention
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm


class HGRN2(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        expansion: int = 128,
        lower_bound: float = 0.0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if not 0 <= lower_bound < 1:
            raise ValueError(f"lower_bound lies in [0, 1), got {lower_bound}")
        self.features = self.out_features = features
        self.K, self.lower_bound = min(expansion, features), lower_bound
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.heads = per_head("features", features, self.K)
        linear = partial(nnx.Linear, features, features, rngs=rngs)
        self.W_q, self.W_f, self.W_v, self.W_o = (linear() for _ in range(4))
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.K))

    def run(self, x, h, flow):
        gamma, logits = self.lower_bound, self.W_f(x)
        log_f = jax.nn.log_sigmoid(logits)
        if gamma:
            log_f = jnp.logaddexp(math.log(gamma), math.log1p(-gamma) + log_f)
        split = partial(split_heads, heads=self.heads)
        o, h = signed_linear_attention(
            split(jax.nn.sigmoid(self.W_q(x))),
            split((1 - gamma) * jax.nn.sigmoid(-logits)),
            wide(split(jax.nn.silu(self.W_v(x)))),
            split(log_f),
            h,
            eigenvalues=self.eigenvalues,
            flow=flow,
        )
        return self.W_o(self.norm(merge_heads(o)).astype(x.dtype)), h
