"""Small parts that many layers share: heads, norms, short convolutions, positions, time steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.common import accumulation_dtype
from seqjax.flow import Flow, takes_flow
from seqjax.layers.base import Precise
from seqjax.ops.convolution import short_convolution


def per_head(what: str, size: int, heads: int) -> int:
    """size / heads, or one error if the heads do not divide it."""
    if heads < 1 or size % heads:
        raise ValueError(f"{what} = {size} cannot be split into {heads} equal parts")
    return size // heads


def split_heads(x: Array, heads: int) -> Array:
    """[T, heads * K] -> [T, heads, K]."""
    return x.reshape(len(x), heads, x.shape[1] // heads)


def merge_heads(x: Array) -> Array:
    """[T, heads, K] -> [T, heads * K]."""
    return x.reshape(len(x), x.shape[1] * x.shape[2])


def wide(x: Array) -> Array:
    """x in at least float32.

    What heads read is summed over all time before a norm or a quotient brings it back in range: in
    float16 it would leave 65504 long before. An op whose values are wide returns wide outputs.
    """
    return x.astype(accumulation_dtype(x.dtype))


class Norm(nnx.Module):
    """x / sqrt(mean x^2 + eps) * weight over the last axis; weights of any `shape` that x ends in.

    `centre` subtracts the mean first (LayerNorm; with a shape [H, V], GroupNorm of H groups).
    `offset` 1 stores weight - 1 (Gemma's way); weight=False has none. In at least float32. At zero
    its derivative is weight eps^-1/2, as in every release: a thousand times for each norm that
    silence passes through in a stack.
    """

    def __init__(
        self,
        *shape: int,
        centre: bool = False,
        bias: bool = False,
        weight: bool = True,
        offset: float = 0.0,
        eps: float = 1e-6,
    ):
        self.weight = Precise(jnp.full(shape, 1.0 - offset)) if weight else None
        self.bias = Precise(jnp.zeros(shape)) if bias else None
        self.centre, self.offset, self.eps = centre, offset, eps

    def __call__(self, x: Array) -> Array:
        dtype = accumulation_dtype(x.dtype)
        z = x.astype(dtype)
        if self.centre:
            z = z - jnp.mean(z, axis=-1, keepdims=True)
        z = z * lax.rsqrt(jnp.mean(z * z, axis=-1, keepdims=True) + self.eps)
        if self.weight is not None:
            z = z * jnp.broadcast_to(self.weight[...] + self.offset, z.shape)
        if self.bias is not None:
            z = z + jnp.broadcast_to(self.bias[...], z.shape)
        return z.astype(x.dtype)


def unit(x: Array, eps: float = 1e-6) -> Array:
    """x / sqrt(|x|^2 + eps) over the last axis: near length one, and smooth at zero."""
    z = x.astype(accumulation_dtype(x.dtype))
    return (z * lax.rsqrt(jnp.sum(z * z, axis=-1, keepdims=True) + eps)).astype(x.dtype)


# Functions that modules keep. Those of jax.nn are compiled, and what is compiled cannot be pickled.


def gelu(x: Array) -> Array:
    """x Phi(x), exactly (arXiv:1606.08415); jax.nn.gelu is by default its approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Array) -> Array:
    """gelu by its approximation, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    return jax.nn.gelu(x, approximate=True)


def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return jax.nn.silu(x)


def sigmoid(x: Array) -> Array:
    return jax.nn.sigmoid(x)


def relu(x: Array) -> Array:
    return jax.nn.relu(x)


def identity(x: Array) -> Array:
    return x


class GLU(nnx.Module):
    """W_3 (f(W_1 x) * W_2 x), a gated linear unit in place of an MLP (arXiv:2002.05202)."""

    def __init__(
        self,
        features: int,
        inner: int,
        f: Callable[[Array], Array] = silu,
        *,
        bias: bool = False,
        scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        """scale: of the first W_3, over the usual fan-in one."""
        self.f = f
        init = nnx.initializers.variance_scaling(scale**2, "fan_in", "normal")
        self.W_1, self.W_2 = (
            nnx.Linear(features, inner, use_bias=bias, rngs=rngs) for _ in range(2)
        )
        self.W_3 = nnx.Linear(inner, features, use_bias=bias, kernel_init=init, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.W_3(self.f(self.W_1(x)) * self.W_2(x))


class HeadLinear(nnx.Module):
    """A matrix for each head: [T, heads * n] or [T, heads, n] to [T, heads, m]."""

    def __init__(self, heads: int, n: int, m: int, *, init=None, rngs: nnx.Rngs):
        init = init or nnx.initializers.lecun_normal(batch_axis=0)
        self.kernel = nnx.Param(init(rngs.params(), (heads, n, m), jnp.float32))

    def __call__(self, x: Array) -> Array:
        x = x.reshape(len(x), *self.kernel.shape[:2])
        return jnp.einsum("thn,hnm->thm", x, self.kernel[...])


class ShortConv(nnx.Module):
    """y_t = bias + sum_j weight[j] x_{t - width + 1 + j}, per channel; state: the last width - 1 x.

    Drawn as torch.nn.Conv1d draws it: uniform in +- width^-1/2.
    """

    def __init__(self, channels: int, width: int, *, bias: bool = True, rngs: nnx.Rngs):
        if width < 1:
            raise ValueError(f"a convolution spans at least 1 step, got {width}")
        draw = nnx.initializers.uniform(2 * width**-0.5)
        self.weight = nnx.Param(draw(rngs.params(), (width, channels)) - width**-0.5)
        self.bias = nnx.Param(jnp.zeros(channels)) if bias else None

    def initial(self) -> Array:
        width, channels = self.weight.shape
        return jnp.zeros((width - 1, channels))

    # as a part of a layer: nothing came before

    start = initial

    def learn_initial(self) -> None:
        pass

    def canonical(self, h: Array) -> Array:
        return h

    def __call__(
        self, x: Array, window: Any, flow: Flow | None = None, **flags: Any
    ) -> tuple[Array, Array]:
        """x [T, channels] and a window [width - 1, channels] to outputs and the next window.

        With a flow the window is a Carry; without one the flags are those of the op.
        """
        if flow is not None:
            flags = dict(flow=flow.of())
        return short_convolution(
            x,
            self.weight[...],
            window,
            bias=None if self.bias is None else self.bias[...],
            **flags,
        )


@takes_flow
def token_shift(
    x: Array, window: Array, *, resets=None, mask=None, reset_state=None
) -> tuple[Array, Array]:
    """x_{t-n} for x [T, features] and a window of the n steps before (often one), and the next
    window: a convolution that takes the oldest tap."""
    taps = jnp.zeros((len(window) + 1, x.shape[1]), x.dtype).at[0].set(1)
    return short_convolution(x, taps, window, resets=resets, mask=mask, reset_state=reset_state)


def angles(positions: Array, rates: Any, dtype: Any) -> Array:
    """positions [T] * rates [...] as angles [T, ...] in `dtype`, up to whole turns.

    A product in float32 has an error of its size, that is, of the position. So below float64 the
    share of a turn is kept in integers, which are exact modulo 1: rate / (2 pi) = hi 2^-32 + lo
    2^-47, for |position| < 2^31. Angles are then within 3e-7 up to position 10^6, and those of two
    positions differ by what their distance says anywhere.
    rates: float64 constants of numpy, or an array that is learned, of which a turn's share is
        rounded to its 24 bits, once for all positions; its derivative is `positions`.
    """
    shape = (len(positions),) + (1,) * np.ndim(rates)
    learned = isinstance(rates, Array)
    product = positions.astype(dtype).reshape(shape) * jnp.asarray(rates, dtype)[None]
    if jnp.finfo(dtype).bits == 64 or not jnp.issubdtype(positions.dtype, jnp.integer):
        return product
    lib = jnp if learned else np
    share = rates / (2 * math.pi)
    share = (share - lib.floor(share + 0.5)) * 2.0**32
    hi = lib.floor(share)
    hi, lo = (jnp.asarray(z.astype(np.int32))[None] for z in (hi, (share - hi) * 2.0**15))
    n = positions.astype(jnp.int32).reshape(shape)
    turns = n * hi + (n >> 15) * lo + (((n & 0x7FFF) * lo) >> 15)  # int32 wraps at whole turns
    angle = turns.astype(dtype) * jnp.asarray(2 * math.pi / 2**32, dtype)
    if not learned:
        return angle
    return lax.stop_gradient(angle) + (product - lax.stop_gradient(product))


def rotary(x: Array, positions: Array, *, fraction: float = 1.0, base: float = 10_000.0) -> Array:
    """x [T, H, K] with the first `fraction` of its channels turned by positions [T].

    Channels i and i + R/2 of the first R form a pair, turned by position * base^(-2 i / R)
    (arXiv:2104.09864 eq. 15, with the pairing of most released weights): products of two turned
    vectors depend on the difference of their positions only.
    """
    half = int(x.shape[-1] * fraction) // 2
    dtype = accumulation_dtype(x.dtype)
    angle = angles(positions, base ** (-np.arange(half) / max(half, 1)), dtype)[:, None]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


@takes_flow
def places(
    count: Array,
    steps: int,
    *,
    size: int | None = None,
    resets: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The positions int32 [steps] since the start or the last reset, and that of the next step.

    `count` is the position of the first; a masked step takes none (the next one has its position).
    With `size` they are the places in chunks of that many steps.
    """
    taken = jnp.ones(steps, jnp.int32) if mask is None else mask.astype(jnp.int32)
    passed = count + jnp.cumsum(taken, dtype=jnp.int32) - taken
    if resets is not None:
        resets = resets if mask is None else resets & mask
        passed -= lax.cummax(jnp.where(resets, passed, 0))
    after = jnp.append(count, passed + taken)[-1]
    return (passed, after) if size is None else (passed % size, after % size)


def time_step_bias(key: Array, size: int, low: float, high: float, floor: float = 1e-4) -> Array:
    """b with softplus(b) log-uniform in [low, high]: how the Mamba family starts its time steps."""
    dt = jnp.exp(jax.random.uniform(key, (size,), minval=math.log(low), maxval=math.log(high)))
    dt = jnp.maximum(dt, floor)
    return dt + jnp.log(-jnp.expm1(-dt))
