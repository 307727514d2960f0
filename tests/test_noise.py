"""Layers that draw noise: one key per step, so that noise is a part of the sequence."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.layers.classic.awd_lstm import AWDLSTM
from seqjax.nn.base import cast_parameters
from seqjax.nn.recurrent import Recurrent
from seqjax.zoo import make

T, B = 11, 3
NOISY = {
    "zoneout": dict(rate=0.4, cell_rate=0.3),
    "noisy_rnn": dict(dt=0.5, add_noise=0.4, mult_noise=0.5),
    "qrnn": dict(zoneout=0.4),
    "stacked": dict(layers=("gru", "gru"), dropout=0.4),
    "highway_rnn": dict(depth=2, dropout=0.4),
    "bidirectional": dict(layer=("qrnn", {"zoneout": 0.4})),
}
same = partial(np.testing.assert_allclose, atol=1e-12)
build = lambda name: cast_parameters(make(name, 4, **NOISY[name]), jnp.float64)  # noqa: E731


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(1), (B, T, 4))


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["zoneout", "qrnn", "stacked", "highway_rnn", "noisy_rnn"])
def test_a_stream_with_noise_is_the_whole(name, x):
    layer, keys = build(name), jax.random.split(jax.random.key(2), (B, T))
    mask = jnp.arange(T)[None].repeat(B, 0) % 4 != 1
    whole, last = layer(x, mask=mask, key=keys)
    first, h = layer(x[:, :5], mask=mask[:, :5], key=keys[:, :5])
    second, h = layer(x[:, 5:], h, mask=mask[:, 5:], key=keys[:, 5:])
    same(whole, jnp.concatenate([first, second], 1))
    jax.tree.map(same, h, last)
    packed, _ = layer(x, mask=mask, key=keys, cu_seqlens=jnp.array([[0, 5, T]] * B))
    again, _ = layer(x[:, 5:], mask=mask[:, 5:], key=keys[:, 5:])
    same(packed, jnp.concatenate([first, again], 1))
    assert np.max(abs(whole - layer(x, mask=mask)[0])) > 1e-3
    assert np.max(abs(whole - layer(x, mask=mask, key=jax.random.key(3))[0])) > 1e-3


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["zoneout", "qrnn", "stacked"])
def test_a_key_draws_what_masks_name(name, x):
    """With the noise of the key among the features, a layer with `masks` is the same."""
    layer, keys = build(name), jax.random.split(jax.random.key(2), (B, T))
    if name == "stacked":
        units, share = layer.ends[-1], 1 - layer.dropout
    else:
        share = layer.shares if name == "zoneout" else 1 - layer.zoneout
        units = len(layer.shares) if name == "zoneout" else layer.out_features
    drawn = jax.vmap(lambda key: Flow(key=key).drawn(share, (units,)))(keys)
    more = dict(hidden=4) if name == "qrnn" else {}
    given = cast_parameters(make(name, 4 + units, masks=units, **NOISY[name], **more), jnp.float64)
    want, _ = given(jnp.concatenate([x, drawn.astype(x.dtype)], 2))
    same(layer(x, key=keys)[0], want)
    rates = np.asarray(jax.vmap(lambda key: Flow(key=key).drawn(share, (units,)))(
        jax.random.split(jax.random.key(5), (400, T))
    )).mean((0, 1))  # fmt: skip
    np.testing.assert_allclose(rates, np.broadcast_to(share, units), atol=0.04)


@pytest.mark.thorough
def test_parts_draw_noise_of_their_own(x):
    layer, key = build("bidirectional"), jax.random.key(4)
    noisy, still = layer(x, key=key)[0], layer(x)[0]
    assert not np.array_equal(noisy[..., :4], still[..., :4])
    flow = Flow(key=jax.random.split(key, T))
    assert not np.array_equal(*(flow.part(n).drawn(0.5, (9,)) for n in (0, 1)))
    two = cast_parameters(make("stacked", 4, layers=(("qrnn", {"zoneout": 0.5}),) * 2), jnp.float64)
    keys, z = flow.key[None], x[:1]
    want = z
    for n, part in enumerate(two.layers, 1):
        want, _ = part(want, key=Flow(key=keys[0]).part(n).key[None])
    same(two(z, key=keys)[0], want)


@pytest.mark.thorough
def test_a_step_with_noise_in_every_evaluator(x):
    layer, key = build("zoneout"), jax.random.key(0)
    want = layer(x, key=key)[0]
    for evaluator in layer.evaluators:
        same(layer(x, key=key, evaluator=evaluator)[0], want)
    grad = jax.grad(lambda x: jnp.sum(layer(x, key=key)[0] ** 2))(x)
    assert np.all(np.isfinite(grad)) and np.any(grad)


class Decaying(Recurrent):
    """h_t = exp(-dt_t) h_{t-1} + x_t."""

    timed = True

    def __init__(self, features, *, rngs):
        self.features = self.out_features = features

    def initial(self):
        return jnp.zeros(self.features)

    def drive(self, x, flow):
        return x, jnp.ones(len(x), x.dtype) if flow.dt is None else flow.dt

    def step(self, h, z):
        x, dt = z
        return jnp.exp(-dt) * h + x


def test_zoneout_of_a_layer_that_reads_the_time_between_steps(x):
    layer = make("zoneout", 4, layer=Decaying, rate=0.0)
    dt = jnp.linspace(0.1, 2.0, T)[None].repeat(B, 0)
    same(layer(x, dt=dt)[0], layer.layer(x, dt=dt)[0])
    assert np.max(abs(layer(x, dt=dt)[0] - layer(x)[0])) > 1e-3


def test_other_keys_are_one_error(x):
    layer = build("qrnn")
    for key in (jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), (B,)), 7):
        with pytest.raises(ValueError, match=r"QRNN takes a key of jax.random.key, or \[3, 11\]"):
            layer(x, key=key)


def test_a_piece_keeps_the_masks_that_it_began_with(x):
    layer, (first, second) = build("highway_rnn"), jax.random.split(jax.random.key(4))
    many = x[:1].repeat(400, 0)
    _, h = layer(many, key=first)
    assert set(np.unique(h.masks)) == {0, 1 / 0.6} and abs(np.mean(h.masks) - 1) < 0.1
    assert len(np.unique(h.masks, axis=0)) > 100, "of each example its own"
    _, later = layer(many, h, key=second)
    np.testing.assert_array_equal(later.masks, h.masks)
    again = layer(many, h, key=second, resets=jnp.zeros(many.shape[:2], bool).at[:, 3].set(True))[1]
    assert np.mean(again.masks != h.masks) > 0.3
    plain, evaluated = (
        layer(x)[0],
        layer(x, layer(x, key=first)[1]._replace(s=jnp.zeros((B, 4))))[0],
    )
    np.testing.assert_array_equal(plain, evaluated, "without a key masks wait")


@pytest.mark.share(1)
@pytest.mark.parametrize("by_rows", [False, True])
def test_recurrent_weights_are_dropped_once_a_call(by_rows, x):
    class Seen(AWDLSTM):
        def dropped(self, M):
            masks.append(M)
            return super().dropped(M)

    @jax.jit
    def run(layer, x, key=None):
        h = Carry(layer.initial(), layer.initial())
        return AWDLSTM.run(layer, x, h, Flow(key=key))[0]

    made = Seen(4, weight_drop=0.4, by_rows=by_rows, dropout=0.5, rngs=nnx.Rngs(0))
    layer, x, drawn = cast_parameters(made, jnp.float64), x[0], []
    inputs = jnp.stack([x * jnp.array(m)[None] / 0.5 for m in product((0.0, 1.0), repeat=4)])
    for seed in range(20):
        masks, keys = [], jax.random.split(jax.random.key(seed), T)
        noisy = layer.run(x, Carry(layer.initial(), layer.initial()), Flow(key=keys))[0]
        drawn += masks
        entered = jax.vmap(run, (None, 0))(layer.dropped(masks[0]), inputs)
        assert float(jnp.min(jnp.max(abs(entered - noisy[None]), axis=(1, 2)))) < 1e-12
    drawn = np.stack(drawn)
    assert drawn.shape[1:] == (16, 1 if by_rows else 4)
    assert abs(drawn.mean() - 0.6) < 5 * (0.24 / drawn.size) ** 0.5
