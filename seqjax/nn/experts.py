"""A mixture of experts (arXiv:1701.06538, 2101.03961): a token is sent to the `top` best of many.

    p = softmax(W_r x)  or  sigmoid(W_r x)                 scores of the experts, in float32
    y = scale sum_{e in top(p)} w_e E_e(x) + shared(x)    w = p, or p / (floor + sum of chosen p)

Expert e is a gated linear unit W_3[e] (f(W_1[e] x) * g(W_2[e] x)), g as in `GLU`; if not `gated`
W_3[e] f(W_1[e] x); with `latent` it sees W_in x of that size, and W_out takes the sum back. The
choice may add a bias that the weights do not see (arXiv:2408.15664), and may first keep the
`top_groups` best of `groups` groups of experts, each scored by its two best (DeepSeek-V3,
2412.19437). `shared` is the width of one more expert that every token goes through, if
`shared_gate` times sigmoid(w x). `bias` is of that one, of W_in and of W_out. `always` more experts
are chosen by every token: their scores stand in the sum with those of the `top`.

"ragged": tokens are sorted by expert and go through one ragged product. No token is dropped, and
the cost is that of `top` experts, not of all. "dense": one expert after the other sees every token;
for few experts, and under a `vmap` over examples, where ragged products are not implemented.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.mesh import loop
from seqjax.nn.activations import silu
from seqjax.nn.base import Precise, option
from seqjax.nn.linear import GLU, MLP, per_head

EVALUATORS = ("ragged", "dense")
SCORES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}


class Experts(nnx.Module):
    """The experts alone, for tokens of which is given where they go."""

    def __init__(
        self,
        features: int,
        inner: int,
        f: Callable[[Array], Array] = silu,
        *,
        experts: int,
        gated: bool = True,
        g: Callable[[Array], Array] | None = None,
        evaluator: str = "ragged",
        rngs: nnx.Rngs,
    ):
        self.f, self.g, self.experts = f, g, experts
        self.evaluator = option("evaluator of MoE", evaluator, EVALUATORS)

        def expert(n, m):
            init = nnx.initializers.lecun_normal(batch_axis=0)
            return nnx.Param(init(rngs.params(), (experts, n, m)))

        self.W_1, self.W_2 = expert(features, inner), expert(features, inner) if gated else None
        self.W_3 = expert(inner, features)

    def send(self, x: Array, weights: Array, chosen: Array) -> Array:
        """sum_k w_k E_k(x) of tokens [N, features], with weights and experts [N, top]."""
        return (self.ragged if self.evaluator == "ragged" else self.dense)(x, weights, chosen)

    def ragged(self, x: Array, weights: Array, chosen: Array) -> Array:
        expert = chosen.reshape(-1)
        order = jnp.argsort(expert, stable=True)
        token = order // chosen.shape[1]
        every = jnp.arange(self.experts, dtype=expert.dtype)
        count = jnp.sum(expert[:, None] == every[None], axis=0, dtype=jnp.int32)
        z = x[token]
        inner = self.f(lax.ragged_dot(z, self.W_1[...], count))
        if self.W_2 is not None:
            up = lax.ragged_dot(z, self.W_2[...], count)
            inner = inner * (up if self.g is None else self.g(up))
        z = lax.ragged_dot(inner, self.W_3[...], count)
        z = z * weights.reshape(-1)[order][:, None].astype(z.dtype)
        return jnp.zeros_like(x).at[token].add(z)

    def dense(self, x: Array, weights: Array, chosen: Array) -> Array:
        def add(y, expert):
            e, W_1, W_2, W_3 = expert
            weight = jnp.sum(jnp.where(chosen == e, weights, 0), axis=1).astype(x.dtype)
            inner = self.f(x @ W_1)
            if W_2 is not None:
                up = x @ W_2
                inner = inner * (up if self.g is None else self.g(up))
            return y + weight[:, None] * (inner @ W_3), None

        every = jnp.arange(self.experts, dtype=chosen.dtype)
        matrices = (None if W is None else W[...] for W in (self.W_1, self.W_2, self.W_3))
        return loop(add, jnp.zeros_like(x), (every, *matrices))[0]


class MoE(Experts):
    def __init__(
        self,
        features: int,
        inner: int,
        f: Callable[[Array], Array] = silu,
        *,
        experts: int,
        top: int,
        scores: str = "softmax",
        renormalise: bool = True,
        floor: float = 0.0,
        scale: float = 1.0,
        choice_bias: bool = False,
        groups: int = 1,
        top_groups: int = 1,
        shared: int = 0,
        shared_gate: bool = False,
        gated: bool = True,
        g: Callable[[Array], Array] | None = None,
        latent: int | None = None,
        always: int = 0,
        bias: bool = False,
        evaluator: str = "ragged",
        rngs: nnx.Rngs,
    ):
        if not 1 <= top <= experts:
            raise ValueError(f"each token goes to 1 to {experts} experts, got top = {top}")
        if not 1 <= top_groups <= groups or top > top_groups * per_head("experts", experts, groups):
            raise ValueError(f"{top} experts cannot be chosen in {top_groups} of {groups} groups")
        self.top, self.scale = top, scale
        self.scores, self.renormalise = option("scores", scores, SCORES), renormalise
        self.floor = floor
        self.groups, self.top_groups = groups, top_groups
        self.W_r = nnx.Linear(features, experts + always, use_bias=False, rngs=rngs)
        self.choice_bias = Precise(jnp.zeros(experts)) if choice_bias else None
        size = latent or features
        kind: dict[str, Any] = dict(gated=gated, g=g, evaluator=evaluator)
        super().__init__(size, inner, f, experts=experts, **kind, rngs=rngs)
        self.always = Experts(size, inner, f, experts=always, **kind, rngs=rngs) if always else None
        self.W_in, self.W_out = (
            nnx.Linear(n, m, use_bias=bias, rngs=rngs) if latent else None
            for n, m in ((features, size), (size, features))
        )
        unit = partial(GLU, g=g) if gated else MLP
        self.shared = unit(features, shared, f, bias=bias, rngs=rngs) if shared else None
        weighed = shared and shared_gate
        self.w_shared = nnx.Linear(features, 1, use_bias=False, rngs=rngs) if weighed else None

    def __call__(self, x: Array) -> Array:
        """[..., features] to the same shape."""
        flat = x.reshape(-1, x.shape[-1])
        seen = flat if self.W_in is None else self.W_in(flat)
        weights, chosen = self.route(flat)
        y = self.send(seen, weights[:, : self.top], chosen)
        if self.always is not None:
            every = jnp.arange(self.always.experts, dtype=chosen.dtype)
            every = jnp.broadcast_to(every, (len(flat), len(every)))
            y = y + self.always.send(seen, weights[:, self.top :], every)
        y = y.astype(x.dtype)
        y = y if self.W_out is None else self.W_out(y)
        if self.shared is not None:
            extra = self.shared(flat)
            y = y + (
                extra if self.w_shared is None else jax.nn.sigmoid(self.w_shared(flat)) * extra
            )
        return y.reshape(x.shape)

    def route(self, x: Array) -> tuple[Array, Array]:
        """Weights [N, top + always] and experts [N, top] of tokens [N, features]."""
        logits = self.W_r(x).astype(accumulation_dtype(x.dtype))
        p = SCORES[self.scores](logits)
        p, stays = p[:, : self.experts], p[:, self.experts :]
        preference = p if self.choice_bias is None else p + self.choice_bias[...][None]
        if self.groups > 1:
            grouped = preference.reshape(len(x), self.groups, self.experts // self.groups)
            best = lax.top_k(grouped, min(2, grouped.shape[2]))[0].sum(2)
            kept = lax.top_k(best, self.top_groups)[1]
            keep = jnp.any(
                kept[:, :, None] == jnp.arange(self.groups, dtype=kept.dtype)[None, None], axis=1
            )
            keep = jnp.repeat(keep, self.experts // self.groups, axis=1)
            preference = jnp.where(keep, preference, -jnp.inf)
        chosen = lax.top_k(preference, self.top)[1]
        weights = jnp.concatenate([jnp.take_along_axis(p, chosen, axis=1), stays], axis=1)
        if self.renormalise:
            weights = weights / (jnp.sum(weights, axis=1, keepdims=True) + self.floor)
        return self.scale * weights, chosen
