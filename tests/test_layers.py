"""The contract of every row of the layer table.

One compiled program per row holds the laws of the default evaluator, and one per evaluator holds
its value, gradient and tangent; a law that a row is exempt from stands, with the reason, in the
row itself.
"""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import FULL, spread
from flax import nnx

from seqjax.core.flow import Flow
from seqjax.nn.base import cast_parameters
from seqjax.testing import distance
from seqjax.zoo import LAYERS, make

B, T, FEATURES = 2, 7, 4
CUT, RESET = 3, 4  # a stream is split at CUT, the past forgotten at RESET
LEFT_OUT = 1, 2, 5  # what is masked
TOLERANCE = 1e-9  # float64; the chunked forms sum in another order

# `make test` holds SHARE of the rows, spread over the families, to the laws, and twice as many to
# their dtypes. `make contract` holds the rows that changed, `make test-all` all rows and variants,
# to the laws, every evaluator to the oracle, and long sequences in float32 to being finite.
SHARE = 24
ROWS = [pytest.param(name, "", id=name) for name in LAYERS]
VARIANTS = [
    pytest.param(name, variant, id=f"{name}-{variant}", marks=pytest.mark.thorough)
    for name, entry in LAYERS.items()
    for variant in entry.variants
]
FLOAT16 = {"relit", "fwp", "gla"}  # of float16 in `make test`: where it was not finite once
every_row = pytest.mark.parametrize("name, variant", ROWS + VARIANTS)


@functools.cache
def parts(name, variant):
    """A row's layer in float64, with every parameter moved off its initial zeros and ones."""
    entry = LAYERS[name]
    options = entry.variants[variant] if variant else entry.smoke

    def made():
        return cast_parameters(make(name, FEATURES, rngs=nnx.Rngs(0), **options), jnp.float64)

    # drawn one by one, the parameters would take longer than the laws
    drawn = jax.jit(lambda: nnx.split(made(), nnx.Param, ...)[1:])
    params, rest = drawn()
    leaves, tree = jax.tree.flatten(params)
    moved = [
        p + 0.1 * np.asarray(normal(n, *p.shape)) for n, p in enumerate(map(np.asarray, leaves))
    ]
    params = jax.tree.unflatten(tree, map(jnp.asarray, moved))
    return nnx.graphdef(nnx.eval_shape(made)), params, rest


def build(name, variant):
    """The layer, with a learned initial state, which a reset goes to."""
    layer = nnx.merge(*parts(name, variant))
    layer.learn_initial()
    return cast_parameters(layer, jnp.float64)


def normal(seed, *shape):
    """Numbers of numpy: those of jax would be compiled into every program."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def some_state(layer, seed=3):
    """A state the layer can be in: the one after a few steps."""
    states = by_steps(layer, normal(seed, B, 3, FEATURES), layer.batch_state(B, jnp.float64))[1]
    return jax.tree.map(lambda v: v[-1], states)


@functools.partial(jax.jit, static_argnames=("full", "stepwise"))
def laws(layer, full=FULL, stepwise=True):
    """Every law of one row: name -> how far it is from holding; and which parameters move what.

    Compiling is what a row costs. So all cases are parts of two batches: one of T steps with flags,
    with its gradient, and one taken step by step, which is the oracle of all. `full` also splits
    the stream in two, and leaves the gradient to `meaning`.
    stepwise: whether a step can be taken at all.
    """
    graph, params, frozen = nnx.split(layer, nnx.Param, ...)
    x, other, fresh = (
        normal(1, B, T, FEATURES),
        normal(2, B, T, FEATURES),
        layer.batch_state(B, jnp.float64),
    )
    h = some_state(layer)
    never, always = jnp.zeros((B, T), bool), jnp.ones((B, T), bool)
    reset = never.at[:, RESET].set(True)
    kept = jnp.array([n for n in range(T) if n not in LEFT_OUT])
    keep = never.at[:, kept].set(True)

    def apart(a, b):
        return distance(*((y, layer.canonical(h)) for y, h in (a, b)))

    def turned(tree):
        return jax.tree.map(lambda v: v[::-1], tree)

    xs, hs, resets, counts = together(
        (x, h, never, always),
        (x.at[:, 1].set(jnp.nan), h, reset, always),  # a NaN before the reset
        (jnp.where(keep[:, :, None], x, jnp.nan), h, ~keep, keep),  # NaNs in what is left out
        (x.at[:, CUT:].set(other[:, CUT:]), h, never, always),
        (turned(x), turned(h), never, always),
        (x.at[:, CUT:].set(jnp.nan) if layer.causal else x, h, never, always),  # NaNs ahead
        (jnp.zeros_like(x), fresh, never, always),  # silence
        (1e4 * jnp.sign(x), h, never, always),
    )

    def weighed(params, leaves):
        """One number out of all cases but the last, whose derivatives may be as extreme."""
        layer = nnx.merge(graph, params, frozen)
        y, end = layer(xs, put_inexact(hs, leaves), resets, counts)
        calm = jax.tree.map(lambda v: v[:-B], (y, end))
        return weigh((calm[0], layer.canonical(calm[1]))), (y, end)

    if full:
        reached, (y, end) = None, weighed(params, inexact(hs))[1]
    else:
        gradient, (y, end) = jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inexact(hs))
        reached = jax.tree.map(lambda g: jnp.any(g != 0), gradient[0])
    whole, reset_run, held, future, turned_run, lost, silent, extreme = cut_apart((y, end))

    # Step by step: the whole, what follows the reset from a fresh start, what is left in.
    ahead = jnp.concatenate([x[:, RESET:], other[:, : T - CUT]], axis=1)
    rest = jnp.concatenate([x[:, kept], other[:, : T - len(kept)]], axis=1)
    ys, hs = by_steps(layer, *together((x, h), (ahead, fresh), (rest, h)))
    steps, begun, without = (
        jax.tree.map(lambda v, n=n, end=end: v[:end, n * B : (n + 1) * B], (ys, hs))
        for n, end in enumerate((T, T - RESET, len(kept)))
    )
    steps, begun, without = (
        (jnp.swapaxes(y, 0, 1), jax.tree.map(lambda v: v[-1], h))
        for y, h in (steps, begun, without)
    )
    if not stepwise:
        without = layer(x[:, kept], h)
    zero = jnp.zeros_like(held[0])
    found = {
        "single steps == full pass": apart(steps, whole),
        "reset == fresh start, NaN before it": apart(
            (reset_run[0][:, RESET:], reset_run[1]), begun
        ),
        "masked step == step left out": apart((held[0][:, kept], held[1]), without),
        "masked output == 0": distance(jnp.where(keep[:, :, None], 0, held[0]), zero),
        "causality": distance(future[0][:, :CUT], whole[0][:, :CUT]),
        "causality, NaNs ahead": distance(lost[0][:, :CUT], whole[0][:, :CUT]),
        "batch permutation": apart(turned(turned_run), whole),
        "finite at extremes": distance(extreme[0], extreme[0]),
        "finite in silence": distance(silent, silent),
    }
    none = slice(0, 0)  # of no steps: no outputs, the state as it came, its cotangent passed on
    empty, unmoved = layer(x[:, none], h, reset[:, none], keep[:, none])
    assert empty.shape == (B, 0, layer.out_features) and empty.dtype == x.dtype
    found["no steps change nothing"] = distance(unmoved, h)
    if full:
        first = layer(x[:, :CUT], h)
        second = layer(x[:, CUT:], first[1])
        joined = jnp.concatenate([first[0], second[0]], axis=1), second[1]
        found["split stream == whole"] = apart(joined, whole)
        alone = layer(x[:1], jax.tree.map(lambda v: v[:1], h))
        found["vmap == loop"] = apart(alone, jax.tree.map(lambda v: v[:1], whole))
    else:
        found["gradients are finite"] = distance(gradient, gradient)
    return found, reached


def together(*cases):
    """Cases of B examples each, as one batch."""
    return jax.tree.map(lambda *v: jnp.concatenate(v), *cases)


def cut_apart(tree):
    """A batch, as cases of B examples."""
    count = len(jax.tree.leaves(tree)[0]) // B
    return [jax.tree.map(lambda v, n=n: v[n * B : (n + 1) * B], tree) for n in range(count)]


def by_steps(layer, x, h):
    """Outputs and states [T, batch, ...] of calls with one step each."""

    def one(h, x_t):
        y_t, h = layer(x_t[:, None], h)
        return h, (y_t[:, 0], h)

    return jax.lax.scan(one, h, jnp.swapaxes(x, 0, 1))[1]


def weigh(tree):
    """One number out of a tree, with fixed random weights so that nothing cancels."""
    leaves = [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]
    return sum(
        jnp.sum(normal(100 + i, *v.shape) * (v.real + 0.7 * v.imag if jnp.iscomplexobj(v) else v))
        for i, v in enumerate(leaves)
    )


@functools.partial(jax.jit, static_argnames=("graph", "evaluator"))
def meaning(graph, params, rest, x, h, evaluator):
    """Value, gradient and tangent of one evaluator, with a reset and a masked step inside."""
    resets = jnp.zeros((B, T), bool).at[0, RESET].set(True)
    keep = jnp.ones((B, T), bool).at[1, 2].set(False)

    def run(params, x, h):
        return nnx.merge(graph, params, rest)(x, h, resets, keep, evaluator=evaluator)

    def function(params, x, leaves):
        y, end = run(params, x, put_inexact(h, leaves))
        return y, inexact(nnx.merge(graph, params, rest).canonical(end))

    def weighed(*args):
        value = function(*args)
        return weigh(value), value

    primals = (params, x, inexact(h))
    gradient, value = jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(*primals)
    tangents = jax.tree.map(jnp.cos, primals)
    return value, gradient, jax.jvp(lambda *a: weighed(*a)[0], primals, tangents)[1]


def inexact(tree):
    return [v for v in jax.tree.leaves(tree) if jnp.issubdtype(v.dtype, jnp.inexact)]


def put_inexact(tree, leaves):
    leaves = iter(leaves)
    put = lambda v: next(leaves) if jnp.issubdtype(v.dtype, jnp.inexact) else v  # noqa: E731
    return jax.tree.map(put, tree)


@pytest.mark.share(SHARE)
@every_row
def test_laws(name, variant):
    exempt, layer = LAYERS[name].exempt, build(name, variant)
    check_copies(layer)
    assert set(exempt) <= KNOWN_LAWS, f"{name} is exempt from laws that do not exist"
    stepwise = "single steps == full pass" not in exempt
    answers, reached = laws(layer, stepwise=stepwise)
    found = {law: float(v) for law, v in answers.items() if law not in exempt}
    broken = {law: value for law, value in found.items() if not value <= TOLERANCE}
    assert not broken, f"{name} {variant} breaks {broken}"
    if reached is not None:
        check_reached(name, reached)


def check_copies(layer):
    """Equal structure and equal numbers: a copy's programs, and what they return, are the same."""
    graph, state = nnx.split(layer)
    for copied in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        same, numbers = nnx.split(copied)
        assert same == graph and jax.tree.structure(numbers) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, numbers, state)


def check_reached(name, moved):
    """Nothing is hidden from the gradient by accident: of every parameter, whether it moved."""
    exempt = LAYERS[name].exempt
    reached = {
        jax.tree_util.keystr(path): bool(m)
        for path, m in jax.tree_util.tree_leaves_with_path(moved)
    }
    learned = {path for path in reached if "h0" in path}
    if "learned h0 has a gradient" not in exempt:
        assert any(reached[path] for path in learned), f"{name}: none of {learned}"
    if "parameters have gradients" not in exempt:
        still = [path for path in reached if not reached[path] and path not in learned]
        assert not still, f"{name}: no gradient reaches {still}"


@pytest.mark.thorough
@every_row
def test_evaluators_agree(name, variant):
    """Value, gradient (parameters, input, state) and tangent of every evaluator."""
    layer = build(name, variant)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x, h = normal(1, B, T, FEATURES), some_state(layer)
    oracle, *others = layer.evaluators
    expected = meaning(graph, params, rest, x, h, oracle)
    assert float(distance(expected, expected)) == 0, f"{oracle} is not finite"
    for evaluator in others:
        got = meaning(graph, params, rest, x, h, evaluator)
        for what, g, e in zip(("value", "gradient", "tangent"), got, expected):
            assert float(distance(g, e)) <= 1e-8, f"{name} {variant}: {what} of {evaluator}"
    check_reached(name, jax.tree.map(lambda g: jnp.any(g != 0), expected[1][0]))


@pytest.mark.share(2 * SHARE)
@every_row
def test_dtypes_and_compilation(name, variant):
    """Outputs keep the dtype of x, states at least float32; two calls compile once; errors."""
    entry = LAYERS[name]
    options = entry.variants[variant] if variant else entry.smoke

    def made():
        return cast_parameters(make(name, FEATURES, **options), jnp.float32)

    def check(x):
        layer = made()
        y, h = layer(x)
        assert y.shape == (B, T, layer.out_features) and y.dtype == x.dtype
        assert all(v.dtype in (jnp.float32, jnp.complex64) for v in inexact(h)), h
        assert jax.tree.structure(h) == jax.tree.structure(layer.batch_state(B))
        accepted, returned = jax.tree.leaves(h), jax.tree.leaves(layer(x, h)[1])
        assert [(v.shape, v.dtype, v.aval.weak_type) for v in accepted] == [
            (v.shape, v.dtype, v.aval.weak_type) for v in returned
        ], "the state returned is not the state accepted"
        with pytest.raises(ValueError, match=str(FEATURES)):
            layer(jnp.zeros((B, T, FEATURES + 1)))
        with pytest.raises(ValueError, match="evaluator"):
            layer(x, evaluator="seqential")

    for dtype in (jnp.bfloat16, jnp.float32) if FULL else (jnp.bfloat16,):
        jax.eval_shape(check, jax.ShapeDtypeStruct((B, T, FEATURES), dtype))
    if FULL:
        layer = made()
        run = jax.jit(lambda layer, x, h: layer(x, h))
        x = normal(1, B, T, FEATURES).astype(jnp.float32)
        h = layer.batch_state(B)
        for _ in range(3):
            y, h = run(layer, x, h)
        assert run._cache_size() == 1, "the state returned is not the state accepted"


def test_the_size_of_every_state_is_what_its_row_says():
    for name, entry in spread(list(LAYERS.items()), len(LAYERS) if FULL else SHARE):
        if entry.state:
            h = jax.eval_shape(
                lambda name=name: make(name, FEATURES, **LAYERS[name].smoke).initial()
            )
            held = sum(v.size * (2 if jnp.iscomplexobj(v) else 1) for v in inexact(h))
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
    layer = make(name, FEATURES, **(entry.variants[variant] if variant else entry.smoke))
    layer = cast_parameters(layer, jnp.float32)
    sign = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (1, 4096, FEATURES)), 1e4, -1e4)
    y, h = jax.jit(lambda layer, x: layer(x))(layer, sign.astype(jnp.float32))
    assert bool(jnp.all(jnp.isfinite(y)))
    assert all(bool(jnp.all(jnp.isfinite(v))) for v in inexact(h))


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
    entry = LAYERS[name]
    layer = make(name, FEATURES, **(entry.variants[variant] if variant else entry.smoke))
    layer = cast_parameters(layer, jnp.float32)
    x = normal(1, 1, 70, FEATURES).astype(jnp.float32)
    x = jnp.concatenate([x, 30 * x, 0 * x])
    run = jax.jit(lambda layer, x: layer(x)[0])
    wide, narrow = run(layer, x), run(layer, x.astype(jnp.float16))
    for what, w, n in zip(("as drawn", "30 times", "zeros"), wide, narrow):
        if np.max(np.abs(w)) < 1e4:
            assert np.isfinite(n).all(), f"{name} {variant}: {what}"


KNOWN_LAWS = {
    "vmap == loop",
    "no steps change nothing",
    "split stream == whole",
    "single steps == full pass",
    "reset == fresh start, NaN before it",
    "masked step == step left out",
    "masked output == 0",
    "causality",
    "causality, NaNs ahead",
    "batch permutation",
    "learned h0 has a gradient",
    "parameters have gradients",
    "finite at extremes",
    "finite in silence",
}


def test_the_contract_can_fail():
    """A layer that leaks across resets and looks ahead is caught: the laws are not vacuous."""

    class Leaky(type(build("elman", ""))):
        def run(self, x, h, flow):
            ahead = jnp.concatenate([x[1:], x[:1]])
            return super().run(x + 0.1 * ahead, h, Flow())

    leaky = cast_parameters(Leaky(FEATURES, rngs=nnx.Rngs(0)), jnp.float64)
    found, _ = laws(leaky, full=True)
    for law in (
        "causality",
        "reset == fresh start, NaN before it",
        "masked step == step left out",
        "split stream == whole",
    ):
        assert float(found[law]) > 1e-3, law
