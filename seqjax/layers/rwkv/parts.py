"""What the versions of RWKV share: the token shift, the channel mixing, and the block of the two.

    lerp(a, b, mu) = a + (b - a) * mu                         token shift: a, b of x_t and x_{t-1}

    channel mixing                                        2305.13048, 2404.05892, 2503.14456
        k' = relu(W_k lerp_k)^2
        y  = sigmoid(W_r lerp_r) * (W_v k')                   version 4, 5 and 6
        y  = W_v k'                                           version 7

    block                                                     as the papers stack them
        x += time_mixing(LayerNorm(x))
        x += channel_mixing(LayerNorm(x))

In version 4 mu weighs the present token, lerp(x_{t-1}, x_t, mu); from 5 on the previous one,
lerp(x_t, x_{t-1}, mu). (The released code of 5.2 keeps the parameter of 4: it is 1 - mu of ours.)
The layer norm that the released models put on their embeddings is the model's, not a block's.

A row of RWKV is its time mixing alone, to stand in a model that has norms, residuals and an MLP of
its own; with `block=True` it is the block. `depth` in [0, 1) is the layer's place in the stack, on
which the released initialisation depends; `inner` is the width of the channel mixing. Of the
release's options not here: what it may put beside the blocks (pre_ffn, tiny_att, head_qk), which
are the model's.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.nn.base import Layer, Precise
from seqjax.nn.convolution import token_shift
from seqjax.nn.norms import Norm


class TimeState(NamedTuple):
    window: Array  # [1, features], the last x
    S: Any  # what the time mixing remembers


class BlockState(NamedTuple):
    time: Any  # of the time mixing
    channel: Array  # [1, features], the last x of the channel mixing


def lerp(a: Array, b: Array, mu: Array) -> Array:
    """a + (b - a) * mu, for a, b [T, C] and each of mu [J, C]: [J, T, C]."""
    return a[None] + (b - a)[None] * mu[:, None]


def linear(n: int, m: int, gain: float, rngs: nnx.Rngs) -> nnx.Linear:
    """Without a bias, orthogonal times `gain`, as the released code draws its matrices."""
    init = nnx.initializers.orthogonal(gain * max(1.0, m / n) ** 0.5)
    init = init if gain else nnx.initializers.zeros
    return nnx.Linear(n, m, use_bias=False, kernel_init=init, rngs=rngs)


class LowRank(nnx.Module):
    """bias + f(x A) B; A starts at zero."""

    def __init__(
        self, features: int, rank: int, bias, init=None, *, out: int | None = None, rngs: nnx.Rngs
    ):
        self.A = nnx.Param(jnp.zeros((features, rank)))
        init = init or nnx.initializers.orthogonal(0.1)
        self.B = nnx.Param(init(rngs.params(), (rank, out or features)))
        self.bias = None if bias is None else Precise(jnp.asarray(bias))

    def __call__(self, x, f=lambda z: z):
        z = f(x @ self.A[...]) @ self.B[...]
        return z if self.bias is None else z + self.bias[...][None]


class ChannelMixing(nnx.Module):
    ops = ("short_convolution",)

    def __init__(
        self,
        features: int,
        version: int,
        *,
        inner: int | None = None,
        depth: float = 0.0,
        rngs: nnx.Rngs,
    ):
        C, self.version = features, version
        if inner is None:  # the releases' rule
            inner = max(32, int(3.5 * C) // 32 * 32) if version in (5, 6) else 4 * C
        weight = (jnp.arange(C) / C) ** ((1 - depth) ** (4 if version == 7 else 1))
        mu = weight if version == 4 else 1 - weight
        self.mu = nnx.Param(jnp.tile(mu, (1 if version == 7 else 2, 1)))  # k, r
        self.W_k = linear(C, inner, 1.0, rngs)
        self.W_v = linear(inner, C, 0.0, rngs)
        self.W_r = None if version == 7 else linear(C, C, 0.0, rngs)

    def __call__(self, x: Array, window: Carry, flow: Flow) -> tuple[Array, Array]:
        """x [T, features] and a window [1, features] to outputs and the next window."""
        before, last = token_shift(x, window, flow=flow)
        pair = (before, x) if self.version == 4 else (x, before)
        mixed = lerp(*pair, self.mu[...])
        y = self.W_v(jax.nn.relu(self.W_k(mixed[0])) ** 2)
        return (y if self.W_r is None else jax.nn.sigmoid(self.W_r(mixed[1])) * y), last


class RWKV(Layer):
    """A version defines `remembered()` and `time_mixing(x, h, flow)`."""

    side_ops = ("short_convolution",)

    def remembered(self) -> Any:
        raise TypeError(f"{type(self).__name__} must define remembered()")

    def time_mixing(self, x: Array, h: Carry, flow: Flow) -> tuple[Array, TimeState]:
        raise TypeError(f"{type(self).__name__} must define time_mixing()")

    def add_block(
        self,
        version: int,
        block: bool,
        *,
        inner: int | None,
        depth: float,
        norm_eps: float = 1e-5,
        rngs: nnx.Rngs,
    ) -> None:
        C, self.block = self.features, block
        norm = partial(Norm, centre=True, bias=True, eps=norm_eps)
        self.norms: Any = nnx.List([norm(C), norm(C)]) if block else None
        self.channel_mixing: Any = (
            ChannelMixing(C, version, inner=inner, depth=depth, rngs=rngs) if block else None
        )

    def initial(self):
        window = jnp.zeros((1, self.features))
        time = TimeState(window, self.remembered())
        return time if self.channel_mixing is None else BlockState(time, window)

    def run(self, x, h, flow):
        if self.norms is None:
            return self.time_mixing(x, h, flow)
        y, time = self.time_mixing(self.norms[0](x), h.time, flow)
        return self.after_time_mixing(x + y, time, h.channel, flow)

    def after_time_mixing(self, x, time, window, flow):
        """The second half of the block, and the block's state."""
        y, window = self.channel_mixing(self.norms[1](x), window, flow)
        return x + y, BlockState(time, window)
