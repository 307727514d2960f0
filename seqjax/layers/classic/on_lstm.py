"""Ordered-neurons LSTM (Shen et al. 2019, arXiv:1810.09536): units are forgotten in order.

    f~_t = cumax(W_f~ x_t + U_f~ h_{t-1} + b_f~)           [hidden / chunk]            eq. 9
    i~_t = 1 - cumax(W_i~ x_t + U_i~ h_{t-1} + b_i~)                                   eq. 10
    w_t  = f~_t * i~_t                                                                 eq. 11
    f^_t = f_t * w_t + (f~_t - w_t)                                                    eq. 12
    i^_t = i_t * w_t + (i~_t - w_t)                                                    eq. 13
    c_t  = f^_t * c_{t-1} + i^_t * tanh(W_c x_t + U_c h_{t-1} + b_c)                   eq. 14
    h_t  = o_t * tanh(c_t) = y_t                           f_t, i_t, o_t as in `lstm`

cumax(a) = cumsum(softmax(a)) rises from near 0 to 1: what is erased and what is written are two
ends of the units, so low ones hold what changes with each word and high ones what lasts. For
language, whose trees can be read off the master gates: `distances`. Each entry of f~ and i~ stands
for `chunk` units next to each other (C in the paper, which has 10).

Rows of W, U and b are stacked in the order i~, f~, o, c, i, f, as in the authors' code. All biases
start at 0. Their drop of the weights U in training is not here.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.flow import Carry, Flow
from seqjax.layers.classic.lstm import LSTMState
from seqjax.nn.initialisation import recurrent_weights
from seqjax.nn.recurrent import Recurrent
from seqjax.nn.states import entering


def cumax(a: Array) -> Array:
    return jnp.cumsum(jax.nn.softmax(a, axis=-1), axis=-1)


class ONLSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        chunk: int = 1,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        self.features, self.chunk = features, chunk
        H = self.out_features = hidden or features
        if H % chunk:
            raise ValueError(f"hidden={H} is not a multiple of chunk={chunk}")
        self.masters = H // chunk
        self.W = nnx.Linear(features, 4 * H + 2 * self.masters, rngs=rngs)  # carries b
        draw = [(self.masters, 2), (H, 4)]
        U = [
            recurrent_weights(n, blocks, columns=H, init=recurrent_init, rngs=rngs)
            for n, blocks in draw
        ]
        self.U = nnx.Param(jnp.concatenate(U))

    def initial(self):
        h = jnp.zeros(self.out_features)
        return LSTMState(h, h)

    def drive(self, x):
        return self.W(x)

    def gates(self, h: Array, z: Array) -> tuple[Array, Array, Array]:
        """i~ and f~ [hidden / chunk], and what the other gates are made of [4 hidden]."""
        masters, rest = jnp.split(z + self.U @ h, [2 * self.masters])
        i, f = jnp.split(masters, 2)
        return 1 - cumax(i), cumax(f), rest

    def step(self, state, z):
        i_master, f_master, rest = self.gates(state.h, z)
        i_master, f_master = (jnp.repeat(gate, self.chunk) for gate in (i_master, f_master))
        o, g, i, f = jnp.split(rest, 4)
        w = f_master * i_master
        f = jax.nn.sigmoid(f) * w + (f_master - w)
        i = jax.nn.sigmoid(i) * w + (i_master - w)
        c = f * state.c + i * jnp.tanh(g)
        return LSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)

    def readout(self, state, x):
        return state.h

    def distances(self, x: Array, h: LSTMState | None = None) -> tuple[Array, Array]:
        """How much of the units each step forgets, 1 - mean f~_t, and writes, mean i~_t: [B, T].

        The first is the syntactic distance before a word (eq. 15, up to scale): where it is large,
        a constituent ends. x [B, T, features]; h a batch of states.
        """

        def one(x, h):
            carry, flow = Carry(h, self.start()), Flow()
            before = entering(self.states(x, carry, flow)[0], carry, flow)
            i_master, f_master, _ = jax.vmap(self.gates)(before.h, self.drive(x))
            return 1 - f_master.mean(1), i_master.mean(1)

        return jax.vmap(one)(x, self.batch_state(len(x), x.dtype) if h is None else h)
