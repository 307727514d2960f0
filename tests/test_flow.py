"""What travels beside a sequence: parts of a Carry, flags read backwards, ops that take a flow."""

import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax
from seqjax.core.flow import Carry, Flow
from seqjax.nn import Layer


class State(NamedTuple):
    window: jax.Array
    h: jax.Array


def test_a_start_goes_where_its_state_goes():
    h = Carry(State(jnp.zeros(2), jnp.ones(3)), State(jnp.full(2, 2.0), jnp.full(3, 3.0)))
    assert h.h.now.shape == (3,) and h.h.start[0] == 3 and h[0].start[0] == 2
    assert [part.now.shape for part in h] == [(2,), (3,)]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(h)).h.start, h.h.start)
    with pytest.raises(AttributeError, match="no part 'shape', this one has .*window"):
        h.shape  # noqa: B018
    with pytest.raises(TypeError, match="has no parts"):
        h.h[0]


def test_an_op_takes_a_flow():
    """Resets go to the start of the carry, and masked steps are left out, as by keywords."""
    draw = np.random.default_rng(0)
    q, k, v = (jnp.asarray(draw.normal(size=(5, 2, 3))) for _ in range(3))
    S, start = (jnp.asarray(draw.normal(size=(2, 3, 3))) for _ in range(2))
    resets, mask = jnp.arange(5) == 2, jnp.arange(5) != 3
    flow = Flow(resets, mask, evaluator="sequential")
    found = seqjax.linear_attention(q, k, v, None, Carry(S, start), flow=flow)
    flags = dict(resets=resets, mask=mask, start=start, evaluator="sequential")
    for a, b in zip(found, seqjax.linear_attention(q, k, v, None, S, **flags)):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(TypeError, match="linear_attention with flow= takes one Carry"):
        seqjax.linear_attention(q, k, v, None, S, flow=flow)


def test_backwards_the_pieces_reset_at_their_ends():
    flow = Flow(jnp.array([0, 0, 1, 0], bool), jnp.array([1, 1, 1, 0], bool)).backwards()
    assert flow.mask is not None and flow.mask.tolist() == [False, True, True, True]
    assert flow.begins is not None and flow.begins.tolist() == [False, False, True, False]
    seen = Flow(jnp.array([1, 0, 1], bool), jnp.array([1, 0, 1], bool)).joined(3)
    assert seen.tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    assert Flow(evaluator="chunked").of(("sequential",)).evaluator is None


def test_a_layer_must_define_run():
    class Nothing(Layer):
        def __init__(self):
            self.features = self.out_features = 3

        def initial(self):
            return jnp.zeros(3)

    with pytest.raises(TypeError, match="must define run"):
        Nothing()(jnp.zeros((1, 2, 3)))
