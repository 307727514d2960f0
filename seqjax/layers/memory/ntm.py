"""Neural Turing machine (arXiv:1410.5401): heads that a controller moves over a memory.

Of each head, by the output o_t of the controller (`external`), and the memory M [cells, width]:

    k, beta, g, s, gamma = E o_t + d                     beta by softplus, g sigmoid, s softmax,
                                                         gamma 1 + softplus
    w^c_n = softmax_n(beta cos(k, M_n))                  by content (eq. 5, 6)
    w^g   = g w^c + (1 - g) w_{t-1}                      or where it was (eq. 7)
    w~_n  = sum_j w^g_j s_{n-j}                          moved, around the circle (eq. 8)
    w_n   = w~_n^gamma / sum_m w~_m^gamma                sharpened (eq. 9)
    a read head:     r = sum_n w_n M_n                   (eq. 2)
    a write head:    M_n = M_n (1 - w_n e) + w_n a       e by sigmoid (eq. 3, 4)

heads: "r" reads and "w" writes, one after the other, each where and what the heads before it have
left: in "rw" what was written is read in the next step, in "wr" in the same one. Equal letters in
a row look at one memory and act at once, as sec. 3.2 has it: all erase, then all add. The paper
leaves open the order and the ranges; released implementations have "rw" and the ones above.
shifts: the weights of s, of which the first moves a head by shifts // 2 cells to the right.
squashed: k and a by tanh, as in arXiv:1807.08518.

The first memory, of that paper, which found constant the most reliable: `memory_init` "constant",
1e-6 everywhere, "learned", or "random", tanh of normal numbers, drawn once. The first weighting of
each head is the softmax of learned numbers, and r_0 = 0.

For algorithms over what was shown: copies, look-ups, counts of any length that the memory holds.
What an LSTM keeps in its units is here apart from how it is processed, so that longer inputs than
those trained on can be right.
"""

from itertools import accumulate, groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.memory.addressing import content, erase_and_add, sharpen, shift
from seqjax.layers.memory.external import ExternalMemory
from seqjax.nn.activations import sigmoid
from seqjax.nn.base import Frozen, Precise, option
from seqjax.nn.linear import wide

MEMORIES = ("constant", "learned", "random")


class NTMState(NamedTuple):
    memory: jax.Array  # [cells, width]
    weights: jax.Array  # [heads, cells], in the order of `heads`
    reads: jax.Array  # [read heads, width]
    controller: Any  # LSTMState, or [hidden]


class NTM(ExternalMemory):
    def __init__(
        self,
        features: int,
        *,
        cells: int = 128,
        width: int = 20,
        heads: str = "rw",
        shifts: int = 3,
        controller: str = "lstm",
        hidden: int | None = None,
        memory_init: str = "constant",
        squashed: bool = False,
        eps: float = 1e-8,
        rngs: nnx.Rngs,
    ):
        if set(heads) != {"r", "w"}:
            raise ValueError(f"heads are letters r and w, at least one of each, got {heads!r}")
        if shifts > cells:
            raise ValueError(f"shifts are at most the cells, {cells}, got {shifts}")
        super().__init__(
            features,
            reads=heads.count("r"),
            width=width,
            controller=controller,
            hidden=hidden,
            squashed=squashed,
            rngs=rngs,
        )
        self.cells, self.write_heads, self.eps = cells, heads.count("w"), eps
        self.memory_init = option("memory_init", memory_init, MEMORIES)
        self.acts = tuple((letter, len(list(run))) for letter, run in groupby(heads))
        sizes = (width, 1, 1, shifts, 1)  # of k, beta, g, s and gamma; e and a follow
        self.ends = tuple(accumulate(sizes))

        def emitted(letter, count):
            size = sum(sizes) + (2 * width if letter == "w" else 0)
            return nnx.Linear(self.hidden, count * size, rngs=rngs)

        self.E = nnx.List([emitted(*act) for act in self.acts])
        self.w_0 = Precise(jax.random.normal(rngs.params(), (len(heads), cells)))
        if memory_init != "constant":
            kind = Precise if memory_init == "learned" else Frozen
            self.M_0 = kind(jnp.tanh(0.5 * jax.random.normal(rngs.params(), (cells, width))))

    def initial(self):
        shape = (self.cells, self.width)
        M = jnp.full(shape, 1e-6) if self.memory_init == "constant" else self.M_0[...]
        return NTMState(M, jax.nn.softmax(self.w_0[...], axis=1), *self.begin())

    def use(self, state, o):
        M, weights, reads = state.memory, [], []
        first = jnp.split(state.weights, list(accumulate(count for _, count in self.acts))[:-1])
        for (letter, count), E, w in zip(self.acts, self.E, first):
            emitted = wide(E(o)).reshape(count, -1)
            k, beta, g, s, gamma, *written = jnp.split(emitted, self.ends, axis=1)
            w = self.focus(M, w, k, beta, g, s, gamma)
            if letter == "r":
                reads.append(w @ M)
            else:
                e, a = jnp.split(written[0], 2, axis=1)
                M = erase_and_add(M, w, sigmoid(e), self.squash(a))
            weights.append(w)
        return NTMState(M, jnp.concatenate(weights), jnp.concatenate(reads), state.controller)

    def focus(self, M, w, k, beta, g, s, gamma):
        """The new weightings of heads [R, N] that were at w, from what they emit, [R, ..] each."""
        g, s = sigmoid(g), jax.nn.softmax(s, axis=1)
        w_c = content(self.squash(k), jax.nn.softplus(beta[:, 0]), M, self.eps)
        w_g = g * w_c + (1 - g) * w
        return sharpen(shift(w_g, s), 1 + jax.nn.softplus(gamma[:, 0]))
