"""A recurrence encoder beside a Transformer encoder (Hao et al. 2019, arXiv:1904.03092).

    e = Transformer(x)                                       every step sees all of the sequence
    r = recurrence encoder of H                              H = x with `short_cut`, else e
    y_t = g * e_t + (1 - g) * r_t,   g = sigmoid(W [e_t; r_t] + b)             fusion "gate"
    y_t = e_t + MHA(e_t, r)                                                     fusion "stack"

`recurrence` "arn" is the paper's attentive recurrent network: a state that attends to all of the
layer below it, and moves on by what it finds,

    c_n = ATT(h_{n-1}, H),   h_n = GRU(c_n, h_{n-1}) = r_n

which sees the content of the sequence and never reads it in order; "birnn" is a bidirectional GRU.
The short cut leads from the inputs past the Transformer to what is read of both, by one recurrent
layer, which the paper finds better than a deep one.

There the decoder's attention reads both encoders, and fuses what it finds; an encoder alone is
fused here, where its own steps are. An ARN takes as many steps as the sequence has (the paper's may
have another number), and begins again with every piece. Not causal: it needs all of a sequence and
has no state to go on with.
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Carry
from seqjax.core.mesh import loop
from seqjax.core.ranges import Range
from seqjax.layers.classic.bidirectional import Bidirectional
from seqjax.layers.classic.gru import GRU
from seqjax.nn.base import Layer, option
from seqjax.nn.states import without_nans_of_pieces
from seqjax.nn.transformer import MultiHead, Transformer
from seqjax.ops.positions import places
from seqjax.ops.quarantine import mark

RECURRENCES, FUSIONS = ("arn", "birnn"), ("gate", "stack")


class AttentiveRNN(nnx.Module):
    """h [T, features] of H [T, features]: h_n = GRU(ATT(h_{n-1}, H), h_{n-1})."""

    def __init__(self, features: int, heads: int, rngs: nnx.Rngs):
        self.attention = MultiHead(features, heads, rngs=rngs)
        self.gru = GRU(features, rngs=rngs)

    def __call__(self, H, flow):
        seen = flow.joined(len(H), causal=False)
        never = jnp.zeros(len(H), bool)
        resets = never if flow.resets is None else flow.resets
        kept = ~never if flow.mask is None else flow.mask
        k, v = self.attention.kept(H)

        def step(before, now):
            seen, reset, keep = now
            h = jnp.where(reset, jnp.zeros_like(before), before)
            c = self.attention.read(h[None], k, v, seen[None])
            new = self.gru.step(h, self.gru.drive(c)[0]).astype(h.dtype)
            return jnp.where(keep, new, before), new

        return loop(step, jnp.zeros_like(H[0]), (seen, resets, kept))[1]


class BiGRU(nnx.Module):
    """W [forward; backward]."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.both = Bidirectional(features, layer=partial(GRU, hidden=features), rngs=rngs)
        self.W = nnx.Linear(2 * features, features, rngs=rngs)

    def __call__(self, H, flow):
        start = jax.tree.map(lambda s: s.astype(H.dtype), self.both.initial())
        return self.W(self.both.run(H, Carry(start, start), flow.of())[0])


class RecurrenceEncoder(Layer):
    causal = False
    block = True
    structure = "dense"

    def __init__(
        self,
        features: int,
        *,
        recurrence: str = "arn",
        fusion: str = "gate",
        short_cut: bool = True,
        depth: Annotated[int, Range(1)] = 1,
        heads: int = 4,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.short_cut, self.fusion = short_cut, option("fusion", fusion, FUSIONS)
        self.transformer = Transformer(
            features, depth=depth, heads=heads, expansion=expansion, rngs=rngs
        )
        if option("recurrence", recurrence, RECURRENCES) == "arn":
            self.recurrence = AttentiveRNN(features, heads, rngs)
        else:
            self.recurrence = BiGRU(features, rngs)
        if fusion == "gate":
            self.W = nnx.Linear(2 * features, features, rngs=rngs)
        else:
            self.stack = MultiHead(features, heads, rngs=rngs)

    def initial(self):
        return ()

    def run(self, x, h, flow):
        x, lost, _ = without_nans_of_pieces(x, flow)
        seen = flow.joined(len(x), causal=False)
        place, _ = places(jnp.zeros((), jnp.int32), len(x), resets=flow.resets, mask=flow.mask)
        e = self.transformer(x, place, seen)
        r = self.recurrence(x if self.short_cut else e, flow)
        if self.fusion == "stack":
            return mark(lost, e + self.stack(e, r, seen)), ()
        g = jax.nn.sigmoid(self.W(jnp.concatenate([e, r], axis=1)))
        return mark(lost, g * e + (1 - g) * r), ()
