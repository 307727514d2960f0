"""DeltaProduct (Siems et al. 2025, arXiv:2502.10297): several Householder steps per token.

    A_t = prod_{j = n_h ... 1} (I - beta_tj k_tj k_tj^T)              sec. 3, eq. 4
    S_t = alpha_t A_t S_{t-1} + the writes beta_tj k_tj v_tj^T, each under the later reflections
    o_t = K^-1/2 S_t^T q_t                                            S [heads, key, value]
    q_t, k_tj = unit(SiLU(conv(W x)_t)),  v_tj = SiLU(conv(W_v x)_t)
    beta_tj = 2 sigmoid(W_beta x_t), or sigmoid with eigenvalues "[0,1]"
    log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)         only if `gated`
    y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))                          the norm over each head

One step applies the decay first and then the corrections j = 1 ... n_h; read after the last. A
product of n_h reflections is any orthogonal map that leaves all but n_h dimensions alone, so n_h
grows what the state can track at the cost of n_h delta rules per token. With n_h = 1 it is Gated
DeltaNet, or DeltaNet where it is not `gated`; sizes and other options are those of
`seqjax.layers.fast_weights.gated_deltanet`. Not here, of the release: a bias of the convolution
(off in it).
"""

from typing import Annotated

from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.gated_deltanet import GatedDeltaNet
from seqjax.ops.delta_rule import gated_delta_product


class DeltaProduct(GatedDeltaNet):
    def __init__(
        self,
        features: int,
        *,
        n_h: int = 2,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        gated: bool = True,
        output_gate: bool = True,
        conv: Annotated[int, Range(0)] = 4,
        norm_eps: float = 1e-6,
        eigenvalues: str = "[-1,1]",
        rngs: nnx.Rngs,
    ):
        if n_h < 1:
            raise ValueError(f"n_h must be at least 1, got {n_h}")
        self.n, self.gated = n_h, gated
        super().__init__(
            features,
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

    def add_decay(self, rngs):
        if self.gated:
            super().add_decay(rngs)

    def associate(self, x, q, k, v, S, flow):
        log_alpha = self.log_alpha(x) if self.gated else None
        return gated_delta_product(
            q, k, v, self.beta(x), log_alpha, S, scale=self.K**-0.5, flow=flow
        )
