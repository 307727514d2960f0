"""Linear Transformer (Katharopoulos et al. 2020, arXiv:2006.16236), with any feature map.

    S_t = S_{t-1} + phi(k_t) v_t^T                     S [heads, size, value]              eq. 18
    z_t = z_{t-1} + phi(k_t)                           z [heads, size]                     eq. 19
    y_t = W_o [phi(q_t)^T S_t / (phi(q_t).z_t + eps)]                     per head         eq. 20
    q = W_q x,  k = W_k x,  v = W_v x

phi is elu + 1 here, or any of `seqjax.layers.feature_maps`. Neither q nor k is scaled (maps that
approximate softmax attention scale by themselves). The paper writes no eps; its release adds 1e-6.
`denominator` says what keeps the quotient finite: "add" eps to d = phi(q).z, the "max" of d and
eps, or the "abs" max(|d|, eps), for features of any sign. "none" does not divide.

The state is [heads, size, value + 1]: S and z, the last column, which is that of a value always 1.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.common import accumulation_dtype
from seqjax.layers.base import Layer, option
from seqjax.layers.feature_maps import make_map
from seqjax.layers.parts import merge_heads, per_head, split_heads
from seqjax.ops.linear_attention import LINEAR_ATTENTION, linear_attention

DENOMINATORS: dict[str, Callable[[Array, float], Array]] = {
    "add": lambda d, eps: d + eps,
    "max": lambda d, eps: jnp.maximum(d, eps),
    "abs": lambda d, eps: jnp.maximum(jnp.abs(d), eps),
    "none": lambda d, eps: jnp.ones_like(d),
}


class LinearTransformer(Layer):
    evaluators = tuple(LINEAR_ATTENTION.evaluators)

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
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.eps = heads, eps
        self.denominator = option("denominator", denominator, DENOMINATORS)
        self.K = key_size or per_head("features", features, heads)
        self.V = value_size or per_head("features", features, heads)
        linear = partial(nnx.Linear, use_bias=bias, rngs=rngs)
        self.W_q, self.W_k = linear(features, heads * self.K), linear(features, heads * self.K)
        self.W_v, self.W_o = linear(features, heads * self.V), linear(heads * self.V, features)
        self.phi = make_map(feature_map, heads, self.K, rngs=rngs)
        self.size = self.phi.size

    def initial(self):
        return jnp.zeros((self.heads, self.size, self.V + 1))

    def project(self, x: Array) -> tuple[Array, Array, Array]:
        """phi(q), phi(k) [T, heads, size] and v [T, heads, value]."""
        q, k, v = (split_heads(W(x), self.heads) for W in (self.W_q, self.W_k, self.W_v))
        return self.phi(q, query=True), self.phi(k), v

    def attend(self, q, k, v, h, log_a=None, **options) -> tuple[Array, Array]:
        """[T, heads, value] and the state, for phi(q), phi(k), v; the options of the op."""
        v = v.astype(accumulation_dtype(v.dtype))
        y, h = linear_attention(
            q,
            k,
            jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1),
            log_a,
            h,
            **options,
        )
        return y[..., :-1] / DENOMINATORS[self.denominator](y[..., -1:], self.eps), h

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        q, k, v = self.project(x)
        y, h = self.attend(
            q,
            k,
            v,
            h,
            resets=resets,
            mask=mask,
            reset_state=self.start(),
            evaluator=evaluator,
        )
        return self.W_o(merge_heads(y).astype(x.dtype)), h
