"""Mamba-3 (arXiv:2603.15569): trapezoidal steps, complex states as rotations, several inputs.

    [z, x, B, C, delta, a, tau, phi] = W_in u             d = expand * features = heads * P channels
    A = -max(heavy_tail(a), floor),  dt = softplus(delta + dt_bias),  lambda = sigmoid(tau) per head
    theta_t = theta_{t-1} + pi tanh(phi_t) dt_t            an angle per pair of channels of B and C
    B_t, C_t = turn(RMSNorm(B) + B_bias, theta_t), turn(RMSNorm(C) + C_bias, theta_t)
    S_t = alpha_t S_{t-1} + (1 - lambda_t) dt_t alpha_t B_{t-1} x_{t-1}^T + lambda_t dt_t B_t x_t^T
    y_t = W_out ((C_t^T S_t + D x_t) * SiLU(z_t))          alpha_t = exp(A_t dt_t), S [heads, N, P]

The integral over a step is taken at both of its ends, weighted by lambda (lambda = 1 is Mamba-2's
Euler step, lambda = 1/2 the trapezoid), and both ends with the dt and lambda of the *current* step.
A state matrix with complex eigenvalues acts like a turning of B and C by the angles that have
accumulated: pairs (2i, 2i + 1) of the first `rotary_fraction` of the N channels turn. There is no
short convolution. heavy_tail(a) is 1 + a above zero and 1 / (1 - a) below.

With `rank` R > 1 (MIMO) every head has R inputs and outputs over one state:

    S_t sums over B_r (x * X_r)^T,   y_t = sum_r O_r * (C_r^T S_t + D x X_r) * SiLU(z * Z_r)

X, Z, O [heads, R, P] start at 1/R, 1, 1/R; B_bias and C_bias at 1, D at 1, softplus(dt_bias)
log-uniform in [dt_min, dt_max]. The release pairs channels i and i + N/2 in its MIMO kernels; here
the pairs are neighbours for any rank, as in its step. With `norm` each C_r^T S_t + D x X_r is
RMS-normalised over its P channels before the gate, and multiplied by a weight [heads, P].

As one linear attention: what step t + 1 writes of (B_t, x_t) is written at step t already, so that
one write per input remains, of weight lambda_t dt_t + (1 - lambda_{t+1}) dt_{t+1}; a step reads
what the ones before it have left, decayed by alpha_t, and adds its own lambda_t dt_t B_t x_t^T to
that. R inputs are R steps of a stretched time axis, R reads of one step R heads on one state.

The state holds S, theta and the last B and x, none of which but S can be learned to start from.
Of the release's options not here: dt_init_floor, below the default dt_min; and for rank > 1
one norm over all heads and the gate in front of it (fuse_pregate_headwise_norm False): it needs a
norm of another shape.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import token_shift
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.heads import share_heads
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.linear_scan import linear_scan


class Mamba3State(NamedTuple):
    S: Array  # [heads, N, P]
    theta: Array  # [heads, angles], in [0, 2 pi)
    B: Array  # [R, heads, N], the last one, turned
    x: Array  # [heads, P], the last one

    def canonical(self):
        return self._replace(theta=jnp.stack([jnp.cos(self.theta), jnp.sin(self.theta)], axis=-1))


class Mamba3(Layer):
    ops, side_ops = ("linear_attention",), ("linear_scan", "short_convolution")
    learned = "S"

    def __init__(
        self,
        features: int,
        *,
        state: int = 128,
        heads: int | None = None,
        groups: int = 1,
        rank: int = 1,
        expand: int = 2,
        rotary_fraction: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        floor: float = 1e-4,
        norm: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        d, self.N, self.groups, self.rank = expand * features, state, groups, rank
        self.heads, self.floor = heads or max(1, d // 64), floor
        self.P = per_head("expand * features", d, self.heads)
        per_head("heads", self.heads, groups)
        self.angles = int(state * rotary_fraction) // 2
        if rank < 1 or self.angles < 1:
            raise ValueError(f"no rank ({rank}) or no pair of channels to turn ({self.angles})")
        BC = rank * groups * state
        self.sizes = (d, d, BC, BC, self.heads, self.heads, self.heads, self.angles)
        self.W_in = nnx.Linear(features, sum(self.sizes), use_bias=False, rngs=rngs)
        self.dt_bias = Precise(time_step_bias(rngs.params(), self.heads, dt_min, dt_max))
        self.B_norm, self.C_norm = Norm(state, eps=1e-5), Norm(state, eps=1e-5)
        self.B_bias, self.C_bias = (Precise(jnp.ones((rank, self.heads, state))) for _ in range(2))
        self.D = Precise(jnp.ones(self.heads))
        if rank > 1:
            shape = (rank, self.heads, self.P)
            self.X, self.Z = nnx.Param(jnp.ones(shape) / rank), nnx.Param(jnp.ones(shape))
            self.O = nnx.Param(jnp.ones(shape) / rank)
        self.norm = Norm(self.heads, self.P, eps=1e-5) if norm else None
        self.W_out = nnx.Linear(d, features, use_bias=False, rngs=rngs)

    def initial(self):
        return Mamba3State(
            jnp.zeros((self.heads, self.N, self.P)),
            jnp.zeros((self.heads, self.angles)),
            jnp.zeros((self.rank, self.heads, self.N)),
            jnp.zeros((self.heads, self.P)),
        )

    def inputs(self, x: Array) -> Array:
        """x * X_r [T, R, heads, P] of x [T, heads, P]."""
        return x[:, None] * self.X[...][None].astype(x.dtype) if self.rank > 1 else x[:, None]

    def run(self, x, h, flow):
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        z, u, B, C, delta, a, tau, phi = jnp.split(self.W_in(x), ends, axis=1)
        B, C = (v.reshape(len(x), self.rank, self.groups, self.N) for v in (B, C))
        high = self.dt_bias[...].dtype
        delta, a, tau, phi = (v.astype(high) for v in (delta, a, tau, phi))
        dt = jax.nn.softplus(delta + self.dt_bias[...][None])
        phi = jnp.broadcast_to(phi[:, None], (len(x), self.heads, self.angles))
        y, h = self.mix(
            self.C_norm(C),
            self.B_norm(B),
            split_heads(u, self.heads),
            split_heads(z, self.heads),
            -jnp.maximum(heavy_tail(a), self.floor) * dt,
            dt,
            jax.nn.sigmoid(tau),
            phi,
            h,
            flow,
        )
        return self.W_out(merge_heads(y)), h

    def mix(self, C, B, x, z, log_alpha, dt, lam, phi, h, flow):
        """Everything between the projections, y [T, heads, P] and the state.

        B, C [T, R, groups, N], x and z (or None) [T, heads, P], log_alpha, dt and lam [T, heads],
        phi [T, heads, angles].
        """
        T, R = len(x), self.rank
        turns = (jnp.pi * jnp.tanh(phi) * dt[:, :, None]).reshape(T, -1)
        theta, last_theta = linear_scan(
            jnp.ones_like(turns[0]),
            turns,
            jax.tree.map(lambda s: s.reshape(-1), h.theta),
            flow=flow.of(),
        )
        theta = theta.reshape(T, 1, self.heads, self.angles)
        B = turn(share_heads("mamba3", "B", B, self.heads) + self.B_bias[...][None], theta)
        C = turn(share_heads("mamba3", "C", C, self.heads) + self.C_bias[...][None], theta)
        v = self.inputs(x)

        before = (1 - lam) * dt  # what a step writes of the one before
        none = jnp.zeros_like(before[:1])
        shifted, _ = token_shift(
            before[::-1], Carry(none, none), flow=replace(flow, resets=None).backwards()
        )
        after = shifted[::-1]  # what the next one will write of this
        write = (lam * dt + after).astype(v.dtype)
        first, last, some = kept_ends(T, flow.mask)
        last_v = self.inputs(h.now.x[None])[0]
        owed = jnp.where(some, before[first], 0)[:, None, None]
        S = h.now.S + owed * jnp.einsum("rhn,rhp->hnp", h.now.B, last_v)

        def micro(value):  # one step per input; the first of a token decays and resets
            return value.reshape(T * R, *value.shape[2:])

        each = jnp.zeros((R,), bool).at[0].set(True)
        stretched = Flow(
            None if flow.resets is None else micro(flow.resets[:, None] & each[None]),
            None if flow.mask is None else jnp.repeat(flow.mask, R),
            evaluator=flow.evaluator,
        )
        # All read what the steps before have left, `write` of the last of them by this step's
        # `before`; so no output looks at what the next step will write.
        reads = jnp.swapaxes(C, 1, 2).reshape(T, 1, self.heads * R, self.N)
        y, S = linear_attention(
            micro(jnp.where(each[None, :, None, None], reads, 0)).astype(v.dtype),
            micro(B).astype(v.dtype),
            micro(v * write[:, None, :, None]),
            micro(jnp.where(each[None, :, None], log_alpha[:, None], 0)),
            Carry(S, h.start.S),
            bonus=jnp.zeros((self.heads, self.N), S.dtype),
            flow=stretched,
        )
        y = jnp.swapaxes(y.reshape(T, R, self.heads, R, self.P)[:, 0], 1, 2)
        y = jnp.exp(log_alpha).astype(y.dtype)[:, None, :, None] * y
        scores = jnp.einsum("tjhn,tihn->tjih", C, B) * (lam * dt)[:, None, None]
        y += jnp.einsum("tjih,tihp->tjhp", scores.astype(y.dtype), v)
        y += self.D[...][None, None, :, None].astype(y.dtype) * v
        if self.norm is not None:
            y = self.norm(y)
        if z is not None:
            y *= jax.nn.silu(z[:, None] * self.Z[...][None] if R > 1 else z[:, None])
        y = jnp.sum(y * self.O[...][None], axis=1) if R > 1 else y[:, 0]
        state = Mamba3State(
            S,
            jnp.mod(last_theta, 2 * jnp.pi).reshape(h.now.theta.shape),
            jnp.where(some, B[last].astype(h.now.B.dtype), h.now.B),
            jnp.where(some, x[last].astype(h.now.x.dtype), h.now.x),
        )
        return y, state


def heavy_tail(a: Array) -> Array:
    return jnp.maximum(a, 0) + 1 / (1 - jnp.minimum(a, 0))


def turn(x: Array, theta: Array) -> Array:
    """Neighbours (2i, 2i + 1) of x [..., N] turned by theta [..., A], the first A pairs of them."""
    angles = theta.shape[-1]
    pairs = x[..., : 2 * angles].reshape(*x.shape[:-1], angles, 2)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    turned = [pairs[..., 0] * cos - pairs[..., 1] * sin, pairs[..., 0] * sin + pairs[..., 1] * cos]
    turned = jnp.stack(turned, axis=-1).reshape(*x.shape[:-1], 2 * angles)
    return jnp.concatenate([turned, x[..., 2 * angles :]], axis=-1)


def kept_ends(T: int, mask: Array | None) -> tuple[Array, Array, Array]:
    """The places of the first and the last kept step, and whether there is one."""
    kept = jnp.ones(T, bool) if mask is None else mask
    return jnp.argmax(kept), T - 1 - jnp.argmax(kept[::-1]), jnp.any(kept)
