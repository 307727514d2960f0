"""Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464).

    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T    S [heads, key, value], eq. 10
    o_t = K^-1/2 S_t^T q_t                                              read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)      sec. 3.4, fig. 1
    beta_t = sigmoid(W_beta x_t)
    log alpha_t = -exp(A_log) softplus(W_alpha x_t + dt_bias)           as Mamba-2, one per head
    y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))                            the norm over each head

(The paper writes the transpose of S.) Decay and correction commute, so the order in which an
implementation applies them is immaterial. It is DeltaNet with a decay and an output gate.

exp(A_log) starts uniform in [1, 16], softplus(dt_bias) log-uniform in [0.001, 0.1]; by default
K = 3/4 features / heads and V = 2 K, as released. eigenvalues "[-1,1]": beta_t becomes
2 sigmoid(W_beta x_t) (arXiv:2411.12537). With fewer `key_heads` than heads each q and k serves
several heads in a row. `conv=0` is no convolution, gate_map "sigmoid" stands in place of the gate's
SiLU. Not here, of the release: a bias of the convolution (off in it).
"""

from typing import Annotated

from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import decay_parameters
from seqjax.layers.fast_weights.deltanet import DeltaNet
from seqjax.nn.activations import sigmoid, silu
from seqjax.nn.base import option
from seqjax.nn.gates import log_decay
from seqjax.ops.delta_rule import gated_delta_rule

GATES = {"silu": silu, "sigmoid": sigmoid}


class GatedDeltaNet(DeltaNet):
    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        output_gate: bool = True,
        gate_map: str = "silu",
        conv: Annotated[int, Range(0)] = 4,
        norm_eps: float = 1e-6,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        K = key_size or max(1, 3 * features // (4 * heads))
        super().__init__(
            features,
            heads=heads,
            key_heads=key_heads,
            key_size=K,
            value_size=value_size or 2 * K,
            output_gate=output_gate,
            conv=conv,
            norm_eps=norm_eps,
            eigenvalues=eigenvalues,
            rngs=rngs,
        )
        self.f = GATES[option("gate_map", gate_map, GATES)]

    def add_gates(self, rngs):
        super().add_gates(rngs)
        self.add_decay(rngs)

    def add_decay(self, rngs):
        self.W_alpha = self.linear(self.heads, rngs)
        self.A_log, self.dt_bias = decay_parameters(self.heads, self.heads, rngs)

    def log_alpha(self, x):
        """[T, heads], in float32."""
        return log_decay(self.W_alpha(x), self.A_log[...], self.dt_bias[...])

    def associate(self, x, q, k, v, S, flow):
        beta, log_alpha = self.beta(x), self.log_alpha(x)
        return gated_delta_rule(q, k, v, beta, log_alpha, S, scale=self.K**-0.5, flow=flow)
