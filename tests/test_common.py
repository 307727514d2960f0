"""What every floor stands on must not be fooled, at any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.core.common import largest, predicted
from seqjax.core.monoid import viterbi
from seqjax.learn.implicit import settle

LONG = 5000  # XLA:CPU drops NaN from maxima of 4096 numbers or more


@pytest.mark.parametrize("n", [1, 7, 4095, 4096, LONG])
def test_largest_keeps_a_nan(n):
    x = jnp.arange(n, dtype=jnp.float32).at[n // 2].set(jnp.nan)
    assert jnp.isnan(largest(x)) and jnp.isnan(jax.jit(largest)(x))
    assert jnp.isnan(largest(jnp.full(n, jnp.nan), initial=0))
    rows = jnp.stack([x, jnp.zeros(n, jnp.float32)])
    np.testing.assert_array_equal(jnp.isnan(largest(rows, axis=1)), [True, False])
    assert largest(jnp.arange(n, dtype=jnp.float32)) == n - 1
    assert largest(jnp.zeros(0), initial=0) == 0


def test_a_nan_has_no_class():
    scores = jnp.zeros((3, LONG)).at[0, 9].set(1).at[1, 4].set(jnp.nan).at[2].set(jnp.nan)
    np.testing.assert_array_equal(predicted(scores), [9, -1, -1])


def test_the_maxplus_product_keeps_a_nan():
    A, h = jnp.zeros((70, 70)).at[3, 5].set(jnp.nan), jnp.zeros(70)
    assert jnp.isnan(viterbi.act(A, h)[3]) and not jnp.isnan(viterbi.act(A, h)[4])
    assert jnp.isnan(viterbi.combine(jnp.zeros((70, 70)), A)[3]).all()


def test_a_state_of_nans_has_not_settled():
    class Lost:
        @staticmethod
        def step(params, h, x):
            return h * jnp.nan

    _, residual, _ = settle(Lost, {}, jnp.ones(LONG), None, steps=3)
    assert jnp.isnan(residual)
