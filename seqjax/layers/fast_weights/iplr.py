"""The generalised delta rule: an identity plus low rank (IPLR) transition (arXiv:2412.06464, fla).

    S_t = (I + b_t a_t^T) S_{t-1} + k_t v_t^T                S [heads, key, value]
    o_t = K^-1/2 S_t^T q_t                                   read after the write
    q_t, k_t = unit(SiLU(conv(W x)_t)),  v_t = SiLU(conv(W_v x)_t)
    a_t = unit(W_a x_t),  b_t = -beta_t a_t,  beta_t = sigmoid(W_beta x_t)
    y_t = W_o RMSNorm(o_t)                                   the norm over each head

What is erased (along a) need not lie where something is written (k): DeltaNet is a = k, with beta k
in place of k. Useful where an old entry is to go without a new one in its place. The release has
the recurrence only (`seqjax.dplr` without decays); the layer around it is DeltaNet's.

With b = -beta a the transition contracts, however a turns; with `rates` beta_t is one number per
key, as in RWKV-7, and b may point elsewhere. eigenvalues "[-1,1]": 2 sigmoid(W_beta x_t).
"""

from typing import Annotated

from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import DeltaLayer
from seqjax.nn.base import option
from seqjax.nn.gates import EIGENVALUES, step_size
from seqjax.nn.linear import per_head, split_heads
from seqjax.nn.norms import unit
from seqjax.ops.dplr import dplr


class IPLR(DeltaLayer):
    ops = ("dplr",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        rates: bool = False,
        output_gate: bool = False,
        conv: Annotated[int, Range(0)] = 4,
        norm_eps: float = 1e-6,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.rates = rates
        super().__init__(
            features,
            heads=heads,
            key_size=key_size or per_head("features", features, heads),
            value_size=value_size or per_head("features", features, heads),
            conv=conv,
            gate="full" if output_gate else "none",
            norm_eps=norm_eps,
            rngs=rngs,
        )

    def add_gates(self, rngs):
        self.W_a = self.linear(self.heads * self.K, rngs)
        self.W_beta = self.linear(self.heads * (self.K if self.rates else 1), rngs)

    def associate(self, x, q, k, v, S, flow):
        a = unit(split_heads(self.W_a(x), self.heads))
        beta = step_size(split_heads(self.W_beta(x), self.heads), self.eigenvalues)
        return dplr(q, k, v, a, -beta * a, None, S, scale=self.K**-0.5, flow=flow)
