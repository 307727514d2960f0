"""Recurrent positional embedding (Chen et al., EMNLP 2019, D19-1139), and attention over it.

    x_t = [u_t; w_t]                      w the last `rpe_size` features, by default half of them
    r_t = RNN(r_{t-1}, w_t)               the recurrent positional embedding
    p_t = u_t + PE(t)                     PE(t) = [sin(t w_k), cos(t w_k)], as a Transformer's
    y_t = W_o [heads over p, heads over r]                       form "heads", the paper's RPEHead
    y_t = W_o [heads over [p; r]]                                form "parts", its MPRHead

so that the order of words enters twice: by their number, which knows nothing of them, and by a
state that is made of them. In form "heads" the embedding has `rpe_heads` of its own; in form
"parts" it is a part of every head, here by dense matrices of [p; r].

`cell` is the RNN: "rnn" (tanh), the paper's, "gru" or "lstm"; its state is as wide as w. Attention
is causal softmax attention over the last `window` steps, the paper's decoder; its encoder sees all
steps. t counts from the start and from every reset, without masked steps.

The state is that count, the RNN's, and the caches of the attention.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.segment.r_transformer import CELLS
from seqjax.nn.base import Layer, option
from seqjax.ops.positions import places, sinusoids

FORMS = ("heads", "parts")


class RecurrentPositions(Layer):
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        rpe_size: int | None = None,
        cell: str = "rnn",
        form: str = "heads",
        heads: int = 2,
        rpe_heads: int = 2,
        window: int = 1024,
        rngs: nnx.Rngs,
    ):
        size = features // 2 if rpe_size is None else rpe_size
        if not 0 < size < features:
            raise ValueError(f"rpe_size is 1 to {features - 1} of {features} features, got {size}")
        self.features = self.out_features = features
        self.rpe_size, self.form = size, option("form", form, FORMS)
        self.rnn = CELLS[option("cell", cell, CELLS)](size, rngs=rngs)
        self.held = sum(leaf.size for leaf in jax.tree.leaves(self.rnn.initial()))

        def attention(width, heads):
            return Attention(
                width,
                out_features=features,
                heads=heads,
                window=window,
                positions="none",
                rngs=rngs,
            )

        apart = [(features - size, heads), (size, rpe_heads)]
        widths = apart if form == "heads" else [(features, heads)]
        self.attention = nnx.List([attention(*sizes) for sizes in widths])

    def parts(self):
        return jnp.zeros((), jnp.int32), self.rnn, tuple(self.attention)

    def run(self, x, h, flow):
        count, rnn, caches = h
        place, count = places(count.now, len(x), resets=flow.resets, mask=flow.mask)
        u, w = jnp.split(x, (self.features - self.rpe_size,), axis=1)
        r, rnn = self.rnn.run(w, rnn, flow.of(self.rnn.evaluators))
        p = u + sinusoids(place, u.shape[1], u.dtype)
        given = (p, r) if self.form == "heads" else (jnp.concatenate([p, r], axis=1),)
        y, states = jnp.zeros_like(x), []
        # the matrix W_o of all heads is that of each, added up
        for attention, z, cache in zip(self.attention, given, caches, strict=True):
            head, cache = attention.run(z, cache, flow.of(attention.evaluators))
            y, states = y + head, [*states, cache]
        return y, (count, rnn, tuple(states))
