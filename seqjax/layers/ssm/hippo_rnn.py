"""HiPPO memory inside a gated RNN (Gu et al. 2020, arXiv:2008.07669, sec. 3, fig. 1).

    u_t = W_u [x_t, h_{t-1}] + b_u                            one per memory; reads the old state
    m_t = Abar m_{t-1} + Bbar u_t                             m [memories, order]
    c_t = tanh(W_h [x_t, m_t] + b_h),  g_t = sigmoid(W_g [x_t, m_t] + b_g)
    h_t = (1 - g_t) h_{t-1} + g_t c_t                         h [hidden], y_t = h_t

The coefficients m hold the history of u under a `measure` of `hippo`, with whose signs, scales and
discretisations Abar and Bbar are made. With "legs" the history is all of it, and step n has dt =
1/n (the first holds u itself), no longer shortened after `max_length`; others have `dt`, "legt" in
windows of length 2. By default bilinear for "legs" and zoh for the others, as released. Useful as a
gated RNN whose memory need not be learned: of any length, under any sampling rate.

Options of the release: without `gate` h_t = c_t; `recurrent` adds W_hh h_{t-1} to c_t, and h_{t-1}
to what the gate sees; `memory_feedback` adds sum_n W_um m_{t-1} to u_t; `bias`. Its LMU is measure
"lmu" with dt = 1 / theta, both of these, and neither gate nor bias: here it is `lmu`. W_h and W_g
start Glorot normal, W_u uniform, W_um at zero. A and B are constants; y is h alone.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.layers.ssm.hippo import HiPPO
from seqjax.nn.recurrent import Recurrent


class HippoRNNState(NamedTuple):
    h: jax.Array  # [hidden]
    m: jax.Array  # [memories, order]
    count: jax.Array | None  # int32 [], steps taken, of "legs"


class HippoRNN(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        memories: int = 1,
        order: int | None = None,
        measure: str = "legs",
        discretisation: str | None = None,
        dt: float = 0.01,
        max_length: Annotated[int | None, Range(1)] = None,
        gate: bool = True,
        recurrent: bool = False,
        memory_feedback: bool = False,
        bias: bool = True,
        rngs: nnx.Rngs,
    ):
        self.features, self.out_features = features, hidden or features
        self.hidden = hidden = self.out_features
        self.memories, self.order = memories, order or hidden
        how = discretisation or ("bilinear" if measure == "legs" else "zoh")
        self.memory = HiPPO(memories, measure=measure, state=self.order, discretisation=how, dt=dt)
        self.max_length = max_length
        if self.memory.time_varying:
            self.evaluators = ("sequential",)  # a count of steps has no derivative
        glorot, lecun = nnx.initializers.glorot_normal(), nnx.initializers.lecun_uniform()

        def linear(n, m, init=glorot, bias=bias):
            return nnx.Linear(n, m, use_bias=bias, kernel_init=init, rngs=rngs)

        seen = memories * self.order
        self.W_ux = linear(features, memories, lecun)
        self.W_uh = linear(hidden, memories, lecun, bias=False)
        self.W_um = nnx.Param(jnp.zeros((memories, self.order))) if memory_feedback else None
        self.W_hx, self.W_hm = linear(features, hidden), linear(seen, hidden, bias=False)
        self.W_hh = linear(hidden, hidden, bias=False) if recurrent else None
        self.W_gx = linear(features, hidden) if gate else None
        self.W_gm = linear(seen, hidden, bias=False) if gate else None
        self.W_gh = linear(hidden, hidden, bias=False) if gate and recurrent else None

    def initial(self):
        m = jnp.zeros((self.memories, self.order))
        count = jnp.zeros((), jnp.int32) if self.memory.time_varying else None
        return HippoRNNState(jnp.zeros(self.hidden), m, count)

    def drive(self, x):
        return self.W_ux(x), self.W_hx(x), None if self.W_gx is None else self.W_gx(x)

    def step(self, h, z):
        u, c, g = z
        u = u + self.W_uh(h.h)
        if self.W_um is not None:
            u = u + jnp.sum(self.W_um[...] * h.m, axis=1)
        if h.count is not None:
            before = h.count if self.max_length is None else jnp.minimum(h.count, self.max_length)
            A, B = self.memory.scaled(before)
        else:
            A, B = self.memory.system()
        m = h.m @ A.T + jnp.outer(u, B)
        c = c + self.W_hm(m.reshape(-1))
        c = jnp.tanh(c if self.W_hh is None else c + self.W_hh(h.h))
        if self.W_gm is not None:
            g = g + self.W_gm(m.reshape(-1))
            g = jax.nn.sigmoid(g if self.W_gh is None else g + self.W_gh(h.h))
            c = (1 - g) * h.h + g * c
        return HippoRNNState(c, m, None if h.count is None else h.count + 1)

    def readout(self, h, x):
        del x
        return h.h
