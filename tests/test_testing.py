"""`seqjax.testing`: faulty layers are named right, and good ones pass."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core import monoid as m
from seqjax.nn import Associative, Recurrent, Segmented
from seqjax.testing import LAWS, LawBroken, check_jacobian, check_layer, check_monoid, distance
from seqjax.zoo import make

D = 2


@pytest.mark.parametrize("size", [3, 4095, 4096, 5000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_distance_counts_what_is_not_finite(size, bad):
    """XLA on CPU drops NaN from a maximum of 4096 numbers or more."""
    good = np.ones(size, np.float32)
    for place in (0, size - 1):
        worse = good.copy()
        worse[place] = bad
        for of in (lambda x: x, jnp.asarray, lambda x: {"a": jnp.ones(2), "b": jnp.asarray(x)}):
            for a, b in ((worse, good), (good, worse), (worse, worse)):
                assert distance(of(a), of(b)) == np.inf
                assert jax.jit(distance)(of(a), of(b)) == np.inf
    assert distance(good, good) == 0 and jax.jit(distance)(3 * good, good) == 1


def test_distance_of_trees():
    a = {"x": np.array([1.0, 3.0]), "n": np.array([1]), "z": np.array([1 + 1j]), "e": np.ones(0)}
    b = {"x": np.array([1.0, 2.0]), "n": np.array([7]), "z": np.array([1 + 2j]), "e": np.ones(0)}
    expected = max(1 / 3, 1 / (1 + 5**0.5))
    np.testing.assert_allclose(distance(a, b), expected)
    np.testing.assert_allclose(distance(*jax.tree.map(jnp.asarray, (a, b))), expected)
    assert distance({}, {}) == 0
    with pytest.raises(ValueError):
        distance([1.0], [1.0, 2.0])


# ---- promises -----------------------------------------------------------------------------------


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


ALGEBRAS = {
    "diagonal": (m.diagonal, (normal(0, 3, D), normal(1, 3, D)), normal(2, D)),
    "dense": (m.dense, (normal(0, 3, D, D), normal(1, 3, D)), normal(2, D)),
    "stabilised": (
        m.stabilised,
        (normal(0, 3, 1), normal(1, 3, 1), normal(2, 3, 1, D)),
        (normal(3, 1), normal(4, 1, D)),
    ),
    "forward": (m.forward, normal(0, 3, D, D), normal(1, D)),
    "viterbi": (m.viterbi, normal(0, 3, D, D), normal(1, D)),
    "shift": (
        m.shift(3),
        jax.vmap(lambda x: m.shift_element(x, 3))(normal(0, 4, D)),
        normal(1, 3, D),
    ),
}


@pytest.mark.parametrize("name", ALGEBRAS)
def test_monoids_that_hold(name):
    check_monoid(*ALGEBRAS[name])


diagonal, (a, b) = m.diagonal, ALGEBRAS["diagonal"][1]
SWAPPED = m.Monoid(lambda p, q: diagonal.combine(q, p), diagonal.identity, diagonal.act)
NO_UNIT = m.Monoid(diagonal.combine, lambda e: jax.tree.map(jnp.zeros_like, e), diagonal.act)


@pytest.mark.parametrize(
    "monoid, message",
    [
        (SWAPPED, r"act\(combine\(p, q\), h\) == act\(q, act\(p, h\)\)\", by"),
        (NO_UNIT, r"act\(identity\(p\), h\) == h"),
        (
            m.Monoid(lambda p, q: (p[0], q[1][:1]), diagonal.identity, diagonal.act),
            r"combine\(p, q\) has shapes \(\(2,\), \(1,\)\)",
        ),
        (
            m.Monoid(diagonal.combine, lambda e: (e[0] * jnp.nan, e[1]), diagonal.act),
            "by inf",
        ),
    ],
)
def test_monoids_that_do_not(monoid, message):
    with pytest.raises(LawBroken, match=message):
        check_monoid(monoid, (a, b), ALGEBRAS["diagonal"][2])


def test_what_check_monoid_takes():
    with pytest.raises(ValueError, match="three elements are needed for its laws, got 2"):
        check_monoid(diagonal, (a[:2], b[:2]), normal(2, D))
    with pytest.raises(TypeError, match="an element of the diagonal monoid is"):
        check_monoid(diagonal, a, normal(2, D))


W = normal(5, 4, 4)
BLOCKS = jnp.kron(jnp.eye(2), jnp.ones((2, 2)))


@pytest.mark.parametrize(
    "declared, true",
    [("dense", W), ("diagonal", jnp.eye(4)), ("block_diagonal", W * BLOCKS)],
)
def test_jacobians(declared, true):
    """Declared as what they are they pass, and as less than that they do not."""

    def step(h, x):
        return jnp.tanh((true @ h.reshape(-1)).reshape(h.shape) + x)

    for name in ("dense", "block_diagonal", "diagonal"):
        shape = (2, 2) if name == "block_diagonal" else (4,)
        h, x = normal(1, *shape), normal(2, *shape)
        stronger = ("dense", "block_diagonal", "diagonal").index(name)
        if stronger <= ("dense", "block_diagonal", "diagonal").index(declared):
            check_jacobian(step, h, x, name)
        else:
            with pytest.raises(LawBroken, match=f'breaks "jacobian is {name}", by .* see each'):
                check_jacobian(step, h, x, name)
    with pytest.raises(LawBroken, match=r"of a state of one array, got \[\(4,\), \(4,\)\]"):
        check_jacobian(step, (normal(1, 4),) * 2, normal(2, 4), "diagonal")
    with pytest.raises(ValueError, match="jacobian is 'diag'"):
        check_jacobian(step, normal(1, 4), normal(2, 4), "diag")


# ---- layers -------------------------------------------------------------------------------------


class Good(Associative):
    monoid = m.diagonal

    def __init__(self, features=D, *, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.features = self.out_features = features
        self.W = nnx.Linear(features, features, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.features)

    def lift(self, x):
        a = jax.nn.sigmoid(self.W(x))
        return a, (1 - a) * x

    def readout(self, h, x):
        return h * jnp.tanh(x)


class SwappedCombine(Good):
    monoid = SWAPPED


class FalseIdentity(Good):
    monoid = NO_UNIT


class FalseJacobian(Recurrent):
    jacobian = "diagonal"
    __init__, initial = Good.__init__, Good.initial

    def step(self, h, z):
        return jnp.tanh(self.W(h) + z)


class LooksAhead(Good):
    def drive(self, x):
        return x + jnp.concatenate([x[1:], x[:1]])


class NoWindow(Good):
    """Reads the input before, of this call."""

    def drive(self, x):
        return x + jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])


class ForgottenStart(Good):
    def run(self, x, h, flow):
        return super().run(x, h, replace(flow, resets=None))


class ForgottenMask(Good):
    def run(self, x, h, flow):
        return super().run(x, h, replace(flow, mask=None))


class Segments(Segmented):
    """It looks at other steps of the segment without the flow: across a reset inside it."""

    length = 4
    __init__, memory = Good.__init__, Good.initial

    def segment(self, m, x, flow):
        y = jnp.cumsum(x, axis=0) + m.now[None]
        return y, jnp.tanh(self.W(m.now) + y[-1])


class PeekingSegments(Segments):
    def segment(self, m, x, flow):
        return x + jnp.mean(x, axis=0)[None] + m.now[None], m.now


class MixesExamples(Good):
    def __call__(self, x, *arguments, **options):
        return super().__call__(x + 0.1 * jnp.mean(x, axis=0, keepdims=True), *arguments, **options)


class FalseEvaluator(Good):
    def run(self, x, h, flow):
        y, h = super().run(x, h, flow)
        return (1.001 * y if flow.evaluator == "associative" else y), h


class SquareRoot(Good):
    def readout(self, h, x):
        return jnp.sqrt(jnp.abs(x))


class Overflows(Good):
    def readout(self, h, x):
        return jnp.exp(x)


class After(Good):
    """What a class does to the answer of a call, after all that the base class takes care of."""

    def __call__(self, x, *arguments, **options):
        return self.after(x, *super().__call__(x, *arguments, **options))


class HalfState(After):
    def after(self, x, y, h):
        return y, h.astype(jnp.float16)


class CountsCalls(After):
    def after(self, x, y, h):
        return y, h + float(not x.shape[1])


class OtherSingleSteps(After):
    def after(self, x, y, h):
        return y + float(x.shape[1] == 1), h


class KeepsNaN(After):
    def after(self, x, y, h):
        return y + 0 * jnp.cumsum(x, axis=1), h


class WritesLast(After):
    def after(self, x, y, h):
        return y + 1, h


class Unused(Good):
    def __init__(self):
        super().__init__()
        self.unused = nnx.Param(jnp.ones(D))


class ForgetsItsStart(Good):
    def lift(self, x):
        a, b = super().lift(x)
        return 0 * a, b


class FalseGradient(Good):
    def run(self, x, h, flow):
        y, h = super().run(x, h, flow)
        return (jax.lax.stop_gradient(y) if flow.evaluator == "associative" else y), h


FAULTY = {
    SwappedCombine: r'breaks "act\(combine\(p, q\), h\) == act\(q, act\(p, h\)\)", by',
    FalseIdentity: r'FalseIdentity breaks "act\(identity\(p\), h\) == h"',
    FalseJacobian: 'FalseJacobian breaks "jacobian is diagonal", by .*: units see each other',
    LooksAhead: 'LooksAhead breaks "causality" first at step 6, by',
    NoWindow: 'NoWindow breaks "split stream == whole" first at step 7, by',
    ForgottenStart: 'ForgottenStart breaks "reset == fresh start" first at step 5, by',
    ForgottenMask: 'ForgottenMask breaks "masked step == step left out"',
    Segments: 'Segments breaks "reset == fresh start" first at step 6, by',
    PeekingSegments: 'PeekingSegments breaks "causality" first at step 5',
    MixesExamples: 'MixesExamples breaks "examples apart"',
    FalseEvaluator: r'FalseEvaluator breaks "evaluators agree" \("associative"\) first at step 0',
    Overflows: 'Overflows breaks "finite at extremes" first at step 0',
    SquareRoot: 'SquareRoot breaks "gradients are finite" at inputs of zero',
    HalfState: 'HalfState breaks "shapes and dtypes": .* a state of .*float16',
    CountsCalls: 'CountsCalls breaks "no steps change nothing" in the state',
    OtherSingleSteps: 'OtherSingleSteps breaks "single steps == whole" first at step 0',
    KeepsNaN: 'KeepsNaN breaks "NaN before a reset" first at step 5, by inf',
    WritesLast: 'WritesLast breaks "masked output == 0"',
    Unused: r"Unused breaks \"parameters have gradients\" of \['unused'\]",
    ForgetsItsStart: 'ForgetsItsStart breaks "learned h0 has a gradient"',
    FalseGradient: r'FalseGradient breaks "evaluators agree" \("associative"\) in its gradient',
}


@pytest.mark.share(2)
@pytest.mark.parametrize("cls", FAULTY, ids=lambda cls: cls.__name__)
def test_faulty_layers_are_named(cls):
    with pytest.raises(LawBroken, match=FAULTY[cls]) as broken:
        check_layer(cls())
    assert broken.value.gap > 1e-8 and broken.value.law in LAWS


def test_every_law_is_broken_by_one_of_them():
    named = " ".join(FAULTY.values())  # of the promises each has a name of its own
    assert not [law for law in LAWS if law not in named and law != "promises"]


GOOD = {
    "gru": {}, "rg_lru": dict(blocks=1), "bidirectional": {}, "attention": dict(window=3, heads=1),
    "gated_deltanet": dict(heads=1),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", *(pytest.param(name, marks=pytest.mark.thorough) for name in GOOD)]
)
def test_good_layers_pass(name):
    layer = make(name, D, **GOOD[name]) if name else Good()
    before = jax.tree.map(np.asarray, nnx.state(layer))
    found = check_layer(layer)
    assert list(found) == [name for name, law in LAWS.items() if layer.causal or not law.causal]
    assert max(found.values()) < 1e-8
    jax.tree.map(np.testing.assert_array_equal, nnx.state(layer), before)  # it was left alone


def test_without_raising_and_exempt():
    found = check_layer(SwappedCombine(), raises=False)
    assert list(found) == ["shapes and dtypes", "promises"] and found["promises"] > 1e-3
    with pytest.raises(ValueError, match="exempt from .'causalty'., the laws are"):
        check_layer(Good(), exempt=["causalty"])
    with pytest.raises(ValueError, match="batch >= 2 and steps >= 12, got 1 and 14"):
        check_layer(Good(), batch=1)
    exempt = [law for law in LAWS if law != "causality"]
    assert check_layer(Good(), exempt=exempt) == {"causality": 0.0}


def test_the_command_names_the_broken_law(tmp_path, capsys):
    from seqjax.tools.cli import main

    file = tmp_path / "mine.py"
    file.write_text(
        "import jax.numpy as jnp\n"
        "from seqjax.nn import Recurrent\n\n\n"
        "class Mine(Recurrent):\n"
        "    jacobian = 'diagonal'\n\n"
        "    def __init__(self, features, *, rate=0.9, rngs):\n"
        "        self.features = self.out_features = features\n"
        "        self.rate = rate\n\n"
        "    def initial(self):\n"
        "        return jnp.zeros(self.features)\n\n"
        "    def step(self, h, z):\n"
        "        return self.rate * jnp.roll(h, 1) + z\n"
    )
    assert main(["check", str(file), "--features", "3", "--options", "rate=0.5"]) == 1
    assert 'Mine breaks "jacobian is diagonal"' in capsys.readouterr().out  # it mixes units
    assert main(["check", f"{file}:Mine", "--features", "1"]) == 0
    assert "gradients are finite" in capsys.readouterr().out
    for words, message in {
        f"{file}:Yours": "it defines Mine",
        f"{file}.txt.py": "no file",
        "grru": "did you mean 'gru'",
        f"{file} --options rat=1": "did you mean 'rate'",
        f"{file} --options rate": "an option is NAME=VALUE, got 'rate'",
    }.items():
        assert main(["check", *words.split()]) == 2
        assert message in capsys.readouterr().err
