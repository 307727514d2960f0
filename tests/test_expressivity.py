"""Expressivity: weights that are given track every word, what cannot goes one way; automata that
are read off states are those that were put in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig
from seqjax.tasks.synthetic.automata import TOMITA, Automaton, drawn
from seqjax.theory import automata, constructions, expressivity, memory_capacity
from seqjax.theory.finding import each
from seqjax.tools.cli import main
from seqjax.train.config import TaskConfig

random = np.random.default_rng(0)


def layer_of(name, features=4, **options):
    ((_, layer),) = each([LayerConfig(name, options)], features, seed=0)
    return layer


@pytest.mark.share(2)
@pytest.mark.parametrize("name", constructions.CONSTRUCTIONS)
def test_weights_that_are_given_are_right_on_words_of_4096(name):
    """With scores as far apart at the end as at the start: not by what rounding leaves."""
    one = constructions.CONSTRUCTIONS[name]()
    x, y, mask = one.words(jax.random.key(1), 4096)
    scores = np.asarray(jax.jit(lambda x: one.run(x[None])[0][0])(x))[mask > 0]
    y = np.asarray(y)[mask > 0]
    assert np.bincount(y).max() < 0.6 * len(y)  # no constant is right
    best = scores[np.arange(len(y)), y]
    np.put_along_axis(scores, y[:, None], -np.inf, axis=1)
    apart = best - scores.max(axis=1)
    assert np.all(apart > 0)
    assert apart[-1000:].min() > 0.5 * apart[:1000].min()


def test_the_share_that_is_right():
    one = constructions.counter()
    assert constructions.right(one, jax.random.key(0), 64) == 1
    wrong = one._replace(b=np.array([0.5, 0.0, 2.5]))  # the end at the first a, and the last two b
    x, y, mask = one.words(jax.random.key(0), 64)
    n = int(mask.sum()) // 2
    np.testing.assert_allclose(constructions.right(wrong, jax.random.key(0), 64), 1 - 3 / (2 * n))


def test_a_counter_ends_where_whole_numbers_do():
    """2^24 + 1 is 2^24 in float32."""
    layer = cast_parameters(constructions.counter().layer, jnp.float32)
    a = jnp.array([[[1, 0, 1]]], jnp.float32)
    for count, after in ((2.0**24 - 1, 2.0**24), (2.0**24, 2.0**24)):
        assert layer(a, jnp.array([[count, 0]], jnp.float32))[1][0, 0] == after


def test_swaps_are_the_permutation():
    for p in [(0, 1, 2), (1, 2, 0), (2, 0, 1, 3), (4, 3, 1, 0, 2)]:
        at = list(range(len(p)))
        for i, j in constructions.swaps(p):
            at = [{i: j, j: i}.get(n, n) for n in at]
        assert tuple(at) == p and len(constructions.swaps(p)) < len(p)


def test_a_name_of_no_parameter_is_one_error():
    with pytest.raises(ValueError, match=r"min_gru has no parameter W\.weight"):
        constructions.given("min_gru", 3, {"W.weight": 1.0})


def test_eigenvalues_of_layers_of_closed_form():
    x = jnp.asarray(random.normal(size=(12, 4)))
    gru = layer_of("min_gru")
    z = np.asarray(jax.nn.sigmoid(jnp.split(gru.W(x), 2, axis=1)[1]))[1:]
    found = expressivity.eigenvalues(gru, x)
    np.testing.assert_allclose(found[:2], [1 - z.max(), 1 - z.min()], rtol=1e-12)
    assert not found.turns and not found.complex
    signed = expressivity.eigenvalues(layer_of("min_gru", eigenvalues="[-1,1]"), x)
    np.testing.assert_allclose(signed[:2], [1 - 2 * z.max(), 1 - 2 * z.min()], atol=1e-12)
    assert signed.turns and str(signed) == f"{signed.lowest:.2f} .. {signed.highest:.2f}"
    lru = layer_of("lru")
    rotating = expressivity.eigenvalues(lru, x)
    lam = np.asarray(lru.eigenvalues())
    np.testing.assert_allclose(rotating.modulus, np.abs(lam).max(), rtol=1e-10)
    np.testing.assert_allclose(rotating.lowest, lam.real.min(), rtol=1e-10)
    assert rotating.complex and str(rotating).endswith("complex")


@pytest.mark.thorough
def test_a_reflection_has_the_eigenvalue_1_less_2():
    """I - beta k k^T: 1 - beta once, beta in (0, 2), or in (0, 1), times the decay."""
    x = 30 * jnp.asarray(random.normal(size=(8, 4)))
    options = dict(heads=1, conv=0, key_size=3, value_size=2)
    for eigenvalues, lowest in (("[0,1]", 0), ("[-1,1]", -1)):
        found = expressivity.eigenvalues(
            layer_of("deltaproduct", **options, n_h=1, gated=False, eigenvalues=eigenvalues), x
        )
        np.testing.assert_allclose(found[:2], [lowest, 1], atol=1e-3)
        assert not found.complex


def test_what_cannot_go_to_and_fro_settles():
    """Differences of a diagonal recurrence on an input that stays are powers of its eigenvalue:
    positive, one way, by less than a^t; with -1 to and fro for ever."""
    x = jnp.asarray(random.normal(size=4))
    for eigenvalues in ("[0,1]", "[-1,1]"):
        layer = layer_of("min_gru", eigenvalues=eigenvalues)
        z = np.asarray(jax.nn.sigmoid(jnp.split(layer.W(x), 2)[1]))
        a = 1 - z if eigenvalues == "[0,1]" else 1 - 2 * z
        d = np.asarray(expressivity.settling(layer, x, 30))
        np.testing.assert_allclose(d, d[0] * a ** np.arange(30)[:, None], rtol=1e-7, atol=1e-14)
        turns = d[1:] * d[:-1] < 0
        np.testing.assert_array_equal(turns.any(axis=0), a < 0)
    one = constructions.parity()
    d = expressivity.settling(one.layer, jnp.array([0.0, 1.0, 1.0]), 1000)[:, 0]
    np.testing.assert_array_equal(d, np.where(np.arange(1000) % 2, -1.0, 1.0))


@pytest.mark.thorough
def test_no_linear_state_has_xor():
    """Nor any other product of two inputs, to an affine readout; that of one relu has it all."""
    bits = random.integers(0, 2, 4000)
    u = jnp.asarray(2.0 * bits - 1)
    target = u[1:, None] * u[:-1, None]  # minus the xor, as signs
    for activation, expected in (("linear", 0), ("relu", 1)):
        layer = layer_of("elman", 1, hidden=24, activation=activation, recurrent_scale=0.3)
        h = memory_capacity.states(layer, u, jnp.ones(1))
        found = float(memory_capacity.capacities(h[1:], target)[0])
        np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.share(1)
@pytest.mark.parametrize("name, group", [("parity, min_gru", "parity"), ("S3, pd_ssm", "S3")])
def test_automata_are_read_off_states(name, group):
    """The group of the weights, for all words; with every answer of the recurrence."""
    one = constructions.CONSTRUCTIONS[name]()
    found = automata.extract(one.run, one.start(1), one.tokens)
    target = automata.of_group(group)
    smallest = automata.minimal(found)
    assert smallest.delta.shape == target.delta.shape
    assert automata.difference(smallest, target) is None
    assert automata.agreement(one.run, None, target, 3) == 1


def test_no_automaton_counts():
    with pytest.raises(ValueError, match="more than 4 states are further apart than 0.1"):
        counter = constructions.counter()
        automata.extract(counter.run, counter.start(1), 2, tolerance=0.1, most=4)


def test_a_minimal_automaton():
    """States that are doubled, renamed and never reached are merged and dropped."""
    for target in (*TOMITA.values(), automata.of_group("S3"), drawn(5)):
        states = target.delta.shape[1]
        name = random.permutation(2 * states)  # two copies of each state
        name[[0, np.argmin(name)]] = name[[np.argmin(name), 0]]
        copy = random.integers(0, 2, target.delta.shape + (2,)) * states
        delta = np.zeros((len(target.delta), 2 * states), int)
        for half in range(2):
            delta[:, name[half * states + np.arange(states)]] = name[target.delta + copy[..., half]]
        answer = np.zeros(2 * states, int)
        answer[name] = np.tile(target.answer, 2)
        found = automata.minimal(Automaton(delta, answer))
        expected = automata.minimal(target)
        np.testing.assert_array_equal(found.delta, expected.delta)
        np.testing.assert_array_equal(found.answer, expected.answer)
        assert automata.difference(found, target) is None
    assert automata.minimal(TOMITA[3]).delta.shape == (2, 5)
    # the first state, of no known answer, goes where state 1 goes
    first = Automaton(np.array([[1, 1, 1], [2, 2, 2]]), np.array([-1, 0, 1]))
    found = automata.minimal(first)
    assert found.delta.tolist() == [[0, 0], [1, 1]] and found.answer.tolist() == [0, 1]


def test_a_word_that_two_automata_answer_differently():
    parity, third = automata.of_group("parity"), automata.of_group("modular_addition", 3)
    ones = Automaton(third.delta[:2], third.answer % 2)
    word = automata.difference(parity, ones)
    assert word == (1, 1, 1)

    def run(x, h):  # a recurrence that counts ones modulo 3, where parity is expected
        count = jnp.cumsum(x, axis=1) % 3 % 2
        return jax.nn.one_hot(count, 2), h

    # of 8 words of three bits the one with three ones is wrong
    assert automata.agreement(run, None, parity, 3) == 7 / 8


@pytest.mark.thorough
def test_a_trained_model_runs_the_automaton_of_parity():
    layer = LayerConfig("min_gru", {"eigenvalues": "[-1,1]"})
    task = TaskConfig("state_tracking", {"group": "parity"}, 64, 20)
    model = expressivity.learn(layer, task, features=16, steps=400, rate=1e-2, seed=0)
    found = automata.extract(model, model.start(1), 2, tolerance=0.4)
    assert automata.difference(automata.minimal(found), automata.of_group("parity")) is None
    assert automata.agreement(model, None, automata.of_group("parity"), 10) == 1


@pytest.mark.thorough
def test_the_question():
    layers = [LayerConfig("min_gru"), LayerConfig("min_gru", {"eigenvalues": "[-1,1]"})]
    found = expressivity.expressivity(
        layers, groups=("parity",), features=8, length=4, beyond=2, steps=2, batch=4
    )
    assert found.columns == ("layer", "eigenvalues", "parity 1-4", "parity 5-8")
    assert [row[0] for row in found.rows] == ["min_gru", "min_gru eigenvalues=[-1,1]"]
    at, accuracy = found.curves["min_gru, parity"]
    np.testing.assert_array_equal(at, np.arange(1, 9))
    np.testing.assert_allclose(np.mean(accuracy[:4]), float(found.rows[0][2]), atol=0.01)


@pytest.mark.thorough
def test_the_command_line(capsys):
    words = ["theory", "expressivity", "--given", "--length", "4", "--beyond", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "right of 8 steps" in printed
    assert printed.count("1.0000") == len(constructions.CONSTRUCTIONS)
    assert main(["theory", "expressivity", "--groups", "S9"]) == 2
    assert "S9" in capsys.readouterr().err
