"""Backpropagation through time, whole or truncated: autodiff through the loop over a window.

    bptt      the window is the horizon: its starting state is a constant (Werbos 1990)
    tbptt     every k1 steps the losses of those k1 steps are propagated back over the last k2
              (Williams & Peng 1990); k1 = k2 is bptt in windows of k1

bptt(chunks=(c_1, c_2, ...)) keeps only the states between chunks of c_1 steps and recomputes
inside them, and so on inward (arXiv:1604.06174): L levels of T^(1/(L+1)) steps hold
O(L T^(1/(L+1))) states for L more forward passes. tbptt computes k2/k1 forward passes.

`evaluator="parallel_backward"` runs the loop forward and its adjoint as one scan over the
transposed Jacobians (`seqjax.core.newton`), for cells whose state is a vector.

Time O(T cost(step)), memory O(T n) per window without chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seqjax.core.mesh import loop
from seqjax.core.monoid import select
from seqjax.core.newton import parallel_backward
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.learner import Learner, Loss
from seqjax.nn.base import option

EVALUATORS = ("sequential", "parallel_backward")


class BPTTState(NamedTuple):
    h: State


class TBPTTState(NamedTuple):
    h: State  # before the oldest step that is remembered
    xs: Any  # the last k2 - 1 inputs
    seen: jax.Array  # bool [k2 - 1]: which of them there were


def bptt(
    cell: Cell,
    loss: Loss,
    params: Params = None,
    xs: Any = None,
    *,
    chunks: Sequence[int] = (),
    evaluator: str = "sequential",
    jacobian: str = "dense",
) -> Learner:
    """Backpropagation through each window.

    chunks: recompute inside chunks of so many steps, outermost first; each divides the one before
        and the first the window.
    evaluator: "sequential", or "parallel_backward" with the `jacobian` of the cell's state,
        one of seqjax.core.newton.STRUCTURES.
    """
    option("evaluator of bptt", evaluator, EVALUATORS)
    if chunks and evaluator != "sequential":
        raise ValueError("chunks recompute the sequential loop; parallel_backward stores states")

    def init(params: Params, key: Any = None) -> BPTTState:
        del key
        return BPTTState(cell.start(params))

    def grad(params, state, xs, ys):
        def run(params):
            def step(h, x):
                return cell.step(params, h, x)

            def body(h, now):
                h = step(h, now[0])
                return h, loss(cell.readout(params, h, now[0]), now[1])

            if evaluator == "sequential":
                h, losses = _chunked(body, state.h, (xs, ys), tuple(chunks))
            else:
                hs, h = parallel_backward(step, xs, state.h, jacobian=jacobian)
                at = lambda h, x, y: loss(cell.readout(params, h, x), y)  # noqa: E731
                losses = jax.vmap(at)(hs, xs, ys)
            return jnp.sum(losses), h

        (total, h), grads = jax.value_and_grad(run, has_aux=True)(params)
        return total, grads, BPTTState(lax.stop_gradient(h))

    return Learner(init, grad)


def tbptt(cell: Cell, loss: Loss, params: Params, xs: Any, *, k1: int = 1, k2: int = 20) -> Learner:
    """Truncated backpropagation: every k1 steps over the last k2, for inputs like xs [N, ...].

    A window is cut into pieces of k1 steps, the last of which may be shorter.
    Raises ValueError unless 1 <= k1 <= k2.
    """
    if not 1 <= k1 <= k2:
        raise ValueError(f"tbptt needs 1 <= k1 <= k2, got k1={k1}, k2={k2}")
    back = k2 - 1  # a last piece of one step reaches so far behind itself

    def init(params: Params, key: Any = None) -> TBPTTState:
        del key
        none = jax.tree.map(lambda x: jnp.zeros((back, *x.shape[1:]), x.dtype), xs)
        return TBPTTState(cell.start(params), none, jnp.zeros(back, bool))

    def piece(params, state, xs, ys):
        """The losses of xs, at most k1 steps, back over the last k2."""
        count = len(jax.tree.leaves(xs)[0])
        memory = state.xs, state.seen

        def past(params, h, part):
            def body(h, now):
                x, seen = now
                return select(seen, cell.step(params, h, x), h), None

            return loop(body, h, jax.tree.map(lambda v: v[part], memory))[0]

        constant = past(params, state.h, slice(0, count - 1))

        def run(params):
            def body(h, now):
                h = cell.step(params, h, now[0])
                return h, loss(cell.readout(params, h, now[0]), now[1])

            h = past(params, constant, slice(count - 1, None))
            return jnp.sum(loop(body, h, (xs, ys))[1])

        total, grads = jax.value_and_grad(run)(params)
        # The state moves on by the steps that leave the memory.
        whole = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), state.xs, xs)
        seen = jnp.concatenate([state.seen, jnp.ones(count, bool)])
        x = jax.tree.map(lambda v: v[count - 1], whole)
        h = select(seen[count - 1], cell.step(params, constant, x), constant)
        rest = jax.tree.map(lambda v: v[count:], whole)
        return total, grads, TBPTTState(h, rest, seen[count:])

    def grad(params, state, xs, ys):
        count = len(jax.tree.leaves(xs)[0])
        full = count - count % k1

        def body(carry, now):
            state, total, grads = carry
            value, new, state = piece(params, state, *now)
            return (state, total + value, jax.tree.map(jnp.add, grads, new)), None

        def cut(v):
            return v[:full].reshape(full // k1, k1, *v.shape[1:])

        zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
        carry = state, zero, jax.tree.map(jnp.zeros_like, params)
        carry, _ = loop(body, carry, jax.tree.map(cut, (xs, ys)))
        if full < count:
            carry, _ = body(carry, jax.tree.map(lambda v: v[full:], (xs, ys)))
        state, total, grads = carry
        return total, grads, state

    return Learner(init, grad)


def _chunked(body, h, xs, chunks: tuple[int, ...]):
    """loop(body, h, xs) that recomputes inside chunks."""
    count = len(jax.tree.leaves(xs)[0])
    if not chunks:
        return loop(body, h, xs)
    size, *inner = chunks
    if size < 1 or count % size:
        raise ValueError(f"chunks of {size} steps do not divide {count} steps")

    @jax.checkpoint
    def chunk(h, xs):
        return _chunked(body, h, xs, tuple(inner))

    cut = jax.tree.map(lambda v: v.reshape(count // size, size, *v.shape[1:]), xs)
    h, ys = loop(chunk, h, cut)
    return h, jax.tree.map(lambda v: v.reshape(count, *v.shape[2:]), ys)
