"""MesaNet (von Oswald et al. 2025, arXiv:2506.05233): every step solves its regression exactly.

    G_t = gamma_t G_{t-1} + beta_t v_t k_t^T          [V, K]
    H_t = gamma_t H_{t-1} + beta_t k_t k_t^T          [K, K]                       per head
    o_t = G_t (H_t + Lambda)^-1 q_t                   no scale

    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = W_v x_t       (v has no convolution)
    gamma_t = sigmoid(W_gamma x_t + b_gamma),  beta_t = sigmoid(W_beta x_t + b_beta)
    Lambda = diag(softplus(lam) + floor)              K numbers per head, 1 at the start
    y_t = W_o RMSNorm(o_t),  or with `output_gate` W_o (RMSNorm(o_t) * SiLU(W_g x_t))

G_t (H_t + Lambda)^-1 is the matrix that maps the keys so far to their values with the least squared
error, discounted by gamma and regularised by Lambda. The recurrence is `seqjax.mesa`, which solves
exactly, step by step, or all steps at once by `iterations` conjugate gradients. The state is
[H, G^T] per head.

Of the constructor of flash-linear-attention `lambda_lower_bound` is `floor`, and the two numbers of
conjugate gradients are one, `iterations`, since a single step is solved exactly. `conv=1` is no
convolution, up to a scale of each channel that W_qk has already. Not here: a bias of the
convolution (off in it).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm, unit
from seqjax.ops.mesa import mesa


class MesaState(NamedTuple):
    window: jax.Array  # [conv - 1, channels of q and k]
    S: jax.Array  # [heads, K, K + V]


class MesaNet(Layer):
    ops = ("mesa",)
    sequence_parallel = True
    learned = "window"  # no solve is exact if the sums do not start positive semidefinite

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        conv: int = 4,
        output_gate: bool = False,
        floor: float = 0.25,
        iterations: int = 30,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        if not 0 <= floor < 1:
            raise ValueError(f"floor must be in [0, 1), where Lambda starts, got {floor}")
        self.features = self.out_features = features
        self.heads, self.floor, self.iterations = heads, floor, iterations
        self.K = key_size or per_head("features", features, heads)
        self.V = value_size or per_head("features", features, heads)

        def linear(m, bias=False):
            return nnx.Linear(features, m, use_bias=bias, rngs=rngs)

        self.W_qk, self.W_v = linear(2 * heads * self.K), linear(heads * self.V)
        self.conv = ShortConv(2 * heads * self.K, conv, bias=False, rngs=rngs)
        self.W_gamma, self.W_beta = linear(heads, bias=True), linear(heads, bias=True)
        self.lam = Precise(jnp.full((heads, self.K), jnp.log(jnp.expm1(1 - floor))))
        self.norm = Norm(self.V, eps=norm_eps)
        self.W_g = linear(heads * self.V) if output_gate else None
        self.W_o = nnx.Linear(heads * self.V, features, use_bias=False, rngs=rngs)

    def initial(self):
        S = jnp.zeros((self.heads, self.K, self.K + self.V))
        return MesaState(self.conv.initial(), S)

    def run(self, x, h, flow):
        qk, window = self.conv(self.W_qk(x), h.window, flow)
        q, k = jnp.split(split_heads(jax.nn.silu(qk), 2 * self.heads), 2, axis=1)
        o, S = mesa(
            unit(q),
            unit(k),
            split_heads(self.W_v(x), self.heads),
            jax.nn.log_sigmoid(self.W_gamma(x)),
            jax.nn.sigmoid(self.W_beta(x)),
            jax.nn.softplus(self.lam[...]) + self.floor,
            h.S,
            iterations=self.iterations,
            flow=flow,
        )
        y = merge_heads(self.norm(o)).astype(x.dtype)
        if self.W_g is not None:
            y = y * jax.nn.silu(self.W_g(x))
        return self.W_o(y), MesaState(window, S)
