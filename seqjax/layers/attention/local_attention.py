"""Local multi-query attention (arXiv:1911.02150; Griffin, 2402.19427 sec. 2.3), as a recurrence.

    y_t = W_o [ softmax_s(K^-1/2 q_t^h . k_s) v_s ]_h          s in (t - window, t]

All heads h share one key and one value per step; half of the channels are turned by rotary
positions, so scores depend on t - s only. It is `attention` with these options.
"""

from flax import nnx

from seqjax.layers.attention.attention import Attention


class LocalAttention(Attention):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        window: int = 1024,
        rotary_fraction: float = 0.5,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            kv_heads=1,
            window=window,
            rotary_fraction=rotary_fraction,
            out_bias=True,
            rngs=rngs,
        )
