"""GateLoop: data-controlled complex decay (Katsch 2023, arXiv:2311.01927).

    S_t = Diag(a_t) S_{t-1} + k_t v_t^T           S complex [heads, K, V]
    o_t = Re(q_t^T S_t)                           read after the write, not scaled
    a_t = sigmoid(alpha_t) exp(i beta_t)          of linear alpha, beta: per key channel
    y_t = W_o (SiLU(W_g x_t) * o_t)

No complex arithmetic is needed. With phi_t the sum of the angles beta so far, exp(-i phi_t) S_t has
the recurrence of the moduli alone, written by exp(-i phi_t) k_t: real linear attention of queries
and keys turned by phi, as rotary positions would, twice as wide (cos and sin of each channel).

transition: "polar" is the paper's; "modulus" is a = sigmoid(|z|) exp(i angle(z)) of one linear
complex z per head, so 1/2 < |a| < 1, and "modulus_real" the same of a real z: the forms of the
gateloop-transformer package. norm: a LayerNorm over o before the gate, as there. Without `gate` W_g
is left out. Of that package's options not here: frac_gradient_state_transition, which scales the
gradient of a and no value.
`SimpleGateLoop` is that package's element-wise form without keys and queries to match.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import takes_flow
from seqjax.core.monoid import Monoid
from seqjax.core.scan import scan
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.linear_scan import linear_scan

TRANSITIONS = ("polar", "modulus", "modulus_real")


TURN = 6.28125, 2 * jnp.pi - 6.28125  # 2 pi in two parts, of which a multiple of one is exact


def wrap(angle):
    """The same angle in [-pi, pi]: a sum of many would lose its digits."""
    turns = jnp.round(angle / (2 * jnp.pi))
    return angle - turns * TURN[0] - turns * TURN[1]


circle = Monoid(lambda p, q: wrap(p + q), jnp.zeros_like, lambda e, h: wrap(h + e), "rotation")


@takes_flow
def gate_loop(q, k, v, log_r, angle, S, *, scale=1.0, start, resets, mask, evaluator, axis=None):
    """Re(q_t^T S_t) [T, H, V] and the last S [H, K, V] for a = exp(log_r + i angle).

    log_r <= 0 and angle are [T, H, K], or [T, H, 1] if all keys share them.
    """
    zero = jnp.zeros_like(angle[0])
    phi, last = scan(circle, angle, zero, start=zero, resets=resets, mask=mask, axis=axis)
    cos, sin = jnp.cos(phi), jnp.sin(phi)
    parts = lambda S: jnp.concatenate([S.real, S.imag], axis=1)  # noqa: E731
    y, S = linear_attention(
        jnp.concatenate([q * cos, -q * sin], axis=-1),
        jnp.concatenate([k * cos, -k * sin], axis=-1),
        v,
        log_r[..., 0] if log_r.shape[-1] == 1 else jnp.concatenate([log_r, log_r], axis=-1),
        parts(S),
        scale=scale,
        start=parts(start),
        resets=resets,
        mask=mask,
        evaluator=evaluator,
        axis=axis,
    )
    last = last[..., None].astype(S.dtype)
    return y, lax.complex(jnp.cos(last), jnp.sin(last)) * lax.complex(*jnp.split(S, 2, axis=1))


def polar(re, im):
    """log sigmoid |z| and the angle of z; 0 at z = 0, where the gradient of neither exists."""
    square = re**2 + im**2
    away = square > 0
    modulus = jnp.where(away, jnp.sqrt(jnp.where(away, square, 1)), 0)
    angle = jnp.arctan2(jnp.where(away, im, 0), jnp.where(away, re, 1))
    return jax.nn.log_sigmoid(modulus), angle


class GateLoop(Layer):
    ops, side_ops = ("linear_attention",), (circle.structure,)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        inner: int | None = None,
        transition: str = "polar",
        norm: bool = False,
        gate: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        inner = inner or features
        self.heads, self.K = heads, per_head("inner", inner, heads)
        self.transition = option("transition", transition, TRANSITIONS)
        size = 2 * (inner if transition == "polar" else heads)
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.W_q, self.W_k, self.W_v = (linear(features, inner) for _ in range(3))
        self.W_g = linear(features, inner) if gate else None
        self.W_a = linear(features, size // 2 if transition == "modulus_real" else size)
        self.b_a = Precise(jnp.zeros(self.W_a.out_features))
        self.norm = Norm(inner, centre=True, bias=True, eps=1e-5) if norm else None
        self.W_o = linear(inner, features)

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.K), complex)

    def decays(self, x):
        """log |a| and the angle of a, [T, heads, K] or [T, heads, 1]."""
        z = self.W_a(x).astype(accumulation_dtype(x.dtype)) + self.b_a[...][None]
        if self.transition == "modulus_real":
            z = z[..., None]
            return polar(z, jnp.zeros_like(z))
        first, second = (split_heads(part, self.heads) for part in jnp.split(z, 2, axis=1))
        if self.transition == "polar":
            return jax.nn.log_sigmoid(first), second
        return polar(first, second)

    def run(self, x, h, flow):
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        o, h = gate_loop(
            q,
            k,
            wide(v),
            *self.decays(x),
            h,
            flow=flow,
        )
        o = merge_heads(o)
        o = (o if self.norm is None else self.norm(o)).astype(x.dtype)
        return self.W_o(o if self.W_g is None else jax.nn.silu(self.W_g(x)) * o), h


class SimpleGateLoop(Layer):
    """h_t = sigmoid(a_t) h_{t-1} + u_t, y_t = q_t h_t, with (q, u, a) = W RMSNorm(x)."""

    ops = ("linear_scan",)

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.norm = Norm(features, eps=1e-24)
        self.W = nnx.Linear(features, 3 * features, use_bias=False, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.features)

    def run(self, x, h, flow):
        q, u, a = jnp.split(self.W(self.norm(x)), 3, axis=1)
        states, h = linear_scan(
            jax.nn.sigmoid(a),
            u,
            h,
            flow=flow,
        )
        return q * states, h
