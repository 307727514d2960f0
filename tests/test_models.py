"""Models: what goes in and out, streams, resets, masks, depth, dropout; and writing with them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.flow import Flow
from seqjax.nn.base import cast_parameters
from seqjax.stacks.blocks import dropout
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Features, Spec, Tokens, Values
from seqjax.train.generate import generate
from seqjax.zoo import LAYERS, make

B, T, V = 3, 12, 7
KEY = jax.random.key(8)
# Two kinds of state, a layer that changes the width, and a rest after the last whole pattern.
PATTERN = (LayerConfig("lru", {"state": 3}), LayerConfig("elman", {"hidden": 5}))
CONFIG = ModelConfig(layer=PATTERN, features=4, depth=5, compute="float64")
KINDS = {
    "language_model": Spec(Tokens(V), Classes(V, per_step=True)),
    "tagger": Spec(Features(2), Classes(3, per_step=True)),
    "classifier": Spec(Tokens(V), Classes(3, per_step=False)),
    "regressor": Spec(Features(2), Values(1, per_step=False)),
}
POOLS = {"regressor": "mean"}
TRUNKS = ("tagger", "classifier", "regressor")  # what differs behind the embedding


def inputs(spec, key=0):
    key = jax.random.key(key)
    if spec.inputs == Tokens(V):
        return jax.random.randint(key, (B, T), 0, V, jnp.int32)
    return jax.random.normal(key, (B, T, *spec.inputs.shape))


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, a.dtype), tree)


@pytest.fixture(params=TRUNKS, scope="module")
def kind(request):
    """A model of each kind, and a compiled call that takes what there is."""
    spec = KINDS[request.param]
    config = replace(CONFIG, pool=POOLS.get(request.param, "last"))
    model = Model(config, spec, rngs=nnx.Rngs(0))
    return model, spec, jax.jit(lambda x, h, resets, mask: model(x, h, resets=resets, mask=mask))


def flags(seed=3):
    resets, mask = jax.random.bernoulli(jax.random.key(seed), 0.3, (2, B, T))
    return resets, ~mask


@pytest.mark.share(1)
def test_a_stream_split_anywhere_is_the_whole(kind):
    model, spec, call = kind
    x, (resets, mask) = inputs(spec), flags()
    whole, end = call(x, model.start(B), resets, mask)
    h, parts = model.start(B), []
    for piece in (slice(0, 6), slice(6, 6), slice(6, T)):
        y, h = call(x[:, piece], h, resets[:, piece], mask[:, piece])
        parts.append(y)
    together = jnp.concatenate(parts, axis=1) if spec.outputs.per_step else parts[-1]
    np.testing.assert_allclose(together, whole, atol=1e-10)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), h, end)


def test_a_masked_step_is_left_out_and_a_reset_is_a_fresh_start(kind):
    model, spec, call = kind
    x, h = inputs(spec), model.start(B)
    never, always = jnp.zeros((B, T), bool), jnp.ones((B, T), bool)
    nothing = jnp.nan if x.dtype == jnp.float64 else V - 1
    bad = x.at[:, 2].set(nothing)
    after, _ = call(bad, h, never.at[:, 6].set(True), always)
    fresh, _ = call(x[:, 6:], h, never[:, 6:], always[:, 6:])
    np.testing.assert_allclose(after[:, 6:] if spec.outputs.per_step else after, fresh, atol=1e-10)

    bad = jnp.concatenate([bad[:, :6], jnp.full_like(bad[:, :6], nothing)], axis=1)
    mask = never.at[:, jnp.array([0, 1, 3, 4, 5])].set(True)
    left_out, _ = call(bad, h, never, mask)
    short = x[:, jnp.array([0, 0, 1, 3, 4, 5])]
    without, _ = call(short, h, never[:, :6], always[:, :6].at[:, 0].set(False))
    if spec.outputs.per_step:
        assert (left_out[:, jnp.array([2, 6, 11])] == 0).all()
        left_out, without = left_out[:, jnp.array([0, 1, 3, 4, 5])], without[:, 1:]
    np.testing.assert_allclose(left_out, without, atol=1e-10)


def piece_of(h, n):
    """The state [B, ...] of the n-th piece."""
    blocks, rest = (partial(jax.tree.map, lambda s, axis=a: jnp.take(s, n, axis)) for a in (2, 1))
    return h._replace(blocks=blocks(h.blocks), tail=rest(h.tail), pooled=rest(h.pooled))


@pytest.mark.thorough
@pytest.mark.share(1)
def test_pieces_of_a_row_have_states_and_answers_of_their_own(kind):
    model, spec, call = kind
    x, (resets, mask), cu = inputs(spec), flags(), (0, 5, 5, 10)
    rows = jnp.array([cu] * B)
    first = jax.tree.map(lambda h: h + 0.1, model.start((B, 3)))
    y, h = model(x, first, resets=resets, mask=mask, cu_seqlens=rows)
    assert shapes(h) == shapes(first)
    for n in (0, 2):
        part = slice(None), slice(cu[n], cu[n + 1])
        want, end = call(x[part], piece_of(first, n), resets[part], mask[part])
        found = y[part] if spec.outputs.per_step else y[:, n]
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-11)
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-11), piece_of(h, n), end)


def test_a_masked_nan_does_not_reach_the_gradient():
    spec = KINDS["regressor"]
    x = inputs(spec).at[:, 2].set(jnp.nan)
    mask = jnp.ones((B, T), bool).at[:, 2].set(False)
    model = Model(replace(CONFIG, layer=PATTERN[1:], depth=1), spec, rngs=nnx.Rngs(0))
    grads = jax.jit(jax.grad(lambda m: jnp.sum(m(x, mask=mask)[0])))(model)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", KINDS)
def test_what_goes_in_and_out(name):
    spec = KINDS[name]
    model = Model(replace(CONFIG, depth=2), spec, rngs=nnx.Rngs(0))
    y, h = jax.eval_shape(model, inputs(spec))
    out = spec.outputs
    assert y.shape == ((B, T, out.size) if out.per_step else (B, out.size))
    like = jax.eval_shape(lambda: model.start(B))
    assert shapes(h) == shapes(like)


@pytest.mark.share(4)
@pytest.mark.parametrize("name", LAYERS)
def test_any_layer_makes_a_model_whose_state_streams(name):
    layer = (LayerConfig(name, LAYERS[name].smoke),)
    config = replace(CONFIG, layer=layer, compute="bfloat16")
    build = lambda: Model(config, KINDS["tagger"], rngs=nnx.Rngs(0))  # noqa: E731
    model = jax.eval_shape(build)
    before = jax.eval_shape(lambda m: m.start(B), model)
    y, after = jax.eval_shape(lambda m, h: m(inputs(KINDS["tagger"]), h), model, before)
    assert y.shape == (B, T, 3)
    assert shapes(before) == shapes(after)


@pytest.mark.share(4)
@pytest.mark.parametrize("name", [name for name in LAYERS if LAYERS[name].kind != "wrapper"])
def test_a_block_hands_its_input_on_and_a_mixer_does_not(name):
    """With all weights zero but those of norms, what is left is the stream, or its norm."""
    layer = cast_parameters(make(name, 4, **LAYERS[name].smoke), jnp.float64)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    params = jax.tree.map_with_path(
        lambda path, p: p if "norm" in jax.tree_util.keystr(path) else 0 * p, params
    )
    x = jax.random.normal(jax.random.key(0), (3, 4))
    y = jax.jit(lambda params: nnx.merge(graph, params, rest)(x[None])[0][0])(params)
    normed = jax.nn.standardize(x, epsilon=1e-5)
    handed_on = y.shape == x.shape and any(jnp.allclose(y, z, atol=1e-3) for z in (x, normed))
    assert LAYERS[name].kind == ("block" if handed_on else "mixer")


def test_a_block_is_a_step_of_the_stream():
    """No norm, residual or MLP goes around its own; dropout takes from what it adds."""
    hawk = LayerConfig("hawk", {"heads": 1, "expansion": 1.0})
    config = replace(CONFIG, layer=(hawk,), depth=1, dropout=0.5)
    block = Model(config, KINDS["tagger"], rngs=nnx.Rngs(0)).blocks[0]
    graph, state = nnx.split(block)
    block = nnx.merge(graph, jax.tree.map(lambda p: p[0].astype(jnp.float64), state))
    assert [block.norm, block.project, block.mlp_norm, block.mlp] == [None] * 4
    x = jax.random.normal(jax.random.key(0), (B, T, 4))
    call = jax.jit(lambda key: block(x, None, Flow(), key)[0])
    whole, dropped = call(None), call(jax.random.key(1))
    np.testing.assert_allclose(whole, jax.jit(lambda x: block.layer(x)[0])(x), atol=1e-12)
    kept = jnp.isclose(dropped, x)
    np.testing.assert_allclose(jnp.where(kept, x, 2 * whole - x), dropped, atol=1e-12)
    assert 0.35 < jnp.mean(kept) < 0.65


@pytest.mark.parametrize("name, options, whole", [
    ("rwkv4", {}, False),
    ("rwkv4", {"block": True}, True),
    ("stacked", {"layers": ("hawk", "griffin")}, True),
    ("stacked", {"layers": ("hawk", "lru")}, False),
    ("negative_eigenvalues", {"layer": "hawk"}, True),
    ("bidirectional", {"layer": "hawk"}, False),
])  # fmt: skip
def test_options_and_wrappers_that_make_a_block(name, options, whole):
    assert nnx.eval_shape(lambda: make(name, 4, **options)).block is whole


def test_the_scan_over_layers_is_the_loop_over_blocks():
    model = Model(CONFIG, KINDS["tagger"], rngs=nnx.Rngs(0))
    model = jax.tree.map(lambda p: p.astype(jnp.float64), model)
    x = inputs(KINDS["tagger"])

    @jax.jit
    def loop(model):
        y = model.embed(x)
        graph, stacked = nnx.split(model.blocks)
        for n in range(2):
            for block in nnx.merge(graph, jax.tree.map(lambda p, n=n: p[n], stacked)):
                y, *_ = block(y, None, Flow(), None)
        y, *_ = model.tail[0](y, None, Flow(), None)
        return model.head(model.norm(y), model.embed)

    np.testing.assert_allclose(jax.jit(model)(x)[0], loop(model), atol=1e-10)


def test_the_program_does_not_grow_with_depth():
    def size(depth):
        config = replace(CONFIG, depth=depth, dropout=0.1)
        model = Model(config, KINDS["tagger"], rngs=nnx.Rngs(0))

        def loss(model, x, key):
            return jnp.sum(model(x, key=key)[0])

        x = jax.ShapeDtypeStruct((B, T, 2), jnp.float64)
        lowered = jax.jit(jax.grad(loss)).lower(model, x, jax.random.key(0))
        return len(lowered.as_text().splitlines())

    assert size(2) == size(16)


def test_dropout():
    x = jnp.ones((64, 50, 8))
    plain = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(plain)) == {0.0, 1 / 0.75}
    assert abs(float(jnp.mean(plain)) - 1) < 0.02
    assert (jnp.std(plain, axis=1) > 0).all()  # another mask at each time step
    shared = dropout(x, 0.25, jax.random.key(0), variational=True)
    assert (shared == shared[:, :1]).all() and 0.15 < float(jnp.mean(shared == 0)) < 0.35

    spec = KINDS["tagger"]
    x = inputs(spec)
    small = replace(CONFIG, depth=2)
    off, on = (Model(replace(small, dropout=p), spec, rngs=nnx.Rngs(0)) for p in (0.0, 0.5))
    call = jax.jit(lambda model, key: model(x, key=key)[0])
    np.testing.assert_array_equal(call(off, None), call(on, None))  # no key: evaluation
    first, again, other = (call(on, jax.random.key(k)) for k in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()


def test_layers_that_draw_noise_do_so_with_the_key_of_the_model():
    layers = (LayerConfig("qrnn", {"zoneout": 0.5}), LayerConfig("zoneout"), LayerConfig("gru"))
    model = Model(replace(CONFIG, layer=layers, depth=6), KINDS["tagger"], rngs=nnx.Rngs(0))
    x = inputs(KINDS["tagger"])
    assert model.noisy
    still, noisy, other = (model(x, key=key)[0] for key in (None, *jax.random.split(KEY)))
    assert all(jnp.max(abs(a - b)) > 1e-4 for a, b in ((still, noisy), (noisy, other)))
    plain = Model(replace(CONFIG, layer=layers[2:]), KINDS["tagger"], rngs=nnx.Rngs(0))
    assert not plain.noisy
    np.testing.assert_array_equal(plain(x, key=KEY)[0], plain(x)[0])


def test_bfloat16_computes_low_and_keeps_the_state_high():
    spec = KINDS["language_model"]
    config = replace(CONFIG, depth=2, norm="layer", mlp="mlp")
    x, call = inputs(spec), jax.jit(lambda model: model(x))
    (y, _), (y_low, h) = (
        call(Model(replace(config, compute=c), spec, rngs=nnx.Rngs(0)))
        for c in ("float64", "bfloat16")
    )
    assert y_low.dtype == jnp.float32
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(h)} == {"float32", "complex64"}
    assert float(jnp.max(jnp.abs(y - y_low.astype(y.dtype)))) < 0.05 * float(jnp.max(jnp.abs(y)))


@pytest.mark.parametrize("change, message", [
    (dict(depth=1), "at least the pattern's 2"),
    (dict(layer=(LayerConfig("elmann"),)), "did you mean 'elman'"),
    (dict(layer=(LayerConfig("elman", {"hiden": 3}),)), "did you mean 'hidden'"),
    (dict(norm="rmsnorm"), "model.norm must be 'rms' or 'layer', got 'rmsnorm'"),
    (dict(mlp="swiglu"), "model.mlp must be 'glu' or"),
    (dict(dropout=1.0), "model.dropout must be a number at least 0 and below 1"),
])  # fmt: skip
def test_mistakes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        Model(replace(CONFIG, **change), KINDS["tagger"], rngs=nnx.Rngs(0))


def test_wrong_inputs_are_told():
    with pytest.raises(ValueError, match=r"tokens, integers \[B, T\], got float64 \[3, 12, 2\]"):
        Model(CONFIG, KINDS["classifier"], rngs=nnx.Rngs(0))(inputs(KINDS["tagger"]))


# --- writing


@pytest.fixture(scope="module")
def writer():
    config = replace(CONFIG, depth=2)
    model = Model(config, KINDS["language_model"], rngs=nnx.Rngs(1))
    model.head.kernel.set_value(30 * model.head.kernel.get_value())  # far from uniform
    return model


PROMPTS = [[1, 2, 3, 4, 5], [6]]


def test_greedy_is_the_argmax_of_full_passes(writer):
    call, tokens = jax.jit(writer), np.zeros((1, 11), np.int32)
    tokens[0, :5] = PROMPTS[0]
    for t in range(5, 11):  # what stands at t and later is not seen at t - 1
        tokens[0, t] = np.argmax(call(tokens)[0][0, t - 1])
    assert generate(writer, PROMPTS[:1], 6, temperature=0)[0].tolist() == tokens[0, 5:].tolist()


def test_prompts_in_a_batch_are_as_alone(writer):
    keys = jax.random.split(jax.random.key(0), len(PROMPTS))
    together = generate(writer, PROMPTS, 8, key=keys, top_k=5, top_p=0.95)
    assert together.shape == (2, 8)
    for n, prompt in enumerate(PROMPTS):
        alone = generate(writer, [prompt], 8, key=keys[n : n + 1], top_k=5, top_p=0.95)
        assert alone[0].tolist() == together[n].tolist()


@pytest.mark.parametrize("options, support", [
    ({}, {0, 1, 2, 3, 4}),
    (dict(top_k=2), {1, 3}),
    (dict(top_p=0.5), {1, 3}),  # 0.4 + 0.3 are needed to reach it
    (dict(top_p=0.39), {1}),
    (dict(top_p=1e-6), {1}),
    (dict(top_k=4, top_p=0.8), {1, 3, 0}),  # of the four renormalised: 0.41, 0.31, 0.20
    (dict(temperature=0.01), {1}),
])  # fmt: skip
def test_sampling_takes_the_tokens_it_may_in_their_proportions(options, support):
    likely, answer = jnp.array([0.2, 0.4, 0.03, 0.3, 0.07]), Classes(5, per_step=True)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.vmap(lambda k: answer.sample(k, jnp.log(likely), **options))(keys))
    assert set(draws.tolist()) == support
    if "temperature" not in options:
        at = sorted(support)
        share, expected = np.bincount(draws, minlength=5)[at] / len(draws), np.asarray(likely)[at]
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("prompts, options, message", [
    ([], dict(temperature=0), "at least one prompt"),
    ([[]], dict(temperature=0), r"a prompt is tokens \[T\], T > 0, got \[0\]"),
    ([[V]], dict(temperature=0), "outside 0 .. 6"),
    ([[1]], {}, "needs a key"),
    ([[1]], dict(temperature=-1), "temperature >= 0"),
])  # fmt: skip
def test_impossible_generation_is_told(writer, prompts, options, message):
    with pytest.raises(ValueError, match=message):
        generate(writer, prompts, 2, **options)


def test_only_causal_language_models_write():
    both = (LayerConfig("bidirectional", LAYERS["bidirectional"].smoke),)
    blind = Model(replace(CONFIG, layer=both, depth=1), KINDS["language_model"], rngs=nnx.Rngs(0))
    tagger = Model(replace(CONFIG, layer=PATTERN[1:], depth=1), KINDS["tagger"], rngs=nnx.Rngs(0))
    for model, message in (
        (blind, "only a causal"),
        (tagger, "only a model whose answers are its next inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(model, [[1]], 2, temperature=0)
