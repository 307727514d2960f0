"""E88, a delta rule with a nonlinear matrix state (the elman project's "FLA hybrid").

    q_t, k_t = unit(silu(conv(W x)_t)),  v_t = silu(conv(W_v x)_t)      unit z = z / (|z| + 1e-6)
    a_t   = exp(-exp(A_log) softplus(W_a x_t + dt_bias))                one per head
    S_t   = tanh(a_t S_{t-1} + k_t (v_t - S_{t-1}^T k_t)^T)             S [heads, key, value]
    y_t   = Q (S_t^T q_t * gate(Z x_t))

Gated DeltaNet with a tanh around the state, and the old value read before the decay: what is kept
is bounded, and may latch, as the state of an LSTM's cell does; time is then not associative.
With `linear_state` there is no tanh.

The project found no use in a convolution, a gate or a norm, and by default there is none. conv:
taps of a causal convolution, without a bias; gate: "sigmoid" or "silu"; norm: RMSNorm of each head.
simple_decay: a_t = sigmoid(W_a x_t).

All matrices are drawn by Xavier's rule, exp(A_log) uniform in [1, 16] (in the project from 0 on),
softplus(dt_bias) log-uniform in [0.001, 0.1]. Left out: q, k and v without silu, or without unit;
v = k (`tie_kv`); heads that are summed before Q (`head_mix`).
"""

from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import decay_parameters
from seqjax.nn.activations import sigmoid, silu
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import Convolved, ShortConv
from seqjax.nn.gates import log_decay
from seqjax.nn.linear import merge_heads, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent

GATES = {"none": None, "sigmoid": sigmoid, "silu": silu}


def unit(z: jax.Array) -> jax.Array:
    """z / (|z| + 1e-6), at least in float32; its gradient at 0 is finite."""
    z = wide(z)
    square = jnp.maximum(jnp.sum(z * z, axis=-1, keepdims=True), jnp.finfo(z.dtype).tiny)
    return z / (jnp.sqrt(square) + 1e-6)


class TanhDelta(Recurrent):
    """S_t and S_t^T q_t, [heads value], of rows [q, k, v, a] of all heads."""

    def __init__(self, heads: int, key_size: int, value_size: int, linear: bool):
        self.heads, self.K, self.V, self.linear = heads, key_size, value_size, linear
        self.features = heads * (2 * key_size + value_size + 1)
        self.out_features = heads * value_size

    def initial(self):
        return jnp.zeros((self.heads, self.K, self.V))

    def row(self, x):
        H, K = self.heads, self.K
        q, k, v, a = jnp.split(x, [H * K, 2 * H * K, len(x) - H])
        return q.reshape(H, K), k.reshape(H, K), v.reshape(H, -1), a

    def step(self, S, x):
        _, k, v, a = self.row(x)
        delta = v - jnp.einsum("hkv,hk->hv", S, k)
        S = a[:, None, None] * S + k[:, :, None] * delta[:, None]
        return S if self.linear else jnp.tanh(S)

    def readout(self, S, x):
        return jnp.einsum("hkv,hk->hv", S, self.row(x)[0]).reshape(-1)


class E88(Layer):
    """The state is S, or Convolved(window, S) with a convolution."""

    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        conv: Annotated[int, Range(0)] = 0,
        linear_state: bool = False,
        simple_decay: bool = False,
        gate: str = "none",
        norm: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.K = heads, key_size or max(1, features // heads)
        self.V = value_size or self.K
        keys, values = heads * self.K, heads * self.V
        self.taps = (2 * keys + values) * max(0, conv - 1)

        def linear(n, m):
            xavier = nnx.initializers.xavier_uniform()
            return nnx.Linear(n, m, use_bias=False, kernel_init=xavier, rngs=rngs)

        self.W_qkv = linear(features, 2 * keys + values)
        self.W_a = linear(features, heads)
        if not simple_decay:
            self.A_log, self.dt_bias = decay_parameters(heads, heads, rngs)
        self.conv = ShortConv(2 * keys + values, conv, bias=False, rngs=rngs) if conv else None
        self.cell = TanhDelta(heads, self.K, self.V, linear_state)
        self.norm = Norm(self.V, eps=1e-5) if norm else None
        self.gate, self.simple_decay = option("gate", gate, GATES), simple_decay
        self.Z = None if gate == "none" else linear(features, values)
        self.Q = linear(values, features)

    def parts(self):
        return self.cell if self.conv is None else Convolved(self.conv, self.cell)

    def run(self, x, h, flow):
        qkv, window, S = self.W_qkv(x), (), h
        if self.conv is not None:
            (qkv, window), S = self.conv(qkv, h.window, flow), h.S
        keys = self.heads * self.K
        q, k, v = jnp.split(silu(qkv), [keys, 2 * keys], axis=1)
        q, k = (merge_heads(unit(split_heads(z, self.heads))) for z in (q, k))
        o, S = self.cell.example(jnp.concatenate([q, k, v, self.decay(x)], axis=1), S, flow)
        if self.norm is not None:
            o = merge_heads(self.norm(split_heads(o, self.heads)))
        if self.Z is not None:
            o = o * GATES[self.gate](self.Z(x))
        return self.Q(o.astype(x.dtype)), S if self.conv is None else Convolved(window, S)

    def decay(self, x: jax.Array) -> jax.Array:
        """[T, heads]."""
        a = self.W_a(x)
        if self.simple_decay:
            return sigmoid(a)
        return jnp.exp(log_decay(a, self.A_log[...], self.dt_bias[...]))
