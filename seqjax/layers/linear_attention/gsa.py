"""Gated slot attention (Zhang et al. 2024, arXiv:2409.07146): softmax attention over a few slots.

    K_t = K_{t-1} Diag(f_t) + k_t s_t^T          K [heads, K, slots]
    V_t = Diag(f_t) V_{t-1} + s_t v_t^T          V [heads, slots, V]
    o_t = V_t^T softmax(scale K_t^T q_t)         both read after they are written
    f_t = sigmoid(W_f x_t)^(1/tau),  s_t = 1 - f_t                              tau = 8
    q, k, v = SiLU(W x),  scale = 1
    y_t = W_o RMSNorm(SiLU(o_t))

The op is `seqjax.slot_attention`: two gated linear attentions, one after the other.
With fewer `kv_heads` each k, v and s, and their slots, serve several queries in a row. As the
release has them: q and k pass through `qk_map`, and q, k and v through SiLU(conv(.)) before their
own maps with `conv` > 0; norm "plain" is one without weights.
With other gates it is `abc`.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry
from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import ShortConv, convolved
from seqjax.nn.feature_maps import QK_MAPS
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import NORMS, Norm
from seqjax.ops.slot_attention import State, slot_attention


class Slots(NamedTuple):
    K: Array  # [kv_heads, K, slots]
    V: Array  # [kv_heads, slots, V]
    window: Any = ()  # of the short convolution


class GSA(Layer):
    ops = ("slot_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        slots: int = 64,
        tau: float = 8.0,
        norm: str = "rms",
        qk_map: str = "silu",
        conv: Annotated[int, Range(0)] = 0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.kv_heads = heads, kv_heads or heads
        per_head("heads", heads, self.kv_heads)
        self.K, self.V = (
            n or per_head("features", features, heads) for n in (key_size, value_size)
        )
        self.slots, self.tau = slots, tau
        linear = partial(nnx.Linear, features, use_bias=False, rngs=rngs)
        self.W_q, self.W_k = linear(heads * self.K), linear(self.kv_heads * self.K)
        self.W_v, self.W_f = linear(self.kv_heads * self.V), linear(self.kv_heads * slots)
        self.W_o = nnx.Linear(heads * self.V, features, use_bias=False, rngs=rngs)
        self.norm = Norm(heads * self.V, eps=1e-5, **NORMS[option("norm", norm, NORMS)])
        self.qk_map = QK_MAPS[option("qk_map", qk_map, QK_MAPS)]
        channels = heads * self.K + self.kv_heads * (self.K + self.V)
        self.conv = ShortConv(channels, conv, bias=False, rngs=rngs) if conv else None

    def initial(self):
        K = jnp.zeros((self.kv_heads, self.K, self.slots))
        V = jnp.zeros((self.kv_heads, self.slots, self.V))
        return Slots(K, V, () if self.conv is None else self.conv.initial())

    def run(self, x, h, flow):
        split = partial(split_heads, heads=self.kv_heads)
        qkv, window = convolved(self.conv, (self.W_q(x), self.W_k(x), self.W_v(x)), h.window, flow)
        q, k, v = qkv if self.conv is None else [jax.nn.silu(z) for z in qkv]
        q, k = split_heads(self.qk_map(q), self.heads), split(self.qk_map(k))
        v = split(jax.nn.silu(v))
        log_f = jax.nn.log_sigmoid(split(wide(self.W_f(x)))) / self.tau
        held = Carry(State(h.now.K, h.now.V), State(h.start.K, h.start.V))
        o, (K, V) = slot_attention(q, k, v, -jnp.expm1(log_f), log_f, held, flow=flow)
        return self.W_o(self.norm(jax.nn.silu(merge_heads(o)))), Slots(K, V, window)
