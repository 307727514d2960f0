"""R-Transformer (Wang et al. 2019, arXiv:1907.05572): short recurrences, and attention over them.

    x <- x + LocalRNN(N(x))                                           `local_layers` times
    x <- x + W_o [softmax_{s <= t}(q_t^h . k_s^h / sqrt(K)) v_s^h]_h       of N(x), causal
    x <- x + W_2 relu(W_1 N(x) + b_1) + b_2

    LocalRNN(z)_t: the last state of an RNN that starts at zero and reads z_{t-width+1} ... z_t
    N(x) = a (x - mean x) / (s + 1e-6) + b            s: the unbiased standard deviation of x

The recurrence is started again at every place, so it has no state and all places run at once, at
the cost of `width` steps for each; what lies further back is the attention's. It stands in place of
position embeddings: there are none. As released, an RNN steps over places before the start as over
inputs of zero, where its biases act; with biases of zero and `width` >= T it is the RNN over the
whole sequence. `cell` is that RNN: "rnn" (tanh), "gru" (reset "after") or "lstm".

The state is the last width - 1 inputs of each local RNN, and the attention's cache of the last
window - 1 steps: sequences of up to `window` steps are seen whole. A reset empties both. Not here:
dropout, which is the model's, and an output map that the release makes and never calls. The
derivative of N where x does not vary is a 1e6, as there.
"""

from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.core.ranges import Range
from seqjax.layers.attention.attention import Attention
from seqjax.layers.classic.elman import Elman
from seqjax.layers.classic.gru import GRU
from seqjax.layers.classic.lstm import LSTM
from seqjax.nn.activations import relu
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.convolution import dilated_past
from seqjax.nn.linear import MLP

CELLS = {"rnn": Elman, "gru": partial(GRU, reset="after"), "lstm": LSTM}


class Standardised(nnx.Module):
    """N(x) [T, features]."""

    def __init__(self, features: int):
        if features < 2:
            raise ValueError(f"a deviation needs at least 2 features, got {features}")
        self.a, self.b = Precise(jnp.ones(features)), Precise(jnp.zeros(features))

    def __call__(self, x):
        z = x.astype(self.a.dtype)
        z = z - jnp.mean(z, axis=-1, keepdims=True)
        square = jnp.sum(z * z, axis=-1, keepdims=True)
        varies = square > 0  # the root has no derivative at zero, z / (s + eps) has one
        s = jnp.sqrt(jnp.where(varies, square, 1) / (z.shape[-1] - 1))
        z = z / (jnp.where(varies, s, 0) + 1e-6)
        return (z * self.a[...][None] + self.b[...][None]).astype(x.dtype)


class LocalRNN(nnx.Module):
    """The last states [T, features] of an RNN over the `width` inputs that end at each place."""

    def __init__(self, features: int, width: int, cell: str, *, rngs: nnx.Rngs):
        self.width = width
        self.rnn = CELLS[option("cell", cell, CELLS)](features, rngs=rngs)

    def __call__(self, z, window, flow):
        flow.undivided("a local RNN")
        past, window = dilated_past(z, window, width=self.width, dilation=1, flow=flow)
        start = jax.tree.map(lambda s: s.astype(z.dtype), self.rnn.initial())
        y = jax.vmap(lambda x: self.rnn.run(x, Carry(start, start), Flow())[0][-1])(past)
        return y, window


class RTransformer(Layer):
    block = True
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        cell: str = "gru",
        width: Annotated[int, Range(1)] = 8,
        local_layers: Annotated[int, Range(1)] = 1,
        heads: int = 4,
        window: int = 1024,
        expansion: float = 4.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.width, self.local_layers = width, local_layers
        self.norms = nnx.List([Standardised(features) for _ in range(local_layers + 2)])
        self.local = nnx.List(
            [LocalRNN(features, width, cell, rngs=rngs) for _ in range(local_layers)]
        )
        self.attention = Attention(
            features, heads=heads, window=window, positions="none", bias=True, rngs=rngs
        )
        inner = max(1, round(expansion * features))
        self.feed = MLP(features, inner, relu, bias=True, rngs=rngs)

    def parts(self):
        empty = jnp.zeros((self.width - 1, self.features))
        return (empty,) * self.local_layers, self.attention

    def run(self, x, h, flow):
        *norms, attention_norm, feed_norm = self.norms
        windows = []
        for norm, local, window in zip(norms, self.local, h[0], strict=True):
            y, window = local(norm(x), window, flow)
            windows.append(window)
            x = x + y
        y, cache = self.attention.run(attention_norm(x), h[1], flow.of(self.attention.evaluators))
        x = x + y
        return x + self.feed(feed_norm(x)), (tuple(windows), cache)
