"""Softmax attention over the last `window` steps, in the forms that released models use.

    y_t = W_o [ softmax_s(f(scale q_t^h . k_s^g)) v_s^g ]_h          s in (t - window, t]

Grouped queries (arXiv:2305.13245): heads / kv_heads query heads h in a row share the keys and
values g. `qk_norm` puts an RMSNorm on q and k: over each "head", over "each" with weights of its
own, or over "all" heads at once. `softcap` c: f(s) = c tanh(s / c) (Gemma 2). `gate`: the result of
each head is multiplied by sigmoid(W_gate x) before W_o (arXiv:2505.06708); with `head_gate` by one
number, its sigmoid(w x). `positions`:

    "rotary"      `rotary_fraction` of a head's channels turned by their position (arXiv:2104.09864)
                  or, with `rates`, by these angles a step, pair by pair, and multiplied by `gain`:
                  YaRN and others that stretch positions are in `seqjax.ops.rope`
    "alibi"       m_h (t - s) is taken from the scores of head h (arXiv:2108.12409)
    "hard_alibi"  of the first `hard_heads` heads, half of them by default, the h-th sees the last h
                  steps, the others all (arXiv:2402.01032)
    "none"        what is seen has no order but by what came before

Learned absolute positions are the embedding's: a layer of a stream has no first step to count from.

The state is a cache of the last window - 1 keys (not yet turned) and values: that makes a stream,
split anywhere, the same function as the whole. `window` bounds the state, and is how far attention
sees: sequences of up to `window` steps have full causal attention (arXiv:1706.03762), longer ones a
sliding window (arXiv:2004.05150). A masked step leaves no key and does not move the window; a reset
empties the cache. `LatentAttention` keeps the compressed form of both in it.

Raises ValueError for a window below 1, an unknown `qk_norm` or `positions`, heads that do not
divide, more `hard_heads` than heads, and more `rates` than pairs. The op is
`seqjax.softmax_attention`.
"""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.look_back import empty
from seqjax.ops.positions import alibi, hard_alibi
from seqjax.ops.softmax_attention import softmax_attention

QK_NORMS = ("none", "head", "each", "all")
POSITIONS = ("rotary", "alibi", "hard_alibi", "none")


class Attention(Layer):
    ops = ("softmax_attention",)
    learned = ""  # a cache begins empty
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        out_features: int | None = None,
        heads: int = 4,
        kv_heads: int | None = None,
        head_size: int | None = None,
        window: int = 1024,
        positions: str = "rotary",
        rotary_fraction: float = 1.0,
        hard_heads: Annotated[int | None, Range(0)] = None,
        base: float = 10_000.0,
        rates: Sequence[float] | None = None,
        gain: float = 1.0,
        scale: float | None = None,
        softcap: float | None = None,
        qk_norm: str = "none",
        norm_offset: float = 0.0,
        norm_eps: float = 1e-6,
        gate: bool = False,
        head_gate: bool = False,
        bias: bool = False,
        out_bias: bool | None = None,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features, self.out_features = features, out_features or features
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.shared = per_head("heads", heads, self.kv_heads)  # heads that share a key
        self.K = head_size or per_head("features", features, heads)
        self.window = window
        self.positions = option("positions", positions, POSITIONS)
        self.rotary_fraction = rotary_fraction if positions == "rotary" else 0.0
        self.hard_heads = heads // 2 if hard_heads is None else hard_heads
        if self.hard_heads > heads:
            raise ValueError(f"hard_heads must be at most heads = {heads}, got {hard_heads}")
        self.base, self.softcap = base, softcap
        self.rates = None if rates is None or positions != "rotary" else tuple(rates)
        self.gain = gain
        if self.rates is not None and 2 * len(self.rates) > self.K:
            raise ValueError(f"rates are of {len(self.rates)} pairs, a head has {self.K} channels")
        self.scale = self.K**-0.5 if scale is None else scale
        keys, values = heads * self.K, self.kv_heads * self.K

        def linear(n, m, use_bias=bias):
            return nnx.Linear(n, m, use_bias=use_bias, rngs=rngs)

        self.W_q, self.W_k, self.W_v = (linear(features, n) for n in (keys, values, values))
        self.W_o = linear(keys, self.out_features, bias if out_bias is None else out_bias)
        self.head_gate = head_gate
        if head_gate:
            self.W_gate = linear(features, heads, False)
        else:
            self.W_gate = linear(features, keys) if gate else None
        self.qk_norm = option("qk_norm", qk_norm, QK_NORMS)
        shapes = dict(
            all=((keys,), (values,)), each=((heads, self.K), (self.kv_heads, self.K))
        ).get(qk_norm, ((self.K,), (self.K,)))
        self.q_norm, self.k_norm = (
            None if qk_norm == "none" else Norm(*shape, offset=norm_offset, eps=norm_eps)
            for shape in shapes
        )

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.kv_heads, self.K))
        return empty((keys, keys))

    def run(self, x, h, flow):
        y, h = self.attend(*self.projected(x), h, flow)
        return self.joined(x, y), h

    def projected(self, x):
        """q [T, heads, K], and k and v [T, kv_heads, K]."""
        q = self.normed(self.W_q(x), self.heads, self.q_norm)
        k = self.normed(self.W_k(x), self.kv_heads, self.k_norm)
        return q, k, split_heads(self.W_v(x), self.kv_heads)

    def attend(self, q, k, v, h, flow):
        """What every head sees [T, heads, K], and the cache after it."""
        return softmax_attention(
            q,
            k,
            v,
            h,
            bias=self.bias(),
            scale=self.scale,
            softcap=self.softcap,
            rotary_fraction=self.rotary_fraction,
            base=self.base,
            rates=self.rates,
            gain=self.gain,
            flow=flow,
        )

    def joined(self, x, y):
        """What comes out of heads y [T, heads, K]."""
        y = merge_heads(y).astype(x.dtype)
        if self.W_gate is not None:
            open_ = jax.nn.sigmoid(self.W_gate(x))
            y = y * (jnp.repeat(open_, self.K, axis=1) if self.head_gate else open_)
        return self.W_o(y)

    def normed(self, z, heads, norm):
        z = norm(z) if norm is not None and self.qk_norm == "all" else z
        z = split_heads(z, heads)
        return norm(z) if norm is not None and self.qk_norm in ("head", "each") else z

    def bias(self):
        """By head and distance, or None."""
        if self.positions == "alibi":
            return alibi(self.heads, self.window)
        if self.positions == "hard_alibi":
            return hard_alibi(self.heads, self.window, self.hard_heads)
        return None
