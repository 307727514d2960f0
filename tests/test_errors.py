"""Bad input gets one error that names what was wrong and what would be right."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax
from seqjax.core.monoid import diagonal
from seqjax.core.scan import scan
from seqjax.nn import Associative, Recurrent

B, T, D = 2, 5, 3
X, GATE, FLAT = jnp.zeros((B, T, 1, D)), jnp.zeros((B, T, 1)), jnp.zeros((B, T, D))
TWO = jnp.zeros((B, T, 2, D))

OPS = {
    "linear_attention": dict(q=X, k=X, v=X),
    "gated_delta_rule": dict(q=X, k=X, v=X, beta=GATE, log_a=None),
    "gated_delta_product": dict(q=X, k=X, v=X, beta=GATE),
    "dplr": dict(q=X, k=X, v=X, a=X, b=X, log_w=None),
    "stabilised_attention": dict(q=X, k=X, v=X, log_i=GATE, log_f=GATE),
    "softmax_attention": dict(q=X, k=X, v=X),
    "linear_scan": dict(a=FLAT, b=FLAT),
    "selective_scan": dict(u=FLAT, delta=FLAT, A=jnp.zeros((D, D)), B=FLAT, C=FLAT),
    "ssd": dict(x=X, dt=GATE, A=jnp.zeros(1), B=X, C=X),
    "short_convolution": dict(x=FLAT, kernel=jnp.zeros((2, D))),
    "fft_convolution": dict(u=FLAT, kernel=jnp.zeros((2, D))),
}
NEEDED = [(op, name) for op, arrays in OPS.items() for name, x in arrays.items() if x is not None]


@pytest.mark.parametrize("op, name", NEEDED)
def test_an_array_that_is_missing_is_named(op, name):
    with pytest.raises(TypeError, match=rf": {'x' if (op, name) == LENT else name} is None, .* \("):
        getattr(seqjax, op)(**{**OPS[op], name: None})


LENT = ("fft_convolution", "u")  # read by `short_convolution`, under its own name


@pytest.mark.parametrize(
    "op, wrong, message",
    [
        (
            "linear_attention",
            dict(scale=None),
            "linear_attention: scale is None, expected one real num",
        ),
        ("gated_delta_rule", dict(scale=jnp.ones(D)), r"scale is an array of shape \(3,\)"),
        ("dplr", dict(scale="1"), "dplr: scale is '1'"),
        ("stabilised_attention", dict(eps=None), "eps is None"),
        ("linear_attention", dict(normalise=True, eps=None), "eps is None"),
        ("linear_attention", dict(normalise=True, state=X), r"expected \(S, z\)"),
        ("stabilised_attention", dict(state=X), r"expected \(C, n, m\)"),
        ("gated_delta_rule", dict(state=1.0), "state is 1.0, expected an array"),
        ("gated_delta_rule", dict(log_a=0.5), r"log_a has shape \(\), expected \(H\) or"),
        ("linear_scan", dict(resets=[True]), "resets has dtype list, expected bool"),
        ("softmax_attention", dict(k=TWO, v=TWO), "q has 1 heads and k 2; expected a mult"),
        ("softmax_attention", dict(window=0), "state has a window of 0, expected at least 1"),
        ("softmax_attention", dict(state=X), r"expected \(items, filled\)"),
        ("softmax_attention", dict(state=((X, X, X), 0)), r"expected \(k, v\)"),
        ("softmax_attention", dict(state=((X, X[..., :2]), 0)), r"state.v has shape .*5, 1, 3\)"),
        ("softmax_attention", dict(bias=FLAT[0]), r"bias has shape .*H=1, W=5"),
        ("softmax_attention", dict(p=X), "p and r come together, r is missing"),
        ("softmax_attention", dict(p=X, r=X), r"r has shape .*W=5, H=1"),
        ("softmax_attention", dict(p=X, r=FLAT[0][:, None, :2]), r"shape .*W=5, H=1, R=3"),
        ("softmax_attention", dict(sink=FLAT), r"sink has shape .*B=2, T=5, H=1"),
        ("softmax_attention", dict(softcap="2"), "softcap is '2', expected one real number"),
    ],
)
def test_a_wrong_option_is_named(op, wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(seqjax, op)(**{**OPS[op], **wrong})


def test_a_scale_may_be_any_number():
    for scale in (2, 2.0, np.float32(2), jnp.float32(2)):
        seqjax.linear_attention(X, X, X, scale=scale)


class Given(Associative):
    monoid = diagonal

    def __init__(self, state=D, out=D):
        self.features, self.out_features, self.state = D, out, state

    def initial(self):
        return jnp.zeros(self.state)

    def lift(self, x):
        return x, x


class OneArray(Given):
    def lift(self, x):
        return x


class NoLift(Given):
    lift = Associative.lift


class NoMonoid(Associative):
    __init__, initial, lift = Given.__init__, Given.initial, Given.lift


class NoSizes(Given):
    def __init__(self):
        self.features = D


class NoState(Recurrent):
    __init__ = Given.__init__


class Forgetful(Recurrent):
    __init__, initial = Given.__init__, Given.initial

    def step(self, h, z):
        return h[:2]


@pytest.mark.parametrize(
    "made, message",
    [
        (OneArray, r"OneArray: lift\(x\) is \(3,\), but an element of the diagonal .* \(a, b\)"),
        (NoLift, r"NoLift must define lift\(x\)"),
        (NoMonoid, "NoMonoid must define monoid"),
        (NoSizes, r"NoSizes must set self\.out_features"),
        (NoState, r"NoState must define initial\(\)"),
        (Forgetful, r"Forgetful: the state has shapes \(3,\), got \(2,\)"),
        (lambda: Given(out=4), r"Given returns outputs \[5, 3\].*expected \[5, out_features=4\]"),
        (lambda: Given(state=2), r"lift\(x\) has shapes \(\(3,\), \(3,\)\), the state \(2,\)"),
        (lambda: Given(state=1), r"makes a state \(3,\) of them, it must keep its shape"),
    ],
)
def test_a_layer_that_is_not_finished_says_what_is_missing(made, message):
    with pytest.raises((TypeError, ValueError), match=message):
        made()(FLAT)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([1.0],), r"Given takes x \[B, T, 3\], got list"),
        ((FLAT[0],), r"Given takes x \[B, T, 3\], got \[5, 3\]"),
        ((FLAT, None, [True]), r"takes resets bool \[2, 5\], got list \[1\]"),
        ((FLAT, None, None, True), r"takes mask bool \[2, 5\], got bool \[\]"),
        ((FLAT, jnp.zeros(D)), r"Given: the state has shapes \(2, 3\), got \(3,\)"),
    ],
)
def test_a_call_with_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Given()(*arguments)


def test_a_monoid_that_is_none():
    with pytest.raises(TypeError, match="Wrong: monoid is 'diagonal', expected a Monoid"):
        type("Wrong", (Associative,), {"monoid": "diagonal"})


def test_elements_of_another_monoid():
    with pytest.raises(TypeError, match=r"elements is \(3,\), but an element of the diagonal"):
        scan(diagonal, FLAT[0], FLAT[0, 0])  # of two steps, these would be taken for a and b


def small(**changes):
    x = jnp.zeros((2, 5, 1, 3))
    return seqjax.linear_attention(**{**dict(q=x, k=x, v=x), **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(evaluator="chunkd"), "'chunkd'; did you mean 'chunked'"),
        (dict(k=jnp.zeros((2, 5, 1, 4))), "k has shape .* expected .*K=3"),
        (dict(log_a=jnp.zeros((2, 5))), r"log_a has shape .* expected \(H\) or \(B, T, H\)"),
        (
            dict(v=jnp.zeros((2, 5, 3, 3)), q=jnp.zeros((2, 5, 2, 3)), k=jnp.zeros((2, 5, 2, 3))),
            "q has 2 heads and v 3; expected a divisor",
        ),
        (dict(state=jnp.zeros((2, 1, 3, 4))), "state has shape .*V=3"),
        (dict(resets=jnp.zeros((5,), bool)), r"resets has shape \(5,\), expected \(2, 5\)"),
        (dict(mask=jnp.zeros((2, 5))), "mask has dtype float64, expected bool"),
        (dict(q=jnp.zeros((2, 5, 1, 3), int)), "q has dtype int64, expected floating"),
        (dict(chunk_size=0), "chunk_size is 0"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**changes)


def test_all_reasons_at_once():
    x, kernel = jnp.zeros((1, 8, 2)), jnp.zeros((100, 2))
    with pytest.raises(ValueError, match="taps: one pass per tap.*; fft: resets make"):
        seqjax.short_convolution(
            x, kernel, resets=jnp.zeros((1, 8), bool), evaluator=("taps", "fft")
        )
    with pytest.raises(ValueError, match="3 corrections do not divide into 2 steps"):
        k = jnp.zeros((1, 3, 1, 2))
        seqjax.gated_delta_product(jnp.zeros((1, 2, 1, 2)), k, k, jnp.zeros((1, 3, 1)))
