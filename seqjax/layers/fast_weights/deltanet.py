"""DeltaNet (Yang et al. 2024, arXiv:2406.06484; the rule: Schlag et al. 2021, arXiv:2102.11174).

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T       S [heads, key, value]
    o_t = K^-1/2 S_t^T q_t                                   read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    beta_t = sigmoid(W_beta x_t)
    y_t = W_o RMSNorm(o_t)                                   the norm over each head

The state is corrected towards answering k_t with v_t; without decay, what it holds is only ever
overwritten. By default K = V = features / heads. With fewer `key_heads` than heads each q and k
serves several heads in a row; `output_gate` multiplies the norm's result by SiLU(W_g x_t).

As the release has them: `conv=0` is no convolution, `beta` False is beta_t = 1, `qk_map` stands in
place of SiLU, and qk_norm "sum" divides q and k by their sums, not by their lengths (what adds up
to zero stays). Not here, of it: a bias of the convolution (off in it). 2102.11174 itself maps q and
k by DPFP and divides them by their sums: that is `fwp` with update="delta". eigenvalues "[-1,1]":
beta_t becomes 2 sigmoid(W_beta x_t) (arXiv:2411.12537).
"""

from typing import Annotated

import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import DeltaLayer
from seqjax.nn.base import option
from seqjax.nn.feature_maps import QK_MAPS
from seqjax.nn.gates import EIGENVALUES, step_size
from seqjax.nn.linear import per_head
from seqjax.nn.norms import unit
from seqjax.ops.delta_rule import delta_rule


def of_sum_one(z):
    """z over its sum, as the last axis has it; in float32, where e^-60 is not yet 0."""
    wide = z.astype(accumulation_dtype(z.dtype))
    total = jnp.sum(wide, axis=-1, keepdims=True)
    nothing = jnp.abs(total) < jnp.finfo(wide.dtype).tiny
    return (wide / jnp.where(nothing, 1, total)).astype(z.dtype)


QK_NORMS = {"length": unit, "sum": of_sum_one}


class DeltaNet(DeltaLayer):
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
        output_gate: bool = False,
        beta: bool = True,
        qk_map: str = "silu",
        qk_norm: str = "length",
        conv: Annotated[int, Range(0)] = 4,
        norm_eps: float = 1e-6,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.learns_beta = beta
        self.qk_map = QK_MAPS[option("qk_map", qk_map, QK_MAPS)]
        self.qk_norm = QK_NORMS[option("qk_norm", qk_norm, QK_NORMS)]
        super().__init__(
            features,
            heads=heads,
            key_heads=key_heads,
            key_size=key_size or per_head("features", features, heads),
            value_size=value_size or per_head("features", features, heads),
            conv=conv,
            gate="full" if output_gate else "none",
            norm_eps=norm_eps,
            rngs=rngs,
        )

    def add_gates(self, rngs):
        self.W_beta = self.linear(self.n * self.heads, rngs) if self.learns_beta else None

    def mapped(self, z):
        return self.qk_norm(self.qk_map(z))

    def beta(self, x):
        """[T n, heads]."""
        if self.W_beta is None:
            size = 2.0 if self.eigenvalues == "[-1,1]" else 1.0
            return jnp.full((len(x) * self.n, self.heads), size, x.dtype)
        return step_size(self.per_correction(self.W_beta(x)), self.eigenvalues)

    def associate(self, x, q, k, v, S, flow):
        return delta_rule(q, k, v, self.beta(x), S, scale=self.K**-0.5, flow=flow)
