"""Reservoirs: spectra, memory, spikes and plasticity; nothing of them is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.layers.reservoir.esn import radius
from seqjax.layers.reservoir.intrinsic_plasticity import intrinsic_plasticity
from seqjax.learn.readout import memory_capacity
from seqjax.nn.base import Frozen
from seqjax.nn.spikes import firing_rate, spike
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


def test_neurons_fire_as_often_as_the_closed_form_says():
    """Under constant currents, over a second in steps of 20 microseconds; below threshold never."""
    current = jnp.array([0.5, 0.99, 1.2, 2.0, 5.0])
    tau, refractory, steps = 0.02, 2e-3, 50_000
    layer = make(
        "liquid_state_machine", 5, dt=2e-5, tau=tau, refractory=refractory, synapse=0.0,
        reads="spikes", recurrent_scale=0.0, input_density=1.0,
    )  # fmt: skip
    layer.W_in = Frozen(jnp.eye(5))
    z, _ = jax.jit(lambda x: layer(x))(jnp.broadcast_to(current[None, None], (1, steps, 5)))
    expected = firing_rate(current, tau=tau, resistance=1.0, threshold=1.0, refractory=refractory)
    # a period is a whole number of steps: one of 20 us more at most
    np.testing.assert_allclose(z[0].sum(0), expected, atol=1.01, rtol=2e-5 * float(expected.max()))
    assert z[0, :, :2].sum() == 0 < z[0, :, 2].sum()


def test_the_threshold_has_the_derivative_of_its_surrogate():
    u = jnp.array([-2.0, -0.1, 0.0, 0.3])
    for name, slope, expected in (
        ("fast_sigmoid", 25.0, 1 / (1 + 25 * np.abs(u)) ** 2),
        ("atan", 2.0, 1 / (1 + (np.pi * np.asarray(u)) ** 2)),
        ("none", 1.0, np.zeros(4)),
    ):
        found = jax.vmap(jax.grad(lambda u, name=name, k=slope: spike(u, name, k)))(u)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert spike(u, "atan", 2.0).tolist() == [0, 0, 0, 1]  # strictly above


@pytest.mark.thorough
def test_rates_are_coded_as_spikes_where_there_is_a_key():
    layer = make(
        "liquid_state_machine", 3, hidden=3, coding="rate", reads="potential", synapse=0.0,
        refractory=0.0, tau=1e-4, threshold=1e9, input_density=1.0, recurrent_scale=0.0,
    )  # fmt: skip
    layer.W_in = Frozen(jnp.eye(3))  # a potential is its input, spike or mean
    x = jnp.broadcast_to(jnp.array([0.0, 0.3, 1.7])[None, None], (1, 2000, 3))
    mean, drawn = (layer(x, key=key)[0][0] for key in (None, jax.random.key(0)))
    kept = 1 - np.exp(-10)
    np.testing.assert_allclose(mean[-1], [0, 0.3, 1], rtol=1e-3)
    spikes = np.asarray(drawn) > 0.5 * kept
    np.testing.assert_allclose(spikes.mean(0), [0, 0.3, 1], atol=0.04)


@pytest.mark.thorough
def test_plasticity_moves_the_outputs_towards_what_is_asked_for():
    esn = make("esn", 1, hidden=50, density=0.2, plastic=True, input_scale=3.0)
    x = jax.random.normal(jax.random.key(0), (2000, 1))
    found = intrinsic_plasticity(esn, x, mu=0.0, sigma=0.2, rate=1e-3)
    before, after = (found.y[part].std() for part in (slice(0, 200), slice(-200, None)))
    assert abs(after - 0.2) < 0.1 < abs(before - 0.2)
    assert jnp.array_equal(esn.gain[...], found.gain[-1]) and not jnp.all(esn.shift[...] == 0)
    for options, message in (
        (dict(), "plastic=True"),
        (dict(plastic=True, activation="relu"), "tanh and sigmoid"),
        (dict(plastic=True, activation="sigmoid"), "expected above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            intrinsic_plasticity(make("esn", 1, **options), x)


@pytest.mark.thorough
def test_memory_of_a_reservoir_with_a_residual_branch_is_longer():
    """arXiv:2308.02902 sec. 5: at the edge of stability the capacity comes near the size."""
    u = jax.random.uniform(jax.random.key(1), (1200,), minval=-0.8, maxval=0.8)
    sizes = dict(hidden=30, input_scale=0.1)

    def capacity(name, **options):
        layer = make(name, 1, **sizes, **options)
        return memory_capacity(layer, u, longest=60, ridge=1e-8).sum()

    plain, edge = capacity("esn", density=1.0), capacity("es2n", beta=0.05)
    assert plain < 0.75 * edge and 20 < edge < 31, (plain, edge)
    with pytest.raises(ValueError, match="too few"):
        memory_capacity(make("esn", 1), u[:50], longest=60)


def test_a_column_joins_neighbours_and_a_fifth_inhibits():
    layer = make("liquid_state_machine", 2, hidden=180)
    W = np.asarray(layer.W[...])
    negative = (W < 0).any(0)
    assert not ((W > 0).any(0) & negative).any()  # a neuron has one sign
    assert 0.1 < negative.mean() < 0.3
    n = np.arange(180)
    far = np.abs(n[:, None] // 9 - n[None] // 9)
    assert (W[far <= 1] != 0).mean() > 50 * max((W[far >= 5] != 0).mean(), 1e-5)
