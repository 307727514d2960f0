"""Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)        state (h, c), each [hidden]
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
    g_t = tanh   (W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t * c_{t-1} + i_t * g_t
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)            p only with `peepholes`
    h_t = o_t * tanh(c_t) = y_t

Rows of W, U and b are stacked in the order i, f, g, o. b_f starts at 1 (Gers et al., sec. 4);
with `chrono`, the longest time scale expected, at log U[1, chrono - 1], and b_i at its negative
(arXiv:1804.11188). U starts orthogonal, block by block, or by `recurrent_init`. `bias` False
takes b out.

The variants of Greff et al. (arXiv:1503.04069, sec. 4) are options; theirs all have peepholes:

    gates        the gates that there are, of "ifo"; one that is not there is 1 (NIG, NFG, NOG)
    coupled      i_t = 1 - f_t, with no weights of its own (CIFG)
    cap_input_gate      min(1 - f_t, i_t) in place of i_t, so that |c_t| <= 1 (arXiv:1707.05589)
    input_activation, output_activation     "tanh" or "linear" (NIAF, NOAF); those of 1997 are
                        "2tanh(a/2)" and "tanh(a/2)"
    full_recurrence     G [i; f; o]_{t-1} enters the gates, too, as in 1997 (FGR); then these gates
                        are part of the state; they and G start at zero

gates "f", coupled, with a linear output activation is `janet` with beta 0: h_t = c_t.

projection (arXiv:1402.1128): h_t = P (o_t * tanh(c_t)), of that size, enters U and is the output;
with `non_recurrent`, P has that many more rows, whose outputs enter nothing (`lstmp`).
cell_clip holds c_t in [-cell_clip, cell_clip], as that paper's implementations do; where it binds,
the gradient is zero. Left out of other constructors: a clip of h (proj_clip), and the dropouts,
which are of weights or of what lies between layers (`stacked`).

heads: h and c are cut into so many, [heads, size], and U has a block for each, [4, heads, size,
size]. As many as units give U as a diagonal, the form that ParaRNN solves by Newton's method
(arXiv:2510.21450): the Jacobian of a step is block diagonal, of 2 x 2 blocks then.

norm (arXiv:1607.06450): LN(W x) + LN(U h) + b in place of W x + U h + b, each LayerNorm over all
four blocks at once and with weights, and h_t = o_t * tanh(LN(c_t)), with weights and a bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Precise, option
from seqjax.nn.initialisation import gate_bias, recurrent, recurrent_weights
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "linear": lambda a: a,
    "2tanh(a/2)": lambda a: 2 * jnp.tanh(a / 2),
    "tanh(a/2)": lambda a: jnp.tanh(a / 2),
}


class LSTMState(NamedTuple):
    h: jax.Array  # [hidden] or [projection + non_recurrent], the output
    c: jax.Array  # [hidden], the cell


class FullLSTMState(NamedTuple):
    h: jax.Array
    c: jax.Array
    gates: jax.Array  # [len(gates), hidden], with `full_recurrence`


class LSTM(Recurrent):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        heads: int | None = None,
        gates: str = "ifo",
        coupled: bool = False,
        cap_input_gate: bool = False,
        full_recurrence: bool = False,
        peepholes: bool = False,
        input_activation: str = "tanh",
        output_activation: str = "tanh",
        projection: int | None = None,
        non_recurrent: int = 0,
        cell_clip: float | None = None,
        norm: bool = False,
        bias: bool = True,
        forget_bias: float = 1.0,
        chrono: float | None = None,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        if gates != "".join(gate for gate in "ifo" if gate in gates):
            raise ValueError(f"gates are some of 'ifo', in this order, got {gates!r}")
        if "f" not in gates and (coupled or chrono is not None):
            raise ValueError(f"coupled and chrono need a forget gate, got gates={gates!r}")
        if cap_input_gate and (coupled or not {"i", "f"} <= set(gates)):
            raise ValueError("cap_input_gate needs gates i and f, of their own")
        if full_recurrence and not gates:
            raise ValueError("full_recurrence is that of the gates: there are none")
        if chrono is not None and not bias:
            raise ValueError("chrono is how the biases start: it needs bias=True")
        if cell_clip is not None and cell_clip <= 0:
            raise ValueError(f"cell_clip is a bound on |c|, > 0; got {cell_clip}")
        if non_recurrent and projection is None:
            raise ValueError("non_recurrent is that of the projection, which must be set")
        if heads is not None and (norm or full_recurrence or projection is not None):
            raise ValueError("heads see themselves only: no norm, full_recurrence or projection")
        self.features, self.coupled, self.cell_clip = features, coupled, cell_clip
        self.capped = cap_input_gate
        H = self.hidden = hidden or features
        self.out_features = (projection or H) + non_recurrent
        self.input_activation = option("input_activation", input_activation, ACTIVATIONS)
        self.output_activation = option("output_activation", output_activation, ACTIVATIONS)
        self.gates = gates.replace("i", "") if coupled else gates
        self.blocks = "".join(block for block in "ifgo" if block in self.gates + "g")
        self.gated = len(self.gates) * H if full_recurrence else 0

        def bias_init(key, shape, dtype):
            b_f = gate_bias(key, H, forget_bias, chrono).astype(dtype)
            first = {"f": b_f} | ({} if chrono is None else {"i": -b_f})
            return jnp.concatenate([first.get(name, jnp.zeros_like(b_f)) for name in self.blocks])

        rows = len(self.blocks) * H
        # carries b, but with norms theirs does
        use_bias = bias and not norm
        self.W = nnx.Linear(features, rows, use_bias=use_bias, bias_init=bias_init, rngs=rngs)
        self.norm_x, self.norm_h, self.norm_c = (
            Norm(n, centre=True, bias=shifts, eps=1e-5) if norm else None
            for n, shifts in ((rows, bias), (rows, False), (H, True))
        )
        if self.norm_x is not None and bias:
            self.norm_x.bias = Precise(bias_init(rngs.params(), (rows,), jnp.float32))
        blocks, columns = len(self.blocks), projection or H
        U = recurrent_weights(
            H, blocks, columns=columns, heads=heads, init=recurrent_init, rngs=rngs
        )
        self.U, self.heads = nnx.Param(U), heads
        self.jacobian = "dense" if heads is None else "block_diagonal"
        self.p = nnx.Param(jnp.zeros((len(self.gates), H))) if peepholes else None
        self.G = nnx.Param(jnp.zeros((self.gated, self.gated))) if full_recurrence else None
        size = (self.out_features, H)
        P = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.P = None if projection is None else nnx.Param(P(rngs.params(), size))

    def initial(self):
        h, c = jnp.zeros(self.out_features), jnp.zeros(self.hidden)
        if self.heads is not None:
            return LSTMState(*(v.reshape(self.heads, -1) for v in (h, c)))
        if self.G is None:
            return LSTMState(h, c)
        return FullLSTMState(h, c, jnp.zeros((len(self.gates), self.hidden)))

    def drive(self, x):
        return self.W(x) if self.norm_x is None else self.norm_x(self.W(x))

    def step(self, state, z, added=None):
        """added [hidden]: what else enters the cell, from a layer below (`highway_lstm`)."""
        h, c, *remembered = state
        mixed = recurrent(self.U[...], h if self.P is None else h[: self.U.shape[1]])
        mixed = z + (mixed if self.norm_h is None else self.norm_h(mixed))
        parts = dict(zip(self.blocks, mixed.reshape(-1, *c.shape)))
        peeps = dict(zip(self.gates, () if self.p is None else self.p.reshape(-1, *c.shape)))
        if self.G is not None:
            recalled = jnp.split(self.G @ remembered[0].reshape(-1), len(self.gates))
            parts |= {gate: parts[gate] + more for gate, more in zip(self.gates, recalled)}

        def gate(name, c):
            if name not in self.gates:
                return jnp.ones_like(c)
            return jax.nn.sigmoid(parts[name] + peeps.get(name, 0) * c)

        f = gate("f", c)
        i = 1 - f if self.coupled else gate("i", c)
        i = jnp.minimum(1 - f, i) if self.capped else i
        c = f * c + i * ACTIVATIONS[self.input_activation](parts["g"])
        c = c if added is None else c + added
        if self.cell_clip is not None:
            c = jnp.clip(c, -self.cell_clip, self.cell_clip)
        o = gate("o", c)
        h = o * ACTIVATIONS[self.output_activation](c if self.norm_c is None else self.norm_c(c))
        h = h if self.P is None else self.P @ h
        if self.G is None:
            return LSTMState(h, c)
        now = {"i": i, "f": f, "o": o}
        return FullLSTMState(h, c, jnp.stack([now[name] for name in self.gates]))

    def readout(self, state, x):
        return state.h.reshape(-1)
