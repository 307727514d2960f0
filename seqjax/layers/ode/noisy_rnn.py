"""NoisyRNN (Lim et al. 2021, arXiv:2102.04877): a Lipschitz network with noise in training.

    h_t = h_{t-1} + d * m_t * (alpha A h_{t-1} + tanh(W h_{t-1} + U x_t + b)) + a_t = y_t
    m_t ~ U[1 - mult_noise, 1],   a_t ~ add_noise N(0, 1)                      all [hidden]

A and W as in `lipschitz_rnn`. An Euler-Maruyama step of a stochastic differential equation, whose
noise acts as a regulariser: it widens margins, and flattens minima. Noise is drawn with a key;
without one m_t = 1 and a_t = 0, and with `learned_dt` False d is the number dt: then it is
`lipschitz_rnn`, whose d, with `learned_dt` (the release's solver "noisy"), is a parameter for each
unit, starting at dt. (The release adds noise only then; the paper's noise grows with sqrt(dt).)
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.common import accumulation_dtype
from seqjax.layers.ode.lipschitz_rnn import LipschitzRNN
from seqjax.nn.base import Precise


class NoisyRNN(LipschitzRNN):
    noisy = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        dt: float = 0.01,
        learned_dt: bool = True,
        alpha: float = 1.0,
        beta: float = 0.8,
        gamma_A: float = 0.01,
        gamma_W: float = 0.01,
        add_noise: float = 0.02,
        mult_noise: float = 0.02,
        init_std: float = 1.0,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            dt=dt,
            alpha=alpha,
            beta=beta,
            gamma_A=gamma_A,
            gamma_W=gamma_W,
            init_std=init_std,
            rngs=rngs,
        )
        self.add_noise, self.mult_noise = add_noise, mult_noise
        self.d = Precise(jnp.full(self.out_features, dt)) if learned_dt else None

    def drive(self, x, flow):
        H, dtype = (self.out_features,), accumulation_dtype(x.dtype)

        def draw(key):
            below, normal = jax.random.split(key)
            m = 1 - self.mult_noise * jax.random.uniform(below, H, dtype)
            return m, self.add_noise * jax.random.normal(normal, H, dtype)

        return self.U(x), None if flow.key is None else jax.vmap(draw)(flow.key)

    def step(self, h, z, matrices=None):
        z, noise = z
        d = self.dt if self.d is None else self.d[...]
        moved = d * self.field(h, z, matrices or self.shared())
        if noise is None:
            return h + moved
        m, a = noise
        return h + m * moved + a
