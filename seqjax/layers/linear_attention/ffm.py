"""Fast and forgetful memory (Morad et al. 2023, arXiv:2310.04128).

    x~_t = (W_1 x_t + b_1) * sigmoid(W_2 x_t + b_2)                      M channels       eq. 6
    S_t = exp(alpha + i omega) S_{t-1} + x~_t 1^T                        S complex [M, C]  eq. 9
    z_t = W_3 [Re S_t, Im S_t] + b_3,  g_t = sigmoid(W_4 x_t + b_4)
    y_t = LayerNorm(z_t) * g_t + (W_5 x_t + b_5) * (1 - g_t)             no weights in the norm

alpha [M] are decays, omega [C] frequencies; entry (m, c) of S has the sum of both, so each trace m
fades at its own rate and is read at C phases, which tell how long ago it was written. A prior from
psychology in place of learned gates: useful in reinforcement learning, where it needs little data.

alpha starts evenly spaced from -log(largest) / length to log(1/100) / max_period, and omega at the
periods min_period to max_period, evenly or, with `log_spaced`, by equal ratios. alpha is kept at
-1e-8 or below, and not above -log(largest) / length in size: as released, where that is a limit of
its double precision over the `length` of an update; here it only bounds how fast a trace may fade.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from seqjax.core.monoid import diagonal
from seqjax.nn.base import Precise
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Associative


class FFM(Associative):
    monoid = diagonal

    def __init__(
        self,
        features: int,
        *,
        out_features: int | None = None,
        traces: int = 32,
        contexts: int = 4,
        min_period: float = 1.0,
        max_period: float = 1024.0,
        length: int = 1024,
        log_spaced: bool = False,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = features, out_features or features
        self.traces, self.contexts = traces, contexts
        if not 0 < min_period <= max_period:
            raise ValueError(f"periods {min_period} to {max_period} are not above 0 and in order")
        self.fastest = math.log(np.finfo(np.float64).max) / length - 0.01
        if self.fastest <= 0.01:
            raise ValueError(f"length is {length}, expected below 35000: no decay is left")
        slowest = min(math.log(0.01) / max_period, -1e-6)
        spaced = np.geomspace if log_spaced else np.linspace
        self.alpha = Precise(jnp.linspace(0.01 - self.fastest, slowest, traces))
        periods = spaced(min_period, max_period, contexts)
        self.omega = Precise(jnp.asarray(2 * math.pi / periods, float))
        sizes = traces, traces, self.out_features, self.out_features
        self.W_1, self.W_2, self.W_4, self.W_5 = (
            nnx.Linear(features, size, rngs=rngs) for size in sizes
        )
        self.W_3 = nnx.Linear(2 * traces * contexts, self.out_features, rngs=rngs)
        self.norm = Norm(self.out_features, centre=True, weight=False, eps=1e-5)

    def initial(self):
        return jnp.zeros((self.traces, self.contexts), complex)

    def lift(self, x):
        alpha = jnp.clip(self.alpha[...], -self.fastest, -1e-8)[:, None]
        omega = self.omega[...][None]
        shape = self.traces, self.contexts
        decay = jnp.exp(lax.complex(jnp.broadcast_to(alpha, shape), jnp.broadcast_to(omega, shape)))
        written = (self.W_1(x) * jax.nn.sigmoid(self.W_2(x))).astype(alpha.dtype)[:, None]
        return decay, jnp.broadcast_to(written, shape).astype(decay.dtype)

    def readout(self, h, x):
        z = self.W_3(jnp.stack([h.real, h.imag], axis=-1).reshape(-1).astype(x.dtype))
        g = jax.nn.sigmoid(self.W_4(x))
        return self.norm(z) * g + self.W_5(x) * (1 - g)
