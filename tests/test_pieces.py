"""Packed rows with a state for each piece: the oracle is a call for each piece alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import seqjax
from seqjax.core.pieces import boundaries, packed
from seqjax.ops import OPS
from seqjax.zoo import LAYERS, make

T, N = 37, 5
CU = jnp.array([0, 1, 1, 20, 23, 35])  # of one step, of none, longer than a stretch; padding
RUN = {
    "linear_scan": lambda x, h, mask: seqjax.linear_scan(*x, h, mask=mask),
    "linear_attention": lambda x, h, mask: seqjax.linear_attention(*x, h, mask=mask),
    "gated_delta_rule": lambda x, h, mask: seqjax.gated_delta_rule(*x, h, mask=mask),
    "dplr": lambda x, h, mask: seqjax.dplr(*x, state=h, mask=mask),
}
LAYER_NAMES = ("gru", "mamba", "gated_deltanet", "transformer_xl", "attention")


def at(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def alone(call, xs, states, cu):
    """The definition: one call per piece, without masks."""
    cu, ys, ends = np.asarray(cu), [], []
    for n, (a, z) in enumerate(zip(cu[:-1], cu[1:])):
        x, h = at(xs, slice(a, z)), at(states, n)
        y, h = call(x, h, jnp.ones(z - a, bool)) if z > a else (None, h)
        ys += [] if y is None else [y]
        ends.append(h)
    y = jnp.concatenate(ys)
    y = jnp.pad(y, [(0, T - len(y)), *[(0, 0)] * (y.ndim - 1)])
    return y, jax.tree.map(lambda *s: jnp.stack(s), *ends)


def drawn(shape_of, key):
    leaves, tree = jax.tree.flatten(shape_of)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            0.5 * jax.random.normal(k, s.shape, s.dtype)
            if jnp.issubdtype(s.dtype, jnp.inexact)
            else jnp.zeros(s.shape, s.dtype)
            for k, s in zip(keys, leaves)
        ],
    )


def inputs_of(name):
    """xs [T, ...] of an op and N states, from its first spec made longer."""
    op = OPS[name]
    spec = op.specs[0]
    spec = type(spec)(spec.name, {**spec.sizes, "B": 1, "T": T}, spec.options)
    given = dict(op.example(spec, 0))
    state, order = given.pop("state"), [k for k in given if given[k] is not None]
    xs = tuple(jnp.asarray(given[k])[0] if given[k] is not None else None for k in order)
    if name == "gated_delta_rule" and given.get("log_a") is None:
        xs = (*xs, jnp.full((T, spec.sizes["H"]), -0.1))
    if name == "linear_attention":
        xs = (*xs, jnp.full((T, spec.sizes["H"]), -0.1))
    like = jax.ShapeDtypeStruct((N, *state.shape[1:]), jnp.float64)
    return xs, drawn(like, jax.random.key(3))


@pytest.mark.share(1)
@pytest.mark.parametrize("name", RUN)
def test_an_op_over_pieces_is_the_op_over_each(name):
    call, (xs, states) = RUN[name], inputs_of(name)

    def loss(run, xs, states):
        y, ends = run(call, xs, states, CU)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(ends)), (y, ends)

    for size in (None, 4):
        short = partial(packed, size=size)
        found, wanted = (
            jax.jit(jax.value_and_grad(partial(loss, run), (0, 1), has_aux=True))(xs, states)
            for run in (short, alone)
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10), found, wanted)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, reverse", [*((name, False) for name in LAYER_NAMES), ("gru", True), ("mamba", True)]
)
def test_a_layer_over_pieces_is_the_layer_over_each(name, reverse):
    layer = make(name, 4, **LAYERS[name].smoke)
    layer.learn_initial()
    keys = jax.random.split(jax.random.key(1), 4)
    x = jax.random.normal(keys[0], (2, T, 4))
    resets = jax.random.bernoulli(keys[1], 0.1, (2, T))
    mask = jax.random.bernoulli(keys[2], 0.8, (2, T))
    layer = jax.tree.map(lambda p: p + 0.1 if jnp.issubdtype(p.dtype, jnp.inexact) else p, layer)
    h = layer.batch_state((2, N), jnp.float64)
    run = nnx.jit(partial(type(layer).__call__, reverse=reverse))
    y, ends = run(layer, x, h, resets, mask, cu_seqlens=jnp.stack([CU, CU]))
    for n in range(N):
        part = slice(None), slice(int(CU[n]), int(CU[n + 1]))
        one = at(h, slice(None), n)
        want, end = run(layer, x[part], one, resets[part], mask[part])
        np.testing.assert_allclose(y[part], want, atol=1e-10)
        found = layer.canonical(at(ends, slice(None), n))
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-10), found, layer.canonical(end))
    assert not np.any(y[:, int(CU[-1]) :])


@pytest.mark.thorough
def test_the_time_before_a_step_in_pieces_read_from_their_ends():
    layer = make("s5", 4, **LAYERS["s5"].smoke)
    x = jax.random.normal(jax.random.key(0), (1, T, 4))
    dt = jax.random.uniform(jax.random.key(1), (1, T), minval=0.1, maxval=2.0)
    mask = jnp.arange(T)[None] % 3 != 1
    y, _ = layer(x, None, mask=mask, dt=dt, cu_seqlens=CU[None], reverse=True)
    for a, z in ((1, 20), (23, 35)):
        part = slice(None), slice(a, z)
        want, _ = layer(x[part], mask=mask[part], dt=dt[part], reverse=True)
        np.testing.assert_allclose(y[part], want, atol=1e-12)


def test_other_cu_seqlens_do_not_compile_again():
    layer, compiled = make("min_gru", 4), []

    @jax.jit
    def run(x, cu):
        compiled.append(0)
        return layer(x, cu_seqlens=cu)

    x = jax.random.normal(jax.random.key(0), (1, T, 4))
    for cu in (CU, jnp.array([0, 0, 9, 9, 9, 37])):
        y, _ = run(x, cu[None])
        want, _ = layer(x, cu_seqlens=cu[None])
        np.testing.assert_allclose(y, want, atol=1e-12)
    assert len(compiled) == 1


def test_no_steps_and_one_piece():
    layer = make("gru", 4)
    h = layer.batch_state((2, 3), jnp.float64)
    y, ends = layer(jnp.zeros((2, 0, 4)), h, cu_seqlens=jnp.zeros((2, 4), int))
    assert y.shape == (2, 0, 4)
    jax.tree.map(np.testing.assert_array_equal, ends, h)
    x = jax.random.normal(jax.random.key(0), (2, 300, 4))
    y, ends = layer(x, cu_seqlens=jnp.array([[0, 300]] * 2))
    want, end = layer(x)
    np.testing.assert_allclose(y, want, atol=1e-12)
    np.testing.assert_allclose(ends[:, 0], end, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("every", [1, 8, 37, 50])
def test_states_on_the_way(every):
    layer = make("s5", 4, **LAYERS["s5"].smoke)
    x = jax.random.normal(jax.random.key(0), (2, T, 4))
    mask = jnp.arange(T)[None].repeat(2, 0) % 5 != 2
    y, states = layer(x, mask=mask, every=every)
    np.testing.assert_allclose(y, layer(x, mask=mask)[0], atol=1e-12)
    for n in {0, 20 // every, -(-T // every) - 1}:
        _, want = layer(x[:, : every * (n + 1)], mask=mask[:, : every * (n + 1)])
        found = at(states, slice(None), n)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-12), found, want)


def test_one_error_for_each_wrong_argument():
    layer, x = make("gru", 4), jnp.zeros((2, T, 4))
    both = make("bidirectional", 4, **LAYERS["bidirectional"].smoke)
    cu = jnp.array([[0, 3, T]] * 2)
    for call, message in (
        (lambda: layer(x, cu_seqlens=cu[0]), r"cu_seqlens has shape \(3,\), expected \[2, N \+ 1"),
        (lambda: layer(x, cu_seqlens=cu[:1]), r"has shape \(1, 3\), expected \[2, N \+ 1\]"),
        (lambda: layer(x, cu_seqlens=cu[:, ::-1]), r"is \[37, 3, 0\], expected sums from 0"),
        (lambda: layer(x, cu_seqlens=cu.astype(float)), "cu_seqlens is float64"),
        (lambda: layer(x, cu_seqlens=cu[:, :1]), "N at least 1"),
        (lambda: layer(x, jnp.zeros((2, 4)), cu_seqlens=cu), r"shapes \(2, 2, 4\), got \(2, 4\)"),
        (lambda: layer(x, cu_seqlens=cu, every=3), "not both"),
        (lambda: layer(x, every=0), "every must be at least 1 step, got 0"),
        (lambda: both(x, cu_seqlens=cu), "Bidirectional is not causal"),
        (lambda: both(x, every=4), "Bidirectional is not causal"),
        (lambda: packed(None, x[0], x[0, :3], cu[0]), r"states of 2 pieces have leaves \[2"),
        (lambda: packed(None, x[0], x[0, :2], cu[0], size=0), "size must be at least 1"),
        (lambda: boundaries(None, x[0], x[0, 0], every=0), "every must be at least 1"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
