"""Leaky echo state network (Jaeger 2001; Jaeger et al. 2007 for the leak).

    h_t = (1 - a) * h_{t-1} + a * f(W h_{t-1} + W_in x_t + b) = y_t         h [hidden], a in (0, 1]

A reservoir: W, W_in, b and the leak a are drawn once and `Frozen`; what is trained is a readout of
the states, outside this layer. f is tanh or sigmoid; the leak is one number or one per unit.

W has a fraction `density` of its entries, uniform on [-1, 1], scaled to the `spectral_radius` given
for; below 1 (with tanh) the state forgets where it started, the echo state property. W_in and b are
uniform on [-input_scale, input_scale] and [-bias_scale, bias_scale]; of W_in a fraction
`input_density` is kept.

Of the constructor of reservoirpy not here: other laws of W and W_in (normal and Bernoulli there), a
scale for each input feature, which the data can carry, and matrices given: set `layer.W`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from seqjax.nn.base import Frozen, option
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


def radius(W: jax.Array) -> jax.Array:
    """The spectral radius lim |W^k|^(1/k), at k = 2^30, by squaring (Gelfand's formula).

    Unlike an eigensolver for general matrices it runs on every device and under jit and vmap.
    """

    def square(_, carry):
        P, log, k = carry  # W^k = exp(k log) P
        P = P @ P
        norm = jnp.linalg.norm(P) + jnp.finfo(W.dtype).tiny
        return P / norm, log + jnp.log(norm) / (2 * k), 2 * k

    one = jnp.ones((), W.dtype)
    return jnp.exp(lax.fori_loop(0, 30, square, (W, 0 * one, one))[1])


class ESN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        spectral_radius: float = 0.9,
        leak: float | Sequence[float] = 1.0,
        density: float = 0.1,
        input_density: float = 1.0,
        input_scale: float = 1.0,
        bias_scale: float = 0.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        self.features = features
        H = self.out_features = hidden or features
        self.activation = option("activation", activation, ACTIVATIONS)
        leaks = jnp.array(leak)
        if leaks.shape not in ((), (H,)):
            raise ValueError(f"leak must be one number or {H} of them, got {leak}")

        def uniform(*shape):
            return jax.random.uniform(rngs.params(), shape, minval=-1, maxval=1)

        W = jnp.where(jax.random.bernoulli(rngs.params(), density, (H, H)), uniform(H, H), 0)
        self.W = Frozen(W * (spectral_radius / jnp.maximum(radius(W), 1e-6)))
        W_in = input_scale * uniform(H, features)
        if input_density < 1:
            kept = jax.random.bernoulli(rngs.params(), input_density, W_in.shape)
            W_in = jnp.where(kept, W_in, 0)
        self.W_in = Frozen(W_in)
        self.b = Frozen(bias_scale * uniform(H))
        self.a = Frozen(jnp.broadcast_to(leaks, (H,)))

    def initial(self):
        return jnp.zeros(self.out_features)

    def drive(self, x):
        return x @ self.W_in[...].T + self.b[...][None]

    def step(self, h, z):
        a = self.a[...]
        return (1 - a) * h + a * ACTIVATIONS[self.activation](self.W[...] @ h + z)
