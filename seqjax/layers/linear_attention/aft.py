"""Attention-free Transformer (Zhai et al. 2021, arXiv:2105.14103): full, local, simple and conv.

    y_t = W_o [ sigmoid(q_t) * sum_s exp(k_s + w_{t,s}) v_s / sum_s exp(k_s + w_{t,s}) ]     eq. 2

over s <= t, channel by channel: a weighted average without products of q and k, `hidden` of them.

    full    w [length, length] is learned, as U V^T of `rank` (128 in the paper; None: as it is)
    local   w_{t,s} = 0 for |t - s| >= window, where steps still count with exp(k_s)
    simple  w = 0
    conv    w_{t,s} = w_{t-s} for each of `heads` groups of channels, zero beyond the window

What is not in the window is an average as of `aaren`: a scan of the sums and of the maximum of k.
The window adds (exp(w) - 1) exp(k_s), as in the paper, over `look_back`. "full" needs a window of
`length`. Positions count from the last reset and stop at length - 1: w is for no longer sequences.
(The paper also normalises w of "conv" by a learned scale and shift, which is not done here.)

`causal=False` is the paper's other form, over all s of the segment, in T^2 steps; it cannot stream.

The state holds what the kind needs: the averages, the window's cache of (k, v, position), and the
position; of nothing seen there is nothing to learn, so that starts are not.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry
from seqjax.core.ranges import Range
from seqjax.layers.linear_attention.aaren import Means, means, with_one
from seqjax.nn.base import Layer, option
from seqjax.nn.linear import per_head
from seqjax.ops.look_back import empty, look_back
from seqjax.ops.positions import places

KINDS = ("full", "local", "simple", "conv")


class AFTState(NamedTuple):
    means: Any  # of all that was seen; None if full
    cache: Any  # of the window; None if simple
    place: Array  # int32 [], of the next step


class AFT(Layer):
    ops = ("stabilised",)
    learned = ""  # what has no weight has no value

    def __init__(
        self,
        features: int,
        *,
        kind: str = "local",
        hidden: int | None = None,
        window: Annotated[int, Range(0)] = 32,  # 0: where the kind needs none
        length: int = 1024,
        rank: int | None = 128,
        heads: int = 4,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.kind, self.causal = option("kind", kind, KINDS), causal
        if kind == "full" or not causal:
            self.ops = ()
        self.hidden, self.length = hidden or features, length
        self.window = length if kind == "full" else window
        per_head("hidden", self.hidden, heads if kind == "conv" else 1)
        self.W_q, self.W_k, self.W_v = (
            nnx.Linear(features, self.hidden, rngs=rngs) for _ in range(3)
        )
        self.W_o = nnx.Linear(self.hidden, features, rngs=rngs)

        def small(*shape):
            return nnx.Param(0.01 * jax.random.normal(rngs.params(), shape))

        shape = (length, length)
        if kind == "conv":
            shape = (heads, window if causal else 2 * window - 1)
        factored = kind in ("full", "local") and rank is not None
        self.w = None if factored or kind == "simple" else small(*shape)
        self.U, self.V = (small(length, rank) if factored else None for _ in range(2))

    def initial(self):
        if not self.causal:
            return ()
        cache, none = jnp.zeros((self.window - 1, self.hidden)), jnp.zeros((), jnp.int32)
        return AFTState(
            None if self.kind == "full" else Means.empty(self.hidden, 1),
            None
            if self.kind == "simple"
            else empty((cache, cache, jnp.zeros(self.window - 1, jnp.int32))),
            none,
        )

    def bias(self, t: Array, s: Array) -> Array:
        """w [n, m, hidden or 1] of the positions t [n] and s [m]."""
        apart = t[:, None] - s[None]
        if self.kind == "simple":
            return jnp.zeros((*apart.shape, 1))
        if self.kind == "conv" and self.w is not None:
            w = self.w[...]
            tap = apart if self.causal else apart + self.window - 1
            w = w[:, jnp.clip(tap, 0, w.shape[1] - 1)]
            w = jnp.repeat(jnp.moveaxis(w, 0, 2), self.hidden // len(w), axis=2)
        else:
            t, s = jnp.minimum(t, self.length - 1), jnp.minimum(s, self.length - 1)
            if self.w is not None:
                w = self.w[...][t[:, None], s[None]][..., None]
            else:
                assert self.U is not None and self.V is not None
                w = (self.U[...][t] @ self.V[...][s].T)[..., None]
        near = jnp.abs(apart) < self.window
        return w if self.kind == "full" else jnp.where(near[..., None], w, 0)

    def run(self, x, h, flow):
        q, k, v = self.W_q(x), self.W_k(x), self.W_v(x)
        if not self.causal:
            return self.output(q, self.both_ways(k, v, flow), x), h.now
        place, last = places(h.place, len(x), flow=flow)
        items, cache = (k, v, place), None
        if self.kind == "full":
            y, cache = look_back(self.softmax, place, items, h.cache, flow=flow)
            return self.output(q, y, x), AFTState(None, cache, last)
        states, averages = means(jnp.zeros((1, 1), k.dtype), k, v[..., None], h.means, flow)
        sums = states.sums
        if self.kind != "simple":
            near, cache = look_back(self.near, (place, states.m), items, h.cache, flow=flow)
            sums = sums + near
        y = Means(states.m, sums).read()[..., 0]
        return self.output(q, y, x), AFTState(averages, cache, last)

    def output(self, q, y, x):
        return self.W_o(jax.nn.sigmoid(q) * y.astype(x.dtype))

    def softmax(self, t, items, i, j, seen):
        """[n, hidden]: the average of v by exp(k + w)."""
        del i, j
        k, v, s = items
        scores = k[None] + self.bias(t, s).astype(k.dtype)
        scores = jnp.where(seen[..., None], scores, jnp.finfo(k.dtype).min)
        return jnp.sum(jax.nn.softmax(scores, axis=1) * v[None], axis=1)

    def near(self, queries, items, i, j, seen):
        """[n, hidden, 2]: sums of (exp(w) - 1) exp(k - m) (v, 1), m the largest k seen so far."""
        del i, j
        (t, m), (k, v, s) = queries, items
        m = jnp.where(jnp.isfinite(m), m, 0)[:, None]  # a masked step may have seen nothing
        weight = jnp.exp(jnp.where(seen[..., None], jnp.minimum(k[None] - m, 0), -jnp.inf))
        weight = jnp.expm1(self.bias(t, s)).astype(k.dtype) * weight
        return jnp.einsum("tsg,sgv->tgv", weight, with_one(v[..., None]))

    def both_ways(self, k, v, flow):
        """[T, hidden]: the average over all steps of the segment that are not masked."""
        first = jnp.zeros((), jnp.int32)
        place, _ = places(Carry(first, first), len(k), flow=flow)
        seen = flow.joined(len(k), causal=False)
        return self.softmax(place, (k, v, place), place, place, seen)
