"""Layers and models among modules that pass one array on, and copies of whole models."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn import Outputs
from seqjax.nn.feature_maps import FEATURE_MAPS
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks.task import Classes, Spec, Tokens
from seqjax.zoo import make


def test_a_layer_between_two_others():
    rngs = nnx.Rngs(0)
    first, layer, last = nnx.Linear(3, 4, rngs=rngs), make("gru", 4), nnx.Linear(4, 2, rngs=rngs)
    x = jnp.ones((2, 5, 3), jnp.float32)
    chain = nnx.Sequential(first, Outputs(layer), last)
    np.testing.assert_array_equal(chain(x), last(layer(first(x))[0]))
    gradient = nnx.grad(lambda chain: chain(x).sum())(chain)
    assert any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(gradient["layers"][1]))


def test_options_are_passed_on():
    layer, x = make("gru", 4), jnp.ones((2, 5, 4), jnp.float32)
    resets = jnp.zeros((2, 5), bool).at[:, 3].set(True)
    found = Outputs(layer)(x, resets=resets, reverse=True)
    np.testing.assert_array_equal(found, layer(x, None, resets, reverse=True)[0])


def test_a_copied_model_is_the_model():
    config = ModelConfig(layer=(LayerConfig("rg_lru"),), features=4, depth=2)
    model = Model(config, Spec(Tokens(5), Classes(5, per_step=True)), rngs=nnx.Rngs(0))
    tokens = jnp.array([[1, 2, 4]], jnp.int32)
    expected = model(tokens)[0]
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(copied(tokens)[0], expected)
    np.testing.assert_array_equal(Outputs(model)(tokens), expected)


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_feature_maps_can_be_copied(name):
    made = nnx.eval_shape(lambda: FEATURE_MAPS[name](2, 4, rngs=nnx.Rngs(0)))
    assert nnx.graphdef(pickle.loads(pickle.dumps(made))) == nnx.graphdef(made)
