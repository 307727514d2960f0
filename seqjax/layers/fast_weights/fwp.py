"""Fast weight programmers (Schlag et al. 2021, arXiv:2102.11174): a slow net writes a fast one.

    q, k, v = W_q x, W_k x, W_v x,   beta = sigmoid(W_beta x)           per head
    W_t = W_{t-1} + v_t phi(k_t)^T                                      update "sum"
    W_t = W_{t-1} + beta_t (v_t - W_{t-1} phi'(k_t)) phi'(k_t)^T        update "delta"
    W_t = U / max(1, |U|_F),  U = W_{t-1} + beta_t (v_t - W_{t-1} phi(k_t)) phi(k_t)^T    "fwm"
    o_t = V^-1/2 W_t phi(q_t) [/ (z_t.phi(q_t) + eps)],   z_t = sum_{s <= t} phi(k_s)
    y_t = LN(x_t + W_o o_t)

phi is DPFP with nu = 1, or any of `seqjax.nn.feature_maps`; phi' = phi / sum(phi) has the sum
normalisation that keeps the delta rule stable, for queries too (features that vanish stay zero; the
release divides zero by zero). The state S is the transpose of W. "fwm" is the rule of the fast
weight memory (2011.07831), in which the norm bounds W; a W of zeros is written without it.

normalise: "output" divides what is read by z_t.phi(q_t); "update" also weighs the correction by
d_t = z_{t-1}.phi(k_t) (1 at the first step), beta <- beta d_t and phi(k) <- phi(k) / (d_t + eps),
while z sums the phi(k) not yet divided; "none" has no z. None chooses "output" for "sum" and "none"
for the others, as the paper does. The scale V^-1/2 is the release's.

order: "post" as above; "pre" is y = x + W_o o(LN x); "pre_released" adds LN x in place of x, which
is what the release's pre-norm does. Weights start normal, 0.02. eigenvalues "[-1,1]" (delta):
beta = 2 sigmoid(W_beta x), arXiv:2411.12537. Of the release's options not here: dropout, and random
features drawn anew at every call (ours are fixed).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Carry
from seqjax.nn.base import Layer, option
from seqjax.nn.feature_maps import make_map
from seqjax.nn.gates import EIGENVALUES, step_size
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm
from seqjax.ops.bounded_delta_rule import BOUNDED_DELTA_RULE, bounded_delta_rule
from seqjax.ops.delta_rule import DELTA_RULE, delta_rule
from seqjax.ops.linear_attention import LINEAR_ATTENTION, linear_attention

INIT = nnx.initializers.normal(0.02)
UPDATES = {"sum": LINEAR_ATTENTION, "delta": DELTA_RULE, "fwm": BOUNDED_DELTA_RULE}
NORMALISE = ("none", "output", "update")
ORDERS = ("post", "pre", "pre_released")


class Sublayer(Layer):
    """A mixer with a residual connection and a LayerNorm around it; a subclass defines `mix`."""

    block = True

    def __init__(self, features: int, order: str):
        self.features = self.out_features = features
        self.order = option("order of norm and residual", order, ORDERS)
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

    def mix(self, x, h, flow) -> tuple[jax.Array, Any]:
        raise TypeError(f"{type(self).__name__} must define mix(x, h, flow)")

    def run(self, x, h, flow):
        normed = x if self.order == "post" else self.norm(x)
        o, h = self.mix(normed, h, flow)
        y = (normed if self.order == "pre_released" else x) + o
        return (self.norm(y) if self.order == "post" else y), h


class FWPState(NamedTuple):
    S: jax.Array  # [heads, size, V]
    z: jax.Array | None  # [heads, size]


class FWP(Sublayer):
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        head_size: int | None = None,
        feature_map: str | tuple[str, Mapping[str, Any]] = "dpfp",
        update: str = "sum",
        normalise: str | None = None,
        eps: float = 1e-5,
        order: str = "post",
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        super().__init__(features, order)
        self.heads, self.eps = heads, eps
        self.V = head_size or per_head("features", features, heads)
        self.update = option("update of FWP", update, UPDATES)
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        usual = "output" if update == "sum" else "none"
        self.normalise = option("normalisation of FWP", normalise or usual, NORMALISE)
        self.sums = int(self.normalise != "none")  # columns that z adds to the state
        self.ops = (UPDATES[update].name,)
        self.side_ops = ("linear_attention",) if self.sums else ()
        linear = partial(nnx.Linear, use_bias=False, kernel_init=INIT, rngs=rngs)
        self.W_q, self.W_k, self.W_v = (linear(features, heads * self.V) for _ in range(3))
        self.W_beta = None if update == "sum" else linear(features, heads)
        self.W_o = linear(heads * self.V, features)
        self.phi = make_map(feature_map, heads, self.V, rngs=rngs)
        self.size = self.phi.size

    def initial(self):
        z = None if self.normalise == "none" else jnp.zeros((self.heads, self.size))
        return FWPState(jnp.zeros((self.heads, self.size, self.V)), z)

    def mix(self, x, h, flow):
        q, k, v = (wide(split_heads(W(x), self.heads)) for W in (self.W_q, self.W_k, self.W_v))
        q, k = self.phi(q, query=True), self.phi(k)
        if self.update == "delta":
            q, k = sum_normalised(q), sum_normalised(k)
        beta: Any = (
            None if self.W_beta is None else step_size(wide(self.W_beta(x)), self.eigenvalues)
        )

        divisor, z = 1.0, None
        if self.normalise != "none":
            reads = lambda query: reads_of_sum(query, k, h.z, flow)  # noqa: E731
            divisor, z = reads(q)
            divisor = divisor + self.eps
            if self.normalise == "update":
                d = reads(k)[0] - jnp.sum(k * k, axis=-1, keepdims=True)
                total = jnp.sum(k, axis=-1, keepdims=True)
                seen = reads(jnp.ones_like(k))[0] - total > 0.5 * total
                d = jnp.where(seen, d, 1)
                beta, k = None if beta is None else beta * d[..., 0], k / (d + self.eps)

        scale = self.V**-0.5
        if self.update == "sum":
            o, S = linear_attention(q, k, v, None, h.S, scale=scale, flow=flow)
        elif self.update == "delta":
            o, S = delta_rule(q, k, v, beta, h.S, scale=scale, flow=flow)
        else:
            o, S = bounded_delta_rule(q, k, v, beta, h.S, scale=scale, flow=flow)
        return self.W_o(merge_heads(o / divisor).astype(x.dtype)), FWPState(S, z)


def sum_normalised(phi: jax.Array) -> jax.Array:
    """phi / sum(phi) of features >= 0; features that all vanish stay zero."""
    total = jnp.sum(phi, axis=-1, keepdims=True)
    return phi / jnp.where(total > 0, total, 1)


def reads_of_sum(query, k, z, flow):
    """z_t . query_t [T, H, 1] and the last z, for the sums z_t of k up to t."""
    ones = jnp.ones_like(k[..., :1])
    column = Carry(z.now[..., None], z.start[..., None])
    y, z = linear_attention(query, k, ones, None, column, flow=flow.of())
    return y, z[..., 0]
