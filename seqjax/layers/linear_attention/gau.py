"""Gated attention unit (Hua et al. 2022, arXiv:2202.10447 sec. 2): attention inside a GLU.

    n = Norm(x)
    u = silu(W_u n + b_u),  v = silu(W_v n + b_v)             [expansion * features]
    z = silu(W_z n + b_z),  q, k = kappa * z + mu             [size], two views of one z
    o_i = sum_{j <= i} relu(q_i . k_j / length + b_{i-j})^2 v_j
    y = x + W_o (u * o) + b_o                                 the residual is part of the unit

One head, no softmax; the gate u is what makes that enough. The paper divides q.k by the length of
the sequence, which a stream does not know: here it is `length`, a constant, and a step looks back
over that many steps. A sequence of `length` steps is the paper's. The bias is the paper's: a table
of distances below 512, turned vectors from there on; the T5 buckets of a wide-spread
implementation ("t5") are added before the division there: with its weights over `length` it is
this layer. `weights` "laplace" is MEGA's (2209.10655). Not `causal`, all steps see each other and
nothing streams.
"""

import jax
from flax import nnx

from seqjax.nn.base import Layer
from seqjax.nn.gated_attention import INIT, GatedHead, Views
from seqjax.nn.norms import Norm


class GAU(Layer):
    block = True

    def __init__(
        self,
        features: int,
        *,
        size: int = 128,
        expansion: float = 2.0,
        length: int = 512,
        weights: str = "relu2",
        bias: str | None = None,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.size, self.inner, self.causal = size, int(expansion * features), causal
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

        def linear(n, m):
            return nnx.Linear(n, m, kernel_init=INIT, rngs=rngs)

        self.W_u, self.W_v = linear(features, self.inner), linear(features, self.inner)
        self.W_z, self.views = linear(features, size), Views(2, size, rngs=rngs)
        self.head = GatedHead(
            size,
            self.inner,
            length,
            weights=weights,
            bias=bias or ("toeplitz" if length < 512 else "rotary"),
            causal=causal,
            by_length=True,
            rngs=rngs,
        )
        self.W_o = linear(self.inner, features)

    def initial(self):
        return self.head.initial()

    def run(self, x, h, flow):
        n = self.norm(x)
        u, v = jax.nn.silu(self.W_u(n)), jax.nn.silu(self.W_v(n))
        q, k = self.views(jax.nn.silu(self.W_z(n)))
        o, h = self.head(q, k, v, h, flow)
        return x + self.W_o(u * o.astype(x.dtype)), h
