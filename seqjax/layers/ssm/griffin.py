"""Griffin: gated linear recurrences mixed with local attention (De et al. 2024, arXiv:2402.19427).

A stack of residual blocks, one per name in `pattern` (sec. 2.1, fig. 2):

    z = x + mixing(RMSNorm(x))                           mixing: "recurrent" or "attention"
    y = z + W_3 (gelu(W_1 n) * W_2 n),  n = RMSNorm(z)   gated MLP, W_1 and W_2 `expansion` wide

    recurrent:  W_out (gelu(W_y x) * RG-LRU(conv(W_x x)))                      sec. 2.3, fig. 2c
    attention:  local multi-query attention with rotary positions            sec. 2.3

`pattern` is (recurrent, recurrent, attention) in the paper; recurrent blocks alone are Hawk. The
recurrence has `width` channels (4/3 features in the paper, here features by default) and its gates
one block per head; the convolution spans `conv` steps. `expansion=0` leaves the MLPs out. gelu is
its approximation by tanh, as in the release. Of the release's options not here: scales of initial
weights, which depend on the depth of the model.

The state is the tuple of the blocks' states: convolution window and RG-LRU state, or the cache.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from flax import nnx

from seqjax.layers.attention.local_attention import LocalAttention
from seqjax.layers.ssm.rg_lru import RGLRU
from seqjax.nn.base import Layer, State, option
from seqjax.nn.blocks import Blocks
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


class RecurrentState(NamedTuple):
    window: jax.Array  # [conv - 1, width], newest last
    h: State  # of the RG-LRU


class RecurrentBlock(Layer):
    """W_out (gelu(W_y x) * RG-LRU(conv(W_x x)))."""

    def __init__(
        self,
        features: int,
        *,
        width: int | None = None,
        heads: int = 1,
        conv: int = 4,
        unscaled_start: bool = False,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.sequence_parallel = not unscaled_start
        width = width or features
        self.W_y = nnx.Linear(features, width, rngs=rngs)
        self.W_x = nnx.Linear(features, width, rngs=rngs)
        self.conv = ShortConv(width, conv, rngs=rngs)
        self.rg_lru = RGLRU(
            width, blocks=heads, unscaled_start=unscaled_start, eigenvalues=eigenvalues, rngs=rngs
        )
        self.W_out = nnx.Linear(width, features, rngs=rngs)

    def parts(self) -> Any:
        modules: Any = self.conv, self.rg_lru
        return RecurrentState(*modules)

    def run(self, x, h, flow):
        u, window = self.conv(self.W_x(x), h.window, flow)
        u, state = self.rg_lru.run(u, h.h, flow)
        return self.W_out(jax.nn.gelu(self.W_y(x)) * u), RecurrentState(window, state)


class Griffin(Blocks):
    def __init__(
        self,
        features: int,
        *,
        pattern: Sequence[str] = ("recurrent", "recurrent", "attention"),
        width: int | None = None,
        heads: int = 4,
        conv: int = 4,
        window: int = 1024,
        rotary_fraction: float = 0.5,
        expansion: float = 3.0,
        unscaled_start: bool = False,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        kinds = {
            "recurrent": lambda: RecurrentBlock(
                features,
                width=width,
                heads=heads,
                conv=conv,
                unscaled_start=unscaled_start,
                eigenvalues=eigenvalues,
                rngs=rngs,
            ),
            "attention": lambda: LocalAttention(
                features, heads=heads, window=window, rotary_fraction=rotary_fraction, rngs=rngs
            ),
        }

        def feed():
            return GLU(features, int(expansion * features), jax.nn.gelu, bias=True, rngs=rngs)

        super().__init__(
            features,
            [kinds[option("kind of block", name, kinds)]() for name in pattern],
            norm=lambda: Norm(features),
            feed=feed if expansion else None,
        )
