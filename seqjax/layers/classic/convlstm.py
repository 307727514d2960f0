"""ConvLSTM (Shi et al. 2015, arXiv:1506.04214): an LSTM of frames, with convolutions for products.

    i_t = sigmoid(W_xi * X_t + W_hi * H_{t-1} + W_ci o C_{t-1} + b_i)     state (H, C), each
    f_t = sigmoid(W_xf * X_t + W_hf * H_{t-1} + W_cf o C_{t-1} + b_f)     [*shape, channels]
    C_t = f_t o C_{t-1} + i_t o tanh(W_xc * X_t + W_hc * H_{t-1} + b_c)
    o_t = sigmoid(W_xo * X_t + W_ho * H_{t-1} + W_co o C_t + b_o)
    H_t = o_t o tanh(C_t) = y_t                                           eq. 3

* is a convolution over space (a cross-correlation, as everywhere) that keeps the shape, with zeros
beyond its edge, o the product of entries; W_ci, W_cf, W_co have a number for each of them, and are
there with `peepholes`. A frame [*shape, C] of one, two or three dimensions lies flat in the
features, its channels last, as a model's inputs `Features(H, W, C)` do, and so does y. For video,
radar and other fields that move: with as many channels, each place has the same small LSTM, which
sees its neighbours. With a kernel of 1 it is `lstm` in each place.

Kernels of W_x and W_h span `kernel_size` places, one number for all dimensions or one for each, odd
so that they have a middle. Gates are stacked in the order i, f, c, o; peepholes start at 0, b_f at
1; `bias` False takes b out.
"""

import math
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core.forms import by_platform
from seqjax.layers.classic.lstm import LSTMState
from seqjax.nn.recurrent import Recurrent


class ConvLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        shape: tuple[int, ...] | None = None,
        channels: int | None = None,
        kernel_size: tuple[int, ...] = (3,),
        peepholes: bool = True,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features = features
        self.shape = space = shape or (features,)
        if not 1 <= len(space) <= 3:
            raise ValueError(f"shape has one to three dimensions, got {list(space)}")
        if features % math.prod(space):
            raise ValueError(f"features={features} are no frames of shape {list(space)}")
        if len(kernel_size) not in (1, len(space)) or not all(k % 2 for k in kernel_size):
            raise ValueError(
                f"kernel_size is one odd number, or one for each of the {len(space)} dimensions "
                f"of shape, got {list(kernel_size)}"
            )
        inputs = features // math.prod(space)
        C = self.channels = channels or inputs
        self.out_features = math.prod(space) * C
        size = kernel_size * len(space) if len(kernel_size) == 1 else kernel_size

        def bias_init(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[C : 2 * C].set(1)

        self.W_x = nnx.Conv(inputs, 4 * C, size, use_bias=bias, bias_init=bias_init, rngs=rngs)
        self.W_h = nnx.Conv(C, 4 * C, size, use_bias=False, rngs=rngs)
        self.W_c = nnx.Param(jnp.zeros((3, *space, C))) if peepholes else None  # of i, f, o

    def initial(self):
        H = jnp.zeros((*self.shape, self.channels))
        return LSTMState(H, H)

    def drive(self, x):
        return convolved(self.W_x, x.reshape(len(x), *self.shape, -1))

    def step(self, state, z):
        i, f, g, o = jnp.split(z + convolved(self.W_h, state.h), 4, axis=-1)
        p_i, p_f, p_o = (0, 0, 0) if self.W_c is None else self.W_c[...]
        i, f = jax.nn.sigmoid(i + p_i * state.c), jax.nn.sigmoid(f + p_f * state.c)
        c = f * state.c + i * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o + p_o * c) * jnp.tanh(c), c)

    def readout(self, state, x):
        return state.h.reshape(-1)


def convolved(conv: nnx.Conv, frames: jax.Array) -> jax.Array:
    """conv(frames); on a CPU, where it takes 8 times as long in a loop over time and backwards, as
    one product of matrices (3 x 3 on 16 x 16 places of 8 channels)."""

    def product_of_places(frames):
        space, kernel = frames.shape[-1 - len(conv.kernel_size) : -1], conv.kernel[...]
        around = [(0, 0)] * (frames.ndim - 1 - len(space)) + [
            (k // 2, k // 2) for k in conv.kernel_size
        ]
        padded = jnp.pad(frames, [*around, (0, 0)])
        seen = [padded[(..., *map(slice, at, np.add(at, space)), slice(None))]
                for at in product(*map(range, conv.kernel_size))]  # fmt: skip
        y = jnp.concatenate(seen, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
        return y if conv.bias is None else y + jnp.broadcast_to(conv.bias[...], y.shape)

    return by_platform(dict(cpu=product_of_places, gpu=conv, tpu=conv))(frames)
