"""SaShiMi: S4 at several rates (Goel, Gu, Donahue & Re 2022, arXiv:2202.09729).

A U-net of levels; each runs at 1/pool of the rate of the one above it, with `expand` times its
features (sec. 4.2). Level x -> y, with the next level inside:

    d_j = W_down [x_{jp} ... x_{jp + p-1}]                 a token of p = pool[0] steps
    u_{jp + i} = (W_up inner(d)_{j-1})_i                   one token late, so that it is causal
    z = x + u,   y = z + blocks(z)                         z = x at the lowest level
    blocks: `depth` times  z += S4(LayerNorm(z));  z += W_2 gelu(W_1 LayerNorm(z))

and a LayerNorm at the end. S4 is the stable one, A = Lambda - P P^* (sec. 4.1). `pool` is (4, 4),
`expand` and the width `ff` of the MLP 2 in the paper, whose model is one U-net with `depth` 8: as a
block, of which a model has several, it has 1 by default. ff = 0 leaves the MLPs out.
The paper's variant with blocks on the way down, for models that need not be causal, is not here.

The state is that of the S4s, and for each pooling the p - 1 inputs before the present, what the
level below returned last (p steps of it), and the place within the token.

Where there are no flags and p divides the number of steps, the level below runs on that many
tokens, whatever the place at which the call starts. Else it runs at the rate of this level,
masked wherever no token is complete: that is one step of a stream.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.layers.ssm.s4 import S4
from seqjax.nn.activations import gelu
from seqjax.nn.base import Layer, State
from seqjax.nn.convolution import token_shift
from seqjax.nn.norms import Norm
from seqjax.ops.positions import places


class Pooling(NamedTuple):
    place: Array  # int32 [], steps taken of the present token
    window: Array  # [pool - 1, features], inputs before the present
    ahead: Array  # [pool, features], what the level below adds to this token
    inner: State


class Feed(nnx.Module):
    """W_2 gelu(W_1 x)."""

    def __init__(self, features: int, inner: int, rngs: nnx.Rngs):
        self.W_1 = nnx.Linear(features, inner, rngs=rngs)
        self.W_2 = nnx.Linear(inner, features, rngs=rngs)

    def __call__(self, x):
        return self.W_2(gelu(self.W_1(x)))


class Level(Layer):
    """One level and those below it. The state: (those of its S4s, a `Pooling` or None)."""

    def __init__(
        self,
        features: int,
        *,
        depth: int,
        pool: Sequence[int],
        expand: int,
        ff: int,
        state: int,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        norm = lambda: Norm(features, centre=True, bias=True, eps=1e-5)  # noqa: E731
        self.s4s = nnx.List([S4(features, state=state, rngs=rngs) for _ in range(depth)])
        self.norms = nnx.List([norm() for _ in range(depth)])
        count = depth if ff else 0
        self.feeds = nnx.List([Feed(features, ff * features, rngs) for _ in range(count)])
        self.feed_norms = nnx.List([norm() for _ in range(count)])
        self.side_ops = ("short_convolution",) if pool else ()
        if not pool:
            self.inner = None
        else:
            self.pool, wide = pool[0], expand * features
            self.down = nnx.Linear(self.pool * features, wide, rngs=rngs)
            self.up = nnx.Linear(wide, self.pool * features, rngs=rngs)
            self.inner = Level(
                wide, depth=depth, pool=pool[1:], expand=expand, ff=ff, state=state, rngs=rngs
            )

    def parts(self):
        pooling = None
        if self.inner is not None:
            pooling = Pooling(
                jnp.zeros((), jnp.int32),
                jnp.zeros((self.pool - 1, self.features)),
                jnp.zeros((self.pool, self.features)),
                self.inner,
            )
        return tuple(self.s4s), pooling

    def run(self, x, h, flow):
        states, pooling = h
        pooled = None
        if self.inner is not None:
            aligned = flow.resets is None and flow.mask is None and len(x) % self.pool == 0
            added, pooled = (self.by_tokens if aligned else self.by_steps)(x, pooling, flow)
            x = x + added
        z, ends = x, []
        for i, layer in enumerate(self.s4s):
            y, end = layer.example(self.norms[i](z), states[i], flow)
            ends.append(end)
            z = z + y
            if self.feeds:
                z = z + self.feeds[i](self.feed_norms[i](z))
        return x + z, (tuple(ends), pooled)

    def by_tokens(self, x, carry, flow):
        """What the level below adds, computed at its own rate; pool divides the steps."""
        assert self.inner is not None
        p, T, h = self.pool, len(x), carry.now
        seen = jnp.concatenate([h.window.astype(x.dtype), x])
        tokens = lax.dynamic_slice_in_dim(seen, p - 1 - h.place, T).reshape(T // p, -1)
        m, inner = self.inner.example(self.down(tokens), carry.inner, flow)
        upsampled = jnp.concatenate([h.ahead.astype(m.dtype), self.up(m).reshape(T, -1)])
        added = lax.dynamic_slice_in_dim(upsampled, h.place, T)
        return added, Pooling(h.place, seen[T:], upsampled[T:], inner)

    def by_steps(self, x, carry, flow):
        """The same at this level's rate: the one below is masked unless a token is complete."""
        assert self.inner is not None
        p, T, h, start = self.pool, len(x), carry.now, carry.start
        flags = dict(resets=flow.resets, mask=flow.mask)
        place, count = places(h.place, T, **flags)
        kept = jnp.ones(T, bool) if flow.mask is None else flow.mask
        complete = kept & (place % p == p - 1)
        lagged = [
            token_shift(x, h.window[p - 1 - lag :], start=start.window[p - 1 - lag :], **flags)
            for lag in range(1, p)
        ]
        tokens = jnp.concatenate([past for past, _ in lagged[::-1]] + [x], axis=1)
        window = lagged[-1][1] if lagged else h.window

        # the last reset up to each step and the last token before it; and those of the next step
        t = jnp.arange(T)
        marks = jnp.zeros(T, bool) if flow.resets is None else flow.resets & kept
        reset = jnp.append(-1, lax.cummax(jnp.where(marks, t, -1)))
        reset = jnp.append(reset[1:], reset[-1])
        token = jnp.append(-1, lax.cummax(jnp.where(complete, t, -1)))
        m, inner = self.inner.example(
            self.down(tokens),
            carry.inner,
            replace(flow, resets=complete & (reset > token)[:-1], mask=complete),
        )
        fresh = (reset > token)[-1]
        inner = jax.tree.map(
            lambda a, b: jnp.where(fresh, a.astype(b.dtype), b), start.inner, inner
        )

        upsampled = self.up(m).reshape(T, p, self.features).astype(h.ahead.dtype)
        early = jnp.where((reset < 0)[:, None, None], h.ahead[None], start.ahead[None])
        found = ((token >= 0) & (token >= reset))[:, None, None]
        ahead = jnp.where(found, upsampled[token], early)
        added = jnp.take_along_axis(ahead[:-1], (place % p)[:, None, None], axis=1)[:, 0]
        return added.astype(x.dtype), Pooling(count % p, window, ahead[-1], inner)


class SaShiMi(Layer):
    block = True

    def __init__(
        self,
        features: int,
        *,
        depth: int = 1,
        pool: Sequence[int] = (4, 4),
        expand: int = 2,
        ff: int = 2,
        state: int = 64,
        rngs: nnx.Rngs,
    ):
        if min((1, *pool)) < 1:
            raise ValueError(f"a token has at least 1 step, got pool {tuple(pool)}")
        self.features = self.out_features = features
        options = dict(depth=depth, expand=expand, ff=ff, state=state)
        widths = [features * expand**level for level in range(len(pool) + 1)]
        self.all_features = sum(widths)
        self.buffered = sum((2 * p - 1) * width for p, width in zip(pool, widths))
        self.net = Level(features, pool=tuple(pool), rngs=rngs, **options)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

    def parts(self):
        return self.net

    def run(self, x, h, flow):
        y, h = self.net.run(x, h, flow)
        return self.norm(y), h
