"""Front ends over frames: the same at every time step, nothing is mixed over time.

Convolutions that halve them (`Frames`):

    f <- silu(norm(conv(f)))      3 x 3, stride 2, twice the channels each time, while a side > 4
    x  = W vec(f) + b

or places that are kept (`Places`), of frames and of rows, for layers whose state has them too, as
`convlstm` and `md_lstm`:

    x_p = W f_p + b               each place p alike, of features / places channels; x is flat
"""

from __future__ import annotations

from math import prod

import jax
from flax import nnx

from seqjax.answers import Input
from seqjax.nn.norms import Norm

CHANNELS = 16  # of the first convolution


class Frames(nnx.Module):
    """[B, T, H, W, C] to [B, T, features]."""

    def __init__(self, inputs: Input, features: int, *, rngs: nnx.Rngs):
        if len(inputs.shape) != 3:
            raise ValueError(
                f"model.front must be flat but for frames, Features(H, W, C), got conv for {inputs}"
            )
        *sides, channels = inputs.shape
        convolutions, norms = [], []
        while max(sides) > 4 or not norms:
            wider = CHANNELS << len(norms)
            convolutions.append(nnx.Conv(channels, wider, (3, 3), strides=2, rngs=rngs))
            norms.append(Norm(wider))
            sides, channels = [-(-side // 2) for side in sides], wider
        self.convolutions, self.norms = nnx.List(convolutions), nnx.List(norms)
        self.W = nnx.Linear(prod(sides) * channels, features, rngs=rngs)

    def __call__(self, frames: jax.Array) -> jax.Array:
        x = frames.reshape(-1, *frames.shape[2:])
        for conv, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.silu(norm(conv(x)))
        return self.W(x.reshape(*frames.shape[:2], self.W.in_features))


class Places(nnx.Module):
    """[B, T, *places, C] to [B, T, features], place by place, channels last; of vectors [B, T, D]
    each number is a place."""

    def __init__(self, inputs: Input, features: int, *, rngs: nnx.Rngs):
        if not inputs.shape or len(inputs.axes) < 2:  # one number per step, or no steps
            raise ValueError(f"model.front must be flat but for Features, got places for {inputs}")
        *space, channels = inputs.shape if len(inputs.shape) > 1 else (*inputs.shape, 1)
        places = prod(space)
        if features % places:
            raise ValueError(
                f"model.features must be a multiple of the {places} places of {inputs}, "
                f"got {features}"
            )
        self.W = nnx.Linear(channels, features // places, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.W(x.reshape(*x.shape[:2], -1, self.W.in_features)).reshape(*x.shape[:2], -1)
