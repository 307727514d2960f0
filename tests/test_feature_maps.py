"""What feature maps and the layers over them claim: how near they come to softmax attention, over
the number of features, bits and terms; and the causal forms that no golden reaches."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import seqjax
from seqjax.layers.linear_attention import ecoformer
from seqjax.layers.linear_attention.retnet import Retention, xpos
from seqjax.layers.linear_attention.transnormer import DiagonalAttention
from seqjax.nn import feature_maps as maps
from seqjax.nn.base import cast_parameters
from seqjax.zoo import make

T, H, K = 12, 2, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def attention(similarity, v):
    """The causal average of v [T, H, V] by similarity [H, T, T]."""
    weights = jnp.tril(similarity)
    return jnp.einsum("hts,shv->thv", weights / weights.sum(-1, keepdims=True), v)


def products(x, y):
    return jnp.einsum("thk,shk->hts", x, y)


def double(module):
    return cast_parameters(module, jnp.float64)


def error(estimate, exact):
    return float(jnp.sqrt(jnp.mean((estimate - exact) ** 2)))


def estimated(name, seed, **options):
    """Causal attention of q, k by a feature map, and by the softmax it stands for."""
    q, k, v = normal(0, T, H, K) / 2, normal(1, T, H, K) / 2, normal(2, T, H, K)
    phi = double(maps.make_map((name, options), H, K, rngs=nnx.Rngs(seed)))
    y = attention(products(phi(q, query=True), phi(k)), v)
    if name == "rfa":  # queries and keys of length one, at temperature one
        q, k = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (q, k))
        return y, attention(jnp.exp(products(q, k)), v)
    return y, attention(jnp.exp(products(q, k) * K**-0.5), v)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["favor+", "favor+-", "trigonometric", "rfa"])
def test_random_features_approach_softmax_attention(name):
    """The error over the number of features falls like its root, and to little."""
    few, many = (
        sum(error(*estimated(name, seed, count=count)) for seed in range(5)) / 5
        for count in (64, 4096)
    )
    assert many < few / 3 and many < 0.02, (few, many)  # eight times less, by theory


def test_orthogonal_rows_have_less_variance():
    """arXiv:2009.14794 theorem 2: at as many rows as channels, in the mean squared error."""
    x, y = normal(0, 1, 1, K) / 3, normal(1, 1, 1, K) / 3
    keys = jax.random.split(jax.random.key(3), 20_000)

    def variance(f, draw):
        def squared(key):
            W = draw(key, 1, K, K)
            return (jnp.sum(f(x, W) * f(y, W)) - jnp.exp(jnp.sum(x * y))) ** 2

        return jax.jit(jax.vmap(squared))(keys).mean()

    for f, share in ((maps.favor, 0.95), (maps.trigonometric, 0.6)):
        assert variance(f, maps.orthogonal) < share * variance(f, maps.gaussian)
    W = maps.orthogonal(jax.random.key(0), H, 6, K)
    block = products(*(jnp.swapaxes(W[:, :K], 0, 1),) * 2)
    assert error(block, block * jnp.eye(K)[None]) < 1e-9
    assert W.shape == (H, 6, K)


def test_positive_features_are_positive_and_unbiased():
    x, y = 0.5 * normal(0, 1, 1, K), 0.5 * normal(1, 1, 1, K)
    W = maps.gaussian(jax.random.key(2), 1, 200_000, K)
    for f in (maps.favor, partial(maps.favor, hyperbolic=True), maps.trigonometric):
        estimate = jnp.sum(f(x, W) * f(y, W))
        assert abs(estimate - jnp.exp(jnp.sum(x * y))) < 0.02
    estimate = jnp.sum(maps.fourier(x, W) * maps.fourier(y, W))
    assert abs(estimate - jnp.exp(-jnp.sum((x - y) ** 2) / 2)) < 0.02
    assert jnp.all(maps.favor(x, W) > 0) and jnp.any(maps.trigonometric(x, W) < 0)


def test_taylor_features_over_the_order():
    """phi(x).phi(y) is the series itself, whose remainder is |z|^(n+1) / (n+1)! exp |z| at most."""
    x, y = normal(0, T, 1, K) / 2, normal(1, T, 1, K) / 2
    z = jnp.sum(x * y, axis=-1)
    for order in range(5):
        found = jnp.sum(maps.taylor(x, order) * maps.taylor(y, order), axis=-1)
        remainder = jnp.abs(z) ** (order + 1) / math.factorial(order + 1) * jnp.exp(jnp.abs(z))
        assert jnp.all(jnp.abs(found - jnp.exp(z)) <= remainder + 1e-12)
        assert error(found, sum(z**n / math.factorial(n) for n in range(order + 1))) < 1e-12
    assert maps.taylor(x).shape[-1] == 1 + K + K * K


def test_cosine_weights_decompose_the_quadratic_form():
    q, k, length = jnp.abs(normal(0, T, H, K)), jnp.abs(normal(1, T, H, K)), 2 * T
    place = jnp.arange(T)
    distance = (place[:, None] - place[None]).astype(q.dtype)
    exact = products(q, k) * jnp.cos(jnp.pi * distance / (2 * length))[None]
    q, k = (maps.cosine_weights(z, place, length) for z in (q, k))
    assert error(products(q, k), exact) < 1e-12


@pytest.mark.share(2)
@pytest.mark.parametrize("name", maps.FEATURE_MAPS)
def test_a_linear_transformer_takes_any_map(name):
    """It is attention with the similarity phi(q).phi(k)."""
    options = dict(heads=H, feature_map=name, denominator="abs")
    layer = double(make("linear_transformer", H * K, **options))
    x = normal(5, T, H * K)
    q, k, v = layer.project(x)
    assert q.shape == k.shape == (T, H, layer.size)
    weights = jnp.tril(products(q, k))
    total = jnp.moveaxis(jnp.maximum(jnp.abs(weights.sum(-1)), layer.eps), 0, 1)
    y = jnp.einsum("hts,shv->thv", weights, v) / total[..., None]
    expected = layer.W_o(y.reshape(T, H * K))
    assert error(layer(x[None])[0][0], expected) < 1e-9


def test_unknown_maps_are_refused():
    with pytest.raises(ValueError, match=r"did you mean 'favor\+'"):
        make("linear_transformer", 4, feature_map="favor")


@pytest.mark.parametrize("name", ["elu+1", "taylor", "favor+-", "fourier", "random_relu"])
def test_a_temperature_divides_what_is_mapped(name):
    x = normal(0, T, H, K)
    hot, cold = (
        double(maps.make_map((name, {"temperature": t}), H, K, rngs=nnx.Rngs(0))) for t in (4, 1)
    )
    assert error(hot(2 * x), cold(x)) < 1e-12 < error(hot(x), cold(x))
    with pytest.raises(ValueError, match="temperature of a feature map is 0, expected above 0"):
        maps.make_map((name, {"temperature": 0}), H, K, rngs=nnx.Rngs(0))


# ---- EcoFormer ----------------------------------------------------------------------------------


def test_bits_agree_as_often_as_more_bits_say():
    """The share of bits that agree, over the number of bits: its error falls like their root."""
    x = normal(0, T, 1, K)

    def share(count, seed):
        phi = maps.make_map(("hash", {"count": count}), 1, K, rngs=nnx.Rngs(seed))
        phi.anchors = maps.Frozen(normal(9, 1, 25, K))
        return products(phi(x), phi(x)) / count

    limit = share(40_000, 0)
    few, many = (
        sum(error(share(count, seed), limit) for seed in range(1, 6)) / 5 for count in (16, 1024)
    )
    assert many < few / 5, (few, many)
    own = jnp.diagonal(limit, axis1=1, axis2=2)
    assert jnp.all(limit >= 0) and error(own, jnp.ones_like(own)) < 1e-9


def test_hashes_learn_what_attention_finds_alike():
    """Fitted bits tell strong pairs from weak ones, better with more bits, better than random."""
    x, pairs = normal(0, 40, 1, K), 10
    labels = ecoformer.alike(x[:, 0], pairs)

    def mistakes(count, fitted):
        phi = maps.make_map(("hash", {"count": count}), 1, K, rngs=nnx.Rngs(0))
        if fitted:
            ecoformer.fit(phi, x, jax.random.key(1), pairs=pairs)
        codes = phi.codes(x)[:, 0]
        gap = jnp.where(labels == 0, 0, codes @ codes.T / count - labels)
        return error(gap, jnp.zeros_like(gap))

    few, many, random = mistakes(4, True), mistakes(32, True), mistakes(32, False)
    assert many < 0.9 * few and many < 0.7 * random, (few, many, random)


# ---- causal forms against their sums ------------------------------------------------------------


@pytest.mark.share(1)
@pytest.mark.parametrize("kind", ["full", "local", "simple", "conv"])
def test_causal_aft_is_its_equation(kind):
    layer = double(make("aft", 4, kind=kind, window=3, length=T, rank=2, heads=2))
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    params = jax.tree.map(lambda p: p + 0.5 * normal(8, *p.shape), params)
    layer = nnx.merge(graph, params, rest)
    x = normal(3, T, 4)
    q, k, v = layer.W_q(x), layer.W_k(x), layer.W_v(x)
    scores = k[None] + layer.bias(jnp.arange(T), jnp.arange(T))
    scores = jnp.where(jnp.tri(T, dtype=bool)[..., None], scores, -jnp.inf)
    y = jnp.einsum("tsd,sd->td", jax.nn.softmax(scores, axis=1), v)
    assert error(layer(x[None])[0][0], layer.W_o(jax.nn.sigmoid(q) * y)) < 1e-9


@pytest.mark.thorough
def test_retention_with_xpos_is_the_product_of_scaled_queries_and_keys():
    layer = double(Retention(8, heads=2, xpos=True, rngs=nnx.Rngs(0)))
    x, place = normal(4, T, 8), jnp.arange(T)
    q, k, v = (W(x).reshape(T, 2, -1) for W in (layer.W_q, layer.W_k, layer.W_v))
    q, k = xpos(q, place), xpos(k * layer.K**-0.5, place, keys=True)
    o = seqjax.linear_attention(q, k, v, layer.log_gamma())[0]
    o = layer.norm(o * (layer.counts(place) ** -0.5)[..., None])
    expected = layer.W_o(jax.nn.silu(layer.W_g(x)) * o.reshape(T, -1))
    assert error(layer(x[None])[0][0], expected) < 1e-9


@pytest.mark.thorough
def test_diagonal_attention_stays_in_its_block():
    layer = DiagonalAttention(4, heads=1, window=3, rotary_fraction=0.0, rngs=nnx.Rngs(0))
    layer, x = double(layer), normal(6, 1, 6, 4)
    blocks = layer(x.reshape(2, 3, 4))[0]  # two sequences of one block each
    assert error(layer(x)[0], blocks.reshape(1, 6, 4)) < 1e-9


@pytest.mark.thorough
def test_arelit_approaches_a_quarter_of_relit():
    """Its oscillators resolve the steps once there are more of them than steps."""
    exact = double(make("relit", 4, heads=1, eta=2))
    state = nnx.state(exact, nnx.Param)

    def distance(r):
        layer = make("relit", 4, heads=1, eta=2, r=r)
        nnx.update(layer, state)
        q = jnp.abs(normal(7, T, 1, exact.K))
        written = exact.write(normal(8, T, 4))
        options = dict(resets=None, mask=None, evaluator=None)
        fine = layer.approximate(q, *written, layer.initial(), **options)[0]
        return error(4 * fine, exact.exact(q, *written, exact.initial(), **options)[0])

    assert distance(200) < distance(40) / 3 and distance(200) < 0.02, (distance(40), distance(200))
