"""Layers on top of each other, with residual connections as in GNMT (Wu et al. 2016,
arXiv:1609.08144).

    m_t^i = layer_i(x_t^{i-1})                    x^0 = x                               eq. 5
    x_t^i = m_t^i, or m_t^i + x_t^{i-1} with `residual`                                 eq. 6
    y_t = x_t^last

The state is the tuple of the layers' states.

dropout (arXiv:1409.2329, torch's nn.LSTM): while training, what enters a layer but the first is
d_t x_t^{i-1} / (1 - dropout) with d_t zero for each feature with that probability; with `residual`
the sum of eq. 6 is of the x_t^{i-1} that was not. With a key d_t is drawn, without one a call is
the evaluation form; with `masks` that many of the features of x, the last, are d_t of each layer in
turn, and `draw` makes them.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.layers.classic.gru import GRU
from seqjax.nn.base import Layer


class Stacked(Layer):
    """layers: callables (features, *, rngs) -> Layer, the lowest first; `make` also takes names,
    and pairs (name, options)."""

    masks: int = 0
    dropout: float = 0.0
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        layers: Sequence[Callable[..., Layer]] = (GRU, GRU),
        residual: bool = False,
        dropout: float = 0.0,
        masks: int = 0,
        rngs: nnx.Rngs,
    ):
        if not layers:
            raise ValueError("a stack needs at least one layer")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), got {dropout}")
        if not 0 <= masks < features:
            raise ValueError(f"of {features} features, {masks} cannot be masks")
        self.features, self.residual = features, residual
        self.dropout, self.masks, self.noisy = dropout, masks, dropout > 0
        features -= masks
        self.layers = nnx.List([])
        for layer in layers:
            self.layers.append(layer(features, rngs=rngs))
            if residual and self.layers[-1].out_features != features:
                raise ValueError(
                    f"a residual stack keeps its width: layer {len(self.layers)} maps {features} "
                    f"features to {self.layers[-1].out_features}"
                )
            features = self.layers[-1].out_features
        self.out_features = features
        between = [layer.out_features for layer in self.layers][:-1]
        self.ends = (0, *np.cumsum(between, dtype=int).tolist())  # where their masks lie
        if masks and masks != self.ends[-1]:
            raise ValueError(
                f"there are {self.ends[-1]} features between the layers, got {masks} masks"
            )
        self.causal = all(layer.causal for layer in self.layers)
        self.block = all(layer.block for layer in self.layers)

    def parts(self):
        return tuple(self.layers)

    def draw(self, key: jax.Array, batch: int, steps: int, dtype=jnp.float32) -> jax.Array:
        """Masks [batch, steps, features between the layers]: 1 where they are kept."""
        shape = (batch, steps, self.ends[-1])
        return jax.random.bernoulli(key, 1 - self.dropout, shape).astype(dtype)

    def run(self, x, h, flow):
        states, kept = [], None
        if self.masks:
            x, masks = jnp.split(x, (self.features - self.masks,), axis=1)
            kept = masks > 0.5
        elif self.dropout:
            kept = flow.drawn(1 - self.dropout, (self.ends[-1],))
        for place, (layer, state) in enumerate(zip(self.layers, h, strict=True)):
            fed = x
            if kept is not None and place:
                part = kept[:, self.ends[place - 1] : self.ends[place]]
                fed = jnp.where(part, x / (1 - self.dropout), 0)
            y, state = layer.example(fed, state, flow.part(place + 1).of(layer.evaluators))
            x = x + y if self.residual else y
            states.append(state)
        return x, tuple(states)
