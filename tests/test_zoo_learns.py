"""Every row learns a small task, for `make smoke` and `make test-all`: minutes of compiling."""

import jax
import pytest

from experiments import zoo
from seqjax.zoo import LAYERS


@pytest.mark.thorough
@pytest.mark.parametrize("name", LAYERS)
def test_every_row_learns(name):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        assert zoo.learn(name) > 2 * zoo.CHANCE
