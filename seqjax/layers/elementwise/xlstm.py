"""xLSTM[a:b] (Beck et al. 2024, arXiv:2405.04517 sec. 2.4): a stack of mLSTM and sLSTM blocks.

    mlstm   [u, z] = W_up n                 n = Norm(x), u and z `expand` times as wide    fig. 11
            q, k = W_q c, W_k c;  v = W_v u;  c = SiLU(conv(u))
            i, f = W_if [q, k, v]           exponential gates of each head
            y = x + W_down ((Norm(mLSTM(q, k, v, i, f)) + skip * c) * SiLU(z))

    slstm   i, f = W_i c, W_f c;  z, o = W_z n, W_o n;  c = SiLU(conv(n))                  fig. 10
            u = x + Norm(sLSTM(i, f, z, o))
            y = u + W_3 (gelu(W_1 Norm(u)) * W_2 Norm(u))       `expansion` times as wide

The memory comes after the up-projection in the one, before it in the other. `pattern` names the
blocks; by default it is xLSTM[7:1], seven of the first to one of the second. W_q, W_k, W_v are
block-diagonal with blocks of `block` channels, W_i, W_f, W_z, W_o with one for each head; norms of
memories are per head. `mixing` False takes the memory mixing out of the sLSTM. The cells:
`seqjax.layers.linear_attention.mlstm` (whose layer is the mixer of xLSTM-7B, arXiv:2503.13427) and
`seqjax.layers.elementwise.slstm`.

As in the official code skip starts at 1, W_if at 0, the biases of f evenly spaced in [3, 6] over
the heads and those of i normal with deviation 0.1 (mLSTM); the sLSTM's fall more slowly in higher
blocks, by the `depth` of its cell. Not here, of its options: biases of the projections, norms
without weights and dropout, all off in it, and the norm after the last block, which is the model's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.classic.stacked import Stacked
from seqjax.layers.elementwise.slstm import SLSTM
from seqjax.nn.activations import gelu
from seqjax.nn.base import Layer, Precise, State, option
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import GLU, HeadLinear, merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.ops.stabilised_attention import (
    State as Memory,
    stabilised_attention,
)


class BlockState(NamedTuple):
    window: jax.Array  # [conv - 1, channels], of the convolution
    memory: State  # (C, n, m) of the mLSTM, (h, c, n, m) of the sLSTM


class MLSTMBlock(Layer):
    block = True
    ops = ("stabilised_attention",)

    def __init__(
        self, features: int, *, heads: int, conv: int, expand: int, block: int, rngs: nnx.Rngs
    ):
        D = expand * features
        self.features = self.out_features = features
        self.heads, self.K = heads, per_head("expand * features", D, heads)
        linear = partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.norm = Norm(features, centre=True, eps=1e-5)
        self.W_up, self.W_down = linear(features, 2 * D), linear(D, features)
        self.conv = ShortConv(D, conv, rngs=rngs)
        blocks = D // block if D % block == 0 else 1
        self.W_q, self.W_k, self.W_v = (
            HeadLinear(blocks, D // blocks, D // blocks, rngs=rngs) for _ in range(3)
        )
        self.W_if = linear(3 * D, 2 * heads, kernel_init=nnx.initializers.zeros)
        self.b_i = Precise(0.1 * jax.random.normal(rngs.params(), (heads,)))
        self.b_f = Precise(jnp.linspace(3.0, 6.0, heads))
        self.skip = nnx.Param(jnp.ones(D))
        self.head_norm = Norm(heads, self.K, centre=True, eps=1e-5)

    def initial(self):
        C = jnp.zeros((self.heads, self.K, self.K))
        return BlockState(self.conv.initial(), Memory(C, C[:, :, 0], C[:, 0, 0]))

    def run(self, x, h, flow):
        u, z = jnp.split(self.W_up(self.norm(x)), 2, axis=1)
        c, window = self.conv(u, h.window, flow)
        c = jax.nn.silu(c)
        q, k, v = (merge_heads(W(w)) for W, w in ((self.W_q, c), (self.W_k, c), (self.W_v, u)))
        i, f = jnp.split(self.W_if(jnp.concatenate([q, k, v], axis=1)), 2, axis=1)
        q, k, v = (split_heads(w, self.heads) for w in (q, k, v))
        y, memory = stabilised_attention(
            q,
            k,
            v,
            i + self.b_i[...][None],
            jax.nn.log_sigmoid(f + self.b_f[...][None]),
            h.memory,
            scale=self.K**-0.5,
            flow=flow,
        )
        y = merge_heads(self.head_norm(y)) + self.skip[...][None] * c
        return x + self.W_down(y * jax.nn.silu(z)), BlockState(window, memory)


class Gates(nnx.Module):
    """i, f of the first half of the channels and z, o of the second: [T, 2 D] to [T, 4 D]."""

    def __init__(self, features: int, heads: int, *, rngs: nnx.Rngs):
        d = per_head("features", features, heads)
        self.W_i, self.W_f, self.W_z, self.W_o = (
            HeadLinear(heads, d, d, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x):
        c, n = jnp.split(x, 2, axis=1)
        pairs = ((self.W_i, c), (self.W_f, c), (self.W_z, n), (self.W_o, n))
        return jnp.concatenate([merge_heads(W(w)) for W, w in pairs], axis=1)


class SLSTMBlock(Layer):
    block = True
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int,
        conv: int,
        expansion: float,
        mixing: bool,
        depth: float,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads = heads
        self.norm, self.feed_norm = (Norm(features, centre=True, eps=1e-5) for _ in range(2))
        self.conv = ShortConv(features, conv, rngs=rngs)
        self.cell = SLSTM(
            2 * features, hidden=features, heads=heads, mixing=mixing, depth=depth, rngs=rngs
        )
        self.cell.W = Gates(features, heads, rngs=rngs)
        self.head_norm = Norm(heads, features // heads, centre=True, eps=1e-5)
        inner = max(1, round(expansion * features))
        self.feed = GLU(features, inner, gelu, rngs=rngs)

    def parts(self) -> Any:
        modules: Any = self.conv, self.cell
        return BlockState(*modules)

    def run(self, x, h, flow):
        n = self.norm(x)
        c, window = self.conv(n, h.window, flow)
        gates = jnp.concatenate([jax.nn.silu(c), n], axis=1)
        y, memory = self.cell.run(gates, h.memory, flow.of(self.cell.evaluators))
        x = x + merge_heads(self.head_norm(split_heads(y.astype(x.dtype), self.heads)))
        return x + self.feed(self.feed_norm(x)), BlockState(window, memory)


class XLSTM(Stacked):
    block = True

    def __init__(
        self,
        features: int,
        *,
        pattern: Sequence[str] = ("mlstm",) * 7 + ("slstm",),
        heads: int = 4,
        conv: int = 4,
        expand: int = 2,
        expansion: float = 4 / 3,
        block: int = 4,
        mixing: bool = True,
        rngs: nnx.Rngs,
    ):
        make = {
            "mlstm": partial(MLSTMBlock, heads=heads, conv=conv, expand=expand, block=block),
            "slstm": partial(
                SLSTMBlock, heads=heads, conv=conv, expansion=expansion, mixing=mixing
            ),
        }
        pattern = [option("kind of block", name, make) for name in pattern]
        layers: list[Callable[..., Layer]] = [make[name] for name in pattern]
        for n, name in enumerate(pattern):
            if name == "slstm":
                layers[n] = partial(make[name], depth=n / max(1, len(pattern) - 1))
        super().__init__(features, layers=layers, rngs=rngs)
        self.inner, self.K = expand * features, expand * features // heads
        self.mlstms, self.slstms = pattern.count("mlstm"), pattern.count("slstm")
