"""Residual streams side by side: what connects layers to them, and the ends of such a model.

The stream of the model holds n streams of D channels, [B, T, n D]: `Copied` fills it from the
embedding, every branch is connected to it, and `MeanNorm` or `GatedMix` makes one of them for the
head.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.activations import silu
from seqjax.nn.base import Precise
from seqjax.nn.linear import wide
from seqjax.nn.norms import Norm


def along(weight: Array, x: Array) -> Array:
    """A weight for each channel, for x [.., channels]."""
    return jnp.broadcast_to(weight, x.shape)


class Copied(nnx.Module):
    """n copies of x side by side."""

    def __init__(self, count: int):
        self.count = count

    def __call__(self, x: Array) -> Array:
        return jnp.tile(x, (*(1,) * (x.ndim - 1), self.count))


class MeanNorm(nnx.Module):
    """norm(mean over the streams)."""

    def __init__(self, count: int, features: int, eps: float, *, rngs: nnx.Rngs | None = None):
        del rngs
        self.count, self.norm = count, Norm(features, eps=eps)

    def __call__(self, x: Array) -> Array:
        return self.norm(jnp.mean(x.reshape(*x.shape[:-1], self.count, -1), axis=-2))


class HyperConnection(nnx.Module):
    """Manifold-constrained hyper-connections (arXiv:2512.24880): what a layer is given of the
    streams X [.., n, D], and what they are after its output y.

        [a, b, C] = s (W rms(X)) + base                 s one number for each of the three
        z = norm(sum_i (sigmoid(a) + eps)_i X_i)        is given
        X_i <- 2 sigmoid(b)_i y + sum_j M_ji X_j        M = sinkhorn(softmax(C) + eps)

    sinkhorn divides by the sums over rows, then `iterations` - 1 times by those over columns and
    over rows, each with eps: rows and columns of M add up to about one.
    """

    def __init__(
        self,
        features: int,
        *,
        streams: int,
        iterations: int = 20,
        eps: float = 1e-6,
        norm_eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        n, self.iterations, self.eps = streams, iterations, eps
        self.streams, size = streams, (2 + n) * n
        self.norm, self.rms = Norm(features, eps=norm_eps), Norm(weight=False, eps=norm_eps)
        init = nnx.initializers.normal(0.02)(rngs.params(), (size, n * features), jnp.float32)
        self.W, self.base, self.scale = (Precise(z) for z in (init, jnp.zeros(size), jnp.ones(3)))

    def given(self, x: Array) -> tuple[Array, tuple[Array, Array]]:
        """z [.., D] of x [.., n D], and the weights of `joined`."""
        n = self.streams
        all_three = wide(self.rms(wide(x))) @ self.W[...].T
        sizes, base, s = (n, 2 * n), self.base[...], self.scale[...]
        parts = zip(s, jnp.split(all_three, sizes, axis=-1), jnp.split(base, sizes))
        a, b, C = (factor * part + along(start, part) for factor, part, start in parts)
        X = x.reshape(*x.shape[:-1], n, -1)
        z = jnp.einsum("...n,...nd->...d", jax.nn.sigmoid(a) + self.eps, X)
        M = jax.nn.softmax(C.reshape(*C.shape[:-1], n, n), axis=-1) + self.eps
        for k in range(2 * self.iterations - 1):
            M = M / (jnp.sum(M, axis=-2 + k % 2, keepdims=True) + self.eps)
        return self.norm(z.astype(x.dtype)), (2 * jax.nn.sigmoid(b), M)

    def joined(self, x: Array, y: Array, weights: tuple[Array, Array]) -> Array:
        b, M = weights
        X = jnp.einsum("...ji,...jd->...id", M, x.reshape(*x.shape[:-1], self.streams, -1))
        return (X + b[..., None] * y[..., None, :]).reshape(x.shape).astype(x.dtype)


class GatedMix(nnx.Module):
    """One of n streams X, mixed channel by channel.

        z = mean_i a_i * m_i        m = rms(X), stream by stream;  a = sigmoid(V silu(W m / n))

    Of the gated residual of Qwen4-exp, as transformers 5.24 has it.
    """

    def __init__(
        self, features: int, *, streams: int, rank: int, norm_eps: float = 1e-6, rngs: nnx.Rngs
    ):
        self.streams, channels = streams, streams * features
        self.norm = Norm(streams, features, offset=1.0, eps=norm_eps)

        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.W, self.V = linear(channels, rank), linear(rank, channels)

    def __call__(self, x: Array) -> Array:
        return self.mixed(self.normed(x))

    def normed(self, x: Array) -> Array:
        """m [.., n D]."""
        return self.norm(x.reshape(*x.shape[:-1], self.streams, -1)).reshape(x.shape)

    def mixed(self, m: Array) -> Array:
        z = jax.nn.sigmoid(self.V(silu(self.W(m) / self.streams))) * m
        return jnp.mean(z.reshape(*z.shape[:-1], self.streams, -1), axis=-2)


class GatedConnection(nnx.Module):
    """The gated residual of Qwen4-exp: a layer is given the z of a `GatedMix`, and after its y

        X_i <- X_i + b_i y          b = 2 sigmoid(U m / n)

    with the same m.
    """

    def __init__(self, features: int, *, streams: int, rngs: nnx.Rngs, **rest: Any):
        self.streams = streams
        self.mix = GatedMix(features, streams=streams, rngs=rngs, **rest)
        self.U = nnx.Linear(streams * features, streams, use_bias=False, rngs=rngs)

    def given(self, x: Array) -> tuple[Array, Array]:
        m = self.mix.normed(x)
        return self.mix.mixed(m), 2 * jax.nn.sigmoid(self.U(m) / self.streams)

    def joined(self, x: Array, y: Array, weights: Array) -> Array:
        new = weights[..., :, None] * y[..., None, :]
        return x + new.reshape(x.shape).astype(x.dtype)
