"""No future reaches the past: outputs before a change keep their bits, gradients their values.

Asked in float32 across chunk lengths, for futures that are another, NaN, infinite, or so large that
their products overflow.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_ops import (
    CASES,
    CHUNK,
    ONE_OF_EACH,
    PAIRS,
    agree,
    chunk,
    example,
    function_of,
    random_like,
    varying,
)

from seqjax import ops

T, CUT = 2 * CHUNK + 5, CHUNK + 3  # the change comes in the middle of a chunk
FUTURES = {"another": 1.0, "nan": np.nan, "inf": np.inf, "large": 1e30, "as negative": -1e30}
# what a large number cannot stand for
SIGNED = {"log_a", "log_b", "log_w", "log_f", "log_eta", "log_keep", "log_gamma"}
GROWING = SIGNED - {"log_gamma"}  # the solution of a regression on states of 1e33 overflows


def with_future(arrays, value):
    """Everything from step CUT on replaced; a log decay can only be a small one."""

    def replace(name, x):
        if name not in varying(arrays):
            return x
        new = -abs(value) if name in SIGNED and np.isfinite(value) else value
        return x.at[:, CUT:].set(jnp.asarray(new, x.dtype))

    return {name: replace(name, x) for name, x in arrays.items()}


def one_of_each(cases, of=lambda case: case):
    """One case of each op for `make test`, the others for `make test-all`."""
    mark = pytest.mark.thorough
    return [
        pytest.param(*np.atleast_1d(c), marks=[] if of(c) in ONE_OF_EACH else mark) for c in cases
    ]


@lru_cache
def past(case, evaluator):
    """arrays -> the outputs before CUT, and their gradients."""
    function, (_, options) = function_of(case), example(case, T=T)
    options |= chunk(case, evaluator)

    def weighed(arrays):
        y = function(**arrays, **options, evaluator=evaluator)[0][:, :CUT]
        return jnp.sum(y * random_like(y, 2).astype(y.dtype)), y

    return jax.jit(jax.value_and_grad(weighed, has_aux=True))


def before(tree):
    """Gradients of what lies before CUT, and of the initial state."""
    return {
        name: jax.tree.leaves(g) if name == "state" else [g[:, :CUT]]
        for name, g in tree.items()
        if name == "state" or name in varying(tree)
    }


@pytest.mark.share(4)
@pytest.mark.parametrize(
    "case, evaluator",
    one_of_each([*((case, "naive") for case in CASES), *PAIRS], of=lambda pair: pair[0]),
)
def test_the_past_does_not_see_the_future(case, evaluator):
    arrays = jax.tree.map(lambda x: x.astype(jnp.float32), example(case, T=T)[0])
    (_, y), gradient = past(case, evaluator)(arrays)
    assert np.isfinite(y).all()
    guarded = ops.OPS[CASES[case][0]].apart is not None
    for what, value in FUTURES.items():
        changed = with_future(arrays, value)
        (_, seen), found = past(case, evaluator)(changed)
        np.testing.assert_array_equal(seen, y, err_msg=f"{what} future")
        # products of 1e30 overflow in the loop too, and there the loop's gradient is NaN
        loop = before(past(case, "naive")(changed)[1])
        if np.isfinite(value) and not all(np.isfinite(g).all() for g in jax.tree.leaves(loop)):
            continue
        agree(before(found), before(gradient), 1e-5)
        if guarded and not np.isfinite(value):  # nor does what all steps share
            agree(found, gradient, 1e-5)


@pytest.mark.share(1)
@pytest.mark.parametrize("case", one_of_each(c for c in CASES if GROWING & varying(example(c)[0])))
def test_growth_has_finite_gradients_as_in_the_loop(case):
    """Log decays of 1.1 over 70 steps in float32: states of 1e33, far from an overflow."""
    arrays, options = example(case, T=70)
    arrays = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
    name = min(GROWING & varying(arrays))
    arrays[name] = jnp.full_like(arrays[name], 1.1)
    function = partial(function_of(case), **options)

    def gradient(evaluator):
        return jax.jit(jax.grad(lambda a: jnp.sum(function(**a, evaluator=evaluator)[0])))(arrays)

    for g in map(gradient, ops.OPS[CASES[case][0]].evaluators):
        assert all(np.isfinite(v).all() for v in jax.tree.leaves(g))
