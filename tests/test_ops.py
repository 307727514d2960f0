"""Every evaluator of every op against its naive loop, and the naive loops against what they mean.

One compiled program per case and evaluator answers value, reverse mode (with a cotangent on the
final state) and forward mode; it then runs on several sets of numbers.
"""

from functools import lru_cache, partial
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax
from seqjax import ops
from seqjax.ops.arguments import is_float
from seqjax.ops.op import Spec
from seqjax.tools import selfcheck

T, RESET = 37, 20  # not a multiple of any chunk; the numbers with a NaN reset here
SIZES = dict(B=2, T=T, H=2, K=4, V=3, D=4, N=3)
CHUNK = 8

# case -> (op, options of its example)
CASES = {
    "linear_attention": ("linear_attention", {}),
    "linear_attention, normalised": ("linear_attention", dict(normalise=True, decay="head")),
    "linear_attention, head decay": ("linear_attention", dict(decay="head")),
    "linear_attention, key decay": ("linear_attention", dict(decay="key")),
    "linear_attention, value decay": ("linear_attention", dict(decay="value")),
    "linear_attention, bonus": ("linear_attention", dict(decay="both", bonus=True)),
    "gated_delta_rule, head decay": ("gated_delta_rule", dict(decay="head")),
    "gated_delta_rule, key decay": ("gated_delta_rule", dict(decay="key")),
    "gated_delta_rule, values": ("gated_delta_rule", dict(decay="head", values=True)),
    "dplr, key decay": ("dplr", dict(decay="key")),
    "stabilised_attention": ("stabilised_attention", {}),
    "log_linear_attention": ("log_linear_attention", {}),
    "bounded_delta_rule": ("bounded_delta_rule", {}),
    "mesa": ("mesa", {}),
    "slot_attention": ("slot_attention", {}),
    "inner_learning": ("inner_learning", {}),
    "softmax_attention": ("softmax_attention", dict(rotary_fraction=0.5, bias=True)),
    "softmax_attention, relative": (
        "softmax_attention",
        dict(relative=True, sinks=True, bias=True),
    ),
    "softmax_attention, gates": ("softmax_attention", dict(gates=True, softcap=2.0)),
    "diagonal_ssm": ("diagonal_ssm", {}),
    "selective_scan": ("selective_scan", {}),
    "short_convolution": ("short_convolution", {}),
}
CONSTANT = {
    "A",
    "B",
    "C",
    "log_a of diagonal_ssm",
    "D",
    "delta_bias",
    "bias",
    "kernel",
    "bonus",
    "r",
    "state",
    "start",
}
ONE_OF_EACH = [
    "linear_attention, normalised",
    "gated_delta_rule, key decay",
    "dplr, key decay",
    "stabilised_attention",
    "softmax_attention, gates",
    "selective_scan",
    "short_convolution",
]
PAIRS = [
    (case, evaluator)
    for case, (op, _) in CASES.items()
    for evaluator in ops.OPS[op].evaluators
    if evaluator not in ("naive", "fft")
]


def example(case, seed=0, **sizes):
    """Float64 arrays by name, and the other arguments."""
    name, options = CASES[case]
    spec = Spec(case, {**SIZES, **sizes}, options)
    arrays, options = selfcheck.example(ops.OPS[name], spec, seed)
    arrays = jax.tree.map(lambda x: jnp.asarray(x, float), arrays)
    return arrays, {k: v for k, v in options.items() if v is not None}


@lru_cache
def function_of(case):
    """The op with what its state counts as floats, so that all of a state is drawn, differentiated
    and compared alike; and without a `start` if a reset can only go to nothing."""
    name, options = CASES[case]
    function, spec = getattr(seqjax, name), Spec(case, SIZES, options)
    dtypes = jax.tree.map(lambda s: s.dtype, ops.OPS[name].example(spec, 0)["state"])

    def counted(s, dtype):
        return s.astype(dtype) if np.issubdtype(dtype, np.integer) else s

    def call(**arguments):
        if "start" not in signature(function).parameters:
            arguments.pop("start", None)
        states = set(arguments) & {"state", "start"}
        arguments |= {k: jax.tree.map(counted, arguments[k], dtypes) for k in states}
        y, state = function(**arguments)
        return y, jax.tree.map(lambda s: s if is_float(s) else s.astype(float), state)

    return call


def chunk(case, evaluator):
    """The option that makes several chunks of the steps, where the evaluator has it."""
    chunked = ops.OPS[CASES[case][0]].evaluators[evaluator].chunked
    return dict(chunk_size=CHUNK) if chunked and evaluator != "naive" else {}


def varying(arrays):
    """Names of what has a time axis."""
    state = {"state", "start"}
    shapes = {name: x.shape[1:2] for name, x in arrays.items() if name not in state}
    steps = max(shapes.values())
    return {name for name, shape in shapes.items() if shape == steps}


def random_like(tree, seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape)), tree)


@lru_cache
def program(case, evaluator):
    """(arrays, flags, tangents, weight of each step) -> outputs, gradients, tangents of outputs."""
    function, (_, options) = function_of(case), example(case)
    options |= chunk(case, evaluator)

    def run(arrays, flags):
        return function(**arrays, **flags, **options, evaluator=evaluator)

    @jax.jit
    def everything(arrays, flags, tangents, weights):
        outputs, pullback = jax.vjp(partial(run, flags=flags), arrays)
        y, state = random_like(outputs, 2)
        cotangents = (weights.reshape(weights.shape + (1,) * (y.ndim - 2)) * y, state)
        cotangents = jax.tree.unflatten(jax.tree.structure(outputs), jax.tree.leaves(cotangents))
        (gradients,) = pullback(cotangents)
        _, moved = jax.jvp(partial(run, flags=flags), (arrays,), (tangents,))
        return outputs, gradients, moved

    return everything


def numbers(case, what):
    """arrays, flags, tangents, weights: random resets and masks, strong decays, or a NaN."""
    arrays, _ = example(case)
    draw = np.random.default_rng(1)
    flags = dict(resets=draw.random((2, T)) < 0.1, mask=draw.random((2, T)) < 0.8)
    weights = np.ones((2, T))
    first = jax.tree.map(lambda s: s[0] / 2, arrays["state"])
    arrays = {**arrays, "start": first}
    tangents = random_like(arrays, 3)
    if what == "strong decay":
        for name in varying(arrays) & {"log_a", "log_b", "log_w", "log_f"}:
            strong = draw.choice([-np.inf, -1e6, -50.0, -1e-3], arrays[name].shape)
            arrays[name] = jnp.asarray(strong)
            tangents[name] = jnp.zeros_like(arrays[name])
        flags["resets"][:] = False
    if what == "nan":
        flags = dict(resets=np.arange(T) == np.full((2, 1), RESET), mask=np.ones((2, T), bool))
        weights = np.where(np.arange(T) < RESET, 0.0, np.ones((2, 1)))
        arrays |= {k: arrays[k].at[:, RESET - 3].set(jnp.nan) for k in varying(arrays)}
        arrays["state"] = jax.tree.map(lambda s: s * jnp.nan, arrays["state"])
    return arrays, jax.tree.map(jnp.asarray, flags), tangents, jnp.asarray(weights)


def agree(found, expected, tolerance=1e-9):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.max(np.abs(y), initial=0)))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale)


@pytest.mark.share(3)
@pytest.mark.parametrize("case, evaluator", PAIRS)
def test_value_gradient_and_tangent(case, evaluator):
    for what in ("resets and masks", "strong decay"):
        given = numbers(case, what)
        found, expected = program(case, evaluator)(*given), program(case, "naive")(*given)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(expected))
        agree(found, expected)


@pytest.mark.share(2)
@pytest.mark.parametrize("case", CASES)
def test_a_nan_does_not_cross_a_reset(case):
    dirty = numbers(case, "nan")
    names = varying(dirty[0])
    clean_arrays = {
        k: example(case)[0][k] if k in names | {"state"} else v for k, v in dirty[0].items()
    }
    (y, state), gradient, _ = program(case, "naive")(clean_arrays, *dirty[1:])
    expected = y[:, RESET:], state, {k: gradient[k][:, RESET:] for k in names}
    for evaluator in ops.OPS[CASES[case][0]].evaluators:
        if evaluator == "fft":
            continue
        (y, state), gradient, _ = program(case, evaluator)(*dirty)
        agree((y[:, RESET:], state, {k: gradient[k][:, RESET:] for k in names}), expected)
        assert np.isnan(y[:, RESET - 3]).any(), f"{evaluator} hides the NaN"


def in_time(arrays, index):
    return {**arrays, **{k: arrays[k][:, index] for k in varying(arrays)}}


@pytest.mark.share(3)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_masked_step_is_left_out(case):
    arrays, flags, tangents, weights = numbers(case, "resets and masks")
    keep = np.flatnonzero(flags["mask"][0])
    flags = dict(resets=jnp.zeros((2, T), bool), mask=jnp.broadcast_to(flags["mask"][:1], (2, T)))
    (y, state), _, _ = program(case, "naive")(arrays, flags, tangents, weights)
    function, (_, options) = function_of(case), example(case)
    del arrays["start"]
    expected = jax.jit(partial(function, **options, evaluator="naive"))(**in_time(arrays, keep))
    agree((y[:, keep], state), expected)
    assert not np.delete(y, keep, axis=1).any()


@pytest.mark.share(1)
@pytest.mark.parametrize("case", ONE_OF_EACH)
def test_a_stream_in_pieces(case):
    """Pieces of 0, 1 and 10 steps, by the evaluators that are chosen, equal the naive whole."""
    function, (arrays, options) = function_of(case), example(case, T=11)

    def whole(arrays):
        return function(**arrays, **options, evaluator="naive")

    def pieces(arrays):
        ys, state = [], arrays["state"]
        for piece in (slice(0, 0), slice(0, 1), slice(1, 11)):
            part = {**in_time(arrays, piece), "state": state}
            y, state = function(**part, **options)
            ys.append(y)
        return jnp.concatenate(ys, axis=1), jax.tree.unflatten(form, jax.tree.leaves(state))

    @jax.jit
    def value_and_gradient(arrays):
        found, pull = jax.vjp(pieces, arrays)
        expected, pull_whole = jax.vjp(whole, arrays)
        cotangents = random_like(expected, 2)
        return (found, pull(cotangents)), (expected, pull_whole(cotangents))

    form = jax.tree.structure(jax.eval_shape(whole, arrays)[1])
    agree(*value_and_gradient(arrays))


def test_the_delta_rule_overwrites():
    """After a write with beta = 1 and a unit key, the key reads exactly what was written."""
    arrays, _ = example("gated_delta_rule, head decay")
    arrays["beta"] = jnp.ones_like(arrays["beta"])
    _, S = seqjax.gated_delta_rule(**arrays, chunk_size=CHUNK)
    agree(jnp.einsum("bhk,bhkv->bhv", arrays["k"][:, -1], S), arrays["v"][:, -1])


def keys_and_values(case="gated_delta_rule, key decay"):
    arrays, _ = example(case)
    resets = jnp.asarray(np.arange(T) == np.array([[11], [13]]))
    return arrays, dict(state=arrays.pop("state"), resets=resets, chunk_size=CHUNK)


def dplr_of_delta(q, k, v, beta, log_a, **options):
    written = beta[..., None] * k
    return seqjax.dplr(q, written, v, jnp.exp(log_a) * k, -written, log_a, **options)


def backwards(q, k, v, beta, log_a, **options):
    options["resets"] = jnp.flip(options["resets"], 1)
    flipped = (jnp.flip(x, 1) for x in (q, k, v, beta, log_a))
    y, state = seqjax.gated_delta_rule(*flipped, **options, reverse=True)
    return jnp.flip(y, 1), state


def two_corrections(q, k, v, beta, log_a, **options):
    """Of which the second corrects nothing."""
    k, v = (jnp.repeat(x, 2, axis=1) for x in (k, v))
    beta = jnp.stack([beta, jnp.zeros_like(beta)], axis=2).reshape(2, 2 * T, -1)
    options["mask"] = jnp.ones((2, T), bool)
    return seqjax.gated_delta_product(q, k, v, beta, log_a, **options)


@pytest.mark.parametrize(
    "same", [dplr_of_delta, seqjax.gated_delta_product, two_corrections, backwards]
)
def test_what_reduces_to_the_gated_delta_rule(same):
    arrays, options = keys_and_values()
    expected = jax.jit(seqjax.gated_delta_rule, static_argnames="chunk_size")(**arrays, **options)
    agree(jax.jit(partial(same, **options))(**arrays), expected)


def test_dplr_without_low_rank_is_linear_attention():
    arrays, options = keys_and_values("linear_attention, key decay")
    q, k, v, log_a = (arrays[name] for name in ("q", "k", "v", "log_a"))
    nothing = jnp.zeros_like(k)
    found = seqjax.dplr(q, k, v, nothing, nothing, log_a, **options)
    agree(found, seqjax.linear_attention(**arrays, **options))


def test_stabilised_attention_is_linear_attention_in_log_space():
    arrays, options = keys_and_values("stabilised_attention")
    C, n, m = options["state"]
    _, (S, z, last) = seqjax.stabilised_attention(**arrays, **options)
    k = jnp.exp(arrays["log_i"])[..., None] * arrays["k"]
    options["state"] = C * jnp.exp(m)[..., None, None], n * jnp.exp(m)[..., None]
    _, expected = seqjax.linear_attention(
        arrays["q"], k, arrays["v"], arrays["log_f"], normalise=True, **options
    )
    agree((S * jnp.exp(last)[..., None, None], z * jnp.exp(last)[..., None]), expected)


@pytest.mark.parametrize("taps", [5, 64])
def test_long_convolution(taps):
    """By FFT, for a filter shorter and longer than the input, as one step after the other."""
    draw = np.random.default_rng(0)
    u, kernel, D = (jnp.asarray(draw.normal(size=s)) for s in ((2, T, 3), (taps, 3), (3,)))
    window = jnp.asarray(draw.normal(size=(2, taps - 1, 3)))
    found = seqjax.fft_convolution(u, kernel, D, window)
    agree(found, seqjax.fft_convolution(u, kernel, D, window, evaluator="naive"))


@pytest.mark.parametrize("case", ["linear_attention, head decay", "gated_delta_rule, key decay"])
def test_a_strong_decay_costs_the_steps_after_it_no_digit(case):
    arrays, options = example(case, T=256)
    arrays["log_a"] = jnp.where(arrays["log_a"] < -10, -1e5, arrays["log_a"])
    function = getattr(seqjax, CASES[case][0])
    expected, _ = jax.jit(partial(function, evaluator="naive"))(**arrays)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
    found, _ = jax.jit(partial(function, evaluator="chunked"))(**single)
    agree(found, expected, tolerance=3e-6)


def test_second_order():
    """A Hessian times a vector, forward over reverse, through the triangular inverse."""
    arrays, _ = example("gated_delta_rule, key decay", T=11)

    def product(evaluator, arrays, along):
        def loss(arrays):
            outputs = seqjax.gated_delta_rule(**arrays, evaluator=evaluator, chunk_size=4)
            return sum((y**2).sum() for y in jax.tree.leaves(outputs))

        return jax.jvp(jax.grad(loss), (arrays,), (along,))[1]

    product, along = jax.jit(product, static_argnums=0), random_like(arrays, 3)
    agree(product("chunked", arrays, along), product("sequential", arrays, along))


def test_16_bits_in_and_out_a_state_of_32():
    arrays, _ = example("linear_attention, head decay")
    arrays = {k: v.astype(jnp.bfloat16) for k, v in arrays.items()}
    exact = {k: v.astype(jnp.float64) for k, v in arrays.items()}
    y, S = seqjax.linear_attention(**arrays, chunk_size=CHUNK)
    assert (y.dtype, S.dtype) == (jnp.bfloat16, jnp.float32)
    expected, last = seqjax.linear_attention(**exact, evaluator="naive")
    agree(S.astype(jnp.float64), last, tolerance=1e-6)
    agree(y.astype(jnp.float64), expected, tolerance=2**-8)


def test_heads_that_share_queries_and_keys():
    arrays, options = keys_and_values()
    q, k = (x[:, :, :1] for x in (arrays.pop("q"), arrays.pop("k")))
    found = seqjax.gated_delta_rule(q, k, **arrays, **options)
    q, k = (jnp.repeat(x, 2, axis=2) for x in (q, k))
    agree(found, seqjax.gated_delta_rule(q, k, **arrays, **options))


def test_without_a_batch_axis():
    arrays, options = keys_and_values()
    expected = seqjax.gated_delta_rule(**arrays, **options)
    options = {k: v if k == "chunk_size" else v[1] for k, v in options.items()}
    found = seqjax.gated_delta_rule(**{k: v[1] for k, v in arrays.items()}, **options)
    agree(found, jax.tree.map(lambda x: x[1], expected))


def test_the_table_and_the_names():
    op = ops.OPS["gated_delta_rule"]
    assert op.explain(1).evaluator == "sequential"
    assert op.explain(2048).evaluator == "chunked"
    assert "requested" in op.explain(2048, evaluator=("sequential", "chunked")).why
    assert set(op.explain(2048).others) == {"naive", "sequential"}
    for name, row in ops.OPS.items():
        assert row.name == name and callable(getattr(seqjax, name)) and row.reference
    long = dict(kernel=np.zeros((100, 1)))
    assert ops.OPS["short_convolution"].explain(100, **long).evaluator == "fft"
    told = ops.OPS["short_convolution"].explain(100, **long, resets=True)
    assert told.evaluator == "sequential" and "100 taps" in told.others["taps"]
