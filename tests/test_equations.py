"""Layers whose goldens hold their op only, against the equations of their papers.

An oracle is a loop over time in NumPy in the letters of the paper, of the layer's own parameters
moved off their zeros, and asks for every one of them; tests/oracle_<family>.py have them.
"""

import jax
import numpy as np
import oracle_classic
import oracle_fast_weights
import oracle_linear_attention
import oracle_memory
import oracle_ode
import oracle_recurrent_attention
import oracle_reservoir
import oracle_residual
import oracle_segment
import oracle_seq2seq
import oracle_slots
import pytest
from oracle_tools import T, Weights, layer_of, numbers

from seqjax.nn.base import Frozen
from seqjax.testing.cases import beside

FAMILIES = (
    oracle_classic,
    oracle_fast_weights,
    oracle_linear_attention,
    oracle_memory,
    oracle_ode,
    oracle_recurrent_attention,
    oracle_reservoir,
    oracle_residual,
    oracle_segment,
    oracle_seq2seq,
    oracle_slots,
)
CASES = [case for family in FAMILIES for case in family.CASES]


@pytest.mark.share(5)
@pytest.mark.parametrize("name, oracle, options", CASES, ids=[case[0] for case in CASES])
def test_a_layer_is_its_equations(name, oracle, options):
    layer = layer_of(name, **{"features": 6} | options)  # no size equal to another
    W = Weights(numbers(layer) | numbers(layer, Frozen))
    x = 2 * np.random.default_rng(1).normal(size=(T, layer.features))
    run = jax.jit(lambda x: layer(x, evaluator=layer.evaluators[0], **beside(layer, x))[0])
    if seen := beside(layer, x[None]):
        y, there = seen["source"]
        options = options | {"h": np.asarray(y[0][there[0]])}
    np.testing.assert_allclose(run(x[None])[0], oracle(W, x, **options), rtol=0, atol=1e-10)
    assert not numbers(layer).keys() - W.read
