"""Striped Hyena (Poli et al. 2024, arXiv:2403.17844): long convolutions, and attention in stripes.

    x += mixer(RMSNorm(x))        attention in one layer of `attention_every`, else Hyena
    x += W_3 (silu(W_1 RMSNorm(x)) * W_2 RMSNorm(x))

The paper finds hybrids with about one quarter of attention best at equal compute, and calls a stack
that alternates its mixers striped. Attention is last of its stripe, with grouped queries and rotary
positions; Hyena is that of `seqjax.layers.ssm.hyena`, with filters of `length` steps. `modes`: the
filters are sums of that many complex exponentials instead, as in the released models and in
`seqjax.layers.ssm.laughing_hyena`: h_t = Re sum_n C_n lambda_n^t, whose past is a state.

The state is that of every mixer: of Hyena, its last inputs or its modes, or the cache of the
attention. Of the release's options not here: filters shared by groups of channels, rotary
positions interpolated for longer texts, and another order of the rows of its projections.
"""

from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.hyena import Hyena
from seqjax.layers.ssm.laughing_hyena import LaughingHyena
from seqjax.nn.blocks import Blocks
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


class StripedHyena(Blocks):
    def __init__(
        self,
        features: int,
        *,
        depth: int = 4,
        attention_every: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int = 1024,
        order: int = 2,
        length: int = 1024,
        width: int = 64,
        modes: int | None = None,
        expansion: float = 8 / 3,
        base: float = 10_000.0,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        if attention_every < 1:
            raise ValueError(f"attention_every must be at least 1, got {attention_every}")

        def mixer(n):
            if n % attention_every == attention_every - 1:
                return Attention(
                    features,
                    heads=heads,
                    kv_heads=kv_heads,
                    window=window,
                    base=base,
                    bias=bias,
                    rngs=rngs,
                )
            if modes:
                return LaughingHyena(features, order=order, modes=modes, rngs=rngs)
            return Hyena(features, order=order, length=length, width=width, rngs=rngs)

        inner = max(1, round(expansion * features))
        super().__init__(
            features,
            [mixer(n) for n in range(depth)],
            norm=lambda: Norm(features),
            feed=lambda: GLU(features, inner, rngs=rngs),
        )
        self.past = 2 * modes if modes else length - 1  # numbers of a long convolution's channel
        self.attentions = depth // attention_every
        self.hyenas = depth - self.attentions
        self.keys = (kv_heads or heads) * (features // heads)
