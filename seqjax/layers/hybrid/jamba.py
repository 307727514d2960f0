"""Jamba (Lieber et al. 2024, arXiv:2403.19887): Mamba, a little attention, and experts.

    x += mixer(RMSNorm(x))        attention in one layer of `attention_every`, else Mamba     sec. 2
    x += feed(RMSNorm(x))         a mixture of experts in every `experts_every`-th layer

One Jamba block has 8 layers, attention to Mamba 1 : 7, the attention at `attention_at`, experts in
every other layer: 16 of them in the paper, 4 by default, each token to the best 2. Attention has
grouped queries and no positions (sec. 6.5: Mamba knows where it is); Mamba normalises its time
step, B and C (sec. 6.4). The weights of the chosen experts are their probabilities among all, as
released.

The state is that of every mixer: of Mamba, or the cache of the attention. Of the release's options
not here: biases of the projections (off in it), other activations, and the loss that balances the
experts, which is the training's.
"""

from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.mamba import Mamba
from seqjax.nn.blocks import Blocks
from seqjax.nn.experts import MoE
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


class Jamba(Blocks):
    def __init__(
        self,
        features: int,
        *,
        depth: int = 8,
        attention_every: int = 8,
        attention_at: int = 4,
        experts_every: int = 2,
        experts: int = 4,
        top: int = 2,
        heads: int = 4,
        kv_heads: int | None = None,
        window: int = 1024,
        expansion: float = 3.5,
        state: int = 16,
        conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        rngs: nnx.Rngs,
    ):
        if not 0 <= attention_at < attention_every:
            raise ValueError(f"attention_at must be below {attention_every}, got {attention_at}")
        inner = max(1, round(expansion * features))

        def mixer(n):
            if n % attention_every == attention_at:
                return Attention(
                    features,
                    heads=heads,
                    kv_heads=kv_heads,
                    window=window,
                    rotary_fraction=0.0,
                    rngs=rngs,
                )
            return Mamba(
                features,
                state=state,
                conv=conv,
                expand=expand,
                dt_rank=dt_rank,
                norms="weighted",
                rngs=rngs,
            )

        def feed(n):
            if n % experts_every != experts_every - 1:
                return GLU(features, inner, rngs=rngs)
            # "dense", as a layer maps over examples, which ragged products are not made for
            return MoE(
                features,
                inner,
                experts=experts,
                top=top,
                renormalise=False,
                evaluator="dense",
                rngs=rngs,
            )

        places = iter(range(depth))
        super().__init__(
            features,
            [mixer(n) for n in range(depth)],
            norm=lambda: Norm(features),
            feed=lambda: feed(next(places)),
        )
        self.attentions = sum(isinstance(layer, Attention) for layer in self.mixing)
        self.mambas = depth - self.attentions
        self.keys = (kv_heads or heads) * (features // heads)
