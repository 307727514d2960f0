"""The students of supervised memory training: networks that update a memory m [K, features].

    m_t = update(m_{t-1}, embed(x_t))            y_t = readout(m_t)

    smt_memory_rnn    update is a Transformer over the memory tokens and the input (the paper's)
    any other name    of a recurrent layer of LAYERS with its state h between two projections:
                      m_t = norm(P_out step(P_in m_{t-1}, W x_t)), "elman" and "gru" among them

The readout is a causal Transformer over the memory tokens, the last of which gives the logits, as
the official code has it. `as_student_cell` makes the cell that BPTT and every other learner takes:
the same student on either side of a comparison.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.core.flow import Flow
from seqjax.core.mesh import loop
from seqjax.layers.seq2seq.smt_memory_rnn import MemoryUpdate
from seqjax.learn.cell import Cell, Params
from seqjax.learn.influence import from_vector, to_vector
from seqjax.nn.recurrent import Recurrent
from seqjax.nn.transformer import Transformer, causal, normalise_memory
from seqjax.zoo import make


class Projected(nnx.Module):
    """m_t = norm(P_out h_t), h_t = step(P_in m_{t-1}, drive(z)): the layer's state is never kept.

    P_out starts as the transpose of P_in, an orthogonal matrix: what the step keeps, m keeps.
    """

    def __init__(self, layer: Recurrent, size: int, *, rngs: nnx.Rngs):
        if not isinstance(layer, Recurrent):
            raise ValueError(f"a student needs a layer with a step, got {type(layer).__name__}")
        self.layer = layer
        inner = len(to_vector(layer.start()))
        P = nnx.initializers.orthogonal()(rngs.params(), (inner, size), jnp.float32)
        self.P_in, self.P_out = nnx.Param(P), nnx.Param(P.T)

    def __call__(self, m: Array, z: Array) -> Array:
        h = from_vector(self.layer.start(), self.P_in[...] @ m.ravel())
        h = self.layer.step(h, jax.tree.map(lambda z: z[0], self.layer.driven(z[None], Flow())))
        return normalise_memory((self.P_out[...] @ to_vector(h)).reshape(m.shape))


class Student(nnx.Module):
    """embed, update, readout; `memory` and `features` are the teacher's."""

    def __init__(
        self,
        vocabulary: int,
        update: MemoryUpdate | Projected,
        *,
        outputs: int | None = None,
        features: int,
        memory: int,
        inputs: int | None = None,
        readout_depth: int = 4,
        heads: int = 8,
        rngs: nnx.Rngs,
    ):
        """inputs: the size of what `update` reads of a token, if not `features`."""
        self.features, self.memory = features, memory
        draw = nnx.initializers.normal(1.0)
        self.embed = nnx.Param(draw(rngs.params(), (vocabulary, inputs or features), jnp.float32))
        self.update = update
        self.decoder = Transformer(features, depth=readout_depth, heads=heads, rngs=rngs)
        self.head = nnx.Linear(features, outputs or vocabulary, rngs=rngs)

    def start(self) -> Array:
        """The memory before anything was seen, for a student without a teacher."""
        return jnp.zeros((self.memory, self.features), self.head.kernel.dtype)

    def __call__(self, m: Array, x: Array) -> Array:
        """The memory [K, features] after the token x."""
        return self.update(m, self.embed[x])

    def readout(self, m: Array) -> Array:
        """Logits [outputs]."""
        return self.head(self.decoder(m, sees=causal(len(m)))[-1])


def make_student(
    name: str,
    vocabulary: int,
    *,
    outputs: int | None = None,
    features: int = 256,
    memory: int = 16,
    depth: int = 8,
    readout_depth: int = 4,
    heads: int = 8,
    rngs: nnx.Rngs,
    **options: Any,
) -> Student:
    """A student by name: "smt_memory_rnn", or any recurrent layer, whose options follow.

    depth: of the Transformer of smt_memory_rnn; readout_depth: of the readout of all.
    """
    if name == "smt_memory_rnn":
        options = {"expansion": 2.0, **options}
        update = MemoryUpdate(features, depth=depth, heads=heads, rngs=rngs, **options)
    else:
        layer = make(name, features, rngs=rngs, **options)
        update = Projected(layer, memory * features, rngs=rngs)  # type: ignore[arg-type]
    return Student(
        vocabulary,
        update,
        outputs=outputs,
        features=features,
        memory=memory,
        readout_depth=readout_depth,
        heads=heads,
        rngs=rngs,
    )


def as_student_cell(student: Student) -> tuple[Cell, Params]:
    """The student as a cell with the state m, and its parameters. It starts from zeros."""
    graph, params, rest = nnx.split(student, nnx.Param, ...)

    def merge(params):
        return nnx.merge(graph, params, rest)

    return Cell(
        lambda params: merge(params).start(),
        lambda params, m, x: merge(params)(m, x),
        lambda params, m, x: merge(params).readout(m),
    ), params


def roll(student: Student, m: Array, x: Array, *, detach: bool = False) -> Array:
    """The memories m_0 .. m_T [T + 1, K, features] that the student makes of x [T], from m = m_0.

    detach: every update starts from a constant, so that no gradient goes back in time.
    """

    def body(m, x):
        m = student(lax.stop_gradient(m) if detach else m, x)
        return m, m

    return jnp.concatenate([m[None], loop(body, m, x)[1]])
