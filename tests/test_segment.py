"""Layers over segments: what the contract cannot say about them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_goldens as goldens
from flax import nnx
from golden_segment import compressive_layer

from seqjax.layers.segment.compressive_transformer import Decoder
from seqjax.nn.base import cast_parameters
from seqjax.testing import check_layer
from seqjax.zoo import LAYERS, make
from seqjax.zoo.segment import ROWS

T = 9
RELEASED = goldens.paths("compressive_attention")


def build(name, features=4, **options):
    options = {**LAYERS[name].smoke, **options}
    return cast_parameters(make(name, features, **options), jnp.float64)


def sequence(seed=0, features=4):
    return jax.random.normal(jax.random.key(seed), (1, T, features))


@pytest.mark.share(1)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.make.causal])
def test_streams_cut_anywhere(name, seed):
    """Random cuts, resets and masks: the stream equals every piece alone, in one call."""
    rng, layer, x = np.random.default_rng(seed), build(name), sequence(seed)
    resets, mask = jnp.asarray(rng.random((1, T)) < 0.2), jnp.asarray(rng.random((1, T)) < 0.8)
    run, h, outputs = jax.jit(lambda *given: layer(*given)), None, []
    for part in np.split(np.arange(T), np.sort(rng.integers(1, T, 2))):
        y, h = run(x[:, part], h, resets[:, part], mask[:, part])
        outputs.append(y)
    kept = np.flatnonzero(mask[0])
    starts = [t for t in kept if resets[0, t]]
    alone = [run(x[:, p]) for p in np.split(kept, np.searchsorted(kept, starts)) if len(p)]
    expected = jnp.zeros((1, T, layer.out_features))
    expected = expected.at[:, kept].set(jnp.concatenate([y for y, _ in alone], 1))
    assert jnp.allclose(jnp.concatenate(outputs, 1), expected, atol=1e-12)
    found, expected = layer.canonical(h), layer.canonical(alone[-1][1])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.allclose(a, b, atol=1e-12)


def outputs(layer, x, *given):
    return jax.jit(lambda layer, *given: layer(*given)[0])(layer, x, *given)


def test_infini_attention_is_attention_within_a_segment_and_where_its_gate_is_closed():
    layer = build("infini_transformer", length=T)
    plain = cast_parameters(make("attention", 4, heads=2, window=T), jnp.float64)
    for name in ("W_q", "W_k", "W_v", "W_o"):
        getattr(plain, name).kernel = getattr(layer, name).kernel
    x = sequence()
    assert jnp.allclose(outputs(layer, x), outputs(plain, x), atol=1e-12)
    layer, parts = build("infini_transformer"), x.reshape(3, 3, 4)  # segments of three
    layer.beta = layer.beta - 1e3
    assert jnp.allclose(outputs(layer, x), outputs(layer, parts).reshape(x.shape), atol=1e-12)


@pytest.mark.thorough
def test_rmt_aligns_the_last_segment():
    """Seven steps in segments of three: one, three and three, in one call or cut anywhere."""
    layer, x = build("rmt"), sequence()[:, :7]
    run = jax.jit(lambda layer, *given: layer(*given))
    y, h = run(layer, x, layer.aligned(1, 7, x.dtype))
    first, m = run(layer, x[:, :1], layer.aligned(1, 1, x.dtype))
    short, after = run(build("rmt", length=1), x[:, :1])
    assert jnp.allclose(first, short, atol=1e-12)
    assert jnp.allclose(m.memory.m, after.memory.m, atol=1e-12)
    rest, end = run(layer, x[:, 1:], m)
    assert jnp.allclose(y, jnp.concatenate([first, rest], 1), atol=1e-12)
    for a, b in zip(jax.tree.leaves(h), jax.tree.leaves(end), strict=True):
        assert jnp.allclose(a, b, atol=1e-12)
    assert jnp.abs(y - run(layer, x)[0]).max() > 1e-3
    resets = jnp.zeros((1, 7), bool).at[0, 2].set(True)  # which goes to a whole segment
    y = outputs(layer, x, layer.aligned(1, 7, x.dtype), resets)
    assert jnp.allclose(y[:, 2:], outputs(layer, x[:, 2:]), atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["compressive_transformer", "block_recurrent"])
def test_within_a_segment_a_memory_is_not_seen(name):
    """Of one segment: the next ones of a sequence in segments, read after a reset."""
    layer, x = build(name), sequence()
    C = layer.length
    resets = (jnp.arange(T) % C == 0)[None]
    alone = [outputs(layer, x[:, n : n + C]) for n in range(0, T, C)]
    assert jnp.allclose(outputs(layer, x, None, resets), jnp.concatenate(alone, 1), atol=1e-12)
    assert jnp.abs(outputs(layer, x) - jnp.concatenate(alone, 1)).max() > 1e-3


def by_heads(z, heads):
    return np.asarray(z).reshape(len(z), heads, -1)


def read(q, k, v):
    scores = np.einsum("ihd,jhd->hij", q, k) / q.shape[2] ** 0.5
    weights = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v)


@pytest.mark.share(1)
@pytest.mark.parametrize("auto", [False, True], ids=["attention", "auto-encoding"])
def test_the_loss_of_compression_is_its_own(auto):
    """Its value by a loop, and a gradient for the compression (and the decoder) alone."""
    layer, x = build("compressive_transformer", length=4, memory=6), sequence()
    rng = np.random.default_rng(0)
    decoder = cast_parameters(Decoder(4, 2, rngs=nnx.Rngs(1)), jnp.float64) if auto else None
    graph, params = nnx.split((layer, decoder))

    def total(params, x, weight):
        layer, decoder = nnx.merge(graph, params)
        loss = layer.compression_loss(x, decoder=decoder)
        return jnp.sum(weight * loss), loss

    weight = jnp.asarray(rng.normal(size=(1, T)))
    (grads, dx), loss = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, x, weight)
    found = {jax.tree_util.keystr(at) for at, g in jax.tree_util.tree_leaves_with_path(grads)
             if np.any(g)}  # fmt: skip
    trained = ["[0]['f_c']"] + ["[1]['W']"] * auto
    assert len(found) == 2 * len(trained) and all(f.startswith(tuple(trained)) for f in found)
    assert not np.any(dx)

    # segments of 4 and a memory of 6: two steps leave it as the second ends
    old, last = np.asarray(x[0, :2]), np.asarray(x[0, 4:8])
    new = np.asarray(layer.f_c(old.reshape(1, 8)))
    if auto:
        gap = np.asarray(decoder(new)) - old
    else:
        q = by_heads(layer.W_q(last), 2)
        gap = np.subtract(
            *(read(q, by_heads(layer.W_k(m), 2), by_heads(layer.W_v(m), 2)) for m in (old, new))
        )
    np.testing.assert_allclose(loss[0], (np.arange(T) == 7) * (gap**2).mean(), atol=1e-12)
    assert loss[0, 7] > 1e-3


@pytest.mark.thorough
@pytest.mark.skipif(not RELEASED, reason=f"no compressive_attention in {goldens.FOLDERS[0]}")
def test_the_loss_of_compression_is_that_of_the_release():
    """Its auxiliary loss, of each segment and of the batch; a golden has it as a number alone."""
    for path in RELEASED:
        meta, inputs, *_ = goldens.read(path)
        layer = compressive_layer({k: jnp.asarray(v) for k, v in inputs.items()}, meta)
        loss = layer.compression_loss(jnp.asarray(inputs["x"])).mean(0)
        expected = np.load(path)["aux_reconstruction_loss"]
        assert expected.max() > 0.5
        np.testing.assert_allclose(loss[layer.length - 1 :: layer.length], expected, rtol=1e-10)


@pytest.mark.thorough
def test_token_turing_machine_with_queries_keeps_the_laws():
    """It is no variant of its row, which are held to be finite over thousands of steps."""
    check_layer(build("token_turing_machine", mode="TL-MHA", heads=2))


@pytest.mark.thorough
def test_tlb_that_is_not_causal_sees_its_chunk():
    """And no step of another one, nor beyond a reset, nor one that is masked."""
    layer, x = build("tlb", causal=False), sequence()
    seen = jax.jit(jax.jacrev(lambda x: (layer(x)[0][0] ** 3).sum(1)))(x)[:, 0]
    chunk = np.arange(T) // 3
    np.testing.assert_array_equal(jnp.abs(seen).max(2) > 1e-12, chunk[:, None] >= chunk[None])
    resets, kept = jnp.zeros((1, T), bool).at[0, jnp.array([2, 4])].set(True), jnp.arange(T) != 6
    y = outputs(layer, x, None, resets, kept[None])
    for piece in ([0, 1], [2, 3], [4, 5, 7, 8]):
        piece = np.array(piece)
        assert jnp.allclose(y[:, piece], outputs(layer, x[:, piece]), atol=1e-12)


@pytest.mark.thorough
def test_compressive_transformer_takes_other_memories():
    short, like = (build("compressive_transformer", memory=m, compressed=m) for m in (2, 3))
    x = sequence()
    assert jnp.allclose(outputs(short.with_memory(3, 3), x), outputs(like, x), atol=1e-12)
    assert jnp.abs(outputs(short, x) - outputs(like, x)).max() > 1e-4
    with pytest.raises(ValueError, match="sinusoid"):
        build("compressive_transformer", positions="table").with_memory(3, 3)
