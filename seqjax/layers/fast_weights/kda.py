"""Kimi Delta Attention (Kimi team 2025, arXiv:2510.26692): the delta rule with a decay per key.

    S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T    S [heads, K, V]   eq. 1
    o_t = K^-1/2 S_t^T q_t                                                   read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    beta_t = sigmoid(W_beta x_t)
    log alpha_t = -exp(A_log) softplus(W_a2 W_a1 x_t + dt_bias)              A_log one per head
    y_t = W_o (RMSNorm(o_t) * sigmoid(W_g2 W_g1 x_t + b_g))                  both maps of rank V

The state decays first and is corrected then: the order matters, a decay per key does not commute
with the correction. By default K = V = features / heads; exp(A_log) starts uniform in [1, 16],
softplus(dt_bias) log-uniform in [0.001, 0.1]. eigenvalues "[-1,1]": beta_t becomes
2 sigmoid(W_beta x_t) (arXiv:2411.12537). With fewer `key_heads` than heads each q and k serves
several heads in a row. The released models have no b_g: `gate_bias`. `full_rank`: one matrix in
place of W_a2 W_a1, and one of W_g2 W_g1 without b_g, as in Ling 3. With a `lower_bound` c < 0, as
its later kernels have it, log alpha_t = c sigmoid(exp(A_log) (W_a2 W_a1 x_t + dt_bias)): no key
forgets faster than exp(c) per step. `conv=0` is no convolution. Not here, of the
release: a bias of the convolution (off in it).
"""

from typing import Annotated

from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import DeltaLayer, decay_parameters
from seqjax.nn.activations import sigmoid
from seqjax.nn.base import option
from seqjax.nn.gates import EIGENVALUES, log_decay, negative_bound, step_size
from seqjax.nn.linear import Bottleneck, per_head, split_heads
from seqjax.ops.delta_rule import gated_delta_rule


class KDA(DeltaLayer):
    ops = ("gated_delta_rule",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_heads: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        conv: Annotated[int, Range(0)] = 4,
        gate_bias: bool = True,
        full_rank: bool = False,
        norm_eps: float = 1e-5,
        eigenvalues: str = "[0,1]",
        lower_bound: Annotated[float | None, Range(below=0)] = None,
        rngs: nnx.Rngs,
    ):
        self.lower_bound, self.full_rank = negative_bound(lower_bound), full_rank
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        super().__init__(
            features,
            heads=heads,
            key_heads=key_heads,
            key_size=key_size or per_head("features", features, heads),
            value_size=value_size or per_head("features", features, heads),
            conv=conv,
            gate="full" if full_rank else "low rank",
            gate_bias=gate_bias,
            f=sigmoid,
            norm_eps=norm_eps,
            rngs=rngs,
        )

    def add_gates(self, rngs):
        self.W_beta = self.linear(self.heads, rngs)
        self.add_decay(rngs)

    def add_decay(self, rngs):
        keys = self.heads * self.K
        if self.full_rank:
            self.W_a = self.linear(keys, rngs)
        else:
            self.W_a = Bottleneck(self.features, self.V, keys, rngs=rngs)
        self.A_log, self.dt_bias = decay_parameters(self.heads, keys, rngs)

    def log_alpha(self, x):
        """[T, heads, K], in float32."""
        dt, bias = split_heads(self.W_a(x), self.heads), self.dt_bias[...].reshape(-1, self.K)
        return log_decay(dt, self.A_log[...], bias, lower_bound=self.lower_bound)

    def associate(self, x, q, k, v, S, flow):
        beta, log_alpha = step_size(self.W_beta(x), self.eigenvalues), self.log_alpha(x)
        return gated_delta_rule(q, k, v, beta, log_alpha, S, scale=self.K**-0.5, flow=flow)
