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
negative only where gamma < 1/2; the key stays 1 - f_t. `released`, as flash-linear-attention has
it: q = key^-1/2 SiLU(W_q x) and v = W_v x, without biases; norm "rms" is RMSNorm, "plain" one
without weights; `conv` > 0 are short convolutions of W_q x, W_f x and W_v x. `bounded` takes gamma
[features].
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import Convolved, ShortConv, convolved
from seqjax.nn.gates import EIGENVALUES, signed_linear_attention
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import NORMS, Norm


class HGRN2(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        expansion: int = 128,
        lower_bound: float = 0.0,
        released: bool = False,
        norm: str = "layer",
        conv: Annotated[int, Range(0)] = 0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if not 0 <= lower_bound < 1:
            raise ValueError(f"lower_bound lies in [0, 1), got {lower_bound}")
        self.features = self.out_features = features
        self.K, self.lower_bound = min(expansion, features), lower_bound
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.heads = per_head("features", features, self.K)
        self.released = released
        linear = partial(nnx.Linear, features, features, use_bias=not released, rngs=rngs)
        self.W_q, self.W_f, self.W_v, self.W_o = (linear() for _ in range(4))
        self.norm = Norm(features, eps=1e-5, **NORMS[option("norm", norm, NORMS)])
        self.conv = ShortConv(3 * features, conv, bias=False, rngs=rngs) if conv else None

    def initial(self):
        S = jnp.zeros((self.heads, self.K, self.K))
        return S if self.conv is None else Convolved(self.conv.initial(), S)

    def run(self, x, h, flow):
        return self.bounded(x, h, flow, jnp.full(self.features, self.lower_bound))

    def bounded(self, x, h, flow, gamma):
        """`run` with a lower bound of each channel."""
        parts, window, S = (self.W_q(x), self.W_f(x), self.W_v(x)), (), h
        if self.conv is not None:
            parts, window = convolved(self.conv, parts, h.window, flow)
            S = h.S
        q, logits, v = parts
        q, v = (jax.nn.silu(q), v) if self.released else (jax.nn.sigmoid(q), jax.nn.silu(v))
        log_f, gamma = jax.nn.log_sigmoid(logits), gamma[None].astype(logits.dtype)
        inside = jnp.where(gamma > 0, gamma, 0.5)  # the logarithm of 0 has no derivative
        raised = jnp.logaddexp(jnp.log(inside), jnp.log1p(-inside) + log_f)
        split = partial(split_heads, heads=self.heads)
        o, S = signed_linear_attention(
            split(q),
            split((1 - gamma) * jax.nn.sigmoid(-logits)),
            wide(split(v)),
            split(jnp.where(gamma > 0, raised, log_f)),
            S,
            eigenvalues=self.eigenvalues,
            scale=self.K**-0.5 if self.released else 1.0,
            flow=flow,
        )
        y = self.W_o(self.norm(merge_heads(o)).astype(x.dtype))
        return y, S if self.conv is None else Convolved(window, S)
