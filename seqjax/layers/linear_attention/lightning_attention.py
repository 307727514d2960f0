"""Lightning attention (Qin et al. 2024, arXiv:2401.04658), as the TNL models mix time with it.

    S_t = lambda_h S_{t-1} + k_t v_t^T,   o_t = q_t^T S_t          S [heads, key, value]
    q, k, v = silu(W x)                                            no scale, no positions
    y_t = W_o (LN(o_t) * sigmoid(W_g2 W_g1 x_t))                   LN over all heads at once
    lambda_h = exp(-2^(-8 (h + 1) / H) (1 - l / (L - 1) + 1e-5))   layer l of L

Lightning attention is how this is computed: in chunks, attention inside and the state between
them; that is the evaluator "chunked". The decay is before the write. `depth` in [0, 1] is
l / (L - 1). slopes "linear": the lambda_h of the TransNormerLLM paper, see `transnormer_llm`.
W_g1 has the size of a head. `bias` is that of all maps. The release takes `norm_type` and `causal`
too, which change nothing in it.
"""

import jax
from flax import nnx

from seqjax.layers.linear_attention.transnormer import NormAttention
from seqjax.layers.linear_attention.transnormer_llm import head_slopes
from seqjax.nn.activations import silu
from seqjax.nn.norms import Norm


class LightningAttention(NormAttention):
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        depth: float = 0.0,
        slopes: str = "alibi",
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            heads=heads,
            phi=silu,
            norm=Norm(features, centre=True, bias=True, eps=1e-5),
            slope=head_slopes(slopes, heads, depth),
            bias=bias,
            rngs=rngs,
        )
        self.W_g1 = nnx.Linear(features, self.K, use_bias=bias, rngs=rngs)
        self.W_g2 = nnx.Linear(self.K, features, use_bias=bias, rngs=rngs)

    def values(self, x):
        return jax.nn.silu(self.W_v(x))

    def gate(self, x, o):
        return o * jax.nn.sigmoid(self.W_g2(self.W_g1(x)))
