"""Legendre memory unit (Voelker, Kajic & Eliasmith, NeurIPS 2019), and its parallel form.

A linear memory m holds the last `theta` steps of a signal u as Legendre coefficients:

    m_t = Abar m_{t-1} + Bbar u_t                              m [memories, order]       eq. 4
    theta m' = A m + B u,   A_ij = (2i+1) (-1 if i < j else (-1)^(i-j+1)),   B_i = (2i+1) (-1)^i
    u(t - theta') ~ sum_i P_i(2 theta'/theta - 1) m_i(t)       P_i Legendre polynomials  eq. 3

Coupled with a nonlinear state (the paper's layer, `coupled`):

    u_t = e_x x_t + e_h h_{t-1} + e_m m_{t-1}                                            eq. 7
    h_t = tanh(W_x x_t + W_h h_{t-1} + W_m m_t)                reads the new memory      eq. 6

or fed from below only (Chilkuri & Eliasmith 2021, arXiv:2102.11417, `coupled=False`), where the
memory is linear and time-invariant: its states are a convolution of u with Abar^l Bbar,

    u_t = relu(W_u x_t + b_u),    y_t = relu(W_y [m_t; x_t] + b_y)

Abar, Bbar discretise with a step of 1: "zoh" exactly (the released code), "forward" by Euler's
I + A / theta (the paper's example). They are constants. e_x, e_h start LeCun uniform, e_m at zero,
W Glorot normal. The paper has one memory per layer; with several, each has its own u.

`measure` takes another memory of HiPPO's (arXiv:2008.07669): "legt" is the same window with other
units, "fout" the window in Fourier coefficients, "lagt" a decay by e in 2 theta steps. Coupled, it
is then HiPPO-RNN's kind of layer. "legs" is not time-invariant and has no theta: `hippo` has it.
Left out of the released constructor: a nonlinear cell of another kind (hidden_cell), dropouts, and
trainable A and B (trainable_theta).

Evaluators of the parallel form: "sequential", and "fft", which is the default for more than 64
steps without resets or masked ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.layers.ssm.hippo import transition
from seqjax.layers.ssm.lssl import krylov
from seqjax.nn.base import Frozen, option
from seqjax.nn.recurrent import Recurrent
from seqjax.ops.convolution import fft_convolution

WINDOWS = {"lmu": 1.0, "legt": 2.0, "fout": 2.0, "lagt": 1.0}  # as HiPPO's A has them


class LMUState(NamedTuple):
    h: Array  # [hidden]
    m: Array  # [memories * order]


def window_of(
    theta: float, measure: str, order: int, discretisation: str
) -> tuple[np.ndarray, np.ndarray]:
    """Abar [order, order] and Bbar [order] of a window of theta steps."""
    if theta <= 0:
        raise ValueError(f"theta is a number of steps, > 0; got {theta}")
    step = WINDOWS[option("measure", measure, WINDOWS)] / theta
    A, B = (step * z for z in transition(measure, order))
    if option("discretisation", discretisation, ("zoh", "forward")) == "forward":
        return np.eye(order) + A, B
    import scipy.linalg  # a fifth of a second, of every command's start

    joined = scipy.linalg.expm(np.block([[A, B[:, None]], [np.zeros((1, order + 1))]]))
    return joined[:order, :order], joined[:order, order]


class LMU(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        order: int = 16,
        theta: float = 128.0,
        measure: str = "lmu",
        memories: int = 1,
        coupled: bool = True,
        discretisation: str = "zoh",
        rngs: nnx.Rngs,
    ):
        hidden = hidden or features
        self.features, self.out_features, self.hidden = features, hidden, hidden
        self.memories, self.order, self.coupled = memories, order, coupled
        A, B = window_of(theta, measure, order, discretisation)
        self.A, self.B = Frozen(jnp.asarray(A)), Frozen(jnp.asarray(B))
        lecun, glorot = nnx.initializers.lecun_uniform(), nnx.initializers.glorot_normal()

        def draw(init, n, m):
            return nnx.Param(init(rngs.params(), (n, m), jnp.float32))

        if coupled:
            self.e_x, self.e_h = draw(lecun, features, memories), draw(lecun, hidden, memories)
            self.e_m = nnx.Param(jnp.zeros((memories * order, memories)))
            self.W_x, self.W_h = draw(glorot, features, hidden), draw(glorot, hidden, hidden)
            self.W_m = draw(glorot, memories * order, hidden)
        else:
            self.evaluators = ("sequential", "fft")
            self.W_u = nnx.Linear(features, memories, rngs=rngs)
            self.W_y = nnx.Linear(memories * order + features, hidden, rngs=rngs)

    def initial(self):
        m = jnp.zeros(self.memories * self.order)
        return LMUState(jnp.zeros(self.hidden), m) if self.coupled else m

    def drive(self, x):
        if not self.coupled:
            return jax.nn.relu(self.W_u(x))
        return x @ self.e_x[...], x @ self.W_x[...]

    def step(self, h, z):
        if not self.coupled:
            return self.remember(h, z)
        u, w = z
        m = self.remember(h.m, u + h.h @ self.e_h[...] + h.m @ self.e_m[...])
        return LMUState(jnp.tanh(w + h.h @ self.W_h[...] + m @ self.W_m[...]), m)

    def remember(self, m, u):
        m = m.reshape(self.memories, self.order) @ self.A[...].T + jnp.outer(u, self.B[...])
        return m.reshape(-1)

    def readout(self, h, x):
        if self.coupled:
            return h.h
        return jax.nn.relu(self.W_y(jnp.concatenate([h.astype(x.dtype), x])))

    def states(self, x, h, flow):
        if not self.coupled and flow.resets is None and flow.mask is None and len(x):
            if flow.evaluator == "fft" or (flow.evaluator is None and len(x) > 64):
                return self.convolve(self.drive(x), h.now)
        return super().states(x, h, flow.of(Recurrent.evaluators))

    def convolve(self, u, m):
        """The memory [T, memories * order] after each u [T, memories], from any m, and the last."""
        A, B, d = self.A[...], self.B[...], self.memories
        entered = m.reshape(d, self.order) @ A.T
        response = krylov(A, jnp.concatenate([B[None], entered]), len(u))
        kernel, left = response[:, 0], response[:, 1:]
        each = jnp.repeat(u.astype(m.dtype), self.order, axis=1)
        written, _ = fft_convolution(each, jnp.tile(kernel, (1, d)))
        states = written + left.reshape(len(u), -1)
        return states, states[-1]
