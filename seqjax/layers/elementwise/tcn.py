"""Temporal convolutional network (Bai, Kolter & Koltun 2018, arXiv:1803.01271, sec. 3).

    z_t = relu(b_1 + sum_j W_1j x_{t - d (width - 1 - j)})                             eq. 1
    z_t = relu(b_2 + sum_j W_2j z_{t - d (width - 1 - j)})
    x_t <- relu(z_t + x_t)          or W x_t + b, where the channels change in number   eq. 2

a block for each of `channels`, the n-th dilated by d = 2^n: the last step of L blocks sees the
1 + 2 (width - 1) (2^L - 1) newest. No recurrence: the convolutional baseline, which what remembers
has to beat. W = g v / |v| for each output channel (weight norm); `dropout` after each relu but the
last, while training. The state is the window of every convolution.
"""

from collections.abc import Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer
from seqjax.nn.convolution import DilatedConv


class TCN(Layer):
    learned = ""  # windows begin empty
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        channels: Sequence[int] | None = None,
        width: Annotated[int, Range(1)] = 2,
        dropout: float = 0.0,
        normed: bool = True,
        rngs: nnx.Rngs,
    ):
        """channels: of each block; by default four of `features`."""
        channels = (features,) * 4 if channels is None else tuple(channels)
        if not channels:
            raise ValueError("channels must name at least one block, got none")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), got {dropout}")
        self.features, self.out_features = features, channels[-1]
        self.channels, self.width = channels, width
        self.dropout, self.noisy = dropout, dropout > 0
        self.first, self.second, self.residual = nnx.List([]), nnx.List([]), nnx.List([])
        blocks = list(enumerate(zip((features, *channels), channels, strict=False)))
        self.held = (width - 1) * sum(2**n * (into + size) for n, (into, size) in blocks)
        small = nnx.initializers.normal(0.01)
        for n, (into, size) in blocks:
            options = dict(dilation=2**n, normed=normed, rngs=rngs)
            self.first.append(DilatedConv(into, size, width, **options))
            self.second.append(DilatedConv(size, size, width, **options))
            change = None if into == size else nnx.Linear(into, size, kernel_init=small, rngs=rngs)
            self.residual.append(change)

    def initial(self):
        pairs = zip(self.first, self.second, strict=True)
        return tuple((first.initial(), second.initial()) for first, second in pairs)

    def run(self, x, h, flow):
        windows, drawn = [], 0
        for first, second, residual, held in zip(
            self.first, self.second, self.residual, h, strict=True
        ):
            z, after = x, []
            for conv, window in zip((first, second), held, strict=True):
                z, window = conv(z, window, flow)
                z, drawn = jax.nn.relu(z), drawn + 1
                kept = flow.part(drawn).drawn(1 - self.dropout, z.shape[1:])
                if self.dropout and kept is not None:
                    z = jnp.where(kept, z / (1 - self.dropout), 0)
                after.append(window)
            windows.append(tuple(after))
            x = jax.nn.relu(z + (x if residual is None else residual(x)))
        return x, tuple(windows)
