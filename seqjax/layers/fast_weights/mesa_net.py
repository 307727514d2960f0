"""MesaNet (von Oswald et al. 2025, arXiv:2506.05233): every step solves its regression exactly.

    G_t = gamma_t G_{t-1} + beta_t v_t k_t^T          [V, K]
    H_t = gamma_t H_{t-1} + beta_t k_t k_t^T          [K, K]                       per head
    o_t = G_t (H_t + Lambda)^-1 q_t                   no scale

    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = W_v x_t       (v has no convolution)
    gamma_t = sigmoid(W_gamma x_t + b_gamma),  beta_t = sigmoid(W_beta x_t + b_beta)
    Lambda = diag(softplus(lam) + floor)              K numbers per head, 1 at the start
    y_t = W_o RMSNorm(o_t),  or with `output_gate` W_o (RMSNorm(o_t) * SiLU(W_g x_t))

G_t (H_t + Lambda)^-1 is the matrix that maps the keys so far to their values with the least squared
error, discounted by gamma and regularised by Lambda. Both sums are linear attentions. "sequential"
solves exactly, step by step; "chunked" solves all steps at once by conjugate gradients, in which
the product with H_t is a linear attention with the iterate for a query, so that no H_t but those
between chunks is kept. It takes `iterations` of them, at most K, and is exact if K are taken;
gradients are those of the exact solution, by another solve. The state is [H, G^T] per head.

`mesa_read` is the recurrence alone. H is taken to be symmetric, which every reachable state is.
Of the constructor of flash-linear-attention `lambda_lower_bound` is `floor`, and the two numbers of
conjugate gradients are one, `iterations`, since a single step is solved exactly. `conv=1` is no
convolution, up to a scale of each channel that W_qk has already. Not here: a bias of the
convolution (off in it).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm, unit
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.op import matmul_precision


class MesaState(NamedTuple):
    window: jax.Array  # [conv - 1, channels of q and k]
    S: jax.Array  # [heads, K, K + V]


class MesaNet(Layer):
    evaluators = ("sequential", "chunked")

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
        self.norm = Norm(self.V, eps=1e-5)
        self.W_g = linear(heads * self.V) if output_gate else None
        self.W_o = nnx.Linear(heads * self.V, features, use_bias=False, rngs=rngs)

    def initial(self):
        S = jnp.zeros((self.heads, self.K, self.K + self.V))
        return MesaState(self.conv.initial(), S)

    def run(self, x, h, flow):
        evaluator = flow.evaluator or ("sequential" if len(x) == 1 else "chunked")
        qk, window = self.conv(self.W_qk(x), h.window, flow)
        q, k = jnp.split(split_heads(jax.nn.silu(qk), 2 * self.heads), 2, axis=1)
        o, S = mesa_read(
            unit(q),
            unit(k),
            split_heads(self.W_v(x), self.heads),
            jax.nn.log_sigmoid(self.W_gamma(x)),
            jax.nn.sigmoid(self.W_beta(x)),
            jax.nn.softplus(self.lam[...]) + self.floor,
            h.S,
            replace(flow, evaluator=evaluator),
            iterations=self.iterations,
        )
        y = merge_heads(self.norm(o)).astype(x.dtype)
        if self.W_g is not None:
            y = y * jax.nn.silu(self.W_g(x))
        return self.W_o(y), MesaState(window, S)


def mesa_read(
    q, k, v, log_gamma, beta, Lambda, h: Carry, flow: Flow, *, iterations
) -> tuple[jax.Array, jax.Array]:
    """o [T, H, V] and the last S = [H, G^T] [H, K, K + V]; one example.

    q, k [T, H, K], v [T, H, V], log_gamma, beta [T, H], Lambda [H, K]; the flow names its
    evaluator.
    """
    dtype = accumulation_dtype(q.dtype)
    q, k, v, log_gamma, beta = (z.astype(dtype) for z in (q, k, v, log_gamma, beta))
    written = beta[..., None] * jnp.concatenate([k, v], axis=-1)
    if flow.evaluator == "sequential":
        return by_steps(q, k, written, log_gamma, Lambda, h, flow)
    K = q.shape[-1]

    def attend(query, values, h):
        return linear_attention(query, k, values, log_gamma, h, flow=flow)

    def product(x):  # (H_t + Lambda) x_t for all steps and heads; a linear attention reads x^T H
        H = jax.tree.map(lambda S: jnp.swapaxes(S[..., :K], 1, 2), h)
        return attend(x, written[..., :K], H)[0] + Lambda[None] * x

    def solve(product, q):
        return conjugate_gradients(product, q, min(iterations, K))

    x = lax.custom_linear_solve(product, q, solve, symmetric=True)
    o, S = attend(x, written, h)
    return o[..., K:], S


def by_steps(q, k, written, log_gamma, Lambda, h, flow):
    """The equations, one step after the other."""
    K = q.shape[-1]

    def step(S, now):
        q, k, written, log_gamma, reset, keep = now
        old = S if reset is None else jnp.where(reset, h.start, S)
        new = jnp.exp(log_gamma)[:, None, None] * old + k[:, :, None] * written[:, None]
        S = new if keep is None else jnp.where(keep, new, S)
        x = jnp.linalg.solve(S[..., :K] + jax.vmap(jnp.diag)(Lambda), q[..., None])[..., 0]
        return S, jnp.einsum("hkv,hk->hv", S[..., K:], x)

    with matmul_precision(q.dtype):
        S, o = lax.scan(step, h.now, (q, k, written, log_gamma, flow.resets, flow.mask))
    return o, S


def conjugate_gradients(product, b, iterations):
    """x [..., K] with product(x) = b, for a positive definite matrix per vector of b."""

    def dot(x, y):
        return jnp.sum(x * y, axis=-1, keepdims=True)

    def over(x, y):  # once nothing is left to solve
        return x / jnp.where(y > 0, y, 1)

    def step(now, _):
        x, r, p = now
        Ap = product(p)
        alpha = over(dot(r, r), dot(p, Ap))
        rest = r - alpha * Ap
        p = rest + over(dot(rest, rest), dot(r, r)) * p
        return (x + alpha * now[2], rest, p), None

    return lax.scan(step, (jnp.zeros_like(b), b, b), length=iterations)[0][0]
