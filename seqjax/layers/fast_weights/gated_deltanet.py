"""Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464).

    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T    S [heads, key, value], eq. 10
    o_t = K^-1/2 S_t^T q_t                                              read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)      sec. 3.4, fig. 1
    beta_t = sigmoid(W_beta x_t)
    log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)           as Mamba-2, one per head
    y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))                            the norm over each head

(The paper writes the transpose of S.) Decay and correction commute, so the order in which an
implementation applies them is immaterial. It is DeltaProduct with one correction per step: see
`seqjax.layers.fast_weights.deltaproduct` for the code.

By default K = 3/4 features / heads and V = 2 K, as released. eigenvalues "[-1,1]": beta_t becomes
2 sigmoid(W_beta x_t) (arXiv:2411.12537). `conv=1` is no convolution, up to a scale of each channel
that W has already. Not here, of the release: a bias of the convolution (off in it).
"""

from flax import nnx

from seqjax.layers.fast_weights.deltaproduct import DeltaProduct


class GatedDeltaNet(DeltaProduct):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        output_gate: bool = True,
        conv: int = 4,
        norm_eps: float = 1e-6,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            n_h=1,
            heads=heads,
            key_heads=key_heads,
            key_size=key_size,
            value_size=value_size,
            output_gate=output_gate,
            conv=conv,
            norm_eps=norm_eps,
            eigenvalues=eigenvalues,
            rngs=rngs,
        )
