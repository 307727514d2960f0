"""A front end over frames: convolutions that halve them, the same ones at every time step.

    f <- silu(norm(conv(f)))      3 x 3, stride 2, twice the channels each time, while a side > 4
    x  = W vec(f) + b

Nothing is mixed over time.
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
