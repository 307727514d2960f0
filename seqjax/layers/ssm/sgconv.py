"""SGConv: structured global convolution (Li et al. 2022, arXiv:2210.09298).

    k = [k_0, k_1, ..., k_{S-1}] / Z,   k_i = alpha^i Upsample(w_i, 2^max(i-1, 0) d)      sec. 3
    y_t = sum_l k_l u_{t-l} + D u_t

Each w_i has d = `kernel_size` parameters; they are stretched over spans that double, and fall in
size with distance: few parameters in the length, and a kernel that decays. S is such that the
kernel reaches `length`, 1 + ceil(log2(length / d)). "sum" lays scale i over all of the first 2^i d
steps instead and adds up. 1/alpha is spread evenly over the channels, from `decay_min` to
`decay_max`; as released, alpha^i counts from the last scale, and Z, the norm of the whole kernel
when it was drawn, stays as it is, so that only the start is normalised.

The release's options: `upsample` "nearest" repeats a parameter where "linear" draws lines between
them. `first_scale` s >= 0 takes 2^s times the spans, and s scales less. With `learned_decay`
alpha = 1 and step l of Z k is times (l + 1)^-p, p [features] learned, uniform between the bounds
at the start. `bidirectional` adds a second kernel for the future, sum_l k'_l u_{t+l+1}: then
nothing streams, and the state is that of the past.

With `mix` the output is GLU(W gelu(y)), S4's block; without it `filters` kernels per channel make
filters * features outputs. The state is the last length - 1 inputs; evaluators as in `hyena`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry
from seqjax.layers.ssm.hyena import long_convolution
from seqjax.nn.activations import gelu
from seqjax.nn.base import Frozen, Layer, Precise, option


def repeat(w: Array, factor: int) -> Array:
    """w [..., d] to [..., factor d], each as often."""
    return jnp.repeat(w, factor, axis=-1)


def stretch(w: Array, factor: int) -> Array:
    """w [..., d] to [..., factor d], linear between the middles of equal cells, flat beyond."""
    d = w.shape[-1]
    place = np.clip((np.arange(factor * d) + 0.5) / factor - 0.5, 0, d - 1)
    low = np.minimum(place.astype(int), max(d - 2, 0))
    part = jnp.asarray(place - low, w.dtype).reshape((1,) * (w.ndim - 1) + (-1,))
    return (1 - part) * w[..., low] + part * w[..., np.minimum(low + 1, d - 1)]


UPSAMPLE = {"linear": stretch, "nearest": repeat}


class SGConv(Layer):
    ops = ("short_convolution",)

    def __init__(
        self,
        features: int,
        *,
        length: int = 1024,
        kernel_size: int = 64,
        mode: str = "cat",
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        learned_decay: bool = False,
        upsample: str = "linear",
        first_scale: int = 0,
        bidirectional: bool = False,
        filters: int = 1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        if length < 1 or kernel_size < 1:
            raise ValueError(f"lengths are at least 1, got {length} and {kernel_size}")
        self.features, self.out_features = features, features if mix else filters * features
        self.length, self.mode = length, option("mode", mode, ("cat", "sum"))
        self.upsample = option("upsample", upsample, UPSAMPLE)
        self.decay_min, self.decay_max, self.first_scale = decay_min, decay_max, first_scale
        self.causal, self.bidirectional = not bidirectional, bidirectional
        S = 1 + max(0, math.ceil(math.log2(length / kernel_size))) - first_scale
        if first_scale < 0 or S < 1:
            most = S + first_scale - 1
            raise ValueError(f"first_scale is one of 0 to {most} here, got {first_scale}")
        ways = (1 + bidirectional) * filters
        self.w = nnx.Param(jax.random.normal(rngs.params(), (S, ways, features, kernel_size)))

        def decay():
            u = jax.random.uniform(rngs.params(), (features,))
            return Precise(decay_min + u * (decay_max - decay_min))

        self.p = decay() if learned_decay else None
        self.D = nnx.Param(jax.random.normal(rngs.params(), (filters, features)))
        self.Z = Frozen(jnp.linalg.norm(self.unscaled(), axis=-1))
        wide = filters * features
        self.W = nnx.Linear(wide, 2 * features, rngs=rngs) if mix else None

    def initial(self):
        return jnp.zeros((self.length - 1, self.features))

    def unscaled(self) -> Array:
        """Z k [filters, features, 2^(S-1+s) d]; bidirectional, those of the future follow."""
        S, s = self.w.shape[0], self.first_scale
        base = np.linspace(self.decay_min, self.decay_max, self.features)
        parts = []
        for i in range(S):
            size = base ** (S - 1 - i) if self.p is None else np.ones(self.features)
            size = jnp.asarray(size, self.w.dtype)[None, :, None]
            spans = s + (i if self.mode == "sum" else max(i - 1, 0))
            parts.append(UPSAMPLE[self.upsample](size * self.w[i], 2**spans))
        if self.mode == "cat":
            k = jnp.concatenate(parts, axis=-1)
        else:
            total = parts[-1].shape[2]
            padded = [jnp.pad(p, ((0, 0), (0, 0), (0, total - p.shape[2]))) for p in parts]
            k = jnp.sum(jnp.stack(padded), axis=0)
        if self.p is None:
            return k
        p = self.p[...]
        return k * jnp.exp(jnp.outer(-p, jnp.log1p(jnp.arange(k.shape[2], dtype=p.dtype))))[None]

    def kernel(self, length: int) -> Array:
        """k [filters, features, length], the present first; bidirectional, those of the future
        follow, the next step first."""
        k = self.unscaled()[..., :length] / self.Z[...][:, :, None]
        return jnp.pad(k, ((0, 0), (0, 0), (0, length - k.shape[2])))

    def run(self, x, h, flow):
        def filtered(kernel, D):
            return long_convolution(x, kernel.T, D, h, flow)

        def ahead(kernel):  # the present is no part of the future
            kernel, none = jnp.pad(kernel.T, ((1, 0), (0, 0))), jnp.zeros_like(kernel.T, x.dtype)
            y, _ = long_convolution(x[::-1], kernel, None, Carry(none, none), flow.backwards())
            return y[::-1]

        # every filter sees the same inputs, and leaves the same window
        kernels = self.kernel(self.length)
        y, windows = jax.vmap(filtered)(kernels[: len(self.D)], self.D[...])
        if self.bidirectional:
            y += jax.vmap(ahead)(kernels[len(self.D) :])
        y = jnp.swapaxes(y, 0, 1).reshape(len(x), y.shape[0] * y.shape[2])
        if self.W is not None:
            value, gate = jnp.split(self.W(gelu(y)), 2, axis=-1)
            y = value * jax.nn.sigmoid(gate)
        return y, windows[0]
