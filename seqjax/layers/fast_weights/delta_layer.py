"""What the mixers of the delta family share around their recurrences.

    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)      K and V per head
    o_t, S_t = associate(x_t, q_t, k_t, v_t, S_{t-1})                   defined by each layer
    y_t = W_o (RMSNorm(o_t) * f(gate x_t))                              the norm over each head

S [heads, K, V] (papers often write its transpose). With n corrections per step k and v come with n
rows per step, [T n, heads, ...]. With conv=0 there is no convolution.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.nn.activations import silu
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.nn.initialisation import time_step_bias
from seqjax.nn.linear import Bottleneck, merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm, unit


class DeltaState(NamedTuple):
    window: jax.Array | tuple  # [conv - 1, channels of q, k and v]; (): no convolution
    S: jax.Array  # [heads, key, value]


class DeltaLayer(Layer):
    """A subclass defines `add_gates(rngs)`, which makes its parameters, and `associate`."""

    n: int = 1  # corrections per step

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        key_size: int,
        value_size: int,
        conv: int,
        key_heads: int | None = None,
        gate: str = "full",
        gate_bias: bool = True,
        f: Callable[[jax.Array], jax.Array] = silu,
        norm_eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        """key_heads: how many q and k there are, each for several heads in a row; all, by default.
        gate: W_g is "full", "low rank" (V, with a bias by default) or "none"."""
        self.features = self.out_features = features
        self.heads, self.K, self.V = heads, key_size, value_size
        self.key_heads, self.f = key_heads or heads, f
        per_head("heads", heads, self.key_heads)
        keys, values = self.key_heads * key_size, heads * value_size
        self.sizes = (keys, self.n * keys, self.n * values)
        self.W_qkv = self.linear(sum(self.sizes), rngs)
        if gate == "low rank":
            self.W_g = Bottleneck(features, self.V, values, bias=gate_bias, rngs=rngs)
        else:
            self.W_g = self.linear(values, rngs) if gate == "full" else None
        self.conv = ShortConv(sum(self.sizes), conv, bias=False, rngs=rngs) if conv else None
        self.add_gates(rngs)
        self.norm = Norm(self.V, eps=norm_eps)
        self.W_o = nnx.Linear(values, features, use_bias=False, rngs=rngs)

    def add_gates(self, rngs: nnx.Rngs) -> None:
        raise TypeError(f"{type(self).__name__} must define add_gates()")

    def associate(self, x, q, k, v, S: Carry, flow: Flow) -> tuple[jax.Array, jax.Array]:
        """o [T, heads, V] and the next S, from q [T, key_heads, K], k [T n, key_heads, K],
        v [T n, heads, V], and x for the gates."""
        raise TypeError(f"{type(self).__name__} must define associate()")

    def linear(self, size: int, rngs: nnx.Rngs, *, bias: bool = False) -> nnx.Linear:
        return nnx.Linear(self.features, size, use_bias=bias, rngs=rngs)

    def initial(self):
        window = () if self.conv is None else self.conv.initial()
        return DeltaState(window, jnp.zeros((self.heads, self.K, self.V)))

    def run(self, x, h, flow):
        qkv, window = self.W_qkv(x), ()
        if self.conv is not None:
            qkv, window = self.conv(qkv, h.window, flow)
        q, k, v = jnp.split(qkv, (self.sizes[0], sum(self.sizes[:2])), axis=1)
        q, k = split_heads(q, self.key_heads), split_heads(self.per_correction(k), self.key_heads)
        v = wide(split_heads(self.per_correction(jax.nn.silu(v)), self.heads))
        o, S = self.associate(x, self.mapped(q), self.mapped(k), v, h.S, flow)
        y = merge_heads(self.norm(o)).astype(x.dtype)
        if self.W_g is not None:
            y = y * self.f(self.W_g(x))
        return self.W_o(y), DeltaState(window, S)

    def mapped(self, z: jax.Array) -> jax.Array:
        """q and k [T, heads, K] as the rule takes them."""
        return unit(jax.nn.silu(z))

    def per_correction(self, z: jax.Array) -> jax.Array:
        """[T, n m] -> [T n, m]."""
        return z.reshape(len(z) * self.n, z.shape[1] // self.n)


def decay_parameters(heads: int, steps: int, rngs: nnx.Rngs) -> tuple[Precise, Precise]:
    """A_log [heads], exp of it uniform in [1, 16], and dt_bias [steps], softplus of it log-uniform
    in [0.001, 0.1]: how Mamba-2 starts the decays exp(-exp(A_log) softplus(dt + dt_bias))."""
    rate = jax.random.uniform(rngs.params(), (heads,), minval=1.0, maxval=16.0)
    return Precise(jnp.log(rate)), Precise(time_step_bias(rngs.params(), steps, 1e-3, 1e-1))
