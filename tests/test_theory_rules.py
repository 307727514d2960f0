"""Theory: which steps compose, what long memory costs, equalities, what a state can hold."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.stacks.config import LayerConfig
from seqjax.testing import check_monoid
from seqjax.theory import (
    associativity,
    curse_of_memory,
    resnet_rnn_equivalence,
    signatures,
    universal_approximation as universal,
)
from seqjax.theory.finding import each

random = np.random.default_rng(0)
BROKEN = ("tanh(h + x)", "clip(h + x, -1, 1)", "(h + x) / 2", "1 / (h + x)")


def layer_of(name, features, **options):
    ((_, layer),) = each([LayerConfig(name, options)], features, seed=0)
    return layer


@pytest.mark.share(1)
@pytest.mark.parametrize("name", associativity.OPERATIONS)
def test_a_search_finds_what_does_not_compose_and_nothing_else(name):
    one = associativity.of_operation(associativity.OPERATIONS[name], jax.random.key(3))
    points = one.states, one.inputs[:, :3]
    found = jax.jit(partial(associativity.search, lambda at: one.claim(*at)))(points)
    assert found.largest >= found.drawn
    np.testing.assert_allclose(one.claim(*found.at), found.largest, rtol=1e-6, atol=1e-15)
    assert found.largest > 0.1 if name in BROKEN else found.largest < 1e-12


def test_a_counterexample_that_no_draw_meets_is_found_by_ascent():
    """A sum with a bump far from all that is drawn: 1e-6 there, and its slope leads to it."""

    def combine(p, q):
        return p + q + jnp.exp(-8 * jnp.sum((p - 1) ** 2 + (q + 1) ** 2))

    points = jnp.asarray(0.4 * random.uniform(-1, 1, (50, 3, 2)))
    points = points.at[:2].set(jnp.array([-1.0, 1.0])[:, None, None])  # the box is wider
    points = points.at[:2, 1].multiply(1 + 1e-9)
    residual = lambda at: associativity.associator(combine, *at)  # noqa: E731
    found = jax.jit(partial(associativity.search, residual))(points)
    assert found.drawn < 1e-2 and found.largest > 0.1
    plain = jax.jit(partial(associativity.search, lambda at: associativity.associator(
        lambda p, q: p + q, *at)))(points)  # fmt: skip
    assert plain.largest < 1e-15


@pytest.mark.thorough
def test_curvature_and_numbers_of_closed_form():
    """tanh'' = -2 tanh (1 - tanh^2); (1 / 2) h + x has one number, a h + b two, and tanh no end."""
    h = jnp.array([0.3])
    t = np.tanh([0.0, 0.3])
    expected = np.max(np.abs(2 * t * (1 - t**2)))
    found = jax.jit(lambda h: associativity.curvature(jnp.tanh, 0 * h, h))(h)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    off = associativity.bend(jnp.abs, -h, h)  # its second derivative is 0
    np.testing.assert_allclose(off, 0.3 / 1.3, rtol=1e-12)
    assert (
        associativity.curvature(jnp.abs, -h, h) == 0 == associativity.bend(lambda h: -h, h, 0 * h)
    )
    states = jnp.asarray(random.normal(size=(9, 1)))
    for step, width, numbers in (
        (lambda h, x: 0.5 * h + x, 1, [1, 1, 1, 1]),
        (lambda h, x: x[0] * h + x[1], 2, [2, 2, 2, 2]),
        (lambda h, x: jnp.tanh(2 * h + x), 1, [1, 2, 3, 4]),
    ):
        x = jnp.asarray(random.normal(size=(4, width)))
        found = jax.jit(partial(associativity.composed, step))(states, x)
        assert found.tolist() == numbers


@pytest.mark.share(1)
@pytest.mark.parametrize("name, affine, claim, numbers", [
    ("gru", False, "affine", [2, 4, 8, 16]),
    ("lru", True, "its monoid", [2, 4, 4, 4]),
    ("elman", False, "affine", [2, 4, 8, 16]),
    ("min_gru", True, "its monoid", [2, 4, 4, 4]),
])  # fmt: skip
def test_layers_that_compose(name, affine, claim, numbers):
    one = associativity.of_layer(layer_of(name, 2), jax.random.key(0), draws=24)
    found = jax.jit(lambda: associativity.measure(one))()
    small = found.bend < 1e-12, found.curvature < 1e-12, found.found.largest < 1e-12
    assert small == (affine,) * 3 and one.name == claim
    assert found.numbers[jnp.array([0, 1, 3, 7])].tolist() == numbers


@pytest.mark.thorough
def test_a_layer_with_a_false_monoid_is_found():
    layer = layer_of("min_gru", 2)
    right = layer.monoid
    type(layer).monoid = right.__class__(  # the earlier and the later are changed
        lambda p, q: right.combine(q, p), right.identity, right.act, right.structure
    )
    try:
        one = associativity.of_layer(layer, jax.random.key(0), draws=8)
        points = one.states, one.inputs[:, :3]
        assert associativity.search(lambda at: one.claim(*at), points).largest > 0.1
    finally:
        type(layer).monoid = right
    found = associativity.associativity([LayerConfig("elman", {})], features=2, operations=False)
    ((label, *_, claim, law),) = found.rows
    assert (label, claim, law) == ("elman", "affine", "broken")


def power(gaps, values):
    return np.polyfit(np.log(gaps), np.log(values), 1)[0]


@pytest.mark.share(1)
@pytest.mark.parametrize("name, powers", [
    ("lambda", (-1, -3, -3)),
    ("normalised", (0, -2, -2)),
    ("exponential", (-1, -1, -3)),
    ("normalised, exponential", (0, 0, -2)),
    ("zero-order hold, exponential", (1, 1, -1)),
])  # fmt: skip
def test_powers_of_the_curse_of_memory(name, powers):
    one = curse_of_memory.PARAMETRISED[name]
    gaps = [1e-3, 1e-4, 1e-5]
    moved = jax.vmap(partial(curse_of_memory.moved, one, phase=0.3, rho=0.5))
    values = jax.jit(moved)(jnp.array(gaps))
    np.testing.assert_allclose([power(gaps, v) for v in values.T], powers, atol=2e-2)


def test_sensitivity_is_a_sum_over_all_inputs_and_the_curvature_of_a_loss():
    """Sums of n^2 lambda^(2 n - 2) and of pairs, finite differences, and the Hessian of the loss of
    one mode that another one teaches."""
    lam, rho, n = 0.8 * np.exp(0.7j), 0.6, np.arange(400)
    R = rho ** np.abs(n[:, None] - n)
    k, dk = lam**n, np.where(n > 0, n * lam ** np.maximum(n - 1, 0), 0)
    expected = [(v @ R @ v.conj()).real for v in (k, dk)]
    given = jnp.asarray(lam)
    found = [curse_of_memory.second_moment(given, rho), curse_of_memory.sensitivity(given, rho)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    plain = curse_of_memory.PARAMETRISED["lambda"]
    moved = jax.jit(
        partial(curse_of_memory.moved, plain, 0.2, 0.7, rho)
    )()  # by the phase: lambda' = i lambda
    np.testing.assert_allclose(moved, [*expected, 0.64 * expected[1]], rtol=1e-12)

    q = jnp.array([0.5, -0.4])
    both = curse_of_memory.covariance(plain, jnp.array([0.8, 0.7]), q, rho)
    other = (0.5 * np.exp(-0.4j)) ** n
    np.testing.assert_allclose(both, (k @ R @ other.conj()).real, rtol=1e-12)

    def loss(p, teacher):
        parts = ((p, p), (teacher, teacher), (p, teacher), (teacher, p))
        a, b, c, d = (curse_of_memory.covariance(plain, *both, rho) for both in parts)
        return (a + b - c - d) / 2

    p = jnp.array([0.8, 0.7])
    loss = jax.jit(loss)
    assert abs(loss(p, p)) < 1e-12 < loss(p, 1.01 * p)
    slope, bend = jax.jit(lambda p: (jax.grad(loss)(p, p), jax.hessian(loss)(p, p)))(p)
    np.testing.assert_allclose(slope, 0, atol=1e-10)
    np.testing.assert_allclose(jnp.diagonal(bend), moved[1:], rtol=1e-9)
    for one in curse_of_memory.PARAMETRISED.values():
        at = float(one.at(0.8))
        r, gain = (np.asarray(jax.vmap(f)(jnp.array([at + 1e-6, at - 1e-6])))
                   for f in (one.modulus, lambda p, one=one: one.gain(one.modulus(p))))  # fmt: skip
        states = gain[:, None] * (r[:, None] * np.exp(0.7j)) ** n
        dk = (states[0] - states[1]) / 2e-6
        found = jax.jit(partial(curse_of_memory.moved, one, 0.2, 0.7, rho))()[1]
        np.testing.assert_allclose(found, (dk @ R @ dk.conj()).real, rtol=1e-7)


@pytest.mark.thorough
@pytest.mark.parametrize("exp_param, gamma_norm, rho", [
    (True, True, 0.7), (False, False, 0.0), (True, False, 0.0), (False, True, 0.7),
])  # fmt: skip
def test_a_layer_is_moved_as_the_closed_form(exp_param, gamma_norm, rho):
    """LRU: y = Re(C B) gamma sum lambda^n x, gamma a parameter of its own; autodiff against finite
    differences of its response."""
    config = LayerConfig("lru", dict(exp_param=exp_param, gamma_norm=gamma_norm))
    layer, names = curse_of_memory.single(config, 0.05, 0)
    assert names == (("nu_log", "theta_log") if exp_param else ("nu", "theta"))
    x = curse_of_memory.impulse(600)
    size, moved = curse_of_memory.moved_of(layer, names[0], x, rho)
    lam = layer.eigenvalues()[0]
    np.testing.assert_allclose(jnp.abs(lam), 0.95, rtol=1e-6)
    B, C = ((w[0] + 1j * w[1]).item() for w in map(np.asarray, (layer.B[...], layer.C[...])))
    scale = (B * C).real ** 2 * (1 - 0.95**2 if gamma_norm else 1)
    slope = np.log(0.95) * 0.95 if exp_param else 0.95
    expected = curse_of_memory.second_moment(lam, rho), curse_of_memory.sensitivity(lam, rho)
    np.testing.assert_allclose(size, scale * expected[0], rtol=1e-5)
    np.testing.assert_allclose(moved, scale * slope**2 * expected[1], rtol=1e-5)
    value = getattr(layer, names[0])[...]
    near = [curse_of_memory.response(layer, names[0], value + e, x) for e in (1e-6, -1e-6)]
    finite = curse_of_memory.variance((near[0] - near[1]) / 2e-6, rho)
    np.testing.assert_allclose(finite, moved, rtol=1e-6)


@pytest.mark.thorough
def test_the_curse_of_layers():
    found = curse_of_memory.curse_of_memory([LayerConfig("lru", {}), LayerConfig("s4d", {})])
    powers = {label: np.array(row, float) for label, *row, _ in found.rows}
    np.testing.assert_allclose(powers["lru"], [0, 0, -2], atol=0.1)
    np.testing.assert_allclose(powers["s4d"], [1, 1, 1], atol=0.1)
    with pytest.raises(
        ValueError, match="unknown layer of one eigenvalue 'gru'; did you mean 'lru'"
    ):
        curse_of_memory.curse_of_memory([LayerConfig("gru", {})])


@pytest.mark.thorough
def test_a_residual_network_of_shared_weights_is_a_recurrence_and_of_others_is_not():
    """Against a loop in numpy, and the gradient by shared weights is the sum of those of copies."""
    deep = resnet_rnn_equivalence
    layers = [layer for _, layer in (
        next(iter(each([LayerConfig("residual_rnn", dict(depth=1))], 3, seed=k))) for k in range(3)
    )]  # fmt: skip
    x, key = jnp.asarray(random.normal(size=3)), jax.random.key(0)
    assert deep.shown(x, 3, "first").tolist() == [x.tolist(), [0] * 3, [0] * 3]
    xs = deep.shown(x, 3, "constant")

    def loop(layers):
        h = np.zeros(3)
        for layer in layers:
            W, b = (np.asarray(v[...]) for v in (layer.W.kernel, layer.W.bias))
            h = h + np.tanh(np.asarray(xs[0]) @ W + b + np.asarray(layer.U[0]) @ h)
        return h

    np.testing.assert_allclose(deep.deep(layers, xs)[-1], loop(layers), rtol=1e-12)
    np.testing.assert_allclose(deep.recurrent(layers[0], xs), loop(layers[:1] * 3), rtol=1e-12)
    assert np.max(np.abs(loop(layers) - loop(layers[:1] * 3))) > 0.1
    found = jax.jit(partial(deep.differences, layers))(xs, key)
    assert all(gap < 1e-13 for gap in found.values())


@pytest.mark.thorough
def test_layers_of_all_kinds_are_networks():
    names = ("gru", "lstm", "lru", "highway_rnn")
    found = resnet_rnn_equivalence.resnet_rnn_equivalence(
        [LayerConfig(name, {}) for name in names], features=2, depth=3
    )
    assert len(found.rows) == 8 and set(found.curves) == set(names)
    assert all(float(gap) < 1e-12 for row in found.rows for gap in row[2:])


def test_condition_numbers_of_closed_form():
    """Roots of unity have 1, r times these r^-(T - 1), on a line and beyond N nothing is left."""

    @jax.jit
    def of(modulus, share):
        return universal.condition(universal.vandermonde(universal.arc(12, modulus, share), 12))

    np.testing.assert_allclose(of(1.0, 1.0), 1, rtol=1e-12)
    np.testing.assert_allclose(of(0.9, 1.0), 0.9**-11, rtol=1e-12)
    by_share = [of(1.0, share) for share in (0.5, 0.25, 0.125)]
    assert 1 < by_share[0] < 2 and 1e4 < by_share[1] < by_share[2] / 1e3  # of real inputs
    V = universal.vandermonde(jnp.linspace(0.1, 0.9, 4), 3)
    np.testing.assert_allclose(V[:, 3], [0.81, 0.9, 1])
    assert universal.condition(V) > 10 and np.isinf(universal.condition(V[:, :2]))
    assert np.isinf(universal.condition(jnp.zeros((2, 3))))


def test_a_state_of_roots_of_unity_keeps_as_many_inputs_as_it_has():
    """LRU with them reads all 7 of its inputs, and no 8th, which is added to the 1st."""
    layer = layer_of("lru", 1, state=7, exp_param=False, gamma_norm=False)
    layer.nu[...], layer.theta[...] = jnp.zeros(7), 2 * jnp.pi * jnp.arange(7.0) / 7
    layer.B[...] = jnp.zeros_like(layer.B[...]).at[0].set(1)
    x = jnp.asarray(random.normal(size=9))
    kept = jax.jit(partial(universal.kept_of, layer, 9))()
    V = universal.vandermonde(layer.eigenvalues(), 9)
    np.testing.assert_allclose(kept, jnp.concatenate([V.real, V.imag], axis=1), atol=1e-12)
    np.testing.assert_allclose(universal.condition(kept[-7:]), 1, rtol=1e-9)
    assert universal.condition(kept[-8:]) > 1e12
    errors = jax.jit(partial(universal.read, layer))(kept, x)
    assert np.all(errors[:7] < 1e-6) and np.all(errors[7:] > 0.1) and universal.longest(errors) == 7
    assert universal.longest([0, 0, 0]) == 3 and universal.longest([0, np.nan, 0]) == 1


@pytest.mark.thorough
def test_inputs_that_layers_keep():
    found = universal.universal_approximation(
        [LayerConfig("lru", dict(state=16, r_min=0.9)), LayerConfig("gru", dict(hidden=16))],
        length=4, steps=24,
    )  # fmt: skip
    most = [int(row[-1].removeprefix("all ")) for row in found.rows]
    assert most[0] >= 16 > most[1] and len(found.curves) == 4
    _, even = found.curves["in even steps, |lambda| = 1"]
    np.testing.assert_allclose(even[-1], 1, rtol=1e-9)


def integrals(x, depth, pieces=4000):
    """By words, sums over a fine grid: S^{w i} = int S^w dx^i, by the mean of both ends."""
    t = np.linspace(0, len(x) - 1, pieces * (len(x) - 1) + 1)
    path = np.stack([np.interp(t, np.arange(len(x)), column) for column in x.T])
    found = {(): np.ones(len(t))}
    for word in [w for k in range(depth) for w in np.ndindex(*(len(path),) * k)]:
        for i, dx in enumerate(np.diff(path)):
            S = found[word]
            found[*word, i] = np.concatenate([[0], np.cumsum((S[1:] + S[:-1]) / 2 * dx)])
    return {word: S[-1] for word, S in found.items()}


@pytest.mark.thorough
def test_signatures_are_iterated_integrals():
    """Of a fine grid; 1 / k! on a line; back and forth is nothing; one scan by any evaluator."""
    x = random.normal(size=(5, 2))
    S = jax.jit(partial(signatures.signature, depth=3, evaluator="associative"))(jnp.asarray(x))
    for word, expected in integrals(x, 3).items():
        np.testing.assert_allclose(signatures.at(S, word), expected, atol=1e-5)
    line = jnp.array([[0.0], [2.0], [3.0]])
    S = signatures.flat(signatures.signature(line, 4))
    np.testing.assert_allclose(S, [3, 9 / 2, 27 / 6, 81 / 24], rtol=1e-14)
    back = jnp.concatenate([jnp.asarray(x), jnp.asarray(x)[-2::-1]])
    nothing = jax.jit(partial(signatures.signature, depth=3))(back)
    np.testing.assert_allclose(signatures.flat(nothing), 0, atol=1e-12)
    for wrong, message in (
        (line[0], "x must be"),
        (line[:1], "T at least 2, got"),
        (line, "depth"),
    ):
        with pytest.raises(ValueError, match=message):
            signatures.signature(wrong, 0)


@pytest.mark.thorough
def test_the_tensor_algebra_is_a_monoid():
    e = tuple(jnp.asarray(random.normal(size=(3, *(2,) * k))) for k in (1, 2, 3))
    check_monoid(signatures.tensor_algebra, e, tuple(level[0] + 1 for level in e))


def test_products_of_integrals_are_sums_over_shuffles():
    S = jax.jit(partial(signatures.signature, depth=5))(jnp.asarray(random.normal(size=(6, 2))))
    for u, v in (((0,), (1,)), ((0, 1), (1, 0)), ((1, 1, 0), (0, 1)), ((), (0, 1))):
        words = signatures.shuffles(u, v)
        both = sum(signatures.at(S, word) for word in words)
        np.testing.assert_allclose(both, signatures.at(S, u) * signatures.at(S, v), rtol=1e-11)
    assert len(words) == 1 and len(signatures.shuffles((0, 1), (0, 1))) == 6
    log = signatures.logarithm(signatures.exponential(jnp.array([0.3, -2.0]), 4))
    np.testing.assert_allclose(signatures.flat(log), [0.3, -2, *[0] * 28], atol=1e-15)
    assert signatures.lyndon_words(2, 3) == [(0,), (1,), (0, 1), (0, 0, 1), (0, 1, 1)]


def test_linear_equations_are_linear_in_signatures():
    """Nilpotent: exact from words of N - 1 letters on. Any other: within the bound, by 1 / M!."""
    x = jnp.asarray(random.normal(size=(5, 2)))
    A, h = jnp.asarray(random.normal(size=(2, 4, 4))), jnp.asarray(random.normal(size=4))
    S = jax.jit(partial(signatures.signature, depth=7))(x)

    @jax.jit
    def off(A):
        found = signatures.by_words(A, S, h) - signatures.controlled(A, x, h)[None]
        return jnp.linalg.norm(found, axis=1)

    nilpotent = off(jnp.triu(A, 1))
    assert np.max(nilpotent[3:]) < 1e-12 < 1e-3 < nilpotent[2]
    A = A / 16
    length = sum(np.linalg.norm(np.tensordot(d, A, 1), 2) for d in np.diff(x, axis=0))
    bound = signatures.remainder(length, jnp.arange(8)) * jnp.linalg.norm(h)
    error = off(A)
    assert np.all(error <= bound) and error[7] < 1e-5 * error[0]
    tail = sum(2.5**k / float(np.prod(np.arange(1.0, k + 1))) for k in range(5, 60))
    np.testing.assert_allclose(signatures.remainder(2.5, 4), tail, rtol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize("name, options", [
    ("min_gru", {}), ("lru", dict(r_min=0.95, max_phase=0.2)), ("rg_lru", {}),
])  # fmt: skip
def test_states_of_layers_are_linear_in_signatures(name, options):
    layer = layer_of(name, 2, **options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2)))
    path, last = signatures.path_of(layer, x)
    expected = layer(x[None])[1][0]  # the layer as it runs
    np.testing.assert_allclose(last, expected, rtol=1e-10)
    found = jax.jit(jax.vmap(lambda path: signatures.read(signatures.signature(path, 6))))(path)
    error = np.max(np.abs(found - last[:, None]), axis=0)
    length = float(jnp.max(jnp.sum(jnp.abs(jnp.diff(path[..., 0])), axis=1)))
    pieces = float(jnp.max(jnp.sum(jnp.abs(jnp.diff(path[..., 1])), axis=1)))
    for M, off in enumerate(error, 1):  # xi once, and omega M - 1 times
        assert off <= pieces * float(signatures.remainder(length, M - 1)) + 1e-14
    assert error[-1] < 0.1 * np.max(error)
    with pytest.raises(ValueError, match="GRU is no Associative layer over the diagonal monoid"):
        signatures.path_of(layer_of("gru", 2), x)
