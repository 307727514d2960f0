"""Hyena operator of order N (Poli et al. 2023, arXiv:2302.10866): long convolutions between gates.

    x_0, ..., x_{N-1}, v = split(conv(W_in u + b_in))         conv: 3 taps, causal, with bias
    v <- f_i * (x_i * v) + bias_i x_i * v                     for i = N-1, ..., 1      def. 3.1
    y = W_out (x_0 * v) + b_out

The filters f are as long as the sequence may be, `length`, and are not stored but computed by a
small network of the position (sec. 3.3):

    f(t) = (exp(-|delta| t) + shift) * FFN(z(t)),     t = 0 ... 1 over `length` steps
    z(t) = [t, Re e^{-iwf}, Im e^{-iwf}],   w = 2 pi step / length, f from 1e-4 to bands - 1

FFN has sines sin(freq x) in place of a nonlinearity, `freq` one learned vector for all its layers,
and no bias at its end; `depth` + 1 of its layers have a sine. delta is spread over the channels so
that their windows fall to `target` at slow_decay ... fast_decay of the length; with `window` False
f is the FFN alone. As released, z is a parameter and order N has N - 1 long convolutions.

The state is the window of the short convolution and, per long one, its last length - 1 inputs: it
is honest O(length), and what lies further back is out of reach (`laughing_hyena` distils filters
into a small state). "fft" is the evaluator for sequences; where a reset or a mask makes the taps
differ from step to step, the direct form runs.
"""

import math
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.core.ranges import Range
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import ShortConv
from seqjax.ops.convolution import fft_convolution

TORCH = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # +- fan_in^-1/2


class ImplicitFilter(nnx.Module):
    """Filters [length, channels], the present first, by a network of the position."""

    def __init__(
        self,
        channels: int,
        length: int,
        *,
        width: int,
        bands: int,
        depth: int,
        frequency: float,
        shift: float,
        window: bool,
        slow_decay: float,
        fast_decay: float,
        target: float,
        rngs: nnx.Rngs,
    ):
        if not (0 < target < 1 and slow_decay > 0 and fast_decay > 0):
            raise ValueError(
                "a window falls to target in (0, 1) at slow_decay and fast_decay > 0, "
                f"got {target}, {slow_decay} and {fast_decay}"
            )
        self.channels, self.length, self.shift, self.window = channels, length, shift, window
        self.falls = -math.log(target) / slow_decay, -math.log(target) / fast_decay
        t, w = np.linspace(0, 1, length), 2 * np.pi * np.arange(length) / length
        wave = np.exp(-1j * w[:, None] * np.linspace(1e-4, bands - 1, bands)[None])
        self.z = Precise(
            jnp.asarray(np.concatenate([t[:, None], np.real(wave), np.imag(wave)], axis=1))
        )
        self.freq = nnx.Param(jnp.full(width, frequency, jnp.float32))
        sizes = [1 + 2 * bands, *(width for _ in range(depth + 1))]
        self.inner = nnx.List(
            [nnx.Linear(n, m, kernel_init=TORCH, rngs=rngs) for n, m in zip(sizes, sizes[1:])]
        )
        self.last = nnx.Linear(width, channels, use_bias=False, kernel_init=TORCH, rngs=rngs)

    def __call__(self) -> Array:
        x = self.z[...]
        for layer in self.inner:
            x = jnp.sin(self.freq[...][None] * layer(x))
        if not self.window:
            return self.last(x)
        t, falls = np.linspace(0, 1, self.length), np.linspace(*self.falls, self.channels)
        window = np.exp(-t[:, None] * falls[None]) + self.shift
        return self.last(x) * jnp.asarray(window, x.dtype)


class HyenaState(NamedTuple):
    window: Array  # [2, (order + 1) features]
    long: Any  # per long convolution, [length - 1, features]


class Hyena(Layer):
    ops = ("short_convolution",)

    def __init__(
        self,
        features: int,
        *,
        order: int = 2,
        length: int = 1024,
        width: int = 64,
        bands: int = 1,
        depth: Annotated[int, Range(0, 1000)] = 2,
        frequency: float = 1.0,
        shift: float = 0.0,
        window: bool = True,
        slow_decay: float = 1.5,
        fast_decay: float = 0.3,
        target: float = 0.01,
        rngs: nnx.Rngs,
    ):
        if order < 2 or length < 1:
            raise ValueError(f"order must be >= 2 and length >= 1, got {order} and {length}")
        self._around(features, order, rngs)
        self.length = length
        self.filter = ImplicitFilter(
            (order - 1) * features,
            length,
            width=width,
            bands=bands,
            depth=depth,
            frequency=frequency,
            shift=shift,
            window=window,
            slow_decay=slow_decay,
            fast_decay=fast_decay,
            target=target,
            rngs=rngs,
        )

    def _around(self, features: int, order: int, rngs: nnx.Rngs) -> None:
        """What stands around the long convolutions, and their bias."""
        self.features = self.out_features = features
        self.order = order
        self.W_in = nnx.Linear(features, (order + 1) * features, rngs=rngs)
        self.conv = ShortConv((order + 1) * features, 3, rngs=rngs)
        self.bias = nnx.Param(jax.random.normal(rngs.params(), (order - 1, features)))
        self.W_out = nnx.Linear(features, features, rngs=rngs)

    def initial(self):
        long = tuple(jnp.zeros((self.length - 1, self.features)) for _ in range(self.order - 1))
        return HyenaState(self.conv.initial(), long)

    def filters(self) -> Array:
        """[order - 1, length, features], the present first, in the order they are applied."""
        return jnp.stack(jnp.split(self.filter(), self.order - 1, axis=1))

    def run(self, x, h, flow):
        u, window = self.conv(self.W_in(x), h.window, flow)
        *gates, v = jnp.split(u, self.order + 1, axis=1)
        filters, states = self.filters(), []
        for i, gate in enumerate(reversed(gates[1:])):
            v, state = self.convolve(gate * v, filters[i], self.bias[i], h.long[i], flow)
            states.append(state)
        return self.W_out(gates[0] * v), HyenaState(window, tuple(states))

    def convolve(self, u, kernel, bias, h, flow):
        """One long convolution, and the state after it."""
        return long_convolution(u, kernel, bias, h, flow)


def long_convolution(
    u: Array, kernel: Array, D: Array | None, h: Carry, flow: Flow
) -> tuple[Array, Array]:
    """`fft_convolution`, step by step where the evaluator that is named cannot run."""
    named = flow.evaluator and (flow.evaluator, "sequential")
    return fft_convolution(u, kernel, D, h, flow=replace(flow, evaluator=named))
