"""Columnar, constructive and columnar-constructive networks: exact RTRL at O(P) by structure.

    columnar       columns side by side, each a small recurrent cell with its own parameters that
                   sees the input and itself only                           arXiv:2103.05787
    constructive   columns one after the other, each also reading those before it; the newest
                   one learns, the ones before are frozen                   arXiv:2302.05326
    ccn            the same with several columns in each stage              arXiv:2302.05326

    h^i_t = step(theta^i, h^i_{t-1}, [x_t, f^1_t .. f^{s-1}_t])     column i of stage s, f its word
    y_t   = readout([f^1_t .. f^S_t])                               learns always, over all of them

The output of a frozen column no longer depends on what is learned, so the influence of the learning
stage is all there is: RTRL is exact for it, at the cost of one stage. Features are normalised by
running means and variances, f^ = (f - mu) / max(sigma, eps), both constants of the step. Frozen
parameters have zero gradient: an optimiser with momentum or weight decay would still move them.

`columns` and `staged` make the cells; the learners differ in them alone. With S stages of p
parameters each: time and memory of a step O(p) and the forward pass of all columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from seqjax.core.mesh import loop
from seqjax.learn.cell import Cell, Params, State
from seqjax.learn.influence import from_vector, influence, to_vector
from seqjax.learn.learner import Learner, Loss, summed
from seqjax.learn.rtrl import rtrl_sparse


def columns(cell: Cell) -> Cell:
    """Copies of `cell` side by side, all reading x: parameters and state stacked on a first axis.

    What a column reads out (a number or a vector) is put beside the others' in one vector.
    """

    def readout(params, h, x):
        return jnp.ravel(jax.vmap(cell.readout, (0, 0, None))(params, h, x))

    return Cell(jax.vmap(cell.start), jax.vmap(cell.step, (0, 0, None)), readout)


def columnar(cell: Cell, loss: Loss, params: Params, xs: Any) -> Learner:
    """Exact RTRL of a columnar network: a cell made by `columns`, with any readout on top."""
    return rtrl_sparse(cell, loss, params, xs)


class StagedParams(NamedTuple):
    """Parameters of a columnar-constructive network."""

    columns: Params  # of every column, leaves [stages, per stage, ...]
    readout: Array  # [outputs, stages * per stage * f]
    bias: Array  # [outputs]


class StagedState(NamedTuple):
    h: State  # of every column, leaves [stages, per stage, ...]
    M: Array  # influence of the stage that learns
    mean: Array  # running mean of the features [stages * per stage * f]
    variance: Array
    step: Array  # int32


def ccn(
    cell: Cell,
    loss: Loss,
    params: StagedParams,
    x: Array,
    *,
    period: int,
    decay: float = 0.999,
    eps: float = 0.01,
) -> Learner:
    """A columnar-constructive network that freezes a stage every `period` steps.

    cell: of one column. It reads a vector [D + F]: x [D] and the features of all columns [F], of
        which those of its own and later stages are zero.
    x: an input [D], for its shape. decay, eps: of the normalisation of features.
    Raises ValueError unless period >= 1.
    """
    if period < 1:
        raise ValueError(f"a stage learns for at least 1 step, got period={period}")
    stages, per_stage = jax.tree.leaves(params.columns)[0].shape[:2]
    stage_cell = columns(cell)
    total = params.readout.shape[1]
    size = total // stages
    wide = jnp.zeros((1, x.shape[-1] + total), params.readout.dtype)
    kept = influence(stage_cell, jax.tree.map(lambda p: p[0], params.columns), wide)

    def init(params: StagedParams, key: Any = None) -> StagedState:
        del key
        h = jax.vmap(stage_cell.start)(params.columns)
        first = jax.tree.map(lambda p: p[0], params.columns)
        zeros = jnp.zeros(total, params.readout.dtype)
        return StagedState(
            h, kept.init(first), zeros, jnp.ones_like(zeros), jnp.zeros((), jnp.int32)
        )

    def features(params, state, x, active):
        """New states of all columns and what they say, stage after stage; what each stage read.

        Stages that do not learn yet say nothing.
        """
        sigma = jnp.maximum(jnp.sqrt(state.variance), eps)

        def stage(carry, now):
            outputs, n = carry
            p, h = now
            read = jnp.concatenate([x, outputs])
            h = stage_cell.step(p, h, read)
            raw = stage_cell.readout(p, h, read)
            place = n * size
            mean = lax.dynamic_slice(state.mean, (place,), (size,))
            scale = lax.dynamic_slice(sigma, (place,), (size,))
            word = jnp.where(n <= active, (raw - mean) / scale, 0)
            outputs = lax.dynamic_update_slice(outputs, word, (place,))
            return (outputs, n + 1), (h, raw, read)

        start = jnp.zeros(total, state.mean.dtype), jnp.zeros((), jnp.int32)
        (outputs, _), (h, raw, read) = loop(stage, start, (params.columns, state.h))
        return h, outputs, jnp.ravel(raw), read, sigma

    def step(params, state, x, target):
        active = jnp.minimum(state.step // period, stages - 1)
        fresh = (state.step % period == 0) & (state.step // period < stages)
        here = lambda tree: jax.tree.map(lambda v: v[active], tree)  # noqa: E731
        p, h = here(params.columns), here(state.h)
        M = jnp.where(fresh, kept.init(p), state.M)
        states, outputs, raw, read, sigma = features(params, state, x, active)
        M = kept.push(p, h, read[active], M)

        def objective(readout, bias, theta, v):
            """The loss by the readout and by the features of the learning stage."""
            own = stage_cell.readout(ravel_pytree(p)[1](theta), from_vector(h, v), read[active])
            place = active * size
            mean = lax.dynamic_slice(state.mean, (place,), (size,))
            scale = lax.dynamic_slice(sigma, (place,), (size,))
            whole = lax.dynamic_update_slice(outputs, (own - mean) / scale, (place,))
            return loss(readout @ whole + bias, target)

        after = here(states)
        value, (g_readout, g_bias, direct, credit) = jax.value_and_grad(objective, (0, 1, 2, 3))(
            params.readout, params.bias, ravel_pytree(p)[0], to_vector(after)
        )
        own = ravel_pytree(p)[1](direct + kept.pull(credit, M))
        every = jax.tree.map(lambda p, g: jnp.zeros_like(p).at[active].set(g), params.columns, own)
        mean = decay * state.mean + (1 - decay) * raw
        variance = decay * state.variance + (1 - decay) * (raw - mean) * (raw - state.mean)
        state = StagedState(states, M, mean, variance, state.step + 1)
        return value, StagedParams(every, g_readout, g_bias), state

    return Learner(init, summed(step))


def constructive(
    cell: Cell, loss: Loss, params: StagedParams, x: Array, *, period: int, **options: Any
) -> Learner:
    """A constructive network: `ccn` with one column per stage.

    Raises ValueError if the parameters have several columns in a stage.
    """
    per_stage = jax.tree.leaves(params.columns)[0].shape[1]
    if per_stage != 1:
        raise ValueError(f"a constructive network has one column per stage, got {per_stage}: ccn")
    return ccn(cell, loss, params, x, period=period, **options)
