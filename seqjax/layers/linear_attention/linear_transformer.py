"""Linear Transformer (Katharopoulos et al. 2020, arXiv:2006.16236), with any feature map.

    S_t = S_{t-1} + phi(k_t) v_t^T                     S [heads, size, value]              eq. 18
    z_t = z_{t-1} + phi(k_t)                           z [heads, size]                     eq. 19
    y_t = W_o [phi(q_t)^T S_t / (phi(q_t).z_t + eps)]                     per head         eq. 20
    q = W_q x,  k = W_k x,  v = W_v x

phi is elu + 1 here, or any of `seqjax.nn.feature_maps`. Neither q nor k is scaled (maps that
approximate softmax attention scale by themselves). The paper writes no eps; its release adds 1e-6.
`denominator` is what keeps the quotient finite: "add" eps to d = phi(q).z, the "max" of d and
eps, or the "abs" max(|d|, eps), for features of any sign. "none" does not divide.

The state is [heads, size, value + 1]: S and z, the last column, which is that of a value always 1.

Not `causal` is the self-attention of an encoder (eq. 5 and 6): both sums run over all steps of the
segment, between two resets, and no state is carried. `cross` is the cross-attention of a decoder:
the steps of one input look at all of another, whose sums are the same for all of them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer, cast_parameters, option, promotion
from seqjax.nn.feature_maps import make_map
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.linear_attention import linear_attention
from seqjax.ops.op import matmul_precision

DENOMINATORS: dict[str, Callable[[Array, float], Array]] = {
    "add": lambda d, eps: d + eps,
    "max": lambda d, eps: jnp.maximum(d, eps),
    "abs": lambda d, eps: jnp.maximum(jnp.abs(d), eps),
    "none": lambda d, eps: jnp.ones_like(d),
}


class LinearTransformer(Layer):
    ops = ("linear_attention",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        feature_map: str | tuple[str, Mapping[str, Any]] = "elu+1",
        denominator: str = "add",
        eps: float = 1e-6,
        bias: bool = True,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features, self.causal = features, features, causal
        self.heads, self.eps = heads, eps
        self.denominator = option("denominator", denominator, DENOMINATORS)
        self.K = key_size or per_head("features", features, heads)
        self.V = value_size or per_head("features", features, heads)
        linear = partial(nnx.Linear, use_bias=bias, rngs=rngs)
        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, heads * self.K)
        self.W_v, self.W_o = linear(features, heads * self.V), linear(heads * self.V, features)
        self.phi = make_map(feature_map, heads, self.K, rngs=rngs)
        self.size = self.phi.size

    def initial(self) -> Any:
        return jnp.zeros((self.heads, self.size, self.V + 1)) if self.causal else ()

    def project(self, x: Array) -> tuple[Array, Array, Array]:
        """phi(q), phi(k) [T, heads, size] and v [T, heads, value]."""
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        return self.phi(q, query=True), self.phi(k), v

    def attend(self, q, k, v, h: Carry, flow: Flow, log_a=None) -> tuple[Array, Array]:
        """[T, heads, value] and the state, for phi(q), phi(k), v."""
        v = v.astype(accumulation_dtype(v.dtype))
        v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
        if not self.causal:
            y = everywhere(q, k, v, resets=flow.resets, mask=flow.mask, evaluator=flow.evaluator)
            return self.divided(y), h.now
        y, S = linear_attention(q, k, v, log_a, h, flow=flow)
        return self.divided(y), S

    def divided(self, y: Array) -> Array:
        return y[..., :-1] / DENOMINATORS[self.denominator](y[..., -1:], self.eps)

    def placed(self, x: Array, mask: Array | None) -> tuple[Array, Array, Array]:
        """`project` of the steps of a whole input, at their places."""
        del mask
        return self.project(x)

    def cross(self, x: Array, context: Array, mask: Array | None = None) -> Array:
        """y [B, T, features]: each step of x [B, T, features] over context [B, S, features].

        mask: bool [B, S]; where it is not set the step of the context is left out. With the same x
        and context it is the layer that is not `causal`. Raises ValueError for other shapes.
        """
        name, (B, S) = type(self).__name__, context.shape[:2]
        if (
            x.ndim != 3
            or context.shape != (len(x), S, self.features)
            or x.shape[2] != self.features
        ):
            raise ValueError(
                f"{name} takes x [B, T, {self.features}] over a context [B, S, {self.features}], "
                f"got {list(x.shape)} and {list(context.shape)}"
            )
        if mask is not None and (mask.shape != (B, S) or mask.dtype != jnp.bool_):
            raise ValueError(
                f"{name} takes mask bool [B, S] = {[B, S]}, got {mask.dtype} {list(mask.shape)}"
            )
        working = cast_parameters(self, x.dtype)

        def one(x: Array, context: Array, mask: Array | None) -> Array:
            if mask is not None:
                context = jnp.where(mask[:, None], context, 0)
            q, (_, k, v) = working.placed(x, None)[0], working.placed(context, mask)
            v = v.astype(accumulation_dtype(v.dtype))
            v = jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)
            y = working.divided(everywhere(q, k, v, mask=mask))
            return working.W_o(merge_heads(y).astype(x.dtype))

        with promotion(x.dtype):
            return jax.vmap(one)(x, context.astype(x.dtype), mask)

    def run(self, x, h, flow):
        q, k, v = self.project(x)
        y, h = self.attend(q, k, v, h, flow)
        return self.W_o(merge_heads(y).astype(x.dtype)), h


def everywhere(
    q: Array,
    k: Array,
    v: Array,
    *,
    resets: Array | None = None,
    mask: Array | None = None,
    evaluator: str | None = None,
) -> Array:
    """[T, H, V]: sum_s (q_t . k_s) v_s over all steps s of the segment of t that are not masked.

    Without resets one sum serves all t, of q also of another length. With them a step adds up the
    past and itself, and going backwards the future.
    """
    high = v.dtype
    q, k = q.astype(high), k.astype(high)
    if mask is not None:
        k = jnp.where(mask[:, None, None], k, 0)
    if resets is None:
        with matmul_precision(high):
            return jnp.einsum("thk,hkv->thv", q, jnp.einsum("thk,thv->hkv", k, v))
    kept = jnp.ones(len(k), bool) if mask is None else mask
    segment = jnp.cumsum(resets & kept, dtype=jnp.int32)
    # of the next step that is kept; backwards a segment begins where it is another one
    following = lax.cummin(jnp.where(kept, segment, segment[-1:]), reverse=True)
    following = jnp.append(following[1:], segment[-1:])
    flags: dict[str, Any] = dict(mask=mask, evaluator=evaluator)
    past = linear_attention(q, k, v, resets=resets, **flags)[0]
    nothing = jnp.zeros((k.shape[1], k.shape[2]), high)
    ends = kept & (following != segment)
    return past + linear_attention(q, k, v, bonus=nothing, reverse=True, resets=ends, **flags)[0]
