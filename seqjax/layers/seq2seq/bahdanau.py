"""A decoder that looks at its source in every step (Bahdanau et al. 2014, arXiv:1409.0473).

    c_i = sum_j alpha_ij h_j,  alpha_i = softmax_j v_a^T tanh(W_a s_{i-1} + U_a h_j)
    s_i = GRU(s_{i-1}; x_i, c_i)                 C c_i enters candidate and gates (A.2.2)
    t_i = [max(t~_{i,2k-1}, t~_{i,2k})]_k        t~_i = U_o s_{i-1} + V_o x_i + C_o c_i
    s_0 = tanh(W_s h_1)                          h_j the source: outputs of an encoder

t is the output, a maxout layer of `deep` units; with deep=0 it is s. The GRU is `gru`, with the
reset before the product, whose gate z keeps (the paper's z writes); it has biases, which the paper
leaves out of its equations. h_1 stands for the state of the paper's backward encoder at its end.

With the other scores it is the decoder of Luong et al. 2015 (arXiv:1508.04025, sec. 3), which looks
after its step, with what it looked for the step before as a further input ("input feeding"):

    s_i = GRU(s_{i-1}; x_i, s^_{i-1})     c_i of s_i     s^_i = tanh(W_c [c_i; s_i]), the output

"mlp" is OpenNMT's, whose s^ has a bias and no tanh. `window`: local attention (`alignment`).

Without a source c is zero and so is s_0, and what is left is a GRU. For translation, and wherever a
long source is not to be pressed into one state. v_a starts at zero and W_a and U_a at N(0, 0.001^2)
in the paper (B.1), which is made for days of training; here they start as other matrices do.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Source
from seqjax.core.monoid import select
from seqjax.layers.classic.gru import GRU
from seqjax.layers.seq2seq.alignment import Alignment, Seen
from seqjax.nn.recurrent import Recurrent


class BahdanauState(NamedTuple):
    s: jax.Array  # [hidden]
    looked: jax.Array  # the context c [features], or s^ [hidden] where it looks after its step


class Attentional(nnx.Module):
    """s^ = tanh(W_c [c; s]), c the context of s; of the score "mlp" W_c [c; s] + b."""

    def __init__(self, hidden: int, features: int, *, score: str, rngs: nnx.Rngs, **options):
        self.align = Alignment(hidden, features, score=score, rngs=rngs, **options)
        self.W_c = nnx.Linear(features + hidden, hidden, use_bias=score == "mlp", rngs=rngs)
        self.features, self.linear = features, score == "mlp"

    def __call__(self, s: jax.Array, seen: Seen | None) -> jax.Array:
        c = jnp.zeros(self.features, s.dtype) if seen is None else self.align(s, seen)
        joined = self.W_c(jnp.concatenate([c, s]))
        return joined if self.linear else jnp.tanh(joined)


class Bahdanau(Recurrent):
    sourced = True
    learned = ""  # the source decides where it begins

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        score: str = "additive",
        align: int | None = None,
        window: int | None = None,
        deep: int | None = None,
        rngs: nnx.Rngs,
    ):
        """align: units n' of the alignment; by default as many as hidden ones."""
        self.features, self.score = features, score
        H = self.hidden = hidden or features
        before = score == "additive"
        if deep is not None and not before:
            raise ValueError(f"deep is of score='additive', got {deep=} with {score=}")
        known: dict[str, Any] = dict(score=score, size=align or H, window=window, rngs=rngs)
        self.align = (Alignment if before else Attentional)(H, features, **known)
        self.cell = GRU(features, hidden=H, rngs=rngs)
        self.looked = features if before else H
        self.C = nnx.Linear(self.looked, 3 * H, use_bias=False, rngs=rngs)
        self.W_s = nnx.Linear(features, H, rngs=rngs)
        units = 0 if not before else features if deep is None else deep
        self.O = nnx.Linear(H + features + self.looked, 2 * units, rngs=rngs) if units else None
        self.out_features = units or H

    def initial(self):
        return BahdanauState(jnp.zeros(self.hidden), jnp.zeros(self.looked))

    def opening(self, source: Source):
        first = jnp.argmax(source.there)
        s = jnp.where(source.there[first], jnp.tanh(self.W_s(source.y[first])), 0)
        return self.initial()._replace(s=s)

    def drive(self, x):
        return self.cell.drive(x)

    def seen(self, source: Source) -> Seen:
        align = self.align if isinstance(self.align, Alignment) else self.align.align
        return align.seen(source)

    def step(self, h, z, seen=None):
        if isinstance(self.align, Attentional):
            s = self.cell.step(h.s, z + self.C(h.looked))
            return BahdanauState(s, self.align(s, seen))
        c = jnp.zeros_like(h.looked) if seen is None else self.align(h.s, seen)
        return BahdanauState(self.cell.step(h.s, z + self.C(c)), c)

    def run(self, x, h, flow):
        states, last = self.states(x, h, flow)
        if self.O is None:
            return states.s if self.score == "additive" else states.looked, last
        before = jnp.concatenate([h.now.s[None], states.s[:-1]])
        if flow.begins is not None:
            before = jax.vmap(select, (0, None, 0))(flow.begins, h.start.s, before)
        joined = jnp.concatenate([before, x, states.looked], axis=-1)
        return self.O(joined).reshape(len(x), -1, 2).max(axis=-1), last

    def alignment(self, before: BahdanauState, after: BahdanauState, source: Source) -> jax.Array:
        """alpha [S] of a step that led from one state to another."""
        if isinstance(self.align, Alignment):
            return self.align.weights(before.s, self.seen(source))
        return self.align.align.weights(after.s, self.seen(source))
