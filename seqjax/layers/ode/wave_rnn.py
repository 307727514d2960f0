"""Wave-RNN (Keller et al. 2024, arXiv:2309.08045).

    h_t = f(u * h_{t-1} + V x_t) = y_t             h [channels, sites], * a circular convolution

The units stand on a ring, each channel one, and see their neighbours: started as a shift by one
site, u carries what enters at a site around the ring as a wave, which holds a sequence of inputs in
the order in which they came. For copying, and what has to be remembered for as long as a wave runs.

    (u * h)[c, n] = sum_dj u[c, d, j] h[d, n + j - (k - 1) / 2] + b_c              k kernel_size

`init` of u: "shift", "identity" or "uniform" as torch draws it. V starts at 0 but for ones at the
first site of each channel ("first" of `encoder`), or normal at 0.001 ("all"); the release can hold
either fixed while it trains, which is not here. f is relu, tanh or linear.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import option
from seqjax.nn.initialisation import within
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "linear": lambda x: x}
INITS, ENCODERS = ("shift", "identity", "uniform"), ("first", "all")


def neighbours(h: jax.Array, size: int, axes: int) -> jax.Array:
    """What each site sees of h [.., *sites] on a torus of so many axes: [size^axes, .., *sites]."""
    sites = tuple(range(-axes, 0))
    shifts = itertools.product([size // 2 - j for j in range(size)], repeat=axes)
    return jnp.stack([jnp.roll(h, shift, sites) for shift in shifts])


def odd(size: int) -> int:
    """The size of a kernel, which has a middle, or one error."""
    if size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that a site has a middle, got {size}")
    return size


class WaveRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        sites: int | None = None,
        channels: int = 1,
        kernel_size: int = 3,
        activation: str = "relu",
        init: str = "shift",
        encoder: str = "first",
        rngs: nnx.Rngs,
    ):
        self.features = features
        N, C, k = sites or features, channels, odd(kernel_size)
        self.sites, self.channels, self.kernel_size = N, C, k
        self.out_features = C * N
        self.activation = option("activation", activation, ACTIVATIONS)
        option("init", init, INITS)
        if init == "uniform":
            u = within((C * k) ** -0.5)(rngs.params(), (C, C, k))
        else:  # what is at n + 1 comes to n, or stays
            u = jnp.zeros((C, C, k)).at[:, :, k // 2 + (init == "shift")].set(jnp.eye(C))
        self.u = nnx.Param(u)
        self.b = nnx.Param(within((C * k) ** -0.5)(rngs.params(), (C,)))
        first = option("encoder", encoder, ENCODERS) == "first"
        self.V = nnx.Linear(
            features,
            C * N,
            kernel_init=first_site(C) if first else nnx.initializers.normal(0.001),
            rngs=rngs,
        )

    def initial(self):
        return jnp.zeros((self.channels, self.sites))

    def drive(self, x):
        return self.V(x).reshape(-1, self.channels, self.sites)

    def step(self, h, z):
        seen = neighbours(h, self.kernel_size, 1)
        seen = jnp.einsum("cdj,jdn->cn", self.u[...], seen) + self.b[:, None]
        return ACTIVATIONS[self.activation](z + seen)

    def readout(self, h, x):
        return h.reshape(self.out_features)


def first_site(channels: int) -> nnx.Initializer:
    """Ones into the first site of each channel."""

    def start(key, shape, dtype=jnp.float32):
        features, units = shape
        return jnp.zeros(shape, dtype).at[:, :: units // channels].set(1)

    return start
