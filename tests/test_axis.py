"""Time split over a mesh axis: four devices, a piece each, return what one does with all of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL, NOT_CHECKED
from flax import nnx
from jax.sharding import PartitionSpec as P

import seqjax
from seqjax.core.newton import NewtonResult, newton
from seqjax.nn.base import cast_parameters, divides
from seqjax.ops import OPS
from seqjax.ops.op import Spec
from seqjax.testing import distance
from seqjax.zoo import LAYERS, make

B, T, PIECES = 2, 12, 4
MESH = jax.make_mesh((PIECES,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
OVER_TIME = P(None, "time")

# Resets inside pieces, at their first steps, and one in each of two pieces that follow each other;
# masked are a step with a reset, a whole piece, and what begins one.
RESETS = np.zeros((B, T), bool)
RESETS[0, [4, 6]] = RESETS[1, [3, 7, 8]] = True
MASK = np.ones((B, T), bool)
MASK[0, [2, 6]] = MASK[1, 3:6] = MASK[1, 9] = False


def splits(name, options):
    layer = nnx.eval_shape(lambda: make(name, 4, **options))
    return divides(layer)


SPECS = [
    pytest.param(
        name,
        spec,
        id=f"{name}-{spec.name}",
        marks=() if name in ("linear_scan", "gated_delta_rule") else pytest.mark.thorough,
    )
    for name, op in OPS.items()
    for spec in op.specs
    if spec.sizes["T"] < 100
]
# Which rows split time is known of built ones only: seconds, for `make test-all`.
ROWS = [
    pytest.param(name, options, id=f"{name}-{label}")
    for name in (LAYERS if FULL else ["gated_deltanet"])
    for label, options in (("smoke", LAYERS[name].smoke), *LAYERS[name].variants.items())
    if FULL or label == "smoke"
    if splits(name, options)
]


def over_time(function, flags, check=True):
    """function(xs, flags, state, axis) on the devices: xs and flags are split, states are not.

    check: whether JAX looks at what varies over devices.
    """

    def local(xs, flags, state):
        return function(xs, flags, state, "time")

    split = jax.tree.map(lambda _: OVER_TIME, flags)
    return jax.shard_map(
        local,
        mesh=MESH,
        in_specs=(OVER_TIME, split, P()),
        out_specs=(OVER_TIME, P()),
        check_vma=check,
    )


def agree(function, xs, flags, state, of=B, check=True):
    """Values, final states and gradients, taken of the first examples, of both are the same."""

    def whole(xs, flags, state):
        return function(xs, flags, state, None)

    def both(run):
        def number(xs, state):
            answer = run(xs, flags, state)
            leaves = [jnp.abs(y[:of]) for y in jax.tree.leaves(answer) if is_inexact(y)]
            return sum(jnp.sum(jnp.sin(y)) for y in leaves), answer

        @jax.jit
        def all_of(xs, state):
            gradient, answer = jax.grad(number, (0, 1), has_aux=True, allow_int=True)(xs, state)
            once = jax.tree.map(direction, (xs, state))
            return answer, gradient, jax.jvp(lambda *given: number(*given)[0], (xs, state), once)[1]

        return all_of(xs, state)

    answer, *expected = both(whole)
    found, *derivatives = both(over_time(function, flags, check))
    assert distance(*map(numbers, (found, answer))) < 1e-12
    assert distance(*map(numbers, (derivatives, expected))) < 1e-10
    return answer


def direction(x):
    return jnp.ones_like(x) if is_inexact(x) else np.zeros(x.shape, jax.dtypes.float0)


def numbers(tree):
    """What has a derivative, NaN as a number far from all others."""
    return jax.tree.map(lambda x: jnp.nan_to_num(x, nan=-1e9) if is_inexact(x) else None, tree)


def is_inexact(x):
    return jnp.issubdtype(x.dtype, jnp.inexact)


@pytest.mark.share(1)
@pytest.mark.parametrize("name, spec", SPECS)
def test_ops(name, spec):
    op = OPS[name]
    arguments = op.example(Spec(spec.name, {**spec.sizes, "T": T}, spec.options), 0)
    arguments = jax.tree.map(
        lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, arguments
    )
    state = arguments.pop("state")
    xs = {k: v for k, v in arguments.items() if getattr(v, "shape", ())[:2] == (B, T)}
    rest = {k: v for k, v in arguments.items() if k not in xs}
    flags = dict(resets=jnp.asarray(RESETS), mask=jnp.asarray(MASK))

    def run(xs, flags, state, axis, **options):
        return getattr(seqjax, name)(**xs, **rest, **flags, state=state, axis=axis, **options)

    check = name not in NOT_CHECKED
    agree(run, xs, flags, state, check=check)
    for beside, reverse in (({}, False), (flags, True)):
        call = partial(run, reverse=reverse)
        plain = jax.jit(partial(call, axis=None))(xs, beside, state)
        assert distance(jax.jit(over_time(call, beside, check))(xs, beside, state), plain) < 1e-12


@pytest.mark.thorough  # of the rows; tests/test_mesh.py splits the time of some
@pytest.mark.parametrize("name, options", ROWS)
def test_layers(name, options):
    """With a NaN that a reset in another piece ends, and one that reaches the end; those that see
    ahead without."""
    layer = cast_parameters(make(name, 4, rngs=nnx.Rngs(0), **options), jnp.float64)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(2 * B, T, 4))
    if layer.causal:
        x[2, 1], x[3, 10] = np.nan, np.nan
    h = jax.jit(layer)(jnp.asarray(draw.normal(size=(2 * B, 3, 4))))[1]
    flags = dict(resets=jnp.tile(RESETS, (2, 1)), mask=jnp.tile(MASK, (2, 1)))

    def run(x, flags, h, axis):
        y, h = layer(x, h, **flags, axis=axis)
        return y, layer.canonical(h)

    y, _ = agree(run, jnp.asarray(x), flags, h, check=name not in NOT_CHECKED)
    kept = np.isfinite(np.asarray(y)).all(-1)
    if not layer.causal:
        assert kept.all()
        return
    assert kept[:3].tolist() == [[True] * T] * 2 + [[n not in (1, 3) for n in range(T)]]
    assert kept[3].tolist() == [n < 10 for n in range(T)]


SPLIT = [n for n in LAYERS if splits(n, LAYERS[n].smoke)] if FULL else ["gru"]


@pytest.mark.parametrize("name", SPLIT)
def test_parameters(name):
    """Their gradients are summed over the devices, whichever runs when."""
    layer = cast_parameters(make(name, 4, rngs=nnx.Rngs(0), **LAYERS[name].smoke), jnp.float64)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, 4)))
    graph, parameters = nnx.split(layer)

    def run(x, flags, parameters, axis):
        layer = nnx.merge(graph, parameters)
        y, h = layer(x, **flags, axis=axis)
        return y, layer.canonical(h)

    flags = dict(resets=jnp.asarray(RESETS), mask=jnp.asarray(MASK))
    agree(run, x, flags, parameters, check=name not in NOT_CHECKED)


@pytest.mark.parametrize(
    "name, evaluator",
    [
        ("gru", "newton"),
        pytest.param("gru", "parallel_backward", marks=pytest.mark.thorough),
        pytest.param("indrnn", "newton", marks=pytest.mark.thorough),
        pytest.param("slstm", "newton", marks=pytest.mark.thorough),
        pytest.param("slstm", "parallel_backward", marks=pytest.mark.thorough),
    ],
)
def test_nonlinear_steps_are_solved_over_all_pieces(name, evaluator):
    layer = cast_parameters(make(name, 4, rngs=nnx.Rngs(0), **LAYERS[name].smoke), jnp.float64)
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(B, T, 4)))
    h = jax.jit(layer)(jnp.asarray(draw.normal(size=(B, 3, 4))))[1]
    flags = dict(resets=jnp.asarray(RESETS), mask=jnp.asarray(MASK))

    def run(x, flags, h, axis):
        y, h = layer(x, h, **flags, axis=axis, evaluator=evaluator)
        return y, layer.canonical(h)

    agree(run, x, flags, h)


@pytest.mark.parametrize("iterations", [50, 1])
def test_what_newton_reports_is_of_all_pieces(iterations):
    """Converged, and where it has not: then the pieces run one after the other."""
    x, h = jnp.asarray(np.random.default_rng(0).normal(size=(12, 2))), jnp.asarray([0.3, -0.2])

    def step(h, x):
        return jnp.tanh(0.8 * h[::-1] + x)

    def run(x, flags, h, axis):
        del flags
        return newton(step, x, h, max_iterations=iterations, axis=axis)

    split = jax.shard_map(
        lambda x: run(x, {}, h, "time"), mesh=MESH, in_specs=P("time"),
        out_specs=NewtonResult(P("time"), P(), P(), P(), P()),
    )  # fmt: skip
    found, expected = jax.jit(split)(x), run(x, {}, h, None)
    assert distance(found.states, expected.states) < 1e-12
    assert distance(found.last, expected.last) < 1e-12
    assert found.iterations == expected.iterations
    assert found.fell_back == expected.fell_back == (iterations == 1)
    with pytest.raises(ValueError, match="a trust region cannot split time over a mesh axis"):
        newton(step, x, h, trust=0.1, axis="time")


def test_what_cannot_be_split_is_refused():
    x = jnp.zeros((1, 4, 4))
    with pytest.raises(ValueError, match=r"mesh axis 'time'.*one device"):
        make("arn", 4, **LAYERS["arn"].smoke)(x, axis="time")
    layer = make("min_gru", 4)
    with pytest.raises(ValueError, match=r"mesh axis 'time'.*keys"):
        layer(x, axis="time", key=jax.random.key(0))
    with pytest.raises(ValueError, match="there are no steps"):
        layer(x[:, :0], axis="time")
