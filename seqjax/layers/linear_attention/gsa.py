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

slots_by "softmax" is attention with bounded memory (ABC, arXiv:2110.02488): K and V hold means of
the keys and values so far, weighted by exp(s_i) per slot with s = W_f x,

    z_t = log(exp(z_{t-1}) + exp(s_t)),  f_t = exp(z_{t-1} - z_t),  and s_t becomes exp(s_t - z_t)

z [heads, slots] starts at -inf; in a learned start at 0, since out of a weight of exp(-inf) no
gradient comes. A step that finds z = -inf has f_t = 1, as released: slots that come without a
weight stay, and count as much as that step. The release's clamp of s, its rotary positions and its
output gate are not here.
"""

from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import Monoid
from seqjax.core.ranges import Range
from seqjax.core.scan import scan
from seqjax.nn.base import Layer, option
from seqjax.nn.convolution import ShortConv, convolved
from seqjax.nn.feature_maps import QK_MAPS
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import NORMS, Norm
from seqjax.nn.states import entering
from seqjax.ops.slot_attention import State, slot_attention

SLOTS_BY = ("gate", "softmax")

log_sum = Monoid(
    jnp.logaddexp,
    lambda e: jnp.full_like(e, -jnp.inf),
    lambda e, h: jnp.logaddexp(h, e),
    "log-sum",
)


class Slots(NamedTuple):
    K: Array  # [kv_heads, K, slots]
    V: Array  # [kv_heads, slots, V]
    z: Array | None  # [kv_heads, slots], with slots_by "softmax"
    window: Any = ()  # of the short convolution

    def canonical(self):
        return self if self.z is None else self._replace(z=jnp.exp(self.z))


def attended(q, k, v, s, log_f, h: Carry, flow: Flow, *, scale):
    """Outputs [T, heads, V] and the next slots, by `slot_attention`."""
    held = Carry(State(h.now.K, h.now.V), State(h.start.K, h.start.V))
    o, (K, V) = slot_attention(q, k, v, s, log_f, held, scale=scale, flow=flow)
    return o, h.now._replace(K=K, V=V)


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
        slots_by: str = "gate",
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
        self.slots_by = option("slots_by", slots_by, SLOTS_BY)
        self.side_ops = () if slots_by == "gate" else (log_sum.structure,)
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
        z = jnp.full((self.kv_heads, self.slots), -jnp.inf)
        window = () if self.conv is None else self.conv.initial()
        return Slots(K, V, None if self.slots_by == "gate" else z, window)

    def run(self, x, h, flow):
        split = partial(split_heads, heads=self.kv_heads)
        qkv, window = convolved(self.conv, (self.W_q(x), self.W_k(x), self.W_v(x)), h.window, flow)
        q, k, v = qkv if self.conv is None else [jax.nn.silu(z) for z in qkv]
        q, k = split_heads(self.qk_map(q), self.heads), split(self.qk_map(k))
        v = split(jax.nn.silu(v))
        s = split(self.W_f(x)).astype(accumulation_dtype(x.dtype))
        o, h = self.attend(q, k, v, s, h, flow)
        return self.W_o(self.norm(jax.nn.silu(merge_heads(o)))), h._replace(window=window)

    def attend(self, q, k, v, s, h, flow, *, scale=1.0):
        """Outputs [T, heads, V] and the next state, for s = W_f x."""
        if self.slots_by == "gate":
            log_f = jax.nn.log_sigmoid(s) / self.tau
            return attended(q, k, v, -jnp.expm1(log_f), log_f, h, flow, scale=scale)
        z, last = scan(log_sum, s, h.z, flow=flow.of())
        found = entering(z, h.z, flow)
        log_f, s = jnp.where(jnp.isneginf(found), 0, found - z), jnp.exp(s - z)
        o, h = attended(q, k, v, s, log_f, h, flow, scale=scale)
        return o, h._replace(z=last)
