"""Layers over segments, written as their docstring says: every law, and a loop as the oracle."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.nn import Segmented
from seqjax.nn.base import cast_parameters
from seqjax.nn.convolution import ShortConv
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState, windows
from seqjax.testing import check_layer

D = 3


def attend(q, k, v, seen):
    scores = jnp.where(seen, q @ k.T, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ v


class MemoryToken(Segmented):
    """A memory that every step of the next segment attends to, and that is written by a query
    over the whole segment (after arXiv:2207.06881)."""

    def __init__(self, features=D, length=5, *, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.features = self.out_features = features
        self.length = length
        self.W = nnx.Linear(features, 3 * features, rngs=rngs)
        self.write = nnx.Linear(features, features, rngs=rngs)

    def memory(self):
        return jnp.zeros(self.features)

    def segment(self, m, x, flow):
        q, k, v = jnp.split(self.W(jnp.concatenate([m.now[None], x])), 3, axis=1)
        seen = jnp.pad(flow.joined(len(x)), ((0, 0), (1, 0)), constant_values=True)
        y = attend(q[1:], k, v, seen)
        return y, jnp.tanh(self.write(m.now + y.mean(0)))


class Compressive(Segmented):
    """Linear attention to all earlier segments, softmax in this one (after arXiv:2404.07143), and
    a short convolution before it, whose window is part of the memory."""

    def __init__(self, features=D, length=4, *, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.features = self.out_features = features
        self.length = length
        self.conv = ShortConv(features, 3, rngs=rngs)
        self.W = nnx.Linear(features, 3 * features, rngs=rngs)

    def memory(self):
        return self.conv.initial(), jnp.zeros((self.features, self.features))

    def segment(self, m, x, flow):
        x, window = self.conv(x, m[0], flow)
        q, k, v = jnp.split(self.W(x), 3, axis=1)
        y = attend(q, k, v, flow.joined(len(x))) + q @ m[1].now
        return y, (window, 0.9 * m[1].now + k.T @ v)


LAYERS = [
    MemoryToken,
    Compressive,
    lambda: MemoryToken(length=1),
    lambda: MemoryToken(length=20),
]


@pytest.mark.share(1)
@pytest.mark.parametrize("made", LAYERS if FULL else LAYERS[:2])
def test_a_layer_after_the_docstring_keeps_every_law(made):
    assert max(check_layer(made()).values()) < 1e-8


@pytest.mark.parametrize("cls", [MemoryToken, Compressive])
def test_against_a_loop_over_segments(cls):
    """Stretches between resets, cut at every C of their steps; masked steps are not there."""
    layer, rng, T = cls(), np.random.default_rng(0), 23
    layer.learn_initial()
    layer.h0 = jax.tree.map(lambda v: v + rng.normal(size=v.shape), layer.h0)
    layer = cast_parameters(layer, jnp.float64)

    @jax.jit
    def run(x, resets, mask):
        """As one whole, and cut in three: where a segment is unfinished, the state must know."""
        h, ys = layer.batch_state(1, x.dtype), []
        for part in (slice(0, 8), slice(8, 15), slice(15, T)):
            y, h = layer(x[:, part], h, resets[:, part], mask[:, part])
            ys.append(y)
        return layer(x, None, resets, mask)[0], jnp.concatenate(ys, axis=1)

    segment = jax.jit(lambda m, x: layer.segment(m, x, Flow()))
    for rate, kept, _ in itertools.product((0.0, 0.2, 0.5, 0.8), (0.5, 1.0), range(5)):
        x = rng.normal(size=(1, T, D))
        resets, mask = rng.uniform(size=(2, 1, T)) < np.array([rate, kept])[:, None, None]
        whole, cut = (np.asarray(y)[0] for y in run(x, resets, mask))
        stretches = [[]]
        for t in np.flatnonzero(mask[0]):
            if resets[0, t]:
                stretches.append([])
            stretches[-1].append(t)
        for stretch in stretches:
            m = layer.start().memory
            C = layer.length
            for steps in (stretch[n : n + C] for n in range(0, len(stretch), C)):
                padded = np.zeros((layer.length, D))
                padded[: len(steps)] = x[0, steps]
                z, m = segment(Carry(m, m), padded)
                for y in (whole, cut):
                    np.testing.assert_allclose(y[steps], z[: len(steps)], atol=1e-12)


class Ahead(Segmented):
    """Every step sees the mean of its segment, whose sum is added to the memory."""

    causal = False

    def __init__(self, features=D, length=4):
        self.features = self.out_features = features
        self.length = length

    def memory(self):
        return jnp.ones(self.features)

    def segment(self, m, x, flow):
        seen = flow.joined(len(x), causal=False).astype(x.dtype)
        last = seen[jnp.sum(flow.mask) - 1]
        return m.now[None] + seen @ x / seen.sum(1, keepdims=True), 0.9 * m.now + last @ x


@pytest.mark.thorough
def test_a_segment_may_look_ahead():
    """A call ends its last segment, resets end others; cut between segments it is the same."""
    layer, rng, T = Ahead(), np.random.default_rng(0), 22
    C, run = layer.length, jax.jit(lambda x, h, resets, mask: layer(x, h, resets, mask))
    for rate, kept in itertools.product((0.0, 0.2, 0.5), (0.0, 0.5, 1.0)):
        x = rng.normal(size=(1, T, D))
        resets, mask = rng.uniform(size=(2, 1, T)) < np.array([rate, kept])[:, None, None]
        first = rng.normal(size=(1, D))
        h = layer.batch_state(1, x.dtype)._replace(memory=jnp.asarray(first))
        y, end = run(x, h, resets, mask)
        m, steps = first[0], []
        expected = np.zeros((T, D))
        for t in [*np.flatnonzero(mask[0]), T]:
            fresh = t < T and resets[0, t]
            if steps and (fresh or t == T or len(steps) == C):
                expected[steps] = m + x[0, steps].mean(0)
                m, steps = 0.9 * m + x[0, steps].sum(0), []
            m = np.ones(D) if fresh else m
            steps.append(t)
        np.testing.assert_allclose(y[0], expected, atol=1e-12)
        np.testing.assert_allclose(end.memory[0], m, atol=1e-12)
    whole, end = layer(x)
    h, cut = None, []
    for part in (slice(0, 2 * C), slice(2 * C, 3 * C), slice(3 * C, T)):
        y, h = layer(x[:, part], h)
        cut.append(y)
    np.testing.assert_allclose(np.concatenate(cut, axis=1), whole, atol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), h, end)


def test_the_backward_pass_keeps_what_is_between_segments():
    """A few numbers a step and the memory, no scores: it runs each segment again (arXiv:2010.06891,
    memory replay back-propagation)."""
    C = 60
    layer = MemoryToken(length=C)

    def kept(segments):
        x = jnp.zeros((1, C * segments, D))
        found = jax.eval_shape(lambda x: jax.vjp(lambda x: layer(x)[0], x)[1], x)
        return sum(leaf.size for leaf in jax.tree.leaves(found))

    of_a_segment = (kept(24) - kept(8)) / 16
    assert of_a_segment < 12 * C * D < C * (C + 1)


def test_segment_recurrence_is_its_equations():
    """A batch of streams, whole, cut and step by step, against the stretches between resets."""
    C, T, B, rng = 4, 15, 6, np.random.default_rng(0)
    queries_at_once, place = set(), np.arange(4.0)[:, None]

    def attend(m, q, items, i, j, seen):
        k, v = items
        queries_at_once.add(len(q))
        weights = jnp.where(seen, q @ k.T + 0.1 * (i[:, None] - j[None]).astype(q.dtype), 0)
        return weights @ v + q @ m

    def fold(m, items):
        k, v = items
        return 0.9 * m + (place * k).T @ v

    @jax.jit
    @jax.vmap
    def run(x, h, resets, mask):
        start = SegmentState(jnp.full((D, D), 0.5), h.steps, h.count)
        flow = Flow(resets, mask)
        return segment_recurrence(
            attend, fold, x, (jnp.sin(x), jnp.cos(x)), Carry(h, start), flow=flow
        )

    x = rng.normal(size=(B, T, D))
    resets = rng.uniform(size=(B, T)) < np.array([0, 0, 0.1, 0.3, 0.6, 0.9])[:, None]
    mask = rng.uniform(size=(B, T)) < np.array([1, 0.7, 1, 0.8, 1, 0.8])[:, None]
    first = rng.normal(size=(B, D, D))
    steps = jnp.zeros((B, C - 1, D))
    h = SegmentState(jnp.asarray(first), (steps, steps), jnp.zeros(B, jnp.int32))
    whole, end = run(x, h, resets, mask)
    assert queries_at_once == {C}
    cut = []
    for size in (5, 1):
        state, ys = h, []
        for t in range(0, T, size):
            at = slice(t, t + size)
            y, state = run(x[:, at], state, resets[:, at], mask[:, at])
            ys.append(y)
        cut.append(np.concatenate(ys, axis=1))
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), state, end)
    assert queries_at_once == {C, 1}
    for b in range(B):
        m, segment = first[b], []
        for t in np.flatnonzero(mask[b]):
            if resets[b, t]:
                m, segment = np.full((D, D), 0.5), []
            segment.append(x[b, t])
            k, v, age = np.sin(segment), np.cos(segment), np.arange(len(segment))[::-1]
            expected = (x[b, t] @ k.T + 0.1 * age) @ v + x[b, t] @ m
            for y in (whole, *cut):
                np.testing.assert_allclose(y[b, t], expected, atol=1e-12)
            if len(segment) == C:
                m, segment = 0.9 * m + (place * k).T @ v, []
        np.testing.assert_allclose(end.memory[b], m, atol=1e-12)
        np.testing.assert_allclose(
            end.steps[0][b, C - 1 - len(segment) :], np.sin(segment).reshape(-1, D)
        )


def test_windows_hold_every_step_once_whatever_the_resets():
    """All patterns of resets over up to nine steps: the bound on windows is enough."""
    for C, T in [(1, 6), (2, 9), (3, 9), (4, 8)]:
        patterns = np.array(list(itertools.product([False, True], repeat=T)))
        for unfinished in range(C):
            padded = np.pad(patterns, ((0, 0), (0, C)))
            cut = jax.vmap(
                lambda b, C=C, T=T, p=unfinished: windows(jnp.int32(p), jnp.int32(T), b, T, C)[0]
            )
            w = jax.device_get(jax.jit(cut)(patterns))
            assert (w.end[:, -1] == T).all()
            assert (w.begin[:, 1:] == w.end[:, :-1]).all() and (w.end - w.begin <= C).all()
            # a segment that a reset cuts is in one window: none goes on where a window begins,
            # unless the window before was one whole segment
            goes_on = ~np.take_along_axis(padded, w.begin[:, 1:], 1) & (w.begin[:, 1:] < T)
            assert (w.whole[:, :-1] | ~goes_on).all()


def test_a_layer_that_lacks_something_is_refused():
    class Nothing(Segmented):
        features = out_features = D

    with pytest.raises(TypeError, match="Nothing must set length"):
        Nothing()(jnp.ones((1, 2, D)))
    Nothing.length = 2
    with pytest.raises(TypeError, match=r"Nothing must define memory\(\)"):
        Nothing()(jnp.ones((1, 2, D)))
