"""What the paper of supervised memory training looks at (arXiv:2606.06479).

    drift                  1 - R^2 of memories to the encoder's, one step and rolled out    fig. 12
    *_gradient_norms       |d loss at the end / d m_t| against t, for BPTT and for SMT      fig. 11
    rescaled               a module with its matrices scaled: other initialisations         fig. 11
    length_generalisation  accuracy of student and teacher at lengths not trained on        fig. 13
    iso_loss               the memory needed for a loss, at every budget of compute          fig. 9
    pca, tsne              memories in a few dimensions                                  fig. 19-23

All take batches x int [B, T] and modules; memories are [..., K, features].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from seqjax.core.common import largest, predicted
from seqjax.learn.smt import window
from seqjax.learn.smt_students import Student, roll
from seqjax.learn.smt_teacher import Teacher

Module = TypeVar("Module", bound=nnx.Module)


class Drift(NamedTuple):
    """1 - R^2, 0 where the student is the encoder, 1 where it knows the mean memory only."""

    one_step: Array  # []
    rollout: Array  # []
    by_step: Array  # [T + 1]: of the rollout


def unexplained(predicted: Array, m: Array, axis: Any = None) -> Array:
    """1 - R^2 = sum |predicted - m|^2 / sum |m - mean|^2, the mean over `axis` or all that lead."""
    lead = tuple(range(m.ndim - 2)) if axis is None else axis
    inner = (*lead, m.ndim - 2, m.ndim - 1)
    error = jnp.sum(jnp.square(predicted - m), axis=inner)
    spread = jnp.sum(jnp.square(m - jnp.mean(m, axis=lead, keepdims=True)), axis=inner)
    return error / jnp.maximum(spread, jnp.finfo(m.dtype).tiny)


def drift(teacher: Teacher, student: Student, x: Array) -> Drift:
    """Of the student from the encoder over whole sequences x [B, T], from m_0 on."""
    m = jax.vmap(teacher.prefixes)(x)  # [B, T + 1, K, features]
    stepped = jax.vmap(jax.vmap(student))(m[:, :-1], x)
    rolled = jax.vmap(lambda m, x: roll(student, m, x))(m[:, 0], x)
    # m_0 is the same for all and given: it has no spread, and is left out.
    by_step = unexplained(rolled[:, 1:], m[:, 1:], axis=(0,))
    whole = unexplained(rolled[:, 1:], m[:, 1:])
    return Drift(unexplained(stepped, m[:, 1:]), whole, jnp.append(jnp.zeros_like(whole), by_step))


def bptt_gradient_norms(student: Student, x: Array, y: Array) -> Array:
    """|d l_T / d m_t| [T + 1], mean over the batch, through the student's recurrence.

    l_T: the cross entropy of the last answer y[:, -1], which must have a target.
    """

    def one(x, y):
        def loss(added):
            def body(m, now):
                m = student(m, now[0]) + now[1]
                return m, None

            m = lax.scan(body, student.start() + added[0], (x, added[1:]))[0]
            return -jax.nn.log_softmax(student.readout(m))[y[-1]]

        m = student.start()
        return _norms(jax.grad(loss)(jnp.zeros((len(x) + 1, *m.shape), m.dtype)))

    return jnp.mean(jax.vmap(one)(x, y), axis=0)


def smt_gradient_norms(teacher: Teacher, x: Array, y: Array) -> Array:
    """|d l_T / d m_t| [T + 1], mean over the batch: l_T as decoded from m_t and what follows it."""
    T = x.shape[1]

    def one(x, y):
        def loss(m, t):
            future = window(x, y, t, 1, T + 1).future
            last = jnp.take(teacher.decode(m, future), T - t, axis=0)
            return -jax.nn.log_softmax(last)[y[-1]]

        return _norms(jax.vmap(jax.grad(loss))(teacher.prefixes(x), jnp.arange(T + 1)))

    return jnp.mean(jax.vmap(one)(x, y), axis=0)


def rescaled(module: Module, part: str, gain: float) -> Module:
    """The module with every matrix of its `part` times `gain`; its vectors stay as they are."""
    chosen = nnx.All(nnx.Param, nnx.PathContains(part))
    graph, params, rest = nnx.split(module, chosen, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"{type(module).__name__} has no parameters under {part!r}")
    params = jax.tree.map(lambda p: p * gain if p.ndim > 1 else p, params)
    return nnx.merge(graph, params, rest)


def accuracy(logits: Array, y: Array) -> Array:
    """The share of answers with a target (y >= 0) that are right."""
    right = (predicted(logits).astype(y.dtype) == y) & (y >= 0)
    return jnp.sum(right) / jnp.maximum(jnp.sum(y >= 0), 1)


def length_generalisation(
    teacher: Teacher,
    student: Student,
    sample: Callable[[Array, int], tuple[Array, Array]],
    lengths: Iterable[int],
    key: Array,
) -> list[dict[str, float]]:
    """Accuracy of the rolled-out student and of the teacher, which reads everything, per length.

    sample: (key, length) -> x, y int [B, length].
    """
    rows = []

    @jax.jit
    def measure(x, y):
        start = teacher.encode(x[0, :0])
        own = jax.vmap(lambda x: roll(student, start, x)[1:])(x)
        read = jax.vmap(jax.vmap(student.readout))(own)
        of_teacher = jax.vmap(jax.vmap(teacher.readout))(jax.vmap(teacher.prefixes)(x)[:, 1:])
        return accuracy(read, y), accuracy(of_teacher, y)

    for length in lengths:
        of_student, of_teacher = measure(*sample(key, length))
        rows.append({"length": length, "student": float(of_student), "teacher": float(of_teacher)})
    return rows


def iso_loss(sizes: Any, losses: Any, target: float) -> np.ndarray:
    """The memory size at which the loss is `target`, for every budget: [budgets].

    sizes [n] ascending; losses [n, budgets]. Between sizes, log size is linear in the loss; NaN
    where no size reaches the target, the smallest one where all do.
    """
    sizes, losses = np.asarray(sizes, float), np.asarray(losses, float)
    if losses.ndim != 2 or sizes.shape != losses.shape[:1]:
        raise ValueError(f"losses must be [sizes, budgets], got {losses.shape} for {sizes.shape}")
    found = np.full(losses.shape[1], np.nan)
    for b, column in enumerate(losses.T):
        reached = np.flatnonzero(column <= target)
        if len(reached):
            n = reached[0]
            found[b] = sizes[n]
            if n and column[n - 1] > column[n]:
                share = (column[n - 1] - target) / (column[n - 1] - column[n])
                found[b] = sizes[n - 1] * (sizes[n] / sizes[n - 1]) ** share
    return found


def pca(m: Any, components: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Memories [N, ...] along their principal directions [N, components], and explained shares."""
    points = np.asarray(m, float).reshape(len(m), -1)
    points = points - points.mean(axis=0)
    _, s, V = np.linalg.svd(points, full_matrices=False)
    share = s**2 / max(float(np.sum(s**2)), np.finfo(float).tiny)
    return points @ V[:components].T, share[:components]


def tsne(m: Any, components: int = 2, *, seed: int = 0, **options: Any) -> np.ndarray:
    """Memories [N, ...] embedded by scikit-learn's t-SNE: [N, components]; options are its own."""
    try:
        from sklearn.manifold import TSNE  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "tsne needs scikit-learn, which seqjax does not install: pip install scikit-learn "
            "(pca needs nothing)"
        ) from error
    points = np.asarray(m, np.float32).reshape(len(m), -1)
    return TSNE(components, random_state=seed, **options).fit_transform(points)


def _norms(gradient: Array) -> Array:
    """Of [..., K, features]; neither an exploded nor a vanished one leaves the range of floats."""
    top = largest(jnp.abs(gradient), axis=(-2, -1), keepdims=True)
    size = jnp.where(top > 0, top, 1)
    return size[..., 0, 0] * jnp.sqrt(jnp.sum(jnp.square(gradient / size), axis=(-2, -1)))
