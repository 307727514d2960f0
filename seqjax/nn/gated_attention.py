"""The attention head of gated units: GAU, FLASH (arXiv:2202.10447), MEGA (arXiv:2209.10655).

    q_i, k_j = kappa * z + mu                      affine views of one shared projection z [size]
    o_i = sum_j w(q_i . k_j, b_{i-j}) v_j          v [inner]

    "softmax"   w = softmax_j(size^-1/2 q.k + b)
    "relu2"     w = relu(q.k / n + b)^2
    "laplace"   w = 1/2 (1 + erf((q.k / n + b - mu) / (sigma sqrt 2))),  mu = sqrt 1/2,
                sigma = sqrt 1/(4 pi), which is near relu2 and bounded       (MEGA's)

n is how many keys the query sees, or a constant. The bias b is one number per distance, from a
table ("toeplitz"), from two learned vectors turned by rotary positions ("rotary"), or from the
buckets of T5, which widen logarithmically up to distance 128 ("t5", arXiv:1910.10683).

What a query sees: the last `length` steps; or, `chunked`, those of its chunk of `length` steps, up
to itself. Chunks count from the start and from each reset, without masked steps. Not `causal`: all
steps, or all of its chunk; then nothing streams.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import option
from seqjax.ops.dense_attention import attend
from seqjax.ops.look_back import empty, look_back
from seqjax.ops.positions import places, rotary

INIT = nnx.initializers.normal(0.02)  # as the released codes


class Views(nnx.Module):
    """z [T, size] to `count` affine views of it."""

    def __init__(self, count: int, size: int, *, rngs: nnx.Rngs):
        self.kappa = nnx.Param(INIT(rngs.params(), (count, size)))
        self.mu = nnx.Param(jnp.zeros((count, size)))

    def __call__(self, z: Array) -> list[Array]:
        return [z * kappa[None] + mu[None] for kappa, mu in zip(self.kappa[...], self.mu[...])]


class RelativeBias(nnx.Module):
    """b of distances i - j < length; not causal also of -length < i - j. Beyond, the last one."""

    def __init__(self, kind: str, length: int, size: int, *, causal: bool = True, rngs: nnx.Rngs):
        self.kind = option("relative bias", kind, ("toeplitz", "rotary", "t5"))
        self.causal, self.length = causal, length
        self.first = 0 if causal else 1 - length
        if kind == "rotary":
            if size % 2:
                raise ValueError(f"a rotary bias turns pairs of channels, size is {size}")
            self.a, self.b = (nnx.Param(INIT(rngs.params(), (size,))) for _ in range(2))
        else:
            count = length - self.first if kind == "toeplitz" else 32
            self.weight = nnx.Param(INIT(rngs.params(), (count,)))

    def __call__(self, distance: Array) -> Array:
        distances = np.arange(self.first, self.length)
        if self.kind == "rotary":
            turned = jnp.broadcast_to(self.a[...][None, None], (len(distances), 1, len(self.a)))
            table = rotary(turned, jnp.asarray(distances))[:, 0] @ self.b[...]
        else:
            table = self.weight[...]
            table = table[t5_buckets(distances, self.causal)] if self.kind == "t5" else table
        return table[jnp.clip(distance - self.first, 0, len(distances) - 1)]


def t5_buckets(distance: np.ndarray, causal: bool) -> np.ndarray:
    """One of 32 buckets: half of them exact, half logarithmic up to 128; not causal, per side."""
    count = 32 if causal else 16
    away, exact = np.abs(distance), count // 2
    wide = np.log(np.maximum(away, exact) / exact) / math.log(128 / exact) * (count - exact)
    bucket = np.where(away < exact, away, np.minimum(exact + wide.astype(int), count - 1))
    return bucket + np.where(distance < 0, 0 if causal else count, 0)


def weigh(how: str, qk: Array, bias: Array, seen: Array, n: Any) -> Array:
    """Attention weights "relu2" or "laplace" [queries, keys], zero where not seen."""
    scores = jnp.where(seen, qk / n + bias, 0)
    if how == "relu2":
        weights = jax.nn.relu(scores) ** 2
    else:
        weights = 0.5 * (1 + lax.erf((scores - 0.5**0.5) * (2 * math.pi) ** 0.5))
    return jnp.where(seen, weights, 0)


WEIGHTS = ("softmax", "relu2", "laplace")


class Seen(NamedTuple):
    cache: Any  # of k [length - 1, size] and v [length - 1, inner]; None if not causal
    place: Array  # int32 [], of the next step in its chunk


class GatedHead(nnx.Module):
    """q, k [T, size] and v [T, inner] to o [T, inner].

    by_length: n is `length`, otherwise the number of keys seen.
    """

    structure = "window of the past"

    def __init__(
        self,
        size: int,
        inner: int,
        length: int,
        *,
        weights: str,
        bias: str,
        causal: bool = True,
        chunked: bool = False,
        by_length: bool = False,
        rngs: nnx.Rngs,
    ):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.size, self.inner, self.length = size, inner, length
        self.weights = option("attention weights", weights, WEIGHTS)
        self.causal, self.chunked, self.by_length = causal, chunked, by_length
        self.bias = RelativeBias(bias, length, size, causal=causal, rngs=rngs)

    def initial(self) -> Seen:
        cache = None
        if self.causal:
            k, v = (jnp.zeros((self.length - 1, n)) for n in (self.size, self.inner))
            cache = empty((k, v))
        return Seen(cache, jnp.zeros((), jnp.int32))

    def __call__(self, q, k, v, h: Carry, flow: Flow) -> tuple[Array, Seen]:
        """h: of a `Seen`."""
        place, after = places(h.place, len(q), size=self.length, flow=flow)
        if self.causal:
            q = q.astype(h.now.cache.items[0].dtype)
            o, cache = look_back(self.attend, (q, place), (k, v), h.cache, flow=flow)
            return o, Seen(cache, after)
        kept = jnp.ones(len(q), bool) if flow.mask is None else flow.mask
        i = jnp.cumsum(kept) - 1
        seen = flow.joined(len(q), causal=False)
        return self.attend((q, place), (k, v), i, i, seen), Seen(None, after)

    def attend(self, queries, items, i, j, seen):
        (q, place), (k, v) = queries, items
        distance = (i[:, None] - j[None]).astype(jnp.int32)
        if self.chunked:
            seen = seen & (distance <= place[:, None]) & (distance > place[:, None] - self.length)
        bias = self.bias(distance)
        if self.weights == "softmax":
            q, k, v = (z[:, None] for z in (q, k, v))  # of one head
            return attend(q, k, v, seen, scale=self.size**-0.5, bias=bias[None])[:, 0]
        n = self.length if self.by_length else jnp.sum(seen, axis=1, keepdims=True).astype(q.dtype)
        return weigh(self.weights, q @ k.T, bias, seen, n) @ v
