"""Parts of a model: steps of the residual stream, and the head that reads it.

    x <- alpha r + beta drop(post(layer(norm(x))))               r = x, or norm(x)

One formula for trained and for imported models. A layer that is a block already, with norms and
residuals of its own (`Layer.block`), is x <- layer(x), of which dropout takes what it adds. Where
the stream is more than one sum, a `Connection` is in place of its norm and its residual:

    x <- joined(x, drop(post(layer(z))))                         z = given(x)
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.answers.inputs import Embedding
from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Flow, Source
from seqjax.nn.base import Layer, has
from seqjax.nn.linear import GLU, MLP, per_head
from seqjax.nn.ngrams import digits
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.zoo import make

Losses = dict[str, jax.Array]  # [B] of each, beside that of the task


class Connection(Protocol):
    """How a layer is connected to a stream x [B, T, C] that is wider than what it is given."""

    def given(self, x: jax.Array, /) -> tuple[jax.Array, Any]:
        """z [B, T, D], and what `joined` needs beside it."""
        ...

    def joined(self, x: jax.Array, y: jax.Array, more: Any, /) -> jax.Array:
        """The stream after the output y of the layer."""
        ...


class Block(nnx.Module):
    """A branch of the stream around `layer`, and perhaps others after it: around `cross`, which
    looks at the source of a pair, and around `mlp`.

    layer: any Layer, or a module without a state such as a GLU.
    project, post: a map back to the width of the stream, and a norm or a second layer, after it.
    connection: in place of `norm` and of the residual.
    alpha, beta, from_norm: of the formula above; from_norm: r = norm(x).
    with_embedding: the layer is given [x, embedding], as in Zamba.
    with_tokens: the layer is given [x, digits of the token] (`seqjax.nn.ngrams`).
    shared: the layer is called with this one of the modules that several blocks share.
    config: its dropout and evaluator are this block's.
    """

    def __init__(
        self,
        layer: nnx.Module,
        config: ModelConfig,
        *,
        norm: Norm | None = None,
        project: nnx.Linear | None = None,
        post: Norm | Layer | None = None,
        connection: Connection | None = None,
        cross_norm: Norm | None = None,
        cross: nnx.Module | None = None,
        mlp_norm: Norm | None = None,
        mlp: nnx.Module | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        from_norm: bool = False,
        with_embedding: bool = False,
        with_tokens: bool = False,
        shared: int | None = None,
    ):
        self.layer, self.norm, self.project, self.post = layer, norm, project, post
        self.connection = connection
        self.cross_norm, self.cross = cross_norm, cross
        self.mlp_norm, self.mlp = mlp_norm, mlp
        self.alpha, self.beta, self.from_norm = alpha, beta, from_norm
        self.with_embedding, self.with_tokens = with_embedding, with_tokens
        self.shared = shared
        self.rate, self.variational = config.dropout, config.variational
        self.ar = self.tar = 0.0  # those of the config, of the last block
        known = config.evaluator in getattr(layer, "evaluators", ())
        self.evaluator = config.evaluator if known else None

    @classmethod
    def of(
        cls, layer: LayerConfig, config: ModelConfig, *, cross: bool = False, rngs: nnx.Rngs
    ) -> Block:
        """A layer of the table by its name, as the config has it; cross: with that branch too, but
        for a layer that looks at the source itself."""
        features = config.features
        # Branches that add up: their last matrices shrink with depth, so that their sum does not
        # grow (Radford et al. 2019). A layer's own output matrix is its paper's business.
        scale = (2 * config.depth) ** -0.5
        made = make(layer.name, features, rngs=rngs, **layer.options)
        out, parts = made.out_features, {}
        if out != features:
            parts["project"] = linear(out, features, scale, rngs)
        if not made.block:
            parts["norm"] = norm(config)
        if cross and not has(made, "sourced"):
            parts["cross_norm"] = norm(config)
            parts["cross"] = Cross(features, config.bridge_heads, scale=scale, rngs=rngs)
        if config.mlp != "none" and not made.block:
            inner = max(1, round(config.expansion * features))
            kind = GLU if config.mlp == "glu" else MLP
            parts["mlp_norm"] = norm(config)
            parts["mlp"] = kind(features, inner, scale=scale, rngs=rngs)
        return cls(made, config, **parts)

    def start(
        self,
        batch: int | tuple[int, ...],
        dtype: Any,
        shared: Any = None,
        source: Source | None = None,
    ) -> Any:
        """The state of its layer before anything but the source was seen, () of a layer that has
        none; with that of the second one, if `post` is a layer."""

        def of(layer):
            return layer.batch_state(batch, dtype, source) if isinstance(layer, Layer) else ()

        state = of(self.whole(shared))
        return (state, of(self.post)) if isinstance(self.post, Layer) else state

    def whole(self, shared: Any) -> nnx.Module:
        """The layer, with the shared module it is called with."""
        return self.layer if self.shared is None else Using(self.layer, shared[self.shared])

    def __call__(
        self,
        x: jax.Array,
        h: Any,
        flow: Flow,
        key: jax.Array | None,
        embedding: Any = None,
        shared: Any = None,
        source: Source | None = None,
        tokens: jax.Array | None = None,
        losses: bool = False,
    ) -> tuple[jax.Array, Any, Losses]:
        """The stream, the state, and the losses of the block if those are wanted.

        flow: of the batch, [B, T]; its evaluator is not looked at, that of the config holds.
        key: of dropout and of layers that draw noise; None: as in evaluation.
        embedding: [B, T, features], what the stream began with. shared: what blocks share.
        source: what decoders look at. tokens: int [B, T], what the stream was embedded from.
        """
        keys = (None, None) if key is None else jax.random.split(key)
        layer, more = self.whole(shared), None
        z = x if self.norm is None else self.norm(x)
        if self.connection is not None:
            z, more = self.connection.given(x)
        h, after = h if isinstance(self.post, Layer) else (h, None)
        y = jnp.concatenate([z, embedding], axis=-1) if self.with_embedding else z
        if self.with_tokens and tokens is not None:
            y = jnp.concatenate([y, digits(tokens, y.dtype)], axis=-1)
        found: Losses = {}
        if losses and getattr(layer, "own_loss", False):
            found = layer.losses(y, h, flow.resets, flow.mask)  # pyright: ignore
            found = {name: mean(value, flow.mask) for name, value in found.items()}
        if isinstance(layer, Layer):
            beside: dict[str, Any] = dict(cu_seqlens=flow.cu_seqlens, evaluator=self.evaluator)
            if has(layer, "timed"):
                beside["dt"] = flow.dt
            if source is not None and has(layer, "sourced"):
                beside["source"] = source
            if key is not None and has(layer, "noisy"):
                beside["key"] = jax.random.fold_in(key, 3)
            y, h = layer(y, h, flow.resets, flow.mask, **beside)
        else:
            y = layer(y)  # pyright: ignore[reportCallIssue]
        y = y if self.project is None else self.project(y)
        if isinstance(self.post, Layer):
            y, after = self.post(y, after, flow.resets, flow.mask, cu_seqlens=flow.cu_seqlens)
            h = h, after
        elif self.post is not None:
            y = self.post(y)
        whole = self.connection is None and getattr(layer, "block", False)
        added = y - x if whole else y
        dropped = self.drop(added, keys[0])
        if self.connection is not None:
            x = self.connection.joined(x, dropped, more)
        elif whole:  # bitwise y where nothing is dropped
            x = x + dropped if self.rate and key is not None else y
        else:
            base = z if self.from_norm else x
            x = scaled(self.alpha, base) + scaled(self.beta, dropped)
        if losses:
            found |= self.regularised(added, dropped, flow)
        if self.cross is not None and self.cross_norm is not None:
            seen = self.cross(self.cross_norm(x), source)  # pyright: ignore[reportCallIssue]
            x = x + self.drop(seen, None if key is None else jax.random.fold_in(key, 2))
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.drop(self.mlp(self.mlp_norm(x)), keys[1])  # pyright: ignore
        return x, h, found

    def regularised(self, y: jax.Array, dropped: jax.Array, flow: Flow) -> Losses:
        """AR and TAR (arXiv:1708.02182, sec. 4.5): alpha L2(m * h_t), beta L2(h_t - h_{t+1}).

        h_t is what the layer adds to the stream and m the mask of dropout on it. L2 is the mean of
        squares, as in the authors' code. No step is compared with one that is masked, and none
        with what lies before a reset.
        """
        y, dropped = (v.astype(accumulation_dtype(v.dtype)) for v in (y, dropped))
        found: Losses = {}
        if self.ar:
            found["ar"] = self.ar * mean(jnp.mean(dropped**2, axis=-1), flow.mask)
        if self.tar:
            pair = jnp.ones((len(y), max(y.shape[1] - 1, 0)), bool)
            if flow.mask is not None:
                pair = pair & flow.mask[:, 1:] & flow.mask[:, :-1]
            if flow.resets is not None:
                pair = pair & ~flow.resets[:, 1:]
            moved = jnp.mean((y[:, 1:] - y[:, :-1]) ** 2, axis=-1)
            found["tar"] = self.tar * mean(jnp.where(pair, moved, 0), pair)
        return found

    def drop(self, x, key):
        return dropout(x, self.rate, key, variational=self.variational)


class Cross(nnx.Module):
    """W_o softmax(K^-1/2 q_t . k_s) v_s over the steps s of a source that are present.

    Scaled dot products in `heads` heads of K channels (arXiv:1706.03762, sec. 3.2), q of the
    stream, k and v of the source. Where nothing is present it is zero.
    """

    def __init__(self, features: int, heads: int, *, scale: float, rngs: nnx.Rngs):
        self.heads, self.K = heads, per_head("model.bridge_heads: features", features, heads)
        self.W_q, self.W_k, self.W_v = (linear(features, features, 1.0, rngs) for _ in range(3))
        self.W_o = linear(features, features, scale, rngs)

    def __call__(self, x: jax.Array, source: Source) -> jax.Array:
        if source is None:
            raise ValueError("a model of pairs begins with one: model(Paired(source, target))")
        q, k, v = (
            y.reshape(*y.shape[:2], self.heads, self.K)
            for y in (self.W_q(x), self.W_k(source.y), self.W_v(source.y))
        )
        there = source.there
        seen = jnp.broadcast_to(there[:, None], (*q.shape[:2], k.shape[1]))
        y = jax.vmap(partial(attend, scale=self.K**-0.5))(q, k, v, seen)
        y = jnp.where(jnp.any(there, axis=1)[:, None, None, None], y, 0)
        return self.W_o(y.reshape(x.shape))


class Using(Layer):
    """A layer made for one call: a block that is called with a module that several share."""

    def __init__(self, block, shared):
        self.user, self.module = block, shared
        self.features, self.out_features = block.features, block.out_features

    def parts(self):
        return self.user.parts(self.module)

    def run(self, x, h, flow):
        return self.user.run(self.module, x, h, flow)


class Head(nnx.Module):
    """cap(scale (W x + b)) in at least float32, cap(y) = c tanh(y / c) of softcap c.

    W is a matrix of its own or, tied, the table of the embedding (arXiv:1608.05859). It may have
    more `rows` than there are classes, of which nothing is read.
    """

    def __init__(
        self,
        features: int,
        size: int,
        *,
        tied: bool = False,
        bias: bool = True,
        scale: float = 1.0,
        softcap: float | None = None,
        rows: int | None = None,
        rngs: nnx.Rngs,
    ):
        # Small, so that the first answers are near uniform, and the first loss near its baseline.
        self.kernel = None if tied else linear(features, rows or size, 0.1, rngs).kernel
        self.bias = nnx.Param(jnp.zeros(size, jnp.float32)) if bias else None
        self.size, self.scale, self.softcap = size, scale, softcap

    def __call__(self, x: jax.Array, embed: Embedding) -> jax.Array:
        W = embed.table[...].T if self.kernel is None else self.kernel[...]
        y = x @ W[:, : self.size]
        if self.bias is not None:
            y = y + jnp.broadcast_to(self.bias[...], y.shape)
        y = scaled(self.scale, y.astype(accumulation_dtype(y.dtype)))
        return y if self.softcap is None else self.softcap * jnp.tanh(y / self.softcap)


def mean(y: jax.Array, there: jax.Array | None) -> jax.Array:
    """[B]: of y [B, T], zero where nothing is there, over the steps that are there."""
    steps = y.shape[1] if there is None else jnp.sum(there, axis=1, dtype=y.dtype)
    return jnp.sum(y, axis=1) / jnp.maximum(steps, 1)


def scaled(scale: float, x: jax.Array) -> jax.Array:
    return x if scale == 1 else scale * x


def dropout(x: jax.Array, rate: float, key: jax.Array | None, *, variational: bool = False):
    """x [B, T, D] with a share `rate` of zeros, the rest scaled up; unchanged without a key.

    variational: the same channels are dropped at all time steps (arXiv:1512.05287).
    """
    if key is None or not rate:
        return x
    shape = (x.shape[0], 1, *x.shape[2:]) if variational else x.shape
    keep = jnp.broadcast_to(jax.random.bernoulli(key, 1 - rate, shape), x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


def norm(config: ModelConfig) -> Norm:
    layer = config.norm == "layer"
    return Norm(config.features, centre=layer, bias=layer)


def linear(inputs: int, outputs: int, scale: float, rngs: nnx.Rngs) -> nnx.Linear:
    init = nnx.initializers.variance_scaling(scale**2, "fan_in", "normal")
    return nnx.Linear(inputs, outputs, use_bias=False, kernel_init=init, rngs=rngs)
