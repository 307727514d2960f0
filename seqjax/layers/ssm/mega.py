"""MEGA: moving average equipped gated attention (Ma et al. 2022, arXiv:2209.10655), a whole block.

A multi-dimensional damped moving average, each channel in `ndim` dimensions (sec. 3.1):

    h_t = alpha * beta x_t + (1 - alpha * delta) * h_{t-1},   o_t = eta . h_t
    x' = silu(o + omega * x)                               alpha, delta in (0, 1)

and a single attention head over it, in gates of GRU's kind (sec. 3.2):

    z = silu(W_z x' + b_z),   q, k = kappa * z + mu,   v = silu(W_v x + b_v)
    o = f(q, k, b_rel) v                                   f of `gated_attention`, `length` steps
    gamma = silu(W_gamma x' + b_gamma),   phi = sigmoid(W_phi x' + b_phi)
    y = phi * silu(W_h x' + U_h (gamma * o) + b) + (1 - phi) * x

    Y = Norm(y),   Norm(Y + W_2 silu(W_1 Y))               `prenorm` norms what enters instead
                                                           (the released default)

`norm` is "layer", "rms", or "scale": RMSNorm with one weight for all channels.
`chunked` is MEGA-chunk: attention inside chunks of `length` steps, in linear time, with
only the moving average passing between them. Otherwise attention looks back over `length` steps.
"laplace" and "relu2" divide q.k by the number of keys seen, as released.

As released o is eta . h / sqrt(ndim); alpha and delta are sigmoids of N(0, 0.04), beta alternates
between 1 and -1 with N(0, 0.0004) on it, eta and omega are standard normal, weights N(0, 0.0004).
`damping` "product" is (1 - alpha) delta in place of 1 - alpha delta, as a wide-spread
implementation has it. `truncation` cuts the average's response off after as many steps, whose
inputs are then its state. `bidirectional` adds an average from the end (lag 0 counts in both, as
released), and attends both ways; then nothing streams.

Evaluators: those of the moving average; "fft" is the convolution the paper trains with.
Of the release's options not here: batch normalisation, under which examples depend on each other,
and dropouts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.layers.ssm.hyena import long_convolution
from seqjax.nn.base import Layer, Precise, option
from seqjax.nn.gated_attention import INIT, GatedHead, Seen, Views
from seqjax.nn.norms import Norm
from seqjax.ops.diagonal_ssm import diagonal_ssm, impulse_response

DAMPINGS = ("difference", "product")
NORMS: dict[str, Callable[[int], Norm]] = {
    "layer": partial(Norm, centre=True, bias=True, eps=1e-5),
    "rms": partial(Norm, eps=1e-5),
    "scale": lambda features: Norm(eps=1e-5),
}


class EMA(nnx.Module):
    """x [T, features] to o [T, features], in one direction."""

    def __init__(self, features: int, ndim: int, truncation: int, damping: str, *, rngs: nnx.Rngs):
        self.truncation, self.damping = truncation, option("damping", damping, DAMPINGS)

        def draw(deviation):
            return deviation * jax.random.normal(rngs.params(), (features, ndim))

        self.alpha, self.delta = Precise(draw(0.2)), Precise(draw(0.2))
        self.beta = Precise(draw(0.02) + jnp.where(jnp.arange(ndim) % 2, -1.0, 1.0)[None])
        self.eta = Precise(draw(1.0))

    def system(self) -> tuple[Array, Array, Array]:
        """The log of the multiplier, and what enters and leaves a state, [features, ndim] each."""
        alpha, delta = jax.nn.sigmoid(self.alpha[...]), jax.nn.sigmoid(self.delta[...])
        if self.damping == "product":
            log_q = jax.nn.log_sigmoid(-self.alpha[...]) + jax.nn.log_sigmoid(self.delta[...])
        else:
            log_q = jnp.log1p(-jnp.minimum(alpha * delta, 1 - jnp.finfo(alpha.dtype).eps))
        return log_q, alpha * self.beta[...], self.eta[...] * self.eta.shape[1] ** -0.5

    def kernel(self, length: int) -> Array:
        """The response [features, length] to an impulse."""
        return impulse_response(*self.system(), min(length, self.truncation or length))

    def initial(self) -> Array:
        features, ndim = self.eta.shape
        return jnp.zeros((self.truncation - 1, features) if self.truncation else (features, ndim))

    def __call__(self, x, h, flow):
        if not self.truncation:
            return diagonal_ssm(x, *self.system(), h, flow=flow)
        kernel = self.kernel(self.truncation).T
        return long_convolution(x.astype(h.now.dtype), kernel, None, h, flow)


class MovingAverage(Layer):
    """x' of x."""

    def __init__(
        self,
        features: int,
        *,
        ndim: int = 16,
        truncation: int | None = None,
        damping: str = "difference",
        bidirectional: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.causal = not bidirectional
        self.ops = ("short_convolution",) if truncation else ("diagonal_ssm",)

        def ema():
            return EMA(features, ndim, truncation or 0, damping, rngs=rngs)

        self.forward, self.backward = ema(), ema() if bidirectional else None
        self.omega = nnx.Param(jax.random.normal(rngs.params(), (features,)))

    def initial(self):
        return self.forward.initial()

    def average(self, x, h, flow):
        """o of x, and the state after it."""
        o, last = self.forward(x, h, flow)
        if self.backward is not None:
            nothing = jax.tree.map(jnp.zeros_like, h)
            o += self.backward(x[::-1], nothing, flow.backwards())[0][::-1]
        return o, last

    def run(self, x, h, flow):
        o, h = self.average(x, h, flow)
        return jax.nn.silu(o.astype(x.dtype) + self.omega[...][None] * x), h


class MEGAState(NamedTuple):
    ema: Any  # [features, ndim]; truncated, the window of the last inputs
    seen: Seen


class MEGA(Layer):
    block = True

    def __init__(
        self,
        features: int,
        *,
        ndim: int = 16,
        size: int = 64,
        inner: int | None = None,
        length: int = 1024,
        chunked: bool = False,
        weights: str = "softmax",
        bias: str = "toeplitz",
        expansion: float = 2.0,
        prenorm: bool = False,
        norm: str = "layer",
        truncation: int | None = None,
        damping: str = "difference",
        bidirectional: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.size, self.inner = size, inner or 2 * features
        self.causal, self.prenorm = not bidirectional, prenorm
        self.ema = MovingAverage(
            features,
            ndim=ndim,
            truncation=truncation,
            damping=damping,
            bidirectional=bidirectional,
            rngs=rngs,
        )
        self.evaluators = self.ema.evaluators
        self.head = GatedHead(
            size,
            self.inner,
            length,
            weights=weights,
            bias=bias,
            causal=self.causal,
            chunked=chunked,
            rngs=rngs,
        )

        def linear(n, m, bias=True):
            return nnx.Linear(n, m, kernel_init=INIT, use_bias=bias, rngs=rngs)

        self.W_v, self.W_z = linear(features, self.inner), linear(features, size)
        self.W_gamma, self.W_phi = linear(features, self.inner), linear(features, features)
        self.W_h, self.U_h = linear(features, features), linear(self.inner, features, bias=False)
        self.views, wide = Views(2, size, rngs=rngs), int(expansion * features)
        new_norm = NORMS[option("norm", norm, NORMS)]
        self.norms = nnx.List([new_norm(features) for _ in range(2 if wide else 1)])
        self.W_1 = linear(features, wide) if wide else None
        self.W_2 = linear(wide, features) if wide else None

    def initial(self):
        return MEGAState(self.ema.initial(), self.head.initial())

    def run(self, x, h, flow):
        silu, norm = jax.nn.silu, self.norms[0]
        n = norm(x) if self.prenorm else x
        moved, ema = self.ema.run(n, h.ema, flow)
        q, k = self.views(silu(self.W_z(moved)))
        o, seen = self.head(q, k, silu(self.W_v(n)), h.seen, flow)
        gated = silu(self.W_gamma(moved)) * o.astype(x.dtype)
        phi = jax.nn.sigmoid(self.W_phi(moved))
        y = x + phi * (silu(self.W_h(moved) + self.U_h(gated)) - x)
        y = y if self.prenorm else norm(y)
        if self.W_1 is not None and self.W_2 is not None:
            n = self.norms[1](y) if self.prenorm else y
            y = y + self.W_2(silu(self.W_1(n)))
            y = y if self.prenorm else self.norms[1](y)
        return y, MEGAState(ema, seen)
