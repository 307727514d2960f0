"""Layers that look at a source in every step, alone and as the decoder of a model of pairs.

Their equations are in `test_equations`, with a source; their laws in `test_layers`, too.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.answers import Pair, Paired, Strokes
from seqjax.core.flow import Source
from seqjax.nn.base import cast_parameters, has
from seqjax.stacks.alignments import alignments
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Features, Spec, Tokens
from seqjax.tools.looked import looked_picture
from seqjax.train.generate import generate
from seqjax.zoo import make

B, T, S, D, V = 2, 6, 5, 4, 7
ADDITIVE = dict(hidden=3, align=3)
LATE = dict(score="general", hidden=3)
HAND = dict(hidden=3, depth=2, components=2)
LAYERS = [("bahdanau", ADDITIVE), ("bahdanau", LATE), ("mdn_handwriting", HAND)]
every_layer = pytest.mark.parametrize("name, options", LAYERS, ids=["before", "after", "hand"])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def build(name, options):
    return cast_parameters(make(name, D, **options), jnp.float64)


def padded(y, front, behind):
    """The source with rows that are not there, of anything, NaNs too."""
    rows = ((0, 0), (front, behind))
    there = np.pad(np.ones(y.shape[:2], bool), rows)
    return Source(jnp.asarray(np.pad(y, (*rows, (0, 0)), constant_values=1e3)), jnp.asarray(there))


@pytest.mark.share(1)
@every_layer
def test_only_what_is_there_is_seen(name, options):
    layer, x, y = build(name, options), normal(0, B, T, D), normal(1, B, S, D)
    run = jax.jit(lambda x, source: layer(x, source=source))
    whole, h = run(x, Source(y))
    for front, behind in ((2, 0), (0, 3), (1, 1)):
        found, k = run(x, padded(y, front, behind))
        np.testing.assert_allclose(found, whole, atol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), k, h)
    nothing = Source(y, jnp.zeros((B, S), bool))
    alone = jax.jit(lambda x: layer(x))(x)[0]
    np.testing.assert_allclose(run(x, nothing)[0], alone, atol=1e-12)
    assert float(jnp.abs(whole - alone).max()) > 1e-3


@pytest.mark.thorough
def test_steps_pieces_and_directions_have_the_same_source():
    """In a wrapper, packed, backwards, and with the states on the way."""
    x, source = normal(0, B, T, D), Source(normal(1, B, S, D))
    layer = build("bahdanau", ADDITIVE)
    whole, _ = layer(x, source=source)
    first, middle = layer(x[:, :3], source=source)
    cut = jnp.array([[0, 3, T]] * B)
    y, ends = layer(x, source=source, cu_seqlens=cut)
    np.testing.assert_allclose(y[:, :3], first, atol=1e-12)
    np.testing.assert_allclose(y[:, 3:], layer(x[:, 3:], source=source)[0], atol=1e-12)
    np.testing.assert_allclose(ends.s[:, 0], middle.s, atol=1e-12)
    y, states = layer(x, source=source, every=3)
    np.testing.assert_allclose(y, whole, atol=1e-12)
    np.testing.assert_allclose(states.s[:, 0], middle.s, atol=1e-12)
    back = layer(x, source=source, reverse=True)[0]
    np.testing.assert_allclose(back, layer(x[:, ::-1], source=source)[0][:, ::-1], atol=1e-12)
    both = cast_parameters(make("bidirectional", D, layer=("bahdanau", ADDITIVE)), jnp.float64)
    assert has(both, "sourced")
    expected = [one(x, source=source, reverse=n == 1)[0] for n, one in enumerate(both.parts())]
    np.testing.assert_allclose(
        both(x, source=source)[0], jnp.concatenate(expected, axis=-1), atol=1e-12
    )


@pytest.mark.thorough
def test_the_window_moves_on_only():
    """Also by a learned path at which a network would go back."""
    layer = build("mdn_handwriting", HAND)
    layer.W_p.kernel.set_value(30 * layer.W_p.kernel.get_value())
    _, states = layer(normal(0, B, 40, D), source=Source(normal(1, B, S, D)), every=1)
    kappa = np.asarray(states.kappa)
    assert (np.diff(kappa, axis=1) > 0).all() and kappa.min() > 0


@pytest.mark.parametrize("source, message", [
    (normal(0, B, S, D), r"Bahdanau takes a Source\(y, present\), got"),
    (Source(normal(0, B, S, D + 1)), r"takes a source \[2, S, 4\] of at least one step, got"),
    (Source(normal(0, B, 0, D)), r"of at least one step, got \[2, 0, 4\]"),
    (Source(jnp.zeros((B, S, D), int)), "takes a floating-point source, got int"),
    (Source(normal(0, B, S, D), jnp.ones((B, T), bool)), r"takes present bool \[2, 5\]"),
])  # fmt: skip
def test_wrong_sources(source, message):
    with pytest.raises(ValueError, match=message):
        build("bahdanau", ADDITIVE)(normal(0, B, T, D), source=source)


def test_what_does_not_look_at_a_source_refuses_it():
    with pytest.raises(ValueError, match="GRU does not look at a source"):
        build("gru", {})(normal(0, B, T, D), source=Source(normal(1, B, S, D)))


@pytest.mark.parametrize("options, message", [
    (dict(score="dot", hidden=3), "score='dot' needs a state of 4"),
    (dict(score="multiplicative"), "score"),
    (dict(score="dot", deep=3), "deep is of score='additive', got deep=3"),
])  # fmt: skip
def test_decoders_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        make("bahdanau", D, **options)


# --- in a model


SPEC = Spec(Pair(Tokens(V), Tokens(V), V - 1), Classes(V, per_step=True))
BOTH = (LayerConfig("bidirectional", {"layer": "gru"}),)
CONFIG = ModelConfig(features=D, depth=1, encoder=BOTH, encoder_depth=1, compute="float64")


def model_of(name, options, *, spec=SPEC, **changes):
    config = replace(CONFIG, layer=(LayerConfig(name, options),), **changes)
    return cast_parameters(Model(config, spec, rngs=nnx.Rngs(0)), jnp.float64)


def tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, V, jnp.int32)


@pytest.mark.share(1)
@every_layer
def test_a_decoder_goes_on_step_by_step(name, options):
    model = model_of(name, options, depth=3)
    assert all(block.cross is None for block in (*model.blocks, *model.tail))
    pair = Paired(tokens(0, B, S), tokens(1, B, T), jnp.ones((B, S), bool).at[0, 3:].set(False))
    call = jax.jit(lambda x, h: model(x, h))
    whole, _ = call(pair, None)
    y, h = call(pair._replace(target=pair.target[:, :1]), None)
    steps = [y]
    for t in range(1, T):
        y, h = call(pair.target[:, t : t + 1], h)
        steps.append(y)
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), whole, atol=1e-10)
    other, _ = call(pair._replace(source=(pair.source + 1) % V), None)
    assert float(jnp.abs(other - whole).max()) > 1e-6


@pytest.mark.thorough
def test_a_decoder_begins_with_its_source():
    """Its first state is that of the first step that is there, tanh(W_s h_1)."""
    model = model_of("bahdanau", ADDITIVE)
    source, present = tokens(0, B, S), jnp.ones((B, S), bool).at[0, :2].set(False)
    _, h = model(Paired(source, tokens(1, B, 0), present))
    y = h.source.y[jnp.arange(B), jnp.array([2, 0])]
    (block,) = model.blocks
    W = block.layer.W_s
    expected = jnp.tanh(y @ W.kernel[0] + W.bias[0][None])
    np.testing.assert_allclose(h.blocks[0].s[0], expected, atol=1e-12)


@pytest.mark.thorough
@every_layer
def test_where_a_decoder_looked(name, options):
    """In every step at what is there; of a softmax, once in all."""
    model = model_of(name, options, depth=2)
    present = jnp.ones((B, S), bool).at[0, 3:].set(False)
    pair = Paired(tokens(0, B, S), tokens(1, B, T), present)
    alpha = alignments(model, pair)
    assert alpha.shape == (2, B, T, S) and not alpha[:, 0, :, 3:].any() and (alpha >= 0).all()
    if name == "bahdanau":
        np.testing.assert_allclose(alpha.sum(axis=-1), 1, atol=1e-12)
        layer = model.blocks[0].layer
        first = jax.tree.map(lambda p: p[0], nnx.state(layer))
        layer = nnx.merge(nnx.graphdef(layer), first)
        y, h = model(pair._replace(target=pair.target[:, :0]))
        if options is ADDITIVE:  # by hand, of the first step
            seen = layer.align.seen(Source(h.source.y[1], present[1]))
            expected = layer.align.weights(h.blocks[0].s[0, 1], seen)
            np.testing.assert_allclose(alpha[0, 1, 0], expected, atol=1e-12)
    with pytest.raises(ValueError, match="none of its layers looks at a source"):
        alignments(model_of("gru", {}), pair)


@pytest.mark.thorough
def test_strokes_are_written_of_a_text():
    """A pair whose target is features begins with zeros, and is sampled on."""
    spec = Spec(Pair(Tokens(V), Features(3), 0), Strokes(2, per_step=True))
    model = model_of("mdn_handwriting", HAND, spec=spec)
    texts = [[1, 2, 3], [4]]
    out = generate(model, texts, 5, key=jax.random.key(0))
    assert out.shape == (2, 5, 3) and np.isfinite(out).all()
    alone = generate(model, texts[1:], 5, key=jax.random.split(jax.random.key(0))[1:])
    np.testing.assert_allclose(alone[0], out[1], atol=1e-5)
    with pytest.raises(ValueError, match="begins with zeros"):
        Pair(Tokens(V), Features(3), 1)


@pytest.mark.thorough
def test_a_picture_of_where_it_looked():
    """A panel for each prompt: the source across, what was written down, up to its end."""
    model = model_of("bahdanau", ADDITIVE)
    names = [f"<{n}>" for n in range(V)]
    figure = looked_picture(model, [[1, 2, 6], [3]], [[4, 5, 0, 1], [2, 2]], names, 0)
    shown = [
        [[label.get_text() for label in axis.get_ticklabels()] for axis in (one.xaxis, one.yaxis)]
        for one in figure.axes
    ]
    assert shown == [[["<1>", "<2>", "<6>"], ["<4>", "<5>", "<0>"]], [["<3>"], ["<2>", "<2>"]]]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array().sum(axis=1), 1, atol=1e-6)
