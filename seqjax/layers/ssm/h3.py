"""H3, hungry hungry hippos (Fu et al. 2022, arXiv:2212.14052 sec. 3.1): two SSMs between gates.

    q, k, v = W x + b
    k' = shift(k):   s_t = [B k_t at its place i + s_{t-1} moved by one],  k'_t = C s_t + D k_t
    z = diag(k' v^T):   S4D over the products of a head                    alg. 1
    y = W_o (q^T z) + b_o

The shift SSM remembers the last `shift` keys, so that k'_t v_t^T may pair a value with a key that
came before it; the diagonal one carries the pairs to the query. Heads have `head_size` d channels,
and each of its d^2 products k'_i v_j runs through the head's one diagonal SSM. (The released code
lays k, v, q out as [heads, d] and y as [d, heads]; here all are [heads, d].)

B of the shift starts as a delta at place 0, C uniform in +- shift^-1/2; the diagonal SSM is `s4d`
with any of its spectra (`init`) and, as released, "lin" and the bilinear rule by default.

The state is the window of the last `shift` keys (s is B convolved with it: see `shifted`) and that
of the diagonal SSM. Evaluators: those of the diagonal SSM; the shift is a short convolution. Of the
kernel's options not here: S4 in place of S4D (mode "nplr"), and A, B shared by several heads
(n_ssm).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.layers.ssm.s4d import S4D
from seqjax.nn.base import Layer
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.ops.convolution import fft_convolution
from seqjax.ops.diagonal_ssm import diagonal_ssm


class H3State(NamedTuple):
    window: Array  # [shift, features], newest last
    h: Array  # complex [head_size^2, heads, state / 2]


class ShiftSSM(nnx.Module):
    """k [T, features] to C s + D k, and the window of the last `size` keys."""

    ops = ("short_convolution",)

    def __init__(self, features: int, size: int, *, rngs: nnx.Rngs):
        self.B = nnx.Param(jnp.zeros((features, size)).at[:, 0].set(1))
        C = nnx.initializers.uniform(2 * size**-0.5)(rngs.params(), (features, size))
        self.C = nnx.Param(C - size**-0.5)
        self.D = nnx.Param(jax.random.normal(rngs.params(), (features,)))

    def kernel(self) -> Array:
        """The taps [size + 1, features], present first: sum_i C_{i+l} B_i for the lag l."""
        size = self.B.shape[1]
        taps = [jnp.sum(self.C[:, lag:] * self.B[:, : size - lag], axis=1) for lag in range(size)]
        return jnp.stack([*taps, jnp.zeros_like(taps[0])])  # the oldest key has left

    def shifted(self, window: Array) -> Array:
        """s [features, size] of a window [size, features]: s_i = sum_l B_{i-l} k_{t-l}."""
        return jax.vmap(jnp.convolve)(self.B[...], window[::-1].T)[:, : len(window)]

    def __call__(self, k: Array, window: Carry, flow: Flow) -> tuple[Array, Array]:
        return fft_convolution(k, self.kernel(), self.D[...], window, flow=flow.of())


class H3(Layer):
    ops = ("diagonal_ssm",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        head_size: int = 1,
        state: int = 64,
        shift: int = 64,
        init: str = "lin",
        discretisation: str = "bilinear",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.heads, self.head_size, self.shift = (
            per_head("features", features, head_size),
            head_size,
            shift,
        )
        linear = partial(nnx.Linear, features, features, rngs=rngs)
        self.W_q, self.W_k, self.W_v, self.W_o = linear(), linear(), linear(), linear()
        self.keys = ShiftSSM(features, shift, rngs=rngs)
        self.diagonal = S4D(
            self.heads,
            state=state,
            init=init,
            discretisation=discretisation,
            dt_min=dt_min,
            dt_max=dt_max,
            mix=False,
            rngs=rngs,
        )

    def initial(self):
        each = self.diagonal.initial()
        copies = jnp.zeros((self.head_size**2, *each.shape), each.dtype)
        return H3State(jnp.zeros((self.shift, self.features)), copies)

    def run(self, x, h, flow):
        d = self.head_size
        split = partial(split_heads, heads=self.heads)
        q, k, v = split(self.W_q(x)), self.W_k(x), split(self.W_v(x))
        k, window = self.keys(k, h.window, flow)
        pairs = split(k)[:, :, :, None] * v[:, :, None, :]  # [T, heads, d, d]
        pairs = pairs.reshape(len(x), self.heads, d * d)

        def scan(u, h):
            y, h = diagonal_ssm(u, *self.diagonal.system(), h, flow=flow)
            return y.astype(u.dtype) + self.diagonal.D[...][None] * u, h

        z, last = jax.vmap(scan, in_axes=(2, 0), out_axes=(2, 0))(pairs, h.h)
        y = jnp.einsum("thi,thij->thj", q, z.reshape(len(x), self.heads, d, d))
        return self.W_o(merge_heads(y)), H3State(window, last)
