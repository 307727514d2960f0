"""Attention over depth: layers that choose among the sums of the blocks before them.

The stream of the model holds several sums of D channels each, [B, T, sums D]: the current one, to
which branches add, one for each block of them that is over, and perhaps those that a loop over
blocks left the time before. `Opened` fills it from the embedding, every branch is connected to it
by a `DepthConnection`, and `Closed` makes what the head reads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.nn.base import Precise
from seqjax.nn.linear import wide
from seqjax.nn.norms import Norm


def sums(x: Array, features: int) -> Array:
    """[.., sums D] to [.., sums, D], in at least float32."""
    return wide(x).reshape(*x.shape[:-1], -1, features)


class DepthAttention(nnx.Module):
    """z_q = sum_n softmax_n(D^-1/2 w_q . u_n) u_n of X [.., n, D], u = rms(X): [.., queries, D].

    The queries w are learned, and the same for all steps (arXiv:2603.15031, where values are X
    itself). They start at zero: the mean.
    """

    def __init__(self, features: int, queries: int = 1):
        self.w = Precise(jnp.zeros((queries, features)))
        self.rms = Norm(weight=False, eps=1e-6)

    def __call__(self, X: Array) -> Array:
        u, w = self.rms(X), self.w[...].astype(X.dtype)
        scores = jnp.einsum("qd,...nd->...qn", w, u) * X.shape[-1] ** -0.5
        return jnp.einsum("...qn,...nd->...qd", jax.nn.softmax(scores, axis=-1), u)


class MessageGate(nnx.Module):
    """(1 - tanh(F a)) z + tanh(G a) m,   a = W [rms(z), rms(m)], of a low rank."""

    def __init__(self, features: int, rank: int, *, eps: float, rngs: nnx.Rngs):
        def linear(n, m):
            return nnx.Linear(n, m, use_bias=False, rngs=rngs)

        self.rms = Norm(weight=False, eps=eps)
        self.W, self.F, self.G = (
            linear(2 * features, rank),
            linear(rank, features),
            linear(rank, features),
        )

    def __call__(self, z: Array, m: Array) -> Array:
        a = self.W(jnp.concatenate([self.rms(z), self.rms(m)], axis=-1))
        return (1 - jnp.tanh(self.F(a))) * z + jnp.tanh(self.G(a)) * m


class DepthConnection(nnx.Module):
    """What a layer is given of the sums, and where its output y goes.

        z_q = norm_q(DepthAttention(current, blocks that are over)_q)        given: [z_1, z_2, ..]
        current <- current + y,  or y where it is the first of a block: the sum so far then is over

    over: blocks that are over. first: whether a block begins with this branch. attends: whether it
    attends, or is given the current sum. queries, norms: of attention; where there are fewer than
    `given`, all share them. messages: sums of the loop's last pass, the last ones of the stream. A
    branch that `listens` gives z_q and what it reads of them to a `MessageGate` before the norm.
    """

    def __init__(
        self,
        features: int,
        *,
        over: int,
        first: bool = False,
        attends: bool = True,
        queries: int = 1,
        given: int = 1,
        messages: int = 0,
        rank: int = 0,
        eps: float,
        rngs: nnx.Rngs,
    ):
        self.features, self.over, self.first, self.count = features, over, first, given
        self.depth = DepthAttention(features, queries) if attends else None
        self.norms = nnx.List([Norm(features, eps=eps) for _ in range(queries)])
        self.messages, self.listens = messages, False
        self.heard = DepthAttention(features, given) if messages else None
        gates = range(given if messages else 0)
        self.gates = nnx.List([MessageGate(features, rank, eps=eps, rngs=rngs) for _ in gates])

    def given(self, x: Array) -> tuple[Array, None]:
        X = sums(x, self.features)
        z = X[..., :1, :] if self.depth is None else self.depth(X[..., : 1 + self.over, :])
        z = [z[..., min(q, z.shape[-2] - 1), :] for q in range(self.count)]
        if self.listens and self.heard is not None:
            heard = self.heard(X[..., -self.messages :, :])
            z = [gate(z[q], heard[..., q, :]) for q, gate in enumerate(self.gates)]
        z = [self.norms[min(q, len(self.norms) - 1)](z[q]) for q in range(self.count)]
        return jnp.concatenate(z, axis=-1).astype(x.dtype), None

    def joined(self, x: Array, y: Array, more: None) -> Array:
        del more
        D, n = self.features, self.over
        current, rest = x[..., :D], x[..., D:]
        if not self.first:
            return jnp.concatenate([current + y, rest], axis=-1)
        return jnp.concatenate([y, rest[..., : n * D], current, rest[..., (n + 1) * D :]], axis=-1)


class Opened(nnx.Module):
    """norm(x) as the current sum, and `rest` sums of nothing."""

    def __init__(self, features: int, rest: int, *, eps: float):
        self.norm, self.more = Norm(features, eps=eps), rest * features

    def __call__(self, x: Array) -> Array:
        return jnp.pad(self.norm(x), (*((0, 0),) * (x.ndim - 1), (0, self.more)))


class Closed(nnx.Module):
    """norm(DepthAttention(current, blocks)) of a stream with so many blocks."""

    def __init__(self, features: int, blocks: int, *, eps: float, rngs: nnx.Rngs | None = None):
        del rngs
        self.features, self.blocks = features, blocks
        self.depth, self.norm = DepthAttention(features), Norm(features, eps=eps)

    def __call__(self, x: Array) -> Array:
        X = sums(x, self.features)[..., : 1 + self.blocks, :]
        return self.norm(self.depth(X)[..., 0, :]).astype(x.dtype)
