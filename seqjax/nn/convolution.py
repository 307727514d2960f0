"""Short convolutions over time as parts of layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.flow import Flow, takes_flow
from seqjax.ops.convolution import short_convolution


class ShortConv(nnx.Module):
    """y_t = bias + sum_j weight[j] x_{t - d (width - 1 - j)}, per channel; d: `dilation`.

    State: the last d (width - 1) x. Drawn as torch.nn.Conv1d draws it: uniform in +- width^-1/2.
    """

    ops = ("short_convolution",)

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        bias: bool = True,
        dilation: int = 1,
        rngs: nnx.Rngs,
    ):
        if width < 1:
            raise ValueError(f"a convolution spans at least 1 step, got {width}")
        self.dilation = dilation
        draw = nnx.initializers.uniform(2 * width**-0.5)
        self.weight = nnx.Param(draw(rngs.params(), (width, channels)) - width**-0.5)
        self.bias = nnx.Param(jnp.zeros(channels)) if bias else None

    @property
    def span(self) -> int:
        """How many steps it sees, the present one among them."""
        return self.dilation * (self.weight.shape[0] - 1) + 1

    def initial(self) -> Array:
        return jnp.zeros((self.span - 1, self.weight.shape[1]))

    # as a part of a layer: nothing came before

    def start(self, source: Any = None) -> Array:
        return self.initial()

    def learn_initial(self) -> None:
        pass

    def canonical(self, h: Array) -> Array:
        return h

    def __call__(
        self, x: Array, window: Any, flow: Flow | None = None, **flags: Any
    ) -> tuple[Array, Array]:
        """x [T, channels] and a window [span - 1, channels] to outputs and the next window.

        With a flow the window is a Carry; without one the flags are those of the op.
        """
        if flow is not None:
            flags = dict(flow=flow.of())
        kernel = self.weight[...]
        if self.dilation > 1:
            shape = self.span, kernel.shape[1]
            kernel = jnp.zeros(shape, kernel.dtype).at[:: self.dilation].set(kernel)
        return short_convolution(
            x,
            kernel,
            window,
            bias=None if self.bias is None else self.bias[...],
            **flags,
        )


@takes_flow
def dilated_past(
    x: Array, window: Array, *, width: int, dilation: int, resets=None, mask=None
) -> tuple[Array, Array]:
    """x_{t - d (width - 1 - j)} [T, width, C] for x [T, C] and the d (width - 1) steps before, and
    those before the next step: zero across a reset; a masked step leaves nothing."""
    steps, back = len(x), len(window)
    kept = jnp.ones(steps, bool) if mask is None else mask
    place = jnp.cumsum(kept, dtype=jnp.int32) - 1  # among the steps that are kept
    begins = jnp.zeros(steps, bool) if resets is None else resets & kept
    first = lax.cummax(jnp.where(begins, place, -back))
    rows = jnp.concatenate([window.astype(x.dtype), x[jnp.argsort(~kept, stable=True)]])

    def at(time: Array, first: Array) -> Array:
        found = rows[jnp.maximum(time + back, 0)]
        return jnp.where((time >= first)[..., None], found, 0)

    lag = dilation * jnp.arange(width - 1, -1, -1, dtype=jnp.int32)
    newest = place[-1] + 1 - jnp.arange(back, 0, -1, dtype=jnp.int32)
    return at(place[:, None] - lag[None], first[:, None]), at(newest, first[-1:])


class DilatedConv(nnx.Module):
    """y_t = b + sum_j W_j x_{t - d (width - 1 - j)}: a convolution over time of all channels.

    `normed`: W = g v / |v|, one g for each output channel (arXiv:1602.07868). State: the last
    d (width - 1) x. v is normal with deviation 0.01, g its length, as in 1803.01271.
    """

    def __init__(
        self, n: int, m: int, width: int, *, dilation: int = 1, normed: bool = True, rngs: nnx.Rngs
    ):
        self.width, self.dilation = width, dilation
        self.v = nnx.Param(0.01 * jax.random.normal(rngs.params(), (width, n, m)))
        self.g = nnx.Param(jnp.sqrt(jnp.sum(self.v[...] ** 2, axis=(0, 1)))) if normed else None
        bound = (width * n) ** -0.5
        self.b = nnx.Param(jax.random.uniform(rngs.params(), (m,), minval=-bound, maxval=bound))

    def initial(self) -> Array:
        return jnp.zeros(((self.width - 1) * self.dilation, self.v.shape[1]))

    def __call__(self, x: Array, window: Any, flow: Flow) -> tuple[Array, Array]:
        flow.undivided("a dilated convolution")
        options = dict(width=self.width, dilation=self.dilation)
        past, window = dilated_past(x, window, flow=flow, **options)
        W = self.v[...]
        if self.g is not None:
            W = W * (self.g[...] * lax.rsqrt(jnp.sum(W * W, axis=(0, 1))))[None, None]
        return jnp.einsum("tjn,jnm->tm", past, W) + self.b[...][None], window


class Convolved(NamedTuple):
    """The state of a recurrence that a short convolution stands before."""

    window: Any
    S: Any


def convolved(
    conv: ShortConv | None, parts: Sequence[Array], window: Any, flow: Flow
) -> tuple[Sequence[Array], Any]:
    """Several inputs [T, n] through one convolution, side by side, and the next window; unchanged
    without one."""
    if conv is None:
        return parts, ()
    y, window = conv(jnp.concatenate(parts, axis=1), window, flow)
    ends = [sum(part.shape[1] for part in parts[: i + 1]) for i in range(len(parts) - 1)]
    return jnp.split(y, ends, axis=1), window


@takes_flow
def token_shift(
    x: Array, window: Array, *, resets=None, mask=None, start=None, axis=None
) -> tuple[Array, Array]:
    """x_{t-n} for x [T, features] and a window of the n steps before (often one), and the next
    window: a convolution that takes the oldest tap."""
    taps = jnp.zeros((len(window) + 1, x.shape[1]), x.dtype).at[0].set(1)
    return short_convolution(x, taps, window, resets=resets, mask=mask, start=start, axis=axis)
