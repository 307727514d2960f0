"""Every kind of answer: its loss against the plain formula, extremes, masks, samples, metrics."""

import ast
import inspect
from functools import partial
from itertools import groupby, product
from math import exp, factorial, gamma, log, pi, prod, sqrt, tanh
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betaln, digamma

import seqjax.answers as answers
from seqjax.answers import (
    Actions,
    Answer,
    Bernoullis,
    Classes,
    Features,
    Gaussian,
    Input,
    Labels,
    Mixture,
    NegativeBinomial,
    Poisson,
    Quantiles,
    Spans,
    Strokes,
    StudentT,
    Values,
)
from seqjax.answers.special import log_beta

ROOT = Path(__file__).resolve().parent.parent
B, T = 3, 4


# The plain formula of the loss of one target.


def softplus(x):
    return log(1 + exp(x))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def classes(z, y):
    return -log(exp(z[y]) / sum(map(exp, z)))


def values(z, y):
    return sum((a - b) ** 2 for a, b in zip(z, y)) / len(y)


def bernoullis(z, y):
    return -log(prod(sigmoid(a) if b else 1 - sigmoid(a) for a, b in zip(z, y)))


def mixture(z, y):
    weights, mus, sigmas = np.exp(z[:2]), z[2:4], np.exp(z[4:])
    parts = zip(weights / weights.sum(), mus, sigmas)
    return -log(sum(w * exp(-((y[0] - m) ** 2) / 2 / s**2) / s / sqrt(2 * pi) for w, m, s in parts))


def strokes(z, y):  # arXiv:1308.0850, eqs 18-26
    e = 1 / (1 + exp(z[0]))
    weights, mus_1, mus_2, sigmas_1, sigmas_2, rhos = np.reshape(z[1:], (6, 2))
    weights, density = np.exp(weights), 0.0
    for w, m_1, m_2, s_1, s_2, r in zip(
        weights / weights.sum(), mus_1, mus_2, np.exp(sigmas_1), np.exp(sigmas_2), map(tanh, rhos)
    ):
        u, v = (y[0] - m_1) / s_1, (y[1] - m_2) / s_2
        Z = u**2 + v**2 - 2 * r * u * v
        density += w * exp(-Z / 2 / (1 - r**2)) / (2 * pi * s_1 * s_2 * sqrt(1 - r**2))
    return -log(density) - log(e if y[2] else 1 - e)


def poisson(z, y):
    return -sum(log(softplus(a) ** n * exp(-softplus(a)) / factorial(int(n))) for a, n in zip(z, y))


def negative_binomial(z, y, nu=1.0):
    total = 0.0
    for a, b, n in zip(z[:2], z[2:], y):
        mu, alpha = nu * softplus(a), softplus(b) / sqrt(nu)
        ways = gamma(n + 1 / alpha) / factorial(int(n)) / gamma(1 / alpha)
        p = 1 / (1 + alpha * mu)
        total -= log(ways * p ** (1 / alpha) * (1 - p) ** n)
    return total


def scaled_binomial(z, y):  # arXiv:1704.04110, section 3.3
    *counts, nu = y
    return negative_binomial(z, counts, nu)


def gluonts_binomial(z, y):
    (n, nu), r = y, softplus(z[0])
    p = sigmoid(z[1] + log(nu))
    return -log(gamma(n + r) / factorial(int(n)) / gamma(r) * (1 - p) ** r * p**n)


def gaussian(z, y):
    *numbers, nu = y
    mus, sigmas = (nu * np.array(part) for part in (z[:2], [softplus(a) for a in z[2:]]))
    parts = (
        (v - m) ** 2 / 2 / s**2 + log(s * sqrt(2 * pi)) for v, m, s in zip(numbers, mus, sigmas)
    )
    return sum(parts)


def student_t(z, y):
    df, mu, sigma = 2 + softplus(z[0]), z[1], softplus(z[2])
    norm = gamma((df + 1) / 2) / gamma(df / 2) / sqrt(df * pi) / sigma
    return -log(norm * (1 + ((y[0] - mu) / sigma) ** 2 / df) ** (-(df + 1) / 2))


def quantiles(z, y):
    losses = [
        tau * (v - q) if v > q else (1 - tau) * (q - v)
        for v, row in zip(y, np.reshape(z, (2, 3)))
        for tau, q in zip(LEVELS, row)
    ]
    return sum(losses) / len(losses)


def labels(z, y):  # over all alignments
    p, total = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), 0.0
    for path in product(range(z.shape[1]), repeat=len(z)):
        if [k for k, _ in groupby(path) if k] == [k for k in y if k]:
            total += prod(p[t, k] for t, k in enumerate(path))
    return -log(total)


def spans(z, y):
    return classes(z[:, 0], y[0]) + classes(z[:, 1], y[1])


def actions(z, y):  # arXiv:1707.06347, eqs 7 and 9; clip 0.3, c_1 = 0.7, c_2 = 0.2
    *logits, V = z
    p = np.exp(logits) / np.exp(logits).sum()
    a, old, A, R = int(y[0]), *y[1:4]
    r = p[a] / exp(old)
    return -min(r * A, min(max(r, 0.7), 1.3) * A) + 0.7 * (V - R) ** 2 + 0.2 * (p @ np.log(p))


LEVELS = (0.1, 0.5, 0.8)
KINDS = {
    Classes(4, True): classes,
    Values(2, True): values,
    Bernoullis(3, True): bernoullis,
    Mixture(2, True): mixture,
    Strokes(2, True): strokes,
    Poisson(2, True): poisson,
    NegativeBinomial(2, True): negative_binomial,
    NegativeBinomial(2, True, "paper"): scaled_binomial,
    NegativeBinomial(1, True, "gluonts"): gluonts_binomial,
    Gaussian(2, True, scaled=True): gaussian,
    StudentT(1, True): student_t,
    Quantiles(LEVELS, True, 2): quantiles,
    Labels(2): labels,
    Spans(): spans,
    Actions(2, clip=0.3, value=0.7, entropy=0.2): actions,
}
NAMED = [
    pytest.param(kind, id=f"{type(kind).__name__}{getattr(kind, 'scaled', None) or ''}")
    for kind in KINDS
]
every = pytest.mark.parametrize("kind", NAMED)


def head(kind, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(B, T, kind.size))


def targets(kind):
    """Targets of a batch and their weights, some of them 0."""
    lead = (B, T) if kind.aligned else (B,)
    if kind == Labels(2):
        return np.array([[1, 0], [1, 1], [2, 1]], np.int32), np.resize([1.0, 0, 2], lead)
    if kind == Spans():
        return np.array([[0, 1], [1, 1], [2, 3]], np.int32), np.resize([1.0, 0, 2], lead)
    draws = np.random.default_rng(1).integers(0, 2, (*lead, *kind.shape))
    if type(kind) not in (Classes, Bernoullis, Strokes, Actions):
        draws = draws * 2 + 1
    if type(kind) is Actions:
        draws = draws - np.array([0, 1.2, 0.5, 0, 0, 0, 0])
    if type(kind) is Strokes:
        draws = draws * np.array([-0.5, 2, 1])
    return draws.astype(kind.dtype), np.resize([1.0, 0, 0, 2, 1], lead)


@pytest.mark.share(5)
@every
def test_the_loss_is_the_plain_formula_and_what_has_no_weight_does_not_reach_it(kind):
    y_hat, (y, mask) = head(kind), targets(kind)
    places = list(np.ndindex(*mask.shape))
    expected = sum(mask[i] * KINDS[kind](y_hat[i], y[i].tolist()) for i in places) / mask.sum()
    spoiled, y = y_hat.copy(), y.copy()
    spoiled[mask == 0] = np.nan
    y[mask == 0] = np.nan if y.dtype == np.float32 else 10**6
    loss = jax.jit(jax.value_and_grad(lambda z: kind.score(z, y, mask)["loss"]))
    value, grad = loss(spoiled)
    np.testing.assert_allclose(value, expected, 1e-10)
    assert np.isfinite(grad).all() and not grad[mask == 0].any()
    assert np.abs(grad[mask > 0]).max() > 1e-3
    nothing = kind.score(spoiled, y, 0 * mask)
    assert all(v == 0 for v in nothing.values())


@every
def test_the_gradient_is_finite_at_extremes(kind):
    y, mask = targets(kind)
    loss = jax.jit(jax.value_and_grad(lambda z, y: kind.score(z, y, mask)["loss"]))
    far = 100 * y
    if type(kind) is Actions:
        far[..., 0] = y[..., 0]  # there are no others
    for scale in (0.0, 1e2, 1e4):
        z = np.sign(head(kind)).astype(np.float32) * np.float32(scale)
        for answer in (z, -np.abs(z), np.abs(z)):
            for target in (y, 0 * y) if kind.dtype == np.int32 else (y, 0 * y, far):
                value, grad = loss(answer, target)
                assert value.dtype == jnp.float32
                assert np.isfinite(value) and np.isfinite(grad).all(), (scale, target.max())


@pytest.mark.share(4)
@pytest.mark.parametrize(
    "kind", [k for k in NAMED if type(k.values[0]) not in (Quantiles, Actions)]
)
def test_samples_follow_the_distribution_that_the_loss_is_of(kind):
    """The expected gradient of a negative log likelihood under its own distribution is zero."""
    y_hat, N = head(kind, 5)[0], 20_000
    y_hat = y_hat if not kind.aligned else y_hat[0]
    keys = jax.random.split(jax.random.key(0), N)
    draws = jax.jit(jax.vmap(kind.sample, (0, None)))(keys, y_hat)
    assert draws.shape[2:] == kind.shape[1:] and jnp.issubdtype(draws.dtype, jnp.integer) == (
        kind.dtype == np.int32
    )
    loss = lambda z, y: kind.loss(z[None], y[None])[0]  # noqa: E731
    score = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(y_hat, draws)
    sigma = np.std(score, axis=0) / N**0.5
    assert (np.abs(np.mean(score, axis=0)) <= 5 * sigma).all()
    # and it would see another one
    other = y_hat + 0.3 * np.random.default_rng(6).normal(size=y_hat.shape)
    moved = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(other, draws)
    assert (np.abs(np.mean(moved, axis=0)) > 5 * sigma).any()


def test_the_beta_function_does_not_cancel():
    a, b = np.exp(np.random.default_rng(0).uniform(-8, 12, (2, 5000)))
    exact = betaln(a, b)
    found, slope = jax.jit(jax.vmap(jax.value_and_grad(log_beta)))(a, b)
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(slope, digamma(a) - digamma(a + b), rtol=1e-8, atol=1e-13)
    found = jax.jit(log_beta)(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=2e-5)


@pytest.mark.thorough
def test_what_is_drawn_of_a_scale_has_it():
    """In the mean of many, of a Gaussian its deviation too; no scale, and there is none to have."""
    keys, nu = jax.random.split(jax.random.key(0), 20_000), 50.0
    for kind in (NegativeBinomial(2, True, "paper"), NegativeBinomial(2, True, "gluonts"),
                 Gaussian(2, True, scaled=True), StudentT(2, True, scaled=True)):  # fmt: skip
        y_hat = 0.5 * jnp.asarray(head(kind, 3)[0, 0])
        draw = jax.vmap(partial(kind.sample, scale=nu), (0, None))
        draws = np.asarray(jax.jit(draw)(keys, y_hat))
        assert draws.shape == (20_000, 3) and (draws[:, 2] == nu).all()
        error = 5 * draws[:, :2].std(axis=0) / 20_000**0.5
        assert (abs(draws[:, :2].mean(axis=0) - kind.mean(y_hat, nu)) < error).all()
        assert kind.next_input is None and kind.options == ("scale",)
        predicted = kind.predict(y_hat)
        np.testing.assert_allclose(predicted, [*kind.mean(y_hat, 1.0), 1])
    plain = Gaussian(2, True)
    assert plain.next_input == Features(2) and plain.options == ()
    assert plain.sample(keys[0], y_hat[:4]).shape == (2,)


def test_samples_of_quantiles_have_these_quantiles():
    kind, y_hat = Quantiles(LEVELS, False, 2), jnp.array([0.0, 1, 5, 3, -2, 4])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = np.asarray(jax.vmap(kind.sample, (0, None))(keys, y_hat))
    assert draws.min(axis=0).tolist() == [0, -2] and draws.max(axis=0).tolist() == [5, 4]
    np.testing.assert_allclose(np.quantile(draws, 0.5, axis=0), [1, 3], atol=0.06)
    np.testing.assert_allclose(np.quantile(draws, 0.65, axis=0), [3, 3.5], atol=0.1)
    assert kind.predict(y_hat).tolist() == [1, 3]


@pytest.mark.parametrize("kind", [k for k in NAMED if "temperature" in k.values[0].options])
def test_cold_samples_are_the_prediction(kind):
    y_hat = head(kind)[0, 0]
    draw = kind.sample(jax.random.key(0), y_hat, temperature=1e-12)
    np.testing.assert_allclose(draw, kind.predict(y_hat), atol=1e-4)


def test_temperature_scales_the_variance_of_a_component():
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = jax.vmap(lambda k: Mixture(1, True).sample(k, jnp.array([0.0, 3, log(2)]), 0.25))(keys)
    np.testing.assert_allclose([np.mean(draws), np.std(draws)], [3, 1], atol=0.03)


def test_labels_are_decoded_and_counted():
    kind, path = Labels(3), np.array([[0, 1, 1, 0, 1, 3], [2, 2, 2, 0, 0, 0]])
    y_hat = 9 * np.eye(4)[path]
    assert kind.predict(y_hat).tolist() == [[1, 1, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0]]
    y = np.array([[1, 2, 3, 2], [2, 0, 0, 0]], np.int32)  # two edits of five labels
    metrics = kind.summary(kind.score(y_hat, y, np.ones(2)))
    assert set(metrics) == {"loss", "label_error_rate"}
    np.testing.assert_allclose(metrics["label_error_rate"], 2 / 5)


def test_actions_are_drawn_and_episodes_that_ended_are_counted():
    kind, z = Actions(3), jnp.array([1.0, -1, 0.5, 7])
    draws = np.asarray(
        jax.vmap(kind.sample, (0, None))(jax.random.split(jax.random.key(0), 5000), z)
    )
    p = np.exp(z[:3]) / np.exp(z[:3]).sum()
    shares = np.bincount(draws[:, 0].astype(int), minlength=3) / 5000
    assert (abs(shares - p) < 5 * (p * (1 - p) / 5000) ** 0.5).all()
    np.testing.assert_allclose(draws[:, 1], np.log(p)[draws[:, 0].astype(int)], 1e-6)
    np.testing.assert_allclose(kind.predict(z), [0, np.log(p[0]), 0, 0, 0, 0, 0], 1e-6)
    y = np.zeros((1, 3, 7), np.float32)
    y[0, :, 4:] = [[1, 5, 1], [0, 9, 1], [1, -2, 0]]
    metrics = kind.score(np.zeros((1, 3, 4)), y, np.ones((1, 3)))
    assert metrics["return"] == 1.5 and metrics["success"] == 0.5
    np.testing.assert_allclose(metrics["entropy"], log(3), 1e-6)
    found = kind.summary(metrics)
    assert found["loss"] == -1.5 and found["surrogate"] == metrics["loss"]
    assert kind.weights(y, np.ones((1, 3))) == {"return": 2, "success": 2}


def test_spans_are_the_likeliest_of_all_spans():
    y_hat = np.random.default_rng(0).normal(size=(50, T, 2))
    for z, found in zip(y_hat, Spans().predict(y_hat)):
        every = [(s, e) for s in range(T) for e in range(s, T)]
        assert tuple(found.tolist()) == max(every, key=lambda k: z[k[0], 0] + z[k[1], 1])
    sure = np.zeros((2, 6, 2))
    sure[0, 1, 0] = sure[0, 4, 1] = sure[1, 2, 0] = sure[1, 3, 1] = 9
    metrics = Spans().score(sure, np.array([[3, 5], [2, 3]], np.int32), np.ones(2))
    assert metrics["exact_match"] == 0.5
    np.testing.assert_allclose(metrics["f1"], (2 * 2 / (4 + 3) + 1) / 2)  # steps 3, 4 in common


@pytest.mark.parametrize("kind", [Labels(2), Spans()], ids=["Labels", "Spans"])
def test_padding_is_no_answer(kind):
    y_hat, (y, mask) = head(kind), targets(kind)
    y = np.minimum(y, 1)
    longer = np.concatenate([y_hat, np.full((B, 2, kind.size), np.nan)], axis=1)
    present = np.broadcast_to(np.arange(T + 2) < T, longer.shape[:2])
    short, padded = kind.score(y_hat, y, mask), kind.score(longer, y, mask, present)
    for name, value in short.items():
        np.testing.assert_allclose(padded[name], value, 1e-10, err_msg=name)


def test_yes_or_no_and_counts_are_summed_up_over_all_targets():
    kind = Bernoullis(3, True)
    y = np.array([[[1, 0, 1], [0, 0, 0]]], np.float32)
    y_hat = np.array([[[5.0, 5, -5], [5, -5, -5]]])  # TP 1, FP 2, FN 1
    metrics = kind.summary(kind.score(y_hat, y, np.ones((1, 2))))
    assert set(metrics) == {"loss", "f1", "accuracy"}
    np.testing.assert_allclose([metrics["f1"], metrics["accuracy"]], [2 / 5, 1 / 4])
    kind, y_hat = Poisson(1, True), np.log(np.expm1(np.array([[[2.0], [4.0]]])))
    metrics = kind.summary(kind.score(y_hat, np.array([[[1], [7]]], np.float32), np.ones((1, 2))))
    np.testing.assert_allclose([metrics["mae"], metrics["rmse"]], [2, 5**0.5])


@pytest.mark.parametrize("make, message", [
    (lambda: Classes(0, True), "Classes.count must be a whole number from 1 to 2147483647, got 0"),
    (lambda: Strokes(1.5, True), "Strokes.components must be a whole number"),
    (lambda: Quantiles((0.5, 1.0), True), "Quantiles.levels must be a tuple"),
    (lambda: Quantiles((0.5, 0.1), True), r"levels must be one at least, rising, got \(0.5, 0.1\)"),
    (lambda: Spans().score(np.zeros((B, T, 3)), np.zeros((B, 2), int), np.ones(B)),
     r"Spans expects an answer of shape \(3, 4, 2\), got \(3, 4, 3\)"),
    (lambda: Classes(2, True).score(np.zeros((B, T, 2)), np.zeros((B, T)), np.ones((B, T))),
     r"Classes expects targets, integers \[3, 4\], got float64 \[3, 4\]"),
    (lambda: Labels(2).score(np.zeros((B, T, 3)), np.zeros(B, int), np.ones(B)),
     r"Labels expects targets, integers \[3, L\], got int64 \[3\]"),
])  # fmt: skip
def test_mistakes_name_the_field_the_value_and_what_is_right(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nobody_asks_which_kind_it_is():
    """Outside the package a kind is used, and its type not looked at."""
    names = {n for n, c in vars(answers).items() if inspect.isclass(c)
             and issubclass(c, Answer | Input)}  # fmt: skip
    assert {"Classes", "Tokens", "Strokes", "Input"} <= names
    found = []
    for folder in ("seqjax", "experiments", "scripts", "notebooks"):
        for path in (ROOT / folder).rglob("*.py"):
            if (ROOT / "seqjax" / "answers") in path.parents:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, kinds]):
                        pass
                    case ast.Compare(left=ast.Call(func=ast.Name(id="type")), comparators=kinds):
                        kinds = ast.List(kinds)
                    case ast.MatchClass(cls=kinds):
                        pass
                    case _:
                        continue
                used = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(kinds)}
                found += [f"{path.relative_to(ROOT)}: {name}" for name in used & names]
    assert not found, found
