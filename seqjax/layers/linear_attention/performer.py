"""Performer (Choromanski et al. 2020, arXiv:2009.14794): a linear Transformer with FAVOR+ features.

    phi(x) = M^-1/2 exp(W x - |x|^2/2)       positive features, lemma 1;  x = K^-1/4 q or k
    rows of W: standard normal, orthogonal to each other       sec. 2.4

With them phi(q).phi(k) is an unbiased estimate of exp(q.k / sqrt(K)). feature_map: "favor+" is
that, "favor+-" its hyperbolic form, "trigonometric" the unbiased one that is not positive, and
"random_relu" the paper's generalised attention. count: the number M of features, by default
K log K. They are drawn once; `layer.phi.redraw(key)` draws others, as the paper does in training.

The release subtracts from the keys' exponents a maximum over time, which looks ahead (through an
epsilon that does not cancel). Here keys have no stabiliser: their exponents are bounded by |w|^2/2.
Not `causal` and `cross` are those of `seqjax.layers.linear_attention.linear_transformer`. The
release's rows of W of equal length (`scaling=1`) are not here: they make the estimate a biased one.
"""

from flax import nnx

from seqjax.layers.linear_attention.linear_transformer import LinearTransformer


class Performer(LinearTransformer):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        feature_map: str = "favor+",
        count: int | None = None,
        bias: bool = True,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        # features of any sign can sum to nothing
        denominator = "abs" if feature_map == "trigonometric" else "add"
        super().__init__(
            features,
            heads=heads,
            feature_map=(feature_map, {"count": count}),
            denominator=denominator,
            bias=bias,
            causal=causal,
            rngs=rngs,
        )
