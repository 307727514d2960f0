"""Supervised memory training: a recurrent network without recurrence (arXiv:2606.06479).

BPTT has to find out what to remember through the recurrence itself. Here a Transformer finds out:
its encoder makes a memory m_t of the past, its decoder predicts the future from m_t, and the
student learns one step (m_t, x_{t+1}) -> m_{t+1} at all times at once. Every gradient path has
length one.

    L_dec  = mean_j gamma^j ce(decoder(m_t, x_{t+1} ..)_j, y_{t+j})      over j < F with a target
    L_dyn  = mean (student(m_t, x_{t+1}) - m_{t+1})^2                    over all their entries
    L_unif = log mean_{i<j} exp(-2 |u_i - u_j|^2)            u: memory tokens of unit length
    smt    = L_dec + 0.1 L_dyn + 0.001 L_unif

Rolled out, the student meets its own errors. DAgger memory training (dmt) then freezes the teacher
and has the student imitate it along the student's own trajectory, n steps from the encoder's first
memory, every k-th of them; its readout learns beside it, and no gradient of that enters the memory:

    dmt    = 10 mean_{t in 0, k, ..} (m^_t - m_t)^2 + mean_t ce(readout(sg m^_t), y_t)
    m^_t   = student(sg m^_{t-1}, x_t),  m^_0 = m_0                      sg: a constant

Either sg is an option of `dmt`. (The release's `detach_rnn` has the sense of its name turned round:
its default goes back through the whole way, and detach_rnn=False is this sg.) The published loss of
dmt adds L_dec and 0.01 L_unif of the frozen teacher: constants, which the learner leaves out and
`dmt_loss` has.

Both are learners: losses are means over the window, as the published weights presume, not sums.
Cost of a window of T steps: one encoder pass over 2 c tokens per cut (K + 1 tokens per step with a
causal teacher), independent of the time between cause and effect; dmt runs the student forward in
time, and backward through one step. `seqjax.learn.smt_teacher`, `seqjax.learn.smt_students`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from seqjax.learn.learner import Learner
from seqjax.learn.smt_students import Student, roll
from seqjax.learn.smt_teacher import Teacher

NETWORKS = ("teacher", "student")
SAMPLES = 512  # at most so many memory tokens are compared with each other


@dataclass(frozen=True)
class Weights:
    """Of the losses, as published."""

    decoding: float = 1.0
    dynamics: float = 0.1
    uniformity: float = 0.001


@dataclass(frozen=True)
class DMTWeights:
    """Of the losses of dmt, as published."""

    dynamics: float = 10.0
    readout: float = 1.0
    decoding: float = 1.0  # this and the next of the teacher: `dmt_loss`
    uniformity: float = 0.01


class Losses(NamedTuple):
    """The sum that is descended, and its parts; `first` is the decoding loss of the next answer."""

    total: Array
    decoding: Array
    first: Array
    dynamics: Array
    uniformity: Array


class DMTLosses(NamedTuple):
    """The same for dmt; the last three are zero where the teacher's terms are left out."""

    total: Array
    dynamics: Array
    readout: Array
    decoding: Array
    first: Array
    uniformity: Array


def uniformity_loss(m: Array, key: Array | None = None, *, t: float = 2.0) -> Array:
    """log mean over pairs of exp(-t |u_i - u_j|^2), u = m / |m| [..., features] (arXiv:2005.10242).

    0 when all are equal, towards -2t when they are spread over a sphere of many dimensions.
    At most SAMPLES of the points are compared, drawn with `key`.
    Raises ValueError for fewer than two points, or for more than SAMPLES without a key.
    """
    points = m.reshape(-1, m.shape[-1])
    if len(points) < 2:
        raise ValueError("uniformity is about pairs: it needs at least 2 memory tokens")
    if len(points) > SAMPLES:
        if key is None:
            raise ValueError(f"more than {SAMPLES} memory tokens are sampled: give a key")
        points = jax.random.choice(key, points, (SAMPLES,), replace=False)
    square = jnp.sum(points * points, axis=1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)  # smooth at zero
    u = points / (norm + jnp.finfo(points.dtype).eps)
    length = jnp.sum(u * u, axis=1)
    distance = length[:, None] + length[None] - 2 * (u @ u.T)
    pairs = jnp.triu(jnp.ones(distance.shape, bool), 1)
    count = len(points) * (len(points) - 1) // 2
    return jax.nn.logsumexp(-t * distance, where=pairs) - jnp.log(jnp.asarray(count, u.dtype))


def decoding_loss(logits: Array, targets: Array, gamma: float = 1.0) -> tuple[Array, Array]:
    """mean gamma^j ce(logits_j, targets_j) over targets >= 0 [..., F], and the same for j = 0.

    The weights gamma^j are not in the denominator.
    """
    present = targets >= 0
    wanted = jnp.maximum(targets, 0)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    discount = gamma ** jnp.arange(targets.shape[-1], dtype=loss.dtype)
    weighted = loss * jnp.broadcast_to(discount, loss.shape)
    return _mean(weighted, present), _mean(loss[..., 0], present[..., 0])


def dynamics_loss(predicted: Array, m: Array) -> Array:
    """The mean of (predicted - m)^2 over everything."""
    return jnp.mean(jnp.square(predicted - m))


def smt_loss(
    m: Array,
    following: Array,
    predicted: Array,
    logits: Array,
    targets: Array,
    key: Array | None = None,
    *,
    weights: Weights = Weights(),
    gamma: float = 1.0,
    detach: bool = False,
    over_tokens: bool = True,
) -> Losses:
    """All losses of memories m [..., K, features], those `following` them, the student's
    `predicted` ones, and the decoder's logits [..., F, outputs] for targets [..., F].

    detach: the teacher does not learn to be easy for the student (not the published setting).
    over_tokens: the memory's tokens are held apart, each; else whole memories [K features].
    """
    points = m if over_tokens else m.reshape(*m.shape[:-2], -1)
    decoding, first = decoding_loss(logits, targets, gamma)
    dynamics = dynamics_loss(predicted, lax.stop_gradient(following) if detach else following)
    uniformity = uniformity_loss(points, key)
    total = weights.decoding * decoding + weights.dynamics * dynamics
    total += weights.uniformity * uniformity
    return Losses(total, decoding, first, dynamics, uniformity)


def dmt_loss(
    m: Array,
    own: Array,
    logits: Array,
    targets: Array,
    decoded: tuple[Array, Array] | None = None,
    key: Array | None = None,
    *,
    weights: DMTWeights = DMTWeights(),
) -> DMTLosses:
    """All losses of the student's `own` memories [..., n, K, features] beside the teacher's m, and
    of its readout's logits [..., T, outputs] for targets [..., T].

    decoded: the logits [..., n, F, outputs] of the teacher's decoder and their targets; without
        them, for they and m are constants of a frozen teacher, neither they nor the uniformity of
        m (of whole memories) are in the sum.
    """
    dynamics, (readout, _) = dynamics_loss(own, m), decoding_loss(logits, targets)
    total = weights.dynamics * dynamics + weights.readout * readout
    if decoded is None:
        zero = jnp.zeros_like(total)
        return DMTLosses(total, dynamics, readout, zero, zero, zero)
    (decoding, first), whole = decoding_loss(*decoded), m.reshape(*m.shape[:-2], -1)
    uniformity = uniformity_loss(whole, key)
    total += weights.decoding * decoding + weights.uniformity * uniformity
    return DMTLosses(total, dynamics, readout, decoding, first, uniformity)


class Window(NamedTuple):
    """What belongs to a cut t of a sequence; -1 stands beyond its ends."""

    context: Array  # int [C]: x_{t-C} .. x_{t-1}
    future: Array  # int [F]: x_t ..
    targets: Array  # int [F]: y_{t-1} ..; the first is a question to the memory alone


def window(x: Array, y: Array, cut: Array | int, context: int, horizon: int) -> Window:
    """The window of x, y int [T] at a cut in 0 .. T: after `cut` steps have been read."""

    def part(v, start, size, before):
        fill = lambda n: jnp.full(n, -1, v.dtype)  # noqa: E731
        padded = jnp.concatenate([fill(before), v, fill(horizon)])
        return lax.dynamic_slice_in_dim(padded, start + before, size)

    return Window(
        part(x, cut - context, context, context),
        part(x, cut, horizon, 0),
        part(y, cut - 1, horizon, 1),
    )


class SMTState(NamedTuple):
    h: Array  # [K, features], or [B, K, features]: the last memory that was encoded
    key: Array | None


class DMTState(NamedTuple):
    h: Array  # the student's own, at the end of its rollout
    teacher: Any  # its parameters, frozen


def smt(
    teacher: Teacher,
    student: Student,
    *,
    horizon: int,
    context: int | None = None,
    cuts: int | None = None,
    batch: int | None = None,
    weights: Weights = Weights(),
    gamma: float = 1.0,
    detach: bool = False,
    over_tokens: bool = True,
) -> tuple[Learner, dict[str, Any]]:
    """The learner of both, and its parameters {"teacher": ..., "student": ...}.

    A window is a sequence of tokens xs [T] and answers ys [T] (-1: no target), or with `batch` B of
    them, [B, T]: their memories are held apart together.

    horizon: how many answers the decoder predicts.
    context: how many tokens the encoder reads; None: all since the window began.
    cuts: at how many places of a window the future is predicted, drawn at random; None: wherever
        there is a whole context and a whole horizon (in the official loop T = context + horizon,
        so once). The student learns there, and with a causal teacher at every step.
    weights, gamma, detach, over_tokens: as in `smt_loss`.
    Raises ValueError where no place is left.
    """
    if teacher.causal and context is not None:
        raise ValueError("a causal teacher reads all since the window began: context=None")
    parts = {
        "teacher": nnx.split(teacher, nnx.Param, ...),
        "student": nnx.split(student, nnx.Param, ...),
    }

    def places(key, T):
        """The cuts of one sequence; a bidirectional teacher needs the memory after them, too."""
        first, last = (0, T - (not teacher.causal)) if context is None else (context, T - horizon)
        if last < first:
            raise ValueError(
                f"a window of {T} steps holds no context of {context} and horizon of {horizon}"
            )
        if cuts is None:
            return jnp.arange(first, last + 1)
        if key is None:
            raise ValueError("smt draws its cuts: init(params, key)")
        return jax.random.randint(key, (cuts,), first, last + 1)

    def example(teacher, student, x, y, key):
        """Memories, the ones after them, the student's, logits and targets of one sequence."""
        at = places(key, len(x))
        if teacher.causal:
            every = teacher.prefixes(x)
            m, before, after, inputs = every[at], every[:-1], every[1:], x
        else:
            reach = len(x) if context is None else context
            m = before = teacher.windows(x, at, reach)
            after, inputs = teacher.windows(x, at + 1, reach), x[at]
        predicted = jax.vmap(student)(lax.stop_gradient(before) if detach else before, inputs)
        cut = jax.vmap(lambda t: window(x, y, t, 1, horizon))(at)
        return m, after, predicted, jax.vmap(teacher.decode)(m, cut.future), cut.targets

    def init(params: Any, key: Array | None = None) -> SMTState:
        return SMTState(_start(params["student"], parts["student"], batch), key)

    def grad(params, state, xs, ys):
        draw, sample, next_key = _keys(state.key)

        def total(params):
            teacher, student = (_merge(parts[name], params[name]) for name in NETWORKS)
            one = lambda x, y, key: example(teacher, student, x, y, key)  # noqa: E731
            if batch is None:
                found = one(xs, ys, draw)
            else:
                keys = None if draw is None else jax.random.split(draw, batch)
                found = jax.vmap(one)(xs, ys, keys)
            options: dict[str, Any] = dict(weights=weights, gamma=gamma, detach=detach)
            losses = smt_loss(*found, sample, over_tokens=over_tokens, **options)
            return losses.total, jnp.take(found[1], -1, axis=0 if batch is None else 1)

        (loss, h), grads = jax.value_and_grad(total, has_aux=True)(params)
        return loss, grads, SMTState(h, next_key)

    return Learner(init, grad), {name: part[1] for name, part in parts.items()}


def dmt(
    teacher: Teacher,
    student: Student,
    *,
    context: int | None = None,
    steps: int | None = None,
    every: int = 1,
    batch: int | None = None,
    weights: DMTWeights = DMTWeights(),
    detach_steps: bool = True,
    detach_readout: bool = True,
) -> tuple[Learner, Any]:
    """The learner of the student alone, and its parameters; the teacher lies in the state, frozen.

    Windows as in `smt`. The student starts from the encoder's memory of the first `context` tokens
    (None: of none), goes on for `steps` memories (None: to the end of the window), and imitates
    every `every`-th. detach_steps False: the gradient goes back along its whole way. detach_readout
    False: the readout's enters the memory. Raises ValueError for windows that are too short.
    """
    teacher_parts, parts = (nnx.split(m, nnx.Param, ...) for m in (teacher, student))
    if teacher.causal and context is not None:
        raise ValueError("a causal teacher reads all since the window began: context=None")
    first = context or 0

    def example(teacher, student, x, y):
        T = len(x)
        count = T + 1 - first if steps is None else steps
        if count < 2 or first + count > T + 1:
            raise ValueError(f"a window of {T} steps has no {count} memories from step {first} on")
        at = first + jnp.arange(0, count, every)
        if teacher.causal:
            m = teacher.prefixes(x)[at]
        else:
            m = teacher.windows(x, at, T if context is None else context)
        own = roll(student, m[0], x[first : first + count - 1], detach=detach_steps)
        logits = jax.vmap(student.readout)(lax.stop_gradient(own) if detach_readout else own)
        return m, own[::every], logits, window(x, y, first, 1, count).targets, own[-1]

    def init(params: Any, key: Array | None = None) -> DMTState:
        del key
        return DMTState(_start(params, parts, batch), teacher_parts[1])

    def grad(params, state, xs, ys):
        def total(params):
            teacher, student = _merge(teacher_parts, state.teacher), _merge(parts, params)
            one = lambda x, y: example(teacher, student, x, y)  # noqa: E731
            found = one(xs, ys) if batch is None else jax.vmap(one)(xs, ys)
            return dmt_loss(*found[:4], weights=weights).total, found[4]

        (loss, h), grads = jax.value_and_grad(total, has_aux=True)(params)
        return loss, grads, DMTState(h, state.teacher)

    return Learner(init, grad), parts[1]


def adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """AdamW with the published constants."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(learning_rate, b1=0.9, b2=0.95, weight_decay=0.01),
    )


def smt_optimiser(learning_rate: optax.ScalarOrSchedule = 3e-4) -> optax.GradientTransformation:
    """For the parameters of `smt`: the gradients of teacher and student are clipped apart."""
    return optax.partition(
        {name: adamw(learning_rate) for name in NETWORKS}, {name: name for name in NETWORKS}
    )


def dmt_optimiser(learning_rate: optax.ScalarOrSchedule = 3e-5) -> optax.GradientTransformation:
    """For the parameters of `dmt`."""
    return adamw(learning_rate)


def _merge(parts, params):
    graph, _, rest = parts
    return nnx.merge(graph, params, rest)


def _start(params, parts, batch: int | None) -> Array:
    m = _merge(parts, params).start()
    return m if batch is None else jnp.broadcast_to(m[None], (batch, *m.shape))


def _keys(key):
    return (None,) * 3 if key is None else tuple(jax.random.split(key, 3))


def _mean(values: Array, where: Array) -> Array:
    """The mean of the values that are present; zero if none is."""
    count = jnp.sum(where).astype(values.dtype)
    return jnp.sum(jnp.where(where, values, 0)) / jnp.maximum(count, 1)
