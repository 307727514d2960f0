"""Zamba (Glorioso et al. 2024, arXiv:2405.16712): a Mamba backbone and one attention, used often.

    u_l = x_l                                            most blocks
    u_l = x_l + W_l MLP(Norm(A(Norm([x_l, x_0]))))       every `every`-th block; x_0 the input
    x_{l+1} = x_l + Mamba(Norm(u_l))                     sec. 2, fig. 2

The attention A, its norms and the MLP are one set of weights for all the blocks that use them; the
map W_l is each block's own. A sees the block's input beside the first one, 2 * features channels,
and scores are scaled by (K / 2)^-1/2, K the size of its heads. `depth` blocks, the first of them
with attention is block `every - 1`. With `mamba_heads` (2 in the released model) each head of
Mamba's channels makes its own delta, B and C. Of the release's options not here: biases of the
projections (off in it) and other activations.

The state is that of every block: of Mamba, or a pair of the attention's cache and Mamba's.
`SharedBlock` and `HybridBlock` are also what Zamba2 (arXiv:2411.15242) is made of, with Mamba-2,
several shared blocks and low-rank maps that are each use's own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.mamba import Mamba
from seqjax.nn.activations import gelu
from seqjax.nn.base import Layer
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


class SharedBlock(nnx.Module):
    """MLP(Norm(A(Norm([x, x_0])))): what several blocks have in common."""

    def __init__(
        self,
        features: int,
        attention: Callable[..., Attention],
        feed: Callable[..., GLU],
        *,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.norm, self.feed_norm = Norm(2 * features, eps=norm_eps), Norm(features, eps=norm_eps)
        self.attention, self.feed = attention(rngs=rngs), feed(rngs=rngs)


class HybridBlock(nnx.Module):
    """[x, x_0] to Mamba(Norm(x + W shared([x, x_0]))), without the residual.

    The shared block is an argument, not a part: a module that is in two places would be two when
    the model goes through a transformation of jax.
    """

    def __init__(
        self,
        features: int,
        mamba: Callable[..., Layer],
        *,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = 2 * features, features
        self.W = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.norm, self.mamba = Norm(features, eps=norm_eps), mamba(rngs=rngs)

    def attention(self, shared: SharedBlock) -> Attention:
        return shared.attention

    def feed(self, shared: SharedBlock, x: jax.Array) -> jax.Array:
        return shared.feed(x)

    def parts(self, shared: SharedBlock) -> tuple[Layer, Layer]:
        return shared.attention, self.mamba

    def run(self, shared: SharedBlock, x, h, flow):
        attention, mamba = self.attention(shared), self.mamba
        u, cache = attention.run(shared.norm(x), h[0], flow.of(attention.evaluators))
        u = self.W(self.feed(shared, shared.feed_norm(u))) + x[:, : self.out_features]
        y, state = mamba.run(self.norm(u), h[1], flow.of(mamba.evaluators))
        return y, (cache, state)


class Zamba(Layer):
    block = True

    def __init__(
        self,
        features: int,
        *,
        depth: int = 6,
        every: int = 6,
        heads: int = 4,
        window: int = 1024,
        rotary_fraction: float = 0.0,
        expansion: float = 4.0,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        mamba_heads: int | None = None,
        rngs: nnx.Rngs,
    ):
        if not 1 <= every <= depth:
            raise ValueError(f"every must be 1 to depth = {depth}, got {every}")
        self.features = self.out_features = features
        self.uses = depth // every

        def mamba(rngs):
            return Mamba(
                features, state=state, conv=conv, expand=expand, heads=mamba_heads, rngs=rngs
            )

        def attention(rngs):
            K = 2 * features // heads
            return Attention(
                2 * features,
                out_features=features,
                heads=heads,
                window=window,
                rotary_fraction=rotary_fraction,
                scale=(K / 2) ** -0.5,
                rngs=rngs,
            )

        def feed(rngs):
            return GLU(features, max(1, round(expansion * features)), gelu, rngs=rngs)

        self.shared = SharedBlock(features, attention, feed, rngs=rngs)
        self.hybrid = tuple((n + 1) % every == 0 for n in range(depth))
        self.blocks = nnx.List(
            [
                HybridBlock(features, mamba, rngs=rngs) if hybrid else mamba(rngs)
                for hybrid in self.hybrid
            ]
        )
        self.norms = nnx.List(
            [None if hybrid else Norm(features, eps=1e-5) for hybrid in self.hybrid]
        )

    def parts(self):
        blocks: Any = self.blocks
        return tuple(
            block.parts(self.shared) if hybrid else block
            for hybrid, block in zip(self.hybrid, blocks)
        )

    def run(self, x, h, flow):
        first, states = x, []
        for n, norm in enumerate(self.norms):
            block: Any = self.blocks[n]
            if norm is None:
                y, state = block.run(self.shared, jnp.concatenate([x, first], axis=1), h[n], flow)
            else:
                y, state = block.run(norm(x), h[n], flow.of(block.evaluators))
            x = x + y
            states.append(state)
        return x, tuple(states)
