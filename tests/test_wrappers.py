"""Layers made of layers: what the contract cannot say about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.flags import ends
from seqjax.nn.base import cast_parameters
from seqjax.zoo import factory, make

T = 8


def build(name, **options):
    return cast_parameters(make(name, 3, rngs=nnx.Rngs(1), **options), jnp.float64)


def sequence(seed=0):
    return jax.random.normal(jax.random.key(seed), (1, T, 3))


def flags(*places):
    return jnp.zeros((1, T), bool).at[0, jnp.array(places, int)].set(True)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("left_out", [(), (2, 3), (0, 4, 7)], ids=str)
def test_bidirectional_reads_each_piece_on_its_own(left_out):
    """Resets at 4 (kept or not: then there is no boundary) and 6, and a NaN in the first piece."""
    layer = build("bidirectional", layer=("gru", {"hidden": 2}))
    x, resets, mask = sequence().at[0, 1].set(jnp.nan), flags(4, 6), ~flags(*left_out)
    y, h = layer(x, None, resets, mask)
    kept = np.flatnonzero(mask[0])
    starts = [t for t in (4, 6) if t in kept]
    pieces = np.split(kept, np.searchsorted(kept, starts))
    for i, piece in enumerate(pieces):
        alone, state = layer(x[:, piece])
        assert jnp.allclose(y[:, piece], alone, atol=1e-12, equal_nan=True)
        assert bool(jnp.isfinite(alone).all()) == (i > 0)
        if i == len(pieces) - 1:
            assert jnp.allclose(h.forward, state.forward, atol=1e-12)
    assert not jnp.any(y[0, np.array(left_out, int)])


def test_a_start_is_an_end():
    resets = jnp.array([1, 0, 0, 1, 1, 0], bool)
    assert ends(resets, None).tolist() == [False, False, True, True, False, False]
    mask = jnp.array([1, 1, 0, 1, 0, 1], bool)  # the reset at 4 is left out with its step
    assert ends(resets, mask).tolist()[:2] == [False, True]
    assert ends(resets, mask).tolist()[3] is False


def test_stack_is_composition():
    stack = build("stacked", layers=("lru", ("gru", {"hidden": 3})), residual=True)
    x, mask = sequence(), ~flags(2)
    first, second = stack.layers
    a, h = first(x, None, None, mask)
    b, g = second(x + a, None, None, mask)
    y, states = stack(x, None, None, mask)
    assert jnp.allclose(y, jnp.where(mask[..., None], x + a + b, 0), atol=1e-12)
    assert jax.tree.all(jax.tree.map(lambda s, t: jnp.allclose(s, t, atol=1e-12), states, (h, g)))


def test_bad_specifications_are_refused_before_anything_is_built():
    with pytest.raises(ValueError, match="did you mean 'lstm'"):
        factory(("bidirectional", {"layer": "lstmm"}))
    with pytest.raises(ValueError, match="did you mean 'hidden'"):
        factory(("stacked", {"layers": ["gru", ["lstm", {"hiden": 3}]]}))
    with pytest.raises(ValueError, match="keeps its width"):
        build("stacked", layers=[("gru", {"hidden": 5})], residual=True)


def test_dropout_between_layers_is_of_what_enters_the_next():
    below, above = ("elman", {"hidden": 3}), ("lstm", {"hidden": 3})
    options = dict(layers=[below, above, below], dropout=0.25, residual=True)
    stack = cast_parameters(make("stacked", 9, masks=6, rngs=nnx.Rngs(1), **options), jnp.float64)
    x = sequence()
    masks = stack.draw(jax.random.key(0), 1, T, jnp.float64)
    assert masks.shape == (1, T, 6) and set(np.unique(masks)) == {0, 1}
    many = stack.draw(jax.random.key(1), 1, 2000)
    assert jnp.allclose(many.mean((0, 1)), 0.75, atol=0.05)
    first, second, third = stack.layers
    z = x + first(x)[0]
    z = z + second(z * masks[:, :, :3] / 0.75)[0]
    expected = z + third(z * masks[:, :, 3:] / 0.75)[0]
    y, _ = stack(jnp.concatenate([x, masks], axis=2))
    assert jnp.allclose(y, expected, atol=1e-12)
    plain = build("stacked", **options)  # without masks: evaluation
    z = x
    for layer in plain.layers:
        z = z + layer(z)[0]
    assert jnp.allclose(plain(x)[0], z, atol=1e-12)


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(dropout=1.0), "below 1"),
        (dict(masks=3), "3 features"),
        (dict(masks=1), "3 features b"),
    ],
)
def test_a_stack_says_what_it_cannot_drop(options, says):
    with pytest.raises(ValueError, match=says):
        make("stacked", 4 if options.get("masks") == 1 else 3, **options)


@pytest.mark.thorough
def test_transformer_xl_takes_another_memory():
    options = dict(length=2, heads=3, feed_forward=4)
    short, x = build("transformer_xl", memory=2, **options), sequence()
    longer, like = short.with_memory(5), build("transformer_xl", memory=5, **options)
    for got, expected in zip(jax.tree.leaves(longer(x)), jax.tree.leaves(like(x)), strict=True):
        assert jnp.allclose(got, expected, atol=1e-12)
    assert short.memory == 2 and jnp.abs(short(x)[0] - longer(x)[0]).max() > 1e-6
    with pytest.raises(ValueError, match=">= 1"):
        build("transformer_xl", memory=3, same_length=True).with_memory(0)


@pytest.mark.thorough
def test_transformer_xl_of_one_length_sees_the_last_steps():
    """M of them at every place of a segment; and distances beyond `clamp` are all alike."""
    layer, x = build("transformer_xl", length=3, memory=4, same_length=True, clamp=1), sequence()
    seen = jax.jit(jax.jacrev(lambda x: (layer(x)[0][0] ** 3).sum(1)))
    reached = jnp.abs(seen(x)[:, 0]).max(2)
    np.testing.assert_array_equal(reached > 1e-12, np.tri(T, k=0) - np.tri(T, k=-4) > 0)
    turned = x[:, jnp.array([0, 1, 2, 3, 6, 5, 4, 7])]
    assert jnp.allclose(layer(turned)[0][:, 7], layer(x)[0][:, 7], atol=1e-12)
    assert jnp.abs(layer(turned)[0][:, 6] - layer(x)[0][:, 6]).max() > 1e-6


@pytest.mark.share(2)
@pytest.mark.parametrize("name", ["gru", "min_gru", "slstm", "bidirectional", "transformer_xl"])
def test_a_nan_before_a_reset_is_in_no_gradient(name):
    layer = build(name)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x, resets = sequence(), flags(5)

    def loss(params, x):
        return jnp.sum(nnx.merge(graph, params, rest)(x, None, resets)[0][:, 5:] ** 2)

    gradient = jax.jit(jax.grad(loss, (0, 1)))
    found = gradient(params, x.at[0, 1].set(jnp.nan))
    clean = gradient(params, x.at[0, 1].set(0.0))
    assert jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-12), found, clean))
    run = jax.jit(lambda layer, *args: layer(*args))
    y, h = run(layer, x.at[0, 6].set(jnp.nan), None, resets)
    if layer.causal:  # and where nothing cuts it off it is not hidden
        assert not jnp.any(jnp.isfinite(y[0, 6:])) and jnp.all(jnp.isfinite(y[0, :6]))
        assert not jnp.any(jnp.isfinite(run(layer, x, h, ~(resets | True))[0]))


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_transformer_xl_streams_cut_anywhere(seed):
    """Random cuts, resets and masks: the stream equals every piece alone, in one call."""
    rng = np.random.default_rng(seed)
    layer = build("transformer_xl", length=3, memory=4)
    x = sequence(seed)
    resets, mask = jnp.asarray(rng.random((1, T)) < 0.2), jnp.asarray(rng.random((1, T)) < 0.8)
    h, outputs = None, []
    for part in np.split(np.arange(T), np.sort(rng.integers(1, T, 2))):
        y, h = layer(x[:, part], h, resets[:, part], mask[:, part])
        outputs.append(y)
    kept = np.flatnonzero(mask[0])
    starts = [t for t in kept if resets[0, t]]
    alone = [layer(x[:, p]) for p in np.split(kept, np.searchsorted(kept, starts)) if len(p)]
    expected = jnp.zeros((1, T, 3)).at[:, kept].set(jnp.concatenate([y for y, _ in alone], 1))
    assert jnp.allclose(jnp.concatenate(outputs, 1), expected, atol=1e-12)
    for found, expected in zip(jax.tree.leaves(h), jax.tree.leaves(alone[-1][1]), strict=True):
        assert jnp.allclose(found, expected, atol=1e-12)


def test_zoneout_takes_the_new_value_where_the_mask_says():
    inner = ("lstm", {"hidden": 3})
    x, plain = sequence(), build("lstm", hidden=3)
    drawn = cast_parameters(
        make("zoneout", 9, layer=inner, cell_rate=0.5, masks=6, rngs=nnx.Rngs(1)), jnp.float64
    )

    def run(masks):
        return drawn(jnp.concatenate([x, masks], axis=2))

    for new, old in zip(jax.tree.leaves(run(jnp.ones((1, T, 6)))), jax.tree.leaves(plain(x))):
        assert jnp.allclose(new, old, atol=1e-12)
    halves = jnp.ones((1, T, 6)).at[:, :, 3:].set(0)
    y, (h, c) = run(halves)  # h is of a cell that came in and is not kept
    assert jnp.abs(y).max() > 1e-3 and jnp.allclose(h, y[:, -1]) and not c.any()
    y, (h, c) = run(1 - halves)
    assert not y.any() and not h.any() and jnp.abs(c).max() > 1e-3


@pytest.mark.thorough
def test_zoneout_is_the_mean_of_one_drawn_step():
    """Evaluation is the expectation over masks of a step, and `draw` draws with that rate."""
    inner, rates = ("gru", {"hidden": 2}), dict(rate=0.25)
    mean = build("zoneout", layer=inner, **rates)
    drawn = cast_parameters(
        make("zoneout", 5, layer=inner, masks=2, rngs=nnx.Rngs(1), **rates), jnp.float64
    )
    masks = drawn.draw(jax.random.key(0), 4000, 1, jnp.float64)
    assert masks.shape == (4000, 1, 2) and set(np.unique(masks)) == {0, 1}
    share = masks.mean((0, 1))
    assert jnp.allclose(share, 0.75, atol=0.03)
    h = jnp.array([[0.5, -0.5]])
    x = sequence()[:, :1]
    steps = drawn(
        jnp.concatenate([jnp.broadcast_to(x, (4000, 1, 3)), masks], axis=2),
        jnp.broadcast_to(h, (4000, 2)),
    )[0].mean(0)[0]
    new = drawn(jnp.concatenate([x, jnp.ones((1, 1, 2))], axis=2), h)[0][0, 0]
    assert jnp.allclose(steps, share * new + (1 - share) * h[0], atol=1e-12)
    assert jnp.allclose(mean(x, h)[0][0, 0], 0.75 * new + 0.25 * h[0], atol=1e-12)


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(rate=1.0), "'rate' .* below 1"),
        (dict(layer="qrnn"), "not a step"),
        (dict(masks=3), "3 features"),
        (dict(layer="slstm", cell_rate=0.5), "no cell"),
        (dict(layer="gru", cell_rate=0.5), "no cell"),
        (dict(layer=("gru", {"hidden": 2}), masks=1), "2 units"),
    ],
)
def test_zoneout_says_what_it_cannot_do(options, says):
    with pytest.raises(ValueError, match=says):
        build("zoneout", **options)
