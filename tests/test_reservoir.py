"""The echo state network: its spectrum is the one asked for, and nothing of it is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.reservoir.esn import radius
from seqjax.zoo import make


@pytest.mark.parametrize("size, density", [(1, 1.0), (12, 1.0), (40, 0.1)])
def test_radius_is_the_largest_eigenvalue(size, density):
    rng = np.random.default_rng(size)
    W = rng.normal(size=(size, size)) * (rng.random((size, size)) < density)
    assert float(radius(jnp.asarray(W))) == pytest.approx(np.abs(np.linalg.eigvals(W)).max(), 1e-7)


def test_weights_are_frozen_and_the_state_forgets():
    esn = make("esn", 2, hidden=30, spectral_radius=0.8, density=0.2, leak=0.7)
    assert not jax.tree.leaves(nnx.state(esn, nnx.Param))
    sparse = make("esn", 20, hidden=30, input_density=0.3).W_in[...]
    assert 0.2 < np.mean(sparse != 0) < 0.4 and np.all(esn.W_in[...])
    assert np.abs(np.linalg.eigvals(esn.W[...])).max() == pytest.approx(0.8, 1e-4)
    x = jax.random.normal(jax.random.key(0), (1, 200, 2))
    _, a = esn(x)
    _, b = esn(x, jnp.ones((1, 30)))
    assert float(jnp.abs(a - b).max()) < 1e-9  # echo state property: only the inputs matter
    with pytest.raises(ValueError, match="30 of them"):
        make("esn", 2, hidden=30, leak=(0.1, 0.2))
