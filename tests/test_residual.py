"""What residual recurrences claim of their gradient through time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_tools import layer_of, normal

T, H = 1000, 3


def jacobian(layer, evaluator=None):
    """dh_T/dh_0 over T steps, in float64."""
    x = normal(0, 1, T, H)
    run = jax.jit(jax.jacrev(lambda h: layer(x, h[None], evaluator=evaluator)[1][0]))
    return np.asarray(run(jnp.linspace(-1.0, 1.0, H)))


@pytest.mark.parametrize("form", ["pure", "gated"])
def test_e59_passes_the_gradient_on_as_it_is(form):
    make = partial(layer_of, "e59", features=H, form=form)
    for evaluator in make().evaluators:
        np.testing.assert_array_equal(jacobian(make(), evaluator), np.eye(H), evaluator)
    assert np.linalg.svd(jacobian(make(norm=True)), compute_uv=False).max() < 1e-6
