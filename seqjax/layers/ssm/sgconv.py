"""SGConv: structured global convolution (Li et al. 2022, arXiv:2210.09298).

    k = [k_0, k_1, ..., k_{S-1}] / Z,   k_i = alpha^i Upsample(w_i, 2^max(i-1, 0) d)      sec. 3
    y_t = sum_l k_l u_{t-l} + D u_t

Each w_i has d = `kernel_size` parameters; they are stretched (linearly) over spans that double, and
fall in size with distance: few parameters in the length, and a kernel that decays. S is such that
the kernel reaches `length`, 1 + ceil(log2(length / d)). "sum" lays scale i over all of the first
2^i d steps instead and adds up. 1/alpha is spread evenly over the channels, from `decay_min` to
`decay_max`; as released, alpha^i counts from the last scale, and Z, the norm of the whole kernel
when it was drawn, stays as it is, so that only the start is normalised.

With `mix` the output is GLU(W gelu(y)), S4's block; without it `filters` kernels per channel make
filters * features outputs. The state is the last length - 1 inputs; evaluators as in `hyena`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.layers.base import Frozen, Layer, option
from seqjax.layers.parts import gelu
from seqjax.ops.convolution import CONVOLUTION, fft_convolution


def stretch(w: Array, factor: int) -> Array:
    """w [..., d] to [..., factor d], linear between the middles of equal cells, flat beyond."""
    d = w.shape[-1]
    place = np.clip((np.arange(factor * d) + 0.5) / factor - 0.5, 0, d - 1)
    low = np.minimum(place.astype(int), max(d - 2, 0))
    part = jnp.asarray(place - low, w.dtype).reshape((1,) * (w.ndim - 1) + (-1,))
    return (1 - part) * w[..., low] + part * w[..., np.minimum(low + 1, d - 1)]


class SGConv(Layer):
    evaluators = tuple(CONVOLUTION.evaluators)

    def __init__(
        self,
        features: int,
        *,
        length: int = 1024,
        kernel_size: int = 64,
        mode: str = "cat",
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        filters: int = 1,
        mix: bool = True,
        rngs: nnx.Rngs,
    ):
        if length < 1 or kernel_size < 1:
            raise ValueError(f"lengths are at least 1, got {length} and {kernel_size}")
        self.features, self.out_features = features, features if mix else filters * features
        self.length, self.mode = length, option("mode", mode, ("cat", "sum"))
        self.decay_min, self.decay_max = decay_min, decay_max
        S = 1 + max(0, math.ceil(math.log2(length / kernel_size)))
        self.w = nnx.Param(jax.random.normal(rngs.params(), (S, filters, features, kernel_size)))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (filters, features)))
        self.Z = Frozen(jnp.linalg.norm(self.unscaled(), axis=-1))
        wide = filters * features
        self.W = nnx.Linear(wide, 2 * features, rngs=rngs) if mix else None

    def initial(self):
        return jnp.zeros((self.length - 1, self.features))

    def unscaled(self) -> Array:
        """Z k [filters, features, 2^(S-1) d]."""
        S, d = self.w.shape[0], self.w.shape[3]
        base = np.linspace(self.decay_min, self.decay_max, self.features)
        parts = []
        for i in range(S):
            size = jnp.asarray(base ** (S - 1 - i), self.w.dtype)[None, :, None]
            parts.append(
                stretch(size * self.w[i], 2 ** (i if self.mode == "sum" else max(i - 1, 0)))
            )
        if self.mode == "cat":
            return jnp.concatenate(parts, axis=-1)
        total = 2 ** (S - 1) * d
        padded = [jnp.pad(p, ((0, 0), (0, 0), (0, total - p.shape[2]))) for p in parts]
        return jnp.sum(jnp.stack(padded), axis=0)

    def kernel(self, length: int) -> Array:
        """k [filters, features, length], the present first."""
        k = self.unscaled()[..., :length] / self.Z[...][:, :, None]
        return jnp.pad(k, ((0, 0), (0, 0), (0, length - k.shape[2])))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        flags = dict(resets=resets, mask=mask, reset_state=self.start())
        named = evaluator and (evaluator, "sequential")

        def filtered(kernel, D):
            return fft_convolution(x, kernel.T, D, h, evaluator=named, **flags)

        # every filter sees the same inputs, and leaves the same window
        y, windows = jax.vmap(filtered)(self.kernel(self.length), self.D[...])
        y = jnp.swapaxes(y, 0, 1).reshape(len(x), -1)
        if self.W is not None:
            value, gate = jnp.split(self.W(gelu(y)), 2, axis=-1)
            y = value * jax.nn.sigmoid(gate)
        return y, windows[0]
