"""DeltaNet (Yang et al. 2024, arXiv:2406.06484; the rule: Schlag et al. 2021, arXiv:2102.11174).

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T       S [heads, key, value]
    o_t = K^-1/2 S_t^T q_t                                   read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    beta_t = sigmoid(W_beta x_t)
    y_t = W_o RMSNorm(o_t)                                   the norm over each head

The state is corrected towards answering k_t with v_t; without decay, what it holds is only ever
overwritten. It is DeltaProduct with one correction per step, without decay and output gate: see
`seqjax.layers.fast_weights.deltaproduct` for the code. By default K = V = features / heads.

`conv=1` is no convolution, up to a scale of each channel that W has already. Not here, of the
release: beta_t = 1, a bias of the convolution, and q and k without SiLU or length one.
2102.11174 itself maps q and k by DPFP and divides them by their sums: that is `fwp` with
update="delta". eigenvalues "[-1,1]": beta_t becomes 2 sigmoid(W_beta x_t) (arXiv:2411.12537).
"""

from flax import nnx

from seqjax.layers.fast_weights.deltaproduct import DeltaProduct
from seqjax.nn.linear import per_head


class DeltaNet(DeltaProduct):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        output_gate: bool = False,
        conv: int = 4,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            n_h=1,
            heads=heads,
            key_size=key_size or per_head("features", features, heads),
            value_size=value_size or per_head("features", features, heads),
            gated=False,
            output_gate=output_gate,
            conv=conv,
            eigenvalues=eigenvalues,
            rngs=rngs,
        )
