"""What is computed again in the backward pass: the same gradients, in less memory."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_models import CONFIG, KINDS, PATTERN, B, inputs

from experiments import memory
from seqjax.core.flow import Flow
from seqjax.stacks import remat as policies
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.zoo import LAYERS


@pytest.mark.share(1)
@pytest.mark.parametrize("remat", ["layer", "full", "offload"])
def test_rematerialised_gradients_are_the_gradients(remat):
    spec = KINDS["tagger"]
    x, grads = inputs(spec), []
    for policy in ("none", remat):
        config = replace(CONFIG, layer=PATTERN[1:], depth=2, remat=policy, dropout=0.2)
        model = Model(config, spec, rngs=nnx.Rngs(0))
        loss = lambda m: jnp.sum(m(x, key=jax.random.key(1))[0] ** 2)  # noqa: E731
        grads.append(nnx.state(jax.jit(jax.grad(loss))(model)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), *grads)


@pytest.mark.share(1)
@pytest.mark.parametrize("name", ["lru", "lstm", "gla", "mamba2", "griffin"])
def test_chunks_of_time_are_the_sequence(name):
    """Outputs, states and gradients, with resets, a mask, and a chunk that is cut short."""
    spec = KINDS["tagger"]
    x = jax.random.normal(jax.random.key(0), (B, 11, *spec.inputs.shape))
    beside = dict(resets=jax.random.bernoulli(jax.random.key(1), 0.2, (B, 11)),
                  mask=jax.random.bernoulli(jax.random.key(2), 0.8, (B, 11)))  # fmt: skip
    found = []
    for policy in ("none", "chunk"):
        layer = (LayerConfig(name, dict(LAYERS[name].smoke)),)
        config = replace(CONFIG, layer=layer, depth=2, remat=policy, remat_chunk=4)
        model = Model(config, spec, rngs=nnx.Rngs(0))

        def loss(m):
            y, h = m(x, **beside)
            return jnp.sum(y**2), (y, h)

        grads, answers = jax.jit(jax.grad(loss, has_aux=True))(model)
        found.append((nnx.state(grads), answers))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), *found)


@pytest.mark.thorough
def test_what_is_computed_again_is_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "FEATURES", 16)
    plan = {policy: memory.temporaries("lstm", policy, 1024)[0]
            for policy in ("none", "layer", "chunk")}  # fmt: skip
    assert 2 * plan["layer"] < plan["none"] and 1.5 * plan["chunk"] < plan["layer"]


def test_what_cannot_be_computed_again_is_one_line(monkeypatch):
    spec = KINDS["tagger"]
    both = replace(CONFIG, layer=(LayerConfig("bidirectional", {"layer": "gru"}),), remat="chunk")
    with pytest.raises(ValueError, match="remat=chunk needs layers that are causal, and Bidirec"):
        Model(both, spec, rngs=nnx.Rngs(0))
    monkeypatch.setattr(policies, "HOST", "no_such")
    with pytest.raises(ValueError, match="remat=offload needs a device with no_such memory, not"):
        Model(replace(CONFIG, remat="offload"), spec, rngs=nnx.Rngs(0))
    assert ModelConfig(remat=True).remat == "layer" and ModelConfig(remat=False).remat == "none"  # type: ignore[arg-type]


class Dropping(nnx.Module):
    def __init__(self, variational):
        self.variational = variational


def test_each_chunk_drops_other_numbers():
    def call(block, x, h, flow, key, *rest):
        return x + jax.random.normal(key, x.shape, x.dtype), h, {}

    x, key = jnp.zeros((1, 8, 2)), jax.random.key(0)
    for variational in (False, True):
        given = Dropping(variational), x, jnp.zeros(1), Flow(), key, None, None, None, None
        y = policies.rematerialised(call, "chunk", 4)(*given)[0]
        assert bool(jnp.all(y[:, :4] == y[:, 4:])) == variational
