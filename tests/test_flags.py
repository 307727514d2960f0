"""Flags of packed sequences, and layers that run from the last step to the first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax
from seqjax.core.flags import ends, from_cu_seqlens, from_segment_ids
from seqjax.core.monoid import diagonal
from seqjax.nn import Associative
from seqjax.zoo import make

B, T, D = 2, 9, 3


def where(flags):
    return np.flatnonzero(flags).tolist()


@pytest.mark.parametrize(
    "sums, continued, resets, kept",
    [
        ([0, 4, 9], False, [0, 4], 9),
        ([0, 4, 9], True, [4], 9),
        ([0, 4, 6], False, [0, 4], 6),  # padding at the end
        ([0, 4, 4, 9], False, [0, 4], 9),  # a piece of no steps in the middle,
        ([0, 0, 4, 9], False, [0, 4], 9),  # at the beginning,
        ([0, 0, 4, 9], True, [0, 4], 9),  # where it ends what went on,
        ([0, 4, 6, 6], False, [0, 4], 6),  # before padding,
        ([0, 9, 9], False, [0], 9),  # and at the end
        ([0], False, [], 0),
        ([0], True, [], 0),
    ],
)
def test_cu_seqlens(sums, continued, resets, kept):
    for function in (from_cu_seqlens, jax.jit(from_cu_seqlens, static_argnums=(1,))):
        if function is not from_cu_seqlens and continued:
            continue  # a keyword that changes the program is given before it is compiled
        given = dict(continued=True) if continued else {}
        found = function(jnp.array(sums, jnp.int32), T, **given)
        assert found.resets.dtype == found.mask.dtype == jnp.bool_
        assert (where(found.resets), where(found.mask)) == (resets, list(range(kept)))


@pytest.mark.share(3)
@pytest.mark.parametrize(
    "ids, options, resets, mask",
    [
        ([5, 5, 2, 2, 2, 5], {}, [0, 2, 5], None),
        ([1, 1, 2, 2, 0, 0], dict(padding=0), [0, 2], [0, 1, 2, 3]),
        ([-1, 0, 0, -1, 0, 1], dict(padding=-1), [1, 5], [1, 2, 4, 5]),  # goes on behind padding
        ([-1, 0, 0, -1, 0, 1], dict(padding=-1, before=0), [5], [1, 2, 4, 5]),
        ([3, 3, 4], dict(before=3), [2], None),
        ([3, 3, 4], dict(before=2), [0, 2], None),
        ([0, 0], dict(padding=0), [], []),
        ([], dict(padding=0), [], []),
    ],
)
def test_segment_ids(ids, options, resets, mask):
    ids = jnp.array(ids, jnp.int32)
    options = {k: jnp.int32(v) if k == "before" else v for k, v in options.items()}
    one = from_segment_ids(ids, **options)
    assert where(one.resets) == resets and one.resets.dtype == jnp.bool_
    assert (one.mask is None) == (mask is None) and (mask is None or where(one.mask) == mask)
    if "before" in options:
        options["before"] = jnp.stack([options["before"]] * B)
    batch = from_segment_ids(jnp.stack([ids] * B), **options)
    for row, alone in zip(jax.tree.leaves(batch), jax.tree.leaves(one), strict=True):
        np.testing.assert_array_equal(row, jnp.stack([alone] * B))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: from_cu_seqlens(jnp.zeros(3), T), r"cu_seqlens is float64 \[3\], expected int"),
        (lambda: from_cu_seqlens([0, 3], T), "cu_seqlens is list"),
        (lambda: from_cu_seqlens(jnp.zeros((2, 2), int), T), r"expected \[N \+ 1\]"),
        (lambda: from_cu_seqlens(jnp.zeros(0, int), T), "cu_seqlens is empty"),
        (lambda: from_cu_seqlens(jnp.array([1, 3]), T), "sums from 0 that never fall"),
        (lambda: from_cu_seqlens(jnp.array([0, 3, 2]), T), "sums from 0 that never fall"),
        (lambda: from_cu_seqlens(jnp.array([0, 10]), T), "up to steps = 9"),
        (lambda: from_segment_ids(jnp.zeros((B, T))), "ids is float64"),
        (lambda: from_segment_ids(jnp.zeros((1, B, T), int)), r"\[B, T\] or \[T\]"),
        (lambda: from_segment_ids(jnp.zeros((B, T), int), before=jnp.zeros(3, int)), "before has"),
        (lambda: from_segment_ids(jnp.zeros((B, T), int), before=jnp.int32(0)), "before has"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        wrong()


class Decay(Associative):
    """h_t = a_t * h_{t-1} + b_t of x = [a, b], which is the op."""

    monoid = diagonal

    def __init__(self):
        self.features, self.out_features = 2 * D, D

    def initial(self):
        return jnp.zeros(D)

    def lift(self, x):
        return x[:D], x[D:]


def packed(seed=0):
    draw = np.random.default_rng(seed)
    x, h = (jnp.asarray(draw.normal(size=s)) for s in ((B, T, 2 * D), (B, D)))
    resets, mask = jnp.asarray(draw.random((B, T)) < 0.3), jnp.asarray(draw.random((B, T)) < 0.7)
    return x, h, resets, mask


def test_a_layer_runs_backwards_as_its_op_does():
    x, h, resets, mask = packed()
    flags = dict(resets=resets, mask=mask, reverse=True)
    expected = seqjax.linear_scan(x[..., :D], x[..., D:], h, **flags)
    found = Decay()(x, h, **flags)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    late = Decay()(x[:, 4:], h, resets[:, 4:], mask[:, 4:], reverse=True)
    early = Decay()(x[:, :4], late[1], resets[:, :4], mask[:, :4], reverse=True)
    joined = jnp.concatenate([early[0], late[0]], 1), early[1]
    for got, want in zip(joined, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("masked", [False, True])
def test_each_piece_backwards_is_the_piece_alone(masked):
    """cu_seqlens to resets, read from either end: every piece is as if it were the only one."""
    sums = [0, 4, 4, 7]
    flags = from_cu_seqlens(jnp.array(sums), T if masked else sums[-1])
    x = packed()[0][:1, : len(flags.resets)]
    mask = flags.mask[None] if masked else None
    layer, resets = make("gru", 2 * D), flags.resets[None]
    forward, _ = layer(x, None, resets, mask)
    backward, _ = layer(x, None, ends(resets, mask), mask, reverse=True)
    for a, b in ((0, 4), (4, 7)):
        np.testing.assert_allclose(forward[:, a:b], layer(x[:, a:b])[0], atol=1e-6)
        alone, _ = layer(x[:, a:b], reverse=True)
        np.testing.assert_allclose(backward[:, a:b], alone, atol=1e-6)
        np.testing.assert_allclose(alone, layer(x[:, a:b][:, ::-1])[0][:, ::-1], atol=1e-6)
