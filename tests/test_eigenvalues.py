"""Eigenvalues in [-1, 1] (arXiv:2411.12537): transitions A become 2 A - I, parity is in reach."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.zoo import LAYERS, make


def options_of(name):
    return inspect.signature(LAYERS[name].make.__init__).parameters


ROWS = [name for name in LAYERS if "eigenvalues" in options_of(name)]

# row -> which leaf of its state a gate multiplies, and options
DIAGONAL = {
    "min_gru": (0, {}),
    "min_lstm": (0, {}),
    "gilr_lstm": (1, {}),
    "qrnn": (1, {}),
    "sru": (0, {}),
    "hgru": (0, dict(depth=1, complex_gate=False)),
    "rg_lru": (0, {}),
    "mamba": (1, dict(state=2)),
    "mamba2": (1, dict(state=2, heads=2)),
    "gla": (0, dict(heads=2, tau=0.5)),
    "hgrn2": (0, dict(expansion=2, lower_bound=0.25)),
    "mao_decay": (0, dict(heads=2)),
}


def build(name, features=4, **options):
    return cast_parameters(make(name, features, rngs=nnx.Rngs(0), **options), jnp.float64)


@pytest.mark.share(2)
@pytest.mark.parametrize("name", DIAGONAL)
def test_the_transition_of_a_step_is_2_A_minus_1(name):
    leaf, options = DIAGONAL[name]
    x = jax.random.normal(jax.random.key(0), (1, 1, 4))

    @jax.jit
    def transition(layer):
        leaves, tree = jax.tree.flatten(layer.batch_state(1, x.dtype))

        def moved(z):
            z = z.reshape(leaves[leaf].shape)
            h = jax.tree.unflatten(tree, [*leaves[:leaf], z, *leaves[leaf + 1 :]])
            return jax.tree.leaves(layer(x, h)[1])[leaf].ravel()

        return jax.jacobian(moved)(jnp.zeros(leaves[leaf].size))

    layers = [build(name, **options, eigenvalues=named) for named in ("[0,1]", "[-1,1]")]
    for layer in layers if name == "sru" else ():
        layer.cells.v.set_value(jnp.zeros((2, 4)))  # its gate sees the state
    A, signed = map(transition, layers)
    a = np.diag(A)
    assert (a > 0).all() and (a < 1).all()
    np.testing.assert_allclose(A, np.diag(a), atol=1e-12)
    np.testing.assert_allclose(signed, 2 * A - np.eye(len(a)), atol=1e-9)


def test_every_row_that_has_them_meets_the_contract_with_them():
    assert set(DIAGONAL) <= set(ROWS)
    for name in ROWS:
        default = options_of(name)["eigenvalues"].default
        sets = LAYERS[name].smoke, *LAYERS[name].variants.values()
        assert any(options.get("eigenvalues", default) == "[-1,1]" for options in sets), name


@pytest.mark.parametrize("name", ROWS)
def test_the_wrapper_turns_them_on(name):
    options = {"hgru": dict(complex_gate=False), "fwp": dict(update="delta")}.get(name, {})
    if "heads" in options_of(name) and name != "mamba":  # mamba's are those of Zamba
        options = options | dict(heads=2)
    layer = nnx.eval_shape(lambda: make("negative_eigenvalues", 4, layer=(name, options)))
    found = {getattr(part, "eigenvalues", "[-1,1]") for _, part in nnx.iter_modules(layer)}
    assert found == {"[-1,1]"}


@pytest.mark.parametrize("name", ["retnet", "lstm", "longhorn"])
def test_a_layer_without_such_a_gate_says_so(name):
    with pytest.raises(ValueError, match="no option eigenvalues"):
        make("negative_eigenvalues", 4, layer=name)
    with pytest.raises(ValueError, match="turns already"):
        make("negative_eigenvalues", 4, layer="hgru")


def test_one_min_gru_is_parity():
    """z = 1 and h~ = 1 at a one, z = 0 at a zero: h becomes 1 - h at every one, exactly."""
    layer = build("min_gru", 1, candidate="linear", eigenvalues="[-1,1]")
    layer.W.kernel.set_value(jnp.array([[0.0, 1600.0]]))  # h~, z
    layer.W.bias.set_value(jnp.array([1.0, -800.0]))
    bits = jax.random.bernoulli(jax.random.key(0), shape=(2, 300, 1)).astype(float)
    np.testing.assert_array_equal(layer(bits)[0], jnp.cumsum(bits, axis=1) % 2)


@pytest.mark.parametrize("seed", range(3))
def test_gates_in_0_1_are_not(seed):
    """Through a run of ones, where parity alternates, every unit goes one way whatever its weights
    (theorem 1: a constant input, positive real eigenvalues); with [-1, 1] some go to and fro."""
    turns = {}
    for eigenvalues in ("[0,1]", "[-1,1]"):
        layer = make("min_gru", 8, eigenvalues=eigenvalues, rngs=nnx.Rngs(seed))
        y, _ = cast_parameters(layer, jnp.float64)(jnp.ones((1, 6, 8)))
        steps = np.diff(y[0], axis=0)
        turns[eigenvalues] = (steps[1:] * steps[:-1] < 0).any(axis=0)
    assert not turns["[0,1]"].any() and turns["[-1,1]"].any()
