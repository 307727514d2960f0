"""Irregular time: layers that read flow.dt, the time that passes before each step."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.common import Notice, accumulation_dtype
from seqjax.core.flow import Flow
from seqjax.nn import Layer
from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Features, Spec, Tokens, Values
from seqjax.testing import check_layer
from seqjax.zoo import LAYERS, make

D, T = 4, 9
TIMED = [
    pytest.param(name, variant, id=f"{name} {variant}".strip(),
                 marks=pytest.mark.thorough if variant else ())
    for name, entry in LAYERS.items() if entry.make.timed for variant in ("", *entry.variants)
]  # fmt: skip


def build(name, variant=""):
    entry = LAYERS[name]
    layer = make(name, D, **(entry.variants[variant] if variant else entry.smoke))
    return cast_parameters(layer, jnp.float64)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def times(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).uniform(0.1, 3, size=shape))


class Clocked(Layer):
    """A timed layer whose dt is the exponential of one more feature, so that the laws reach it."""

    def __init__(self, layer):
        self.layer = layer
        self.features, self.out_features = layer.features + 1, layer.out_features
        self.evaluators, self.causal = layer.evaluators, layer.causal

    def parts(self):
        return self.layer

    def run(self, x, h, flow):
        dt = jnp.exp(jnp.clip(x[:, -1], -3, 3)).astype(accumulation_dtype(x.dtype))
        return self.layer.run(x[:, :-1], h, replace(flow, dt=dt))


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name, variant", TIMED)
def test_laws_hold_with_dt(name, variant):
    check_layer(Clocked(build(name, variant)))


@pytest.mark.share(3)
@pytest.mark.parametrize("name, variant", TIMED)
def test_dt_is_one_where_it_is_not_given(name, variant):
    layer, x = build(name, variant), normal(0, 2, T, D)
    mask = jnp.ones((2, T), bool).at[0, 3].set(False)
    for reverse in (False, True):
        plain, end = layer(x, mask=mask, reverse=reverse)
        timed, also = layer(x, mask=mask, dt=jnp.ones((2, T)), reverse=reverse)
        same(timed, plain)
        same(also, end)


def same(a, b, atol=1e-12):
    for v, w in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(v, w, atol=atol)


@pytest.mark.thorough
@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["s5", "neural_ode_fwp"])
def test_dt_of_a_masked_step_is_not_looked_at(name):
    """In value and in gradient."""
    layer, x, dt = build(name), normal(0, 1, T, D), times(1, 1, T)
    keep = jnp.ones((1, T), bool).at[0, jnp.array([2, 5])].set(False)
    kept, graph, params, rest = np.flatnonzero(keep[0]), *nnx.split(layer, nnx.Param, ...)

    def run(params, x, dt, mask=None, reverse=False):
        y, h = nnx.merge(graph, params, rest)(x, mask=mask, dt=dt, reverse=reverse)
        return jnp.sum(jnp.sin(y)), (y if mask is None else y[:, kept], h)

    gradient = jax.value_and_grad(run, has_aux=True)
    for reverse in (False, True):
        unseen = gradient(params, x, jnp.where(keep, dt, jnp.nan), keep, reverse)
        same(unseen, gradient(params, x[:, kept], dt[:, kept], None, reverse))


def test_backwards_the_time_before_a_step_is_that_before_the_next_one():
    """The data turned around, with the intervals between its steps."""
    layer, x, dt = build("s5"), normal(0, 1, T, D), times(1, 1, T)
    resets = jnp.zeros((1, T), bool).at[0, 4].set(True)
    ends = jnp.zeros((1, T), bool).at[0, 3].set(True)
    intervals = dt.at[0, 4].set(1.0)[:, 1:]
    turned = jnp.concatenate([jnp.ones((1, 1)), intervals[:, ::-1]], axis=1)
    y, h = layer(x, resets=ends, dt=dt, reverse=True)
    z, k = layer(x[:, ::-1], resets=ends[:, ::-1], dt=turned)
    same((y[:, ::-1], h), (z, k))
    flow = Flow(resets[0], None, dt=dt[0])
    np.testing.assert_array_equal(flow.backwards().dt, turned[0])


@pytest.mark.thorough
def test_a_long_step_of_s5_is_two_short_ones():
    """Nothing comes in at the first of them, and nothing is read."""
    layer, x = build("s5", "async"), normal(0, 1, 3, D)
    apart = jnp.insert(x, 1, 0.0, axis=1)
    y, h = layer(x, dt=jnp.array([[1.0, 2.5, 1.0]]))
    z, k = layer(apart, dt=jnp.array([[1.0, 0.7, 1.8, 1.0]]))
    same((y, h), (z[:, jnp.array([0, 2, 3])], k))


@pytest.mark.share(2)
@pytest.mark.parametrize("rule", ["hebb", "oja", "delta"])
@pytest.mark.parametrize("control", ["ode", "cde"])
def test_fast_weights_over_twice_the_time(control, rule):
    """dt = 2 is the same line at half the speed: two steps through its middle, up to the solver."""
    options = dict(heads=2, rule=rule, control=control, substeps=64)
    layer = cast_parameters(make("neural_ode_fwp", D, **options), jnp.float64)
    x = normal(0, 1, 2, D)
    middle = jnp.stack([x[:, 0], x.mean(axis=1), x[:, 1]], axis=1)
    same(layer(x, dt=jnp.array([[1.0, 2.0]]))[1], layer(middle)[1], atol=1e-7)


def test_what_is_made_of_a_timed_layer_is_timed():
    x, dt = normal(0, 1, T, D), times(1, 1, T)
    both = make("bidirectional", D, layer=("s5", dict(state=4)))
    stack = make("stacked", D, layers=("gru", ("s5", dict(state=4))))
    for layer in (both, stack):
        layer = cast_parameters(layer, jnp.float64)
        assert float(jnp.abs(layer(x, dt=dt)[0] - layer(x)[0]).max()) > 1e-3


def test_layers_that_do_not_read_dt_refuse_it():
    x = normal(0, 1, T, D)
    with pytest.raises(ValueError, match="GRU does not read dt"):
        build("gru")(x, dt=jnp.ones((1, T)))
    with pytest.raises(ValueError, match=r"S5 takes dt float \[1, 9\], got float64 \[1, 8\]"):
        build("s5")(x, dt=jnp.ones((1, T - 1)))
    with pytest.raises(ValueError, match="S5 takes dt float"):
        build("s5")(x, dt=jnp.ones((1, T), jnp.int32))


def test_a_model_passes_dt_to_the_layers_that_read_it():
    spec = Spec(Features(2), Values(1, per_step=True), timed=True)
    pattern = (LayerConfig("gru"), LayerConfig("s5", {"state": 4}))
    model = Model(ModelConfig(layer=pattern, features=D), spec, rngs=nnx.Rngs(0))
    x, dt = normal(0, 1, T, 2).astype(jnp.float32), times(1, 1, T).astype(jnp.float32)
    y, _ = model(x, dt=dt)
    assert float(jnp.abs(y - model(x)[0]).max()) > 1e-4
    first, h = model(x[:, :4], dt=dt[:, :4])
    same(jnp.concatenate([first, model(x[:, 4:], h, dt=dt[:, 4:])[0]], axis=1), y, atol=1e-5)
    with pytest.raises(ValueError, match="none of its layers reads the time"):
        Model(ModelConfig(layer=pattern[:1], features=D), spec, rngs=nnx.Rngs(0))


def test_an_evaluator_runs_where_it_is_known():
    """In a mixed pattern too, with a notice of the layers that have it not."""
    spec, pattern = Spec(Tokens(3), Classes(2, per_step=True)), ("gru", "lru")
    config = ModelConfig(layer=tuple(map(LayerConfig, pattern)), features=D, evaluator="newton")
    with pytest.warns(Notice, match="model.evaluator newton: lru have none of that name"):
        model = Model(config, spec, rngs=nnx.Rngs(0))
    assert [block.evaluator for block in model.blocks] == ["newton", None]
    config = ModelConfig(layer=(LayerConfig("lru"),), features=D, evaluator="newton")
    with pytest.raises(ValueError, match="unknown evaluator of lru 'newton'"):
        Model(config, spec, rngs=nnx.Rngs(0))
