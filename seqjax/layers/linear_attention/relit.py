"""ReLiT and AReLiT (Pramanik et al. 2023, arXiv:2310.15719): gated recurrent linear Transformers.

    k = relu(P_1 x) (x) relu(W_K x),   q = relu(P_2 x) (x) relu(W_Q x)       learned features,
    gamma = sigmoid(P_3 x) (x) sigmoid(W_gamma x)                            eta * size of them
    beta = sigmoid(W_beta x),   v = W_V x

    C_t = ((1 - gamma) (1 - beta)^T) * C_{t-1} + (gamma * k) (beta * v)^T
    s_t = (1 - gamma) * s_{t-1} + gamma * k           C [heads, eta size, size], s [heads, eta size]
    y_t = W_O [C_t^T q / (s_t.q + eps)]                                      per head

(The paper writes the transpose of C.) `gate` decides what decays and is written:
    "factored"  the above, the paper's
    "joint"     C_t = (1 - G) * C_{t-1} + G * (k v^T),  G = gamma beta^T, as released
    "scalar"    the same with beta one number per head, for gamma too: RFA-gate's
    "damped"    the same with the sigmoids of parameters for beta and gamma, and two more of them
                that damp the decay: C_t = (1 - G * (gamma' beta'^T)) * C_{t-1} + G * (k v^T)
                and s_t = (1 - gamma gamma') * s_{t-1} + gamma * k, as MEGA has them
    "delta"     k / |k| for k, beta and gamma one number per head each,
                C_t = (1 - gamma) C_{t-1} + beta gamma k (v - C_{t-1}^T k)^T
                s_t = (1 - gamma) s_{t-1} + beta gamma k
The last two are the release's, which does not let "delta" be reset; here every gate is.
feature_map: "projected" as above, with `f` "relu" or "elu+1", or any of
`seqjax.nn.feature_maps`, of W x with `widening` size channels. gate_map: gamma is "projected"
as above, or "linear", sigmoid(W_gamma x); as the features are, by default. But for "delta" every
entry of C decays by itself, so all states are formed.

r > 0 is AReLiT: C is not kept, but r pairs of vectors, oscillating at r frequencies w,

    K^j_t = (1 - gamma) * K^j_{t-1} + gamma * k cos(w_j tau),   tau = t + 2,  t = 0, 1, ...
    V^j_t = (1 - beta) * V^j_{t-1} + beta * v cos(w_j tau),     w = linspace(-pi, pi, r)
    y_t = W_O [sum_j V^j_t (K^j_t.q) / (2 r s_t.q + eps)]

whose products of cosines approximate that a key meets its own value only: with more frequencies
than steps y_t is a quarter of ReLiT's (the release's 2 r, which W_O takes up). A reset also
restarts the clock tau; the release lets it run on (`restart=False`). Of the release not here: the
block around it, gated as a GRU, which is the model's, and dropout.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry
from seqjax.layers.linear_attention.mao_decay import elementwise
from seqjax.nn.activations import relu
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.feature_maps import elu_plus_one, make_map, outer
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.ops.dplr import dplr
from seqjax.ops.positions import angles, places

GATES = ("factored", "joint", "scalar", "damped", "delta")
GATE_MAPS = ("projected", "linear")
ACTIVATIONS = {"relu": relu, "elu+1": elu_plus_one}


class Oscillators(NamedTuple):
    K: Array  # [r, heads, eta size]
    V: Array  # [r, heads, size]
    s: Array  # [heads, eta size]
    place: Array  # int32 [], of the next step


class ReLiT(Layer):
    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        size: int | None = None,
        eta: int = 4,
        feature_map: str | tuple[str, Mapping[str, Any]] = "projected",
        f: str = "relu",
        widening: int = 1,
        gate: str = "factored",
        gate_map: str | None = None,
        r: int = 0,
        restart: bool = True,
        eps: float | None = None,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.V = heads, size or per_head("features", features, heads)
        self.gate, self.r, self.restart = option("gate", gate, GATES), r, restart
        self.eps = eps or (1e-5 if r else 1e-10)
        if r and gate in ("damped", "delta"):
            raise ValueError(f"r = {r} approximates gates of x that factor, not gate={gate!r}")
        if gate == "delta":
            self.ops, self.side_ops = ("dplr",), ("linear_scan",)
        linear = partial(nnx.Linear, features, rngs=rngs)
        width, projected = heads * self.V, feature_map == "projected"
        if projected and widening != 1:
            raise ValueError(f"projected features are widened by eta, not by widening={widening}")
        self.f, wide = ACTIVATIONS[option("f of projected features", f, ACTIVATIONS)], widening
        self.W_q, self.W_k = linear(wide * width), linear(wide * width)
        self.W_v, self.W_o = linear(width), nnx.Linear(width, features, rngs=rngs)
        self.phi = None if projected else make_map(feature_map, heads, wide * self.V, rngs=rngs)
        self.K = eta * self.V if self.phi is None else self.phi.size
        self.P_1, self.P_2 = (linear(heads * eta) if projected else None for _ in range(2))
        self.add_gates(gate_map or GATE_MAPS[not projected], linear)

    def add_gates(self, gate_map: str, linear: Callable[[int], nnx.Linear]) -> None:
        heads, K, V = self.heads, self.K, self.V
        projected = option("gate_map", gate_map, GATE_MAPS) == "projected"
        sizes = {"scalar": (1, 0), "delta": (1, 1), "damped": (0, 0)}
        beta, gamma = sizes.get(self.gate, (V, V if projected else K))
        self.W_beta = linear(heads * beta) if beta else None
        self.W_gamma = linear(heads * gamma) if gamma else None
        paired = projected and self.gate not in sizes
        self.P_3 = linear(heads * per_head("features of a head", K, V)) if paired else None
        given = dict(beta=V, beta_d=V, gamma=K, gamma_d=K) if self.gate == "damped" else {}
        self.damped = nnx.Dict({n: Precise(jnp.zeros((heads, k))) for n, k in given.items()})

    def initial(self):
        K, V = self.K, self.V
        if not self.r:
            return jnp.zeros((self.heads, K, V + 1))  # C, and s as its last column
        keys, values = jnp.zeros((self.r, self.heads, K)), jnp.zeros((self.r, self.heads, V))
        return Oscillators(keys, values, keys[0], jnp.zeros((), jnp.int32))

    def projected(self, W: nnx.Linear, P: nnx.Linear | None, x: Array, f) -> Array:
        """f(P x) (x) f(W x) [T, heads, K]; without P f(W x)."""
        z = f(wide(split_heads(W(x), self.heads)))
        return z if P is None else outer(f(wide(split_heads(P(x), self.heads))), z)

    def mapped(self, W: nnx.Linear, P: nnx.Linear | None, x: Array) -> Array:
        """[T, heads, K]: features of W x."""
        if self.phi is None:
            return self.projected(W, P, x, self.f)
        return self.phi(wide(split_heads(W(x), self.heads)))

    def write(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """k, gamma [T, heads, K] and v, beta [T, heads, V]; one for each head with "delta"."""
        k, v = self.mapped(self.W_k, self.P_1, x), wide(split_heads(self.W_v(x), self.heads))
        if self.damped:
            beta, gamma = (jax.nn.sigmoid(self.damped[n][...]) for n in ("beta", "gamma"))
            return k, jnp.broadcast_to(gamma, k.shape), v, jnp.broadcast_to(beta, v.shape)
        assert self.W_beta is not None
        beta = wide(split_heads(jax.nn.sigmoid(self.W_beta(x)), self.heads))
        if self.W_gamma is None:
            return k, jnp.broadcast_to(beta, k.shape), v, jnp.ones_like(v)
        return k, self.projected(self.W_gamma, self.P_3, x, jax.nn.sigmoid), v, beta

    def run(self, x, h, flow):
        q = self.mapped(self.W_q, self.P_2, x)
        y, h = self.recall(q, x, h, flow)
        return self.W_o(merge_heads(y).astype(x.dtype)), h

    def recall(self, q, x, h, flow) -> tuple[Array, Any]:
        """[T, heads, V] and the state, for features q [T, heads, K] of queries."""
        read = self.approximate if self.r else self.exact
        read = self.corrected if self.gate == "delta" else read
        return read(q, *self.write(x), h, flow)

    def exact(self, q, k, gamma, v, beta, h, flow) -> tuple[Array, Array]:
        one = jnp.ones_like(v[..., :1])
        v = jnp.concatenate([beta * v, one], axis=-1)
        if self.gate == "factored":
            kept = jnp.concatenate([1 - beta, one], axis=-1)
            a = (1 - gamma)[..., None] * kept[:, :, None]
        else:
            left, right = gamma, beta
            if self.damped:
                left, right = (
                    z * jax.nn.sigmoid(self.damped[n][...])[None]
                    for z, n in ((gamma, "gamma_d"), (beta, "beta_d"))
                )
            a = 1 - left[..., None] * jnp.concatenate([right, one], axis=-1)[:, :, None]
        C, h = elementwise(a, (gamma * k)[..., None] * v[:, :, None], h, flow=flow)
        y = jnp.einsum("thk,thkv->thv", q, C)
        return y[..., :-1] / (y[..., -1:] + self.eps), h

    def corrected(self, q, k, gamma, v, beta, h, flow):
        """`exact` of the gate "delta": beta, gamma [T, heads, 1]."""
        square = jnp.sum(k * k, axis=-1, keepdims=True)
        k = k * lax.rsqrt(jnp.where(square > 0, square, 1))
        written = beta * gamma * k
        # a gate that is 1 in rounding would have no derivative
        log_kept = jnp.log1p(-jnp.minimum(gamma[..., 0], 1 - jnp.finfo(gamma.dtype).epsneg))
        C, s = Carry(h.now[..., :-1], h.start[..., :-1]), Carry(h.now[..., -1], h.start[..., -1])
        o, C = dplr(q, written, v, k, -written, log_kept, C, flow=flow)
        kept = jnp.broadcast_to(1 - gamma, k.shape)
        s, last = elementwise(kept, written, s, flow=flow.of())
        y = o / (jnp.sum(s * q, axis=-1, keepdims=True) + self.eps)
        return y, jnp.concatenate([C, last[..., None]], axis=-1)

    def approximate(self, q, k, gamma, v, beta, h, flow):
        clock = flow if self.restart else replace(flow, resets=None)
        place, last = places(h.place, len(q), flow=clock)
        w = np.linspace(-np.pi, np.pi, self.r)
        cos = jnp.cos(angles(place + 2, w, accumulation_dtype(q.dtype)))
        cos = cos[:, :, None, None].astype(q.dtype)  # [T, r, 1, 1]

        def oscillate(gate, z, state):
            a = jnp.broadcast_to((1 - gate)[:, None], (len(z), *state.now.shape))
            return elementwise(a, cos * (gate * z)[:, None], state, flow=flow)

        K, last_K = oscillate(gamma, k, h.K)
        V, last_V = oscillate(beta, v, h.V)
        s, last_s = elementwise(1 - gamma, gamma * k, h.s, flow=flow)
        y = jnp.einsum("trhv,trhk,thk->thv", V, K, q)
        weight = jnp.sum(s * q, axis=-1, keepdims=True)
        y = y / (2 * self.r * weight + self.eps)
        return y, Oscillators(last_K, last_V, last_s, last)
