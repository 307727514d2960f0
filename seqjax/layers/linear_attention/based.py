"""Based (Arora et al. 2024, arXiv:2402.18668): Taylor linear attention and small sliding windows.

    z = x + mixing(RMSNorm(x)),   y = z + W_3 (silu(W_1 n) * W_2 n),  n = RMSNorm(z)

with one kind of mixing per name in `pattern`:

    linear   y_t = W_o [sum_s phi(q_t).phi(k_s) v_s / (sum_s phi(q_t).phi(k_s) + eps)]
             phi(x) = [1, x / K^1/4, vec(x x^T) / sqrt(2 K)],  K = `key_size`, 16 in the paper:
             phi(q).phi(k) = 1 + z + z^2/2, the Taylor series of exp z, z = q.k / sqrt(K)
    window   softmax attention over the last `window` steps, without positions
    conv     W_o (silu(conv(W_1 x)) * W_2 x)                       `conv` steps, 2 features wide

The default is the pattern of the released 360 million parameters, where it is repeated. The
released features are all K^2 products, of which the symmetric half would do. Of the constructors
for its linear mixer not here: num_key_value_heads (as many as heads in it), and other feature maps,
which `linear_transformer` takes.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.nn.base import Layer, option
from seqjax.nn.blocks import Blocks
from seqjax.nn.convolution import ShortConv
from seqjax.nn.linear import GLU
from seqjax.nn.norms import Norm


class GatedConv(Layer):
    """W_o (silu(conv(W_1 x)) * W_2 x); state: the window of the convolution."""

    sequence_parallel = True

    def __init__(self, features: int, *, inner: int, conv: int, rngs: nnx.Rngs):
        self.features = self.out_features = features
        self.W_1, self.W_2 = (nnx.Linear(features, inner, rngs=rngs) for _ in range(2))
        self.conv = ShortConv(inner, conv, rngs=rngs)
        self.W_o = nnx.Linear(inner, features, rngs=rngs)

    def initial(self):
        return self.conv.initial()

    def run(self, x, h, flow):
        u, h = self.conv(self.W_1(x), h, flow)
        return self.W_o(jax.nn.silu(u) * self.W_2(x)), h


class Based(Blocks):
    def __init__(
        self,
        features: int,
        *,
        pattern: Sequence[str] = ("conv", "linear", "window", "conv", "conv"),
        heads: int = 4,
        key_size: int = 16,
        window: int = 128,
        conv: int = 3,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        kinds = {
            "linear": partial(
                LinearTransformer,
                heads=heads,
                key_size=key_size,
                feature_map="taylor",
                bias=False,
                eps=1e-12,
            ),
            "window": partial(Attention, heads=heads, window=window, rotary_fraction=0.0),
            "conv": partial(GatedConv, inner=2 * features, conv=conv),
        }
        super().__init__(
            features,
            [kinds[option("kind of block", name, kinds)](features, rngs=rngs) for name in pattern],
            norm=lambda: Norm(features),
            feed=lambda: GLU(features, int(expansion * features), rngs=rngs),
        )
