"""DeltaFormer (Xu et al. 2025, arXiv:2505.19488): attention to values that attention corrects.

    u_t = v_t - beta_t sum_{s < t} kappa(q_t, k_s) u_s             softmax over s < t
    o_t = sum_{s <= t} kappa(q_t, k_s) u_s                         softmax over s <= t
    kappa(q, k) = exp(K^-1/2 q.k) over the sum of these            per head
    q, k = rotary(W x),  v = W_v x,  beta_t = w_beta x_t + b       y_t = W_o o_t

The delta rule with the kernel of softmax attention in place of a product: what attention already
finds at t is taken from what is written there, so that a step may overwrite others. That lets one
layer track permutations of its inputs, which attention alone cannot; no state of fixed size is
needed, and none is had. The paper lets u be read with a key of its own; its release reads with q.

As in `attention` only the last `window` steps are seen, from a cache of keys and u, and sequences
of up to `window` steps are those of the paper. The u of a block of `window` steps solve a
triangular system, block after block. beta has no sigmoid, as released; `beta` False: always 1.
`qk_norm` is RMSNorm of each head; `bias` is of q, k and v. Fewer keys than heads, which the
release's layer offers and its kernels do not take, are not here.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.core.mesh import loop
from seqjax.nn.base import Layer
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.chunks import power_of_two, unit_lower_solve
from seqjax.ops.dense_attention import attend, attention_weights
from seqjax.ops.look_back import Cache, empty, look_back
from seqjax.ops.positions import places, rotary


class DeltaFormerState(NamedTuple):
    cache: Cache  # of k, turned, and u [window - 1, heads, K]
    place: Array  # int32 [], of the next step


def correct(queries, items, i, j, seen, *, scale):
    """(o, u) of a block: q, v and beta [n, H, ..] over k and u [m, H, K], whose last n are not yet
    known, and zero."""
    (q, v, beta), (k, u) = queries, items
    strict = seen & (j[None] < i[:, None])
    weights = attention_weights(q, k, strict, scale=scale)
    weights = jnp.where(strict[None], weights, 0) * beta.T[..., None]  # none: not a mean of all
    known = jnp.einsum("hij,jhv->hiv", weights, u)
    rhs = jnp.moveaxis(v, 1, 0) - known
    n, more = len(q), power_of_two(len(q)) - len(q)
    among = jnp.pad(weights[:, :, len(k) - n :], ((0, 0), (0, more), (0, more)))
    new = jax.vmap(unit_lower_solve)(among, jnp.pad(rhs, ((0, 0), (0, more), (0, 0))))
    new = jnp.moveaxis(new[:, :n], 0, 1)
    u = u.at[len(k) - n :].set(new)
    return attend(q, k, u, seen, scale=scale), new


def delta_attention(q, k, v, beta, cache: Carry, flow: Flow, *, scale: float):
    """o [T, H, K] and the next cache, for q, k, v [T, H, K] and beta [T, H]."""
    flow.undivided("values that wait for those before")
    T, window = len(q), len(cache.now.items[0]) + 1
    size = max(1, min(window, T))
    tail = -T % size
    mask = jnp.ones(T, bool) if flow.mask is None else flow.mask
    resets = jnp.zeros(T, bool) if flow.resets is None else flow.resets

    def blocks(z):
        z = jnp.pad(z, ((0, tail), *((0, 0),) * (z.ndim - 1)))
        return z.reshape(-1, size, *z.shape[1:])

    def block(cache, now):
        queries, k, resets, mask = now
        flags = dict(resets=resets, mask=mask)
        unknown = k, jnp.zeros_like(queries[1])
        (o, u), _ = look_back(partial(correct, scale=scale), queries, unknown, cache, **flags)
        keep = look_back(lambda z, *_: z, mask, (k, u), cache, **flags)[1]
        return keep, o

    last, o = loop(block, cache.now, jax.tree.map(blocks, ((q, v, beta), k, resets, mask)))
    return o.reshape(-1, *o.shape[2:])[:T], last


class DeltaFormer(Layer):
    learned = ""  # a cache begins empty
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        window: int = 1024,
        beta: bool = True,
        qk_norm: bool = False,
        rotary_fraction: float = 1.0,
        base: float = 10_000.0,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.features = self.out_features = features
        self.heads, self.K, self.window = heads, per_head("features", features, heads), window
        self.rotary_fraction, self.base = rotary_fraction, base
        linear = partial(nnx.Linear, features, features, use_bias=bias, rngs=rngs)
        self.W_q, self.W_k, self.W_v = linear(), linear(), linear()
        self.w_beta = nnx.Linear(features, heads, rngs=rngs) if beta else None
        self.q_norm, self.k_norm = (Norm(self.K) if qk_norm else None for _ in range(2))
        self.W_o = nnx.Linear(features, features, use_bias=False, rngs=rngs)

    def initial(self):
        keys = jnp.zeros((self.window - 1, self.heads, self.K))
        return DeltaFormerState(empty((keys, keys)), jnp.zeros((), jnp.int32))

    def run(self, x, h, flow):
        q, k, v = (wide(split_heads(W(x), self.heads)) for W in (self.W_q, self.W_k, self.W_v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        place, last = places(h.place, len(x), flow=flow)
        q, k = (rotary(z, place, fraction=self.rotary_fraction, base=self.base) for z in (q, k))
        shape = len(x), self.heads
        beta = jnp.ones(shape, q.dtype) if self.w_beta is None else self.w_beta(x).astype(q.dtype)
        o, cache = delta_attention(q, k, v, beta, h.cache, flow, scale=self.K**-0.5)
        return self.W_o(merge_heads(o).astype(x.dtype)), DeltaFormerState(cache, last)
