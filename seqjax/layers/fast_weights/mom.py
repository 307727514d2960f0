"""Mixture of memories (Du et al. 2025, arXiv:2502.13685).

    p_t = softmax(W_r x_t),  g_t^m = p_t^m / sum of the `top` largest p_t, for these m     eq. 4, 5
    k_t^m = W_k^m x_t,  v_t^m = W_v^m x_t                                                  eq. 6
    M_t^m = e^(log alpha_t^m) (I - beta k k^T) M_{t-1}^m + beta k v^T    for the chosen m, eq. 7
    o_t = sum_m g_t^m K^-1/2 (M_t^m)^T q_t                                                 eq. 9, 10
    y_t = W_o (RMSNorm(o_t) * SiLU(W_g x_t))                             the norm over each head

Each step is written to, and read from, its `top` memories; the others do not move, so that what
they hold is not disturbed. Useful where one state would be overwritten: many facts of few kinds.
Memories are those of Gated DeltaNet, its gates and norms: q and k are unit(SiLU(conv(.))), v is
SiLU(conv(.)), log alpha = -exp(A_log) softplus(W_a^m x + dt_bias). To a memory the steps that chose
it are all there is, one after the other, to the convolution too. `shared_memory` is one more, that
every step goes to with a weight of 1; with `one_projection` all have one W_k, W_v, W_beta and W_a.

W_q, the convolution, A_log and dt_bias are those of all memories, as released. Here all memories
see all steps, and leave out those that did not choose them: that costs `memories` / `top` times the
recurrence, and drops no token.

`balance` is the weight of a loss by which the steps go to all memories (arXiv:2101.03961, eq. 4):

    balance memories sum_m f^m P^m        P^m the mean of p_t^m over the steps of a sequence, and
                                          f^m the share of them that choose m, which has no gradient
"""

from dataclasses import replace
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.flow import Carry, Flow
from seqjax.core.monoid import select
from seqjax.core.ranges import Range
from seqjax.layers.fast_weights.delta_layer import DeltaState, decay_parameters
from seqjax.nn.base import Layer, cast_parameters
from seqjax.nn.convolution import ShortConv, convolved
from seqjax.nn.gates import log_decay
from seqjax.nn.linear import merge_heads, per_head, split_heads, wide
from seqjax.nn.norms import Norm, unit
from seqjax.ops.delta_rule import gated_delta_rule

SMALL = nnx.initializers.variance_scaling(2.0**-5, "fan_avg", "uniform")


def routed(chosen: Array, flow: Flow) -> tuple[Flow, Array]:
    """The flow of the steps chosen [T], and whether a reset came after the last of them.

    A reset is not lost where its step is left out: it waits for the next that is chosen.
    """
    flow.undivided("a mixture of memories")
    chosen = chosen if flow.mask is None else chosen & flow.mask
    if flow.begins is None:
        return replace(flow, mask=chosen), jnp.zeros((), bool)
    piece = jnp.cumsum(flow.begins, dtype=jnp.int32)
    written = lax.cummax(jnp.where(chosen, piece, 0))
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), written[:-1]])
    return replace(flow, mask=chosen, resets=piece != before), piece[-1] != written[-1]


class MoM(Layer):
    ops = ("gated_delta_rule",)
    side_ops = ("short_convolution",)

    def __init__(
        self,
        features: int,
        *,
        heads: int = 4,
        key_size: int | None = None,
        value_size: int | None = None,
        memories: int = 8,
        top: int = 2,
        shared_memory: bool = False,
        one_projection: bool = False,
        output_gate: bool = True,
        conv: Annotated[int, Range(0)] = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        balance: float = 0.0,
        rngs: nnx.Rngs,
    ):
        if not 1 <= top <= memories:
            raise ValueError(f"top must be 1 to memories = {memories}, got {top}")
        self.features = self.out_features = features
        self.heads, self.memories, self.top = heads, memories, top
        self.K = key_size or per_head("features", features, 2 * heads)
        self.V = value_size or 2 * self.K
        self.held = memories + shared_memory
        self.balance, self.own_loss = balance, balance > 0
        keys, values = heads * self.K, heads * self.V
        linear = partial(nnx.Linear, use_bias=False, kernel_init=SMALL, rngs=rngs)

        def each(size):
            count = 1 if one_projection else self.held
            drawn = [SMALL(rngs.params(), (features, size)) for _ in range(count)]
            return nnx.Param(jnp.stack(drawn))

        self.W_q, self.W_r = linear(features, keys), linear(features, memories)
        self.W_k, self.W_v = each(keys), each(values)
        self.W_beta, self.W_a = each(heads), each(heads)
        self.A_log, self.dt_bias = decay_parameters(heads, heads, rngs)
        self.conv = ShortConv(2 * keys + values, conv, bias=conv_bias, rngs=rngs) if conv else None
        self.W_g = linear(features, values) if output_gate else None
        self.norm = Norm(self.V, eps=norm_eps)
        self.W_o = linear(values, features)

    def initial(self):
        window = () if self.conv is None else self.conv.initial()
        one = DeltaState(window, jnp.zeros((self.heads, self.K, self.V)))
        return jax.tree.map(lambda z: jnp.repeat(z[None], self.held, axis=0), one)

    def weights(self, x: Array) -> Array:
        """g [T, held], 0 of memories that a step does not choose."""
        p = jax.nn.softmax(self.W_r(x).astype(accumulation_dtype(x.dtype)))
        largest, chosen = lax.top_k(p, self.top)
        largest = largest / largest.sum(axis=-1, keepdims=True)
        g = jnp.sum(jax.nn.one_hot(chosen, self.memories, dtype=p.dtype) * largest[..., None], 1)
        return jnp.pad(g, ((0, 0), (0, self.held - self.memories)), constant_values=1)

    def losses(self, x, h, resets, mask):
        layer = cast_parameters(self, x.dtype)
        there = jnp.ones(x.shape[:2], bool) if mask is None else mask
        x = jnp.where(there[..., None], x, 0)
        p = jax.nn.softmax(layer.W_r(x).astype(accumulation_dtype(x.dtype)))  # [B, T, memories]
        chosen = jax.vmap(layer.weights)(x)[..., : self.memories] > 0
        chosen = jnp.sum(chosen & there[..., None], axis=1, dtype=p.dtype)
        share = chosen / jnp.maximum(jnp.sum(there, axis=1, dtype=p.dtype), 1)[:, None]
        loss = self.balance * self.memories * jnp.einsum("bm,btm->bt", share, p)
        return {"balance": jnp.where(there, loss, 0)}

    def run(self, x, h, flow):
        g, q = self.weights(x), self.W_q(x)
        parts = [
            jnp.broadcast_to(jnp.einsum("td,edk->etk", x, W[...]), (self.held, len(x), W.shape[2]))
            for W in (self.W_k, self.W_v, self.W_beta, self.W_a)
        ]
        one = partial(self.memory, flow, q)
        o, state = jax.vmap(one)(parts, g.T > 0, h.now, h.start)
        o = jnp.einsum("te,ethv->thv", g, o)
        y = merge_heads(self.norm(o)).astype(x.dtype)
        return self.W_o(y if self.W_g is None else y * jax.nn.silu(self.W_g(x))), state

    def memory(self, flow, q, parts, chosen, now, start):
        """o [T, heads, V] and the next state of one memory, of k, v, beta and a in `parts`."""
        k, v, beta, a = parts
        flow, forgotten = routed(chosen, flow)
        qkv, window = convolved(self.conv, (q, k, v), Carry(now.window, start.window), flow)
        q, k, v = (split_heads(jax.nn.silu(z), self.heads) for z in qkv)
        log_alpha = log_decay(a, self.A_log[...], self.dt_bias[...])
        o, S = gated_delta_rule(
            unit(q),
            unit(k),
            wide(v),
            jax.nn.sigmoid(beta),
            log_alpha,
            Carry(now.S, start.S),
            scale=self.K**-0.5,
            flow=flow,
        )
        return o, select(forgotten, start, DeltaState(window, S))
