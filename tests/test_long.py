"""What the contract cannot say about long convolutions, their recurrences and gated attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.polynomial.legendre import legval

from seqjax.core.flow import Carry, Flow
from seqjax.layers.ssm.laughing_hyena import LaughingHyena, distil
from seqjax.nn.base import cast_parameters
from seqjax.nn.gated_attention import GatedHead
from seqjax.ops.diagonal_ssm import diagonal_ssm, impulse_response
from seqjax.zoo import make


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def build(name, features, **options):
    return cast_parameters(make(name, features, rngs=nnx.Rngs(1), **options), jnp.float64)


@pytest.mark.parametrize("shared", [False, True])
def test_diagonal_ssm_as_a_convolution(shared):
    """Outputs, last state and gradients from any entering state; complex and real."""
    T, D, N = 9, 2, 3
    size = (N,) if shared else (D, N)
    log_a = jax.lax.complex(-jnp.exp(normal(0, *size)), normal(1, *size))
    B, C, h = (jax.lax.complex(normal(i, D, N), normal(i + 1, D, N)) for i in (2, 4, 6))
    if not shared:
        log_a, B, C, h = log_a.real, B.real, C.real, h.real
    arguments = normal(8, T, D), log_a, B, C, h

    def loss(arguments, evaluator):
        y, last = diagonal_ssm(*arguments, evaluator=evaluator)
        return jnp.sum(jnp.sin(y)) + jnp.sum((last * last).real), (y, last)

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    got, expected = run(arguments, "fft"), run(arguments, "naive")
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-9)
    impulse = jnp.zeros((T, D)).at[0].set(1)
    response = diagonal_ssm(impulse, *arguments[1:4], jnp.zeros_like(h), evaluator="naive")[0]
    np.testing.assert_allclose(impulse_response(*arguments[1:4], T).T, response, atol=1e-12)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, options",
    [
        ("lmu", dict(order=3, theta=5.0, memories=2, coupled=False)),
        pytest.param(
            "mega", dict(ndim=2, size=2, length=4, truncation=6), marks=pytest.mark.thorough
        ),
        ("h3", dict(head_size=2, state=2, shift=3)),
        ("hyena", dict(length=5, width=3, order=3)),
        pytest.param("sgconv", dict(length=5, kernel_size=2), marks=pytest.mark.thorough),
        ("laughing_hyena", dict(modes=2)),
    ],
)
def test_convolution_equals_steps(name, options):
    """The FFT form of a layer, from an entering state, against its recurrence."""
    layer = build(name, 4, **options)
    x, h = normal(0, 2, 9, 4), layer(normal(1, 2, 7, 4))[1]
    run = jax.jit(lambda x, h, evaluator: layer(x, h, evaluator=evaluator), static_argnums=2)
    got, expected = run(x, h, "fft"), run(x, h, "sequential")
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, atol=1e-10)


def test_lmu_remembers_a_window():
    """The memory of a smooth signal is the signal, at any delay in the window (eq. 3)."""
    theta, t = 40.0, np.arange(160)
    u = np.sin(2 * np.pi * t / 70) + np.cos(2 * np.pi * t / 45)
    errors = []
    for order in (2, 6, 12):
        layer = build("lmu", 1, order=order, theta=theta, coupled=False)
        m = np.asarray(jax.jit(layer.convolve)(jnp.asarray(u)[:, None], jnp.zeros(order))[0])
        # a step holds its u, so the window lags by half a step
        found = [m @ legval(2 * (d + 0.5) / theta - 1, np.eye(order)) for d in range(40)]
        errors.append(max(np.abs(f[80:] - u[80 - d : 160 - d]).max() for d, f in enumerate(found)))
    assert errors[0] > 1 and errors[1] < 0.06 and errors[2] < 0.03, errors


@pytest.mark.parametrize("discretisation", ["zoh", "forward"])
def test_the_measures_of_a_memory_share_a_window(discretisation):
    """LegT is LMU's memory in other units, Fourier's mean fills over theta steps, LagT decays."""
    theta, ones, memory = 100.0, jnp.ones((80, 1)), {}
    for measure in ("lmu", "legt", "fout", "lagt"):
        options = dict(order=6, theta=theta, measure=measure, discretisation=discretisation)
        layer = build("lmu", 1, coupled=False, **options)
        memory[measure] = np.asarray(jax.jit(layer.convolve)(ones, jnp.zeros(6))[0])
    ratio = memory["legt"] / memory["lmu"]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[-1], ratio.shape), rtol=1e-8)
    np.testing.assert_allclose(memory["fout"][[24, 49, 74], 0], [0.25, 0.5, 0.75], atol=0.08)
    left = 1 - memory["lagt"][:, 0] / 2
    np.testing.assert_allclose(left[1:] / left[:-1], np.exp(-1 / 2 / theta), rtol=1e-3)


def test_distil_finds_the_modes_of_a_filter():
    t = np.arange(100)
    poles, C = (
        np.array([0.97 * np.exp(0.3j), 0.9 * np.exp(1.4j), 0.99]),
        np.array([1 + 1j, -1, 0.3]),
    )
    h = (C @ poles[:, None] ** t).real
    h[0] += 2
    errors = [np.abs(distil(h, modes).filter(100) - h).max() for modes in (1, 2, 3, 5)]
    assert errors[0] > errors[1] > 1e-2 and max(errors[2:]) < 1e-9, errors
    found = distil(h, 3)
    assert found.filter(1)[0] == pytest.approx(h[0], abs=1e-12)  # kept as it is
    np.testing.assert_allclose(sorted(np.abs(np.exp(found.log_lambda))), [0.9, 0.97, 0.99])


@pytest.mark.thorough
def test_a_hyena_distilled():
    """The error falls with the order, bounds that of the layer, and the state does not grow."""
    hyena = build("hyena", 2, length=64, width=8, frequency=6.0)
    filters = np.swapaxes(np.asarray(hyena.filters()), 1, 2)
    x = normal(0, 1, 64, 2)
    y = jax.jit(hyena)(x)[0]
    errors, gaps = [], []
    for modes in (1, 3, 10):
        found = distil(filters, modes)
        errors.append(np.linalg.norm(found.filter(64) - filters) / np.linalg.norm(filters))
        small = LaughingHyena.of(hyena, modes=modes)
        gaps.append(float(jnp.abs(jax.jit(small)(x)[0] - y).max() / jnp.abs(y).max()))
        assert small.initial().long[0].shape == (2, modes)
    assert errors[0] > 0.5 and errors[1] < 0.1 and errors[2] < 0.03, errors
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.01, gaps


def plain_attention(weights, q, k, v, bias, sees, length):
    """Outputs [T, V], one query and one key after the other."""
    out = []
    for i in range(len(q)):
        js = [j for j in range(len(q)) if sees(i, j)]
        dot = np.array([q[i] @ k[j] for j in js])
        b = np.array([bias[i - j] for j in js])
        if weights == "softmax":
            w = np.exp(dot * q.shape[1] ** -0.5 + b)
            w /= w.sum()
        else:
            z = dot / (length or len(js)) + b
            erf = jax.lax.erf((z - 0.5**0.5) / ((4 * np.pi) ** -0.5 * 2**0.5))
            w = np.maximum(z, 0) ** 2 if weights == "relu2" else 0.5 * (1 + np.asarray(erf))
        out.append(w @ np.stack([v[j] for j in js]))
    return np.stack(out)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "weights, chunked, causal",
    [("softmax", True, True), ("laplace", False, True), ("relu2", True, False)],
)
def test_gated_head_against_its_equation(weights, chunked, causal):
    T, L = 8, 3
    options = dict(weights=weights, bias="rotary", chunked=chunked, causal=causal)
    head = GatedHead(4, 2, L, by_length=causal, rngs=nnx.Rngs(0), **options)
    head = cast_parameters(head, jnp.float64)
    q, k, v = normal(0, T, 4), normal(1, T, 4), normal(2, T, 2)
    h, first = head.initial(), slice(0, 5)  # in two parts, where it streams
    if causal:
        start, h = head(q[first], k[first], v[first], Carry(h, h), Flow())
        o = jnp.concatenate([start, head(q[5:], k[5:], v[5:], Carry(h, h), Flow())[0]])
    else:
        o = head(q, k, v, Carry(h, h), Flow())[0]
    a, b = (complex(z[0], z[1]) for z in ((w[0], w[2]) for w in (head.bias.a, head.bias.b)))
    c, d = (complex(z[0], z[1]) for z in ((w[1], w[3]) for w in (head.bias.a, head.bias.b)))
    bias = {
        n: (np.exp(1j * n) * a * b.conjugate() + np.exp(0.01j * n) * c * d.conjugate()).real
        for n in range(1 - T, T)
    }

    def sees(i, j):
        near = i // L == j // L if chunked else i - j < L
        return near and (j <= i or not causal)

    expected = plain_attention(weights, q, k, v, bias, sees, L if causal else None)
    np.testing.assert_allclose(o, expected, atol=1e-10)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "name, options",
    [
        ("gau", dict(size=2, length=9, causal=False)),
        ("flash_gau", dict(size=2, group=3, shift=True, causal=False)),
        ("mega", dict(ndim=2, size=2, length=3, chunked=True, bidirectional=True)),
        ("mega", dict(ndim=2, size=2, length=9, truncation=3, bidirectional=True)),
        ("sgconv", dict(length=5, kernel_size=2, filters=2, bidirectional=True)),
        ("sru", dict(hidden=2, norm=True, normalize_after=True, bidirectional=True)),
    ],
)
def test_both_ways_packed_equals_apart(name, options):
    """Layers that see the future: pieces packed into one sequence, with steps left out of it."""
    graph, params, rest = nnx.split(build(name, 4, **options), nnx.Param, ...)
    params = jax.tree.map(lambda p: p + 0.3 * jnp.cos(jnp.arange(p.size).reshape(p.shape)), params)
    layer = nnx.merge(graph, params, rest)  # far from weights of 0.02 and biases of zero
    first, second = normal(0, 1, 4, 4), normal(1, 1, 5, 4)
    junk = jnp.full((1, 1, 4), jnp.nan)
    packed = jnp.concatenate([first[:, :2], junk, first[:, 2:], second, junk], axis=1)
    mask = jnp.ones((1, 11), bool).at[0, jnp.array([2, 10])].set(False)
    resets = jnp.zeros((1, 11), bool).at[0, 5].set(True)

    @jax.jit
    def run():
        firsts = jnp.concatenate([first, first.at[0, 3, 0].add(1.0)])
        return layer(packed, None, resets, mask)[0][0], layer(firsts)[0], layer(second)[0][0]

    y, (alone, moved), after = run()
    kept = np.asarray(mask)[0]
    np.testing.assert_allclose(y[kept][:4], alone, atol=1e-12)
    np.testing.assert_allclose(y[kept][4:], after, atol=1e-12)
    assert np.abs(y[~kept]).max() == 0
    assert np.abs(moved - alone)[0].max() > 1e-9, "it does not see the future"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "name, options",
    [
        ("sgconv", dict(length=5, kernel_size=2, filters=2, bidirectional=True)),
        ("lssl", dict(state=3, channels=2)),
        ("lru", dict(exp_param=False, gamma_norm=False)),
        ("sru", dict(hidden=2, bidirectional=True)),
    ],
)
def test_no_steps_and_short_floats(name, options, dtype):
    layer = make(name, 4, **options)
    for T in (0, 3):
        x = jax.ShapeDtypeStruct((2, T, 4), dtype)
        y, h = jax.eval_shape(layer, x)
        assert (y.shape, y.dtype) == ((2, T, layer.out_features), dtype)
        assert jax.eval_shape(layer, x, h)[0].shape == y.shape


def test_published_initialisations():
    hyena = make("hyena", 2, length=9, width=4)
    np.testing.assert_allclose(hyena.filter.z[:, 0], np.linspace(0, 1, 9), atol=1e-6)
    sgconv = make("sgconv", 3, length=64, kernel_size=8)
    np.testing.assert_allclose(jnp.linalg.norm(sgconv.kernel(64), axis=-1), 1, rtol=1e-5)
    assert float(jnp.abs(make("lmu", 3).e_m[...]).max()) == 0
    beta = make("mega", 64, ndim=4, size=2, length=2).ema.forward.beta[...]
    np.testing.assert_allclose(beta.mean(0), [1, -1, 1, -1], atol=0.02)


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("lmu", dict(discretisation="exact"), "zoh"),
        ("lmu", dict(measure="legs"), "legt"),
        ("lmu", dict(theta=0.0), "theta"),
        ("h3", dict(head_size=3), "3"),
        ("hyena", dict(order=1), "order"),
        ("laughing_hyena", dict(modes=0), "modes"),
        ("sgconv", dict(mode="add"), "sum"),
        ("sgconv", dict(length=8, kernel_size=4, first_scale=2), "0 to 1"),
        ("hyena", dict(target=0.0), "target"),
        ("dlr", dict(undamped=True, real_Lambda=True), "at most one"),
        ("s5", dict(step_rescale=0.0), "above 0"),
        ("sru", dict(normalize_after=True), "norm=True"),
        ("mega", dict(weights="soft"), "softmax"),
        ("mega", dict(size=3, bias="rotary"), "pairs"),
        ("gau", dict(length=0), "length"),
        ("flash_gau", dict(group=0), "group"),
    ],
)
def test_bad_options_say_what_is_right(name, options, says):
    with pytest.raises(ValueError, match=says):
        make(name, 4, **options)
