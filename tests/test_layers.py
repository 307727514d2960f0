"""The contract of every row of the layer table: `seqjax.testing.check_layer`, and what beside it is
of a table, of dtypes and of long sequences.

A law that a row is exempt from stands, with the reason, in the row itself.
"""

import copy
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL, spread
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.testing import check_layer, check_shapes
from seqjax.zoo import LAYERS, make

B, T, FEATURES = 2, 7, 4

# `make test` holds SHARE of the rows, spread over the families, to the laws of their default
# evaluator, and twice as many to their dtypes. `make contract` holds the rows that changed,
# `make test-all` all rows and variants, to all laws, and long sequences in float32 to being finite.
SHARE = 6
LEFT_OUT = () if FULL else ("evaluators agree",)  # a program for each
ROWS = [pytest.param(name, "", id=name) for name in LAYERS]
VARIANTS = [
    pytest.param(name, variant, id=f"{name}-{variant}", marks=pytest.mark.thorough)
    for name, entry in LAYERS.items()
    for variant in entry.variants
]
FLOAT16 = {"relit", "fwp", "gla"}  # of float16 in `make test`: where it was not finite once
every_row = pytest.mark.parametrize("name, variant", ROWS + VARIANTS)


def build(name, variant, dtype):
    entry = LAYERS[name]
    options = entry.variants[variant] if variant else entry.smoke
    return cast_parameters(make(name, FEATURES, **options), dtype)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.share(SHARE)
@every_row
def test_laws(name, variant):
    # drawn one by one, the parameters would take longer than the laws
    layer = jax.jit(lambda: build(name, variant, jnp.float64))()
    check_copies(layer)
    check_layer(layer, exempt=[*LAYERS[name].exempt, *LEFT_OUT])


def check_copies(layer):
    """Equal structure and equal numbers: a copy's programs, and what they return, are the same."""
    graph, state = nnx.split(layer)
    for copied in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        same, numbers = nnx.split(copied)
        assert same == graph and jax.tree.structure(numbers) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, numbers, state)


@pytest.mark.share(2 * SHARE)
@every_row
def test_dtypes_and_compilation(name, variant):
    """Outputs keep the dtype of x, states at least float32; two calls compile once; errors."""
    layer = nnx.eval_shape(lambda: build(name, variant, jnp.float32))
    check_shapes(layer)
    for arguments, message in (
        (dict(x=jnp.zeros((B, T, FEATURES + 1))), str(FEATURES)),
        (dict(x=jnp.zeros((B, T, FEATURES)), evaluator="seqential"), "evaluator"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(**arguments)
    if FULL:
        layer = build(name, variant, jnp.float32)
        chex.clear_trace_counter()
        run = jax.jit(chex.assert_max_traces(lambda layer, x, h: layer(x, h), n=1))
        x = normal(1, B, T, FEATURES).astype(jnp.float32)
        h = layer.batch_state(B)
        for _ in range(3):  # the state returned is the state accepted
            y, h = run(layer, x, h)


def test_the_size_of_every_state_is_what_its_row_says():
    for name, entry in spread(list(LAYERS.items()), len(LAYERS) if FULL else SHARE):
        if entry.state:
            h = jax.eval_shape(
                lambda name=name: make(name, FEATURES, **LAYERS[name].smoke).initial()
            )
            floats = [v for v in jax.tree.leaves(h) if jnp.issubdtype(v.dtype, jnp.inexact)]
            held = sum(v.size * (2 if jnp.iscomplexobj(v) else 1) for v in floats)
            assert entry.floats(FEATURES, **entry.smoke) == held, (name, entry.state, h)
        else:
            assert {"layer", "layers"} & set(entry.smoke), f"{name} does not say its state"


@pytest.mark.thorough
@every_row
def test_finite_at_extremes(name, variant):
    """|x| = 1e4 over 4096 steps in float32: nothing overflows, nothing turns into a NaN."""
    entry = LAYERS[name]
    if "finite at extremes" in entry.exempt:
        pytest.skip(entry.exempt["finite at extremes"])
    layer = build(name, variant, jnp.float32)
    sign = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (1, 4096, FEATURES)), 1e4, -1e4)
    y, h = jax.jit(lambda layer, x: layer(x))(layer, sign.astype(jnp.float32))
    assert bool(jnp.all(jnp.isfinite(y)))
    assert all(bool(jnp.all(jnp.isfinite(v))) for v in jax.tree.leaves(h))


@pytest.mark.parametrize(
    "name, variant",
    [
        pytest.param(
            *row.values, id=row.id, marks=() if row.id in FLOAT16 else pytest.mark.thorough
        )
        for row in ROWS + VARIANTS
    ],
)
def test_float16_is_finite(name, variant):
    """70 steps, 30 times as large, of zeros: where float32 stays far below 65504, so does it."""
    layer = build(name, variant, jnp.float32)
    x = normal(1, 1, 70, FEATURES).astype(jnp.float32)
    x = jnp.concatenate([x, 30 * x, 0 * x])
    run = jax.jit(lambda layer, x: layer(x)[0])
    wide, narrow = run(layer, x), run(layer, x.astype(jnp.float16))
    for what, w, n in zip(("as drawn", "30 times", "zeros"), wide, narrow):
        if np.max(np.abs(w)) < 1e4:
            assert np.isfinite(n).all(), f"{name} {variant}: {what}"
