"""The experiments on learners: each takes a few steps, and their streams are what they say.

The steps compile what the learners' own tests compile too: `make smoke` and `make test-all` take
them (SEQJAX_TEST_ALL=1), `make test` looks at the streams.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    chaos,
    columns,
    feedback,
    koopman,
    learning_rules,
    lifelong,
    ntm,
    segments,
    smt_figures,
)
from seqjax.tasks import make
from seqjax.tasks.texts.char_lm import char_lm


@pytest.fixture
def as_a_user():
    """In float32, with the promotion that optax needs."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def test_copy_asks_for_what_it_showed(as_a_user):
    (x, first), y = learning_rules.sequences(jax.random.key(0), 2, 3, 4)
    assert first.shape == y.shape == (8, 3, 3)  # 2 batches in 4 parts, 3 sequences, 3 steps

    def whole(v):  # [batch, sequences, steps]
        return np.asarray(v).reshape(2, 4, 3, 3).swapaxes(1, 2).reshape(2, 3, 12)

    tokens, y = whole(x.argmax(axis=-1)), whole(y)
    np.testing.assert_array_equal(y[..., -3:], tokens[..., :3])
    assert (y[..., :-3] == -1).all()
    assert whole(first)[..., 0].all() and not whole(first)[..., 1:].any()


@pytest.mark.thorough
def test_rtrl_is_bptt_there(as_a_user):
    assert learning_rules.exactness(batch=2) < 1e-5


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["bptt", "snap 1", "fptt, parts"])
def test_copying_takes_two_steps(name, as_a_user):
    way = learning_rules.COPY[name]
    losses = learning_rules.copying(way, updates=2, seeds=1, hidden=3, batch=2)
    assert losses.shape == (1, 2) and np.isfinite(losses).all()


@pytest.mark.thorough
def test_modelling_text_takes_two_steps(as_a_user, tmp_path):
    (tmp_path / "text.py").write_text("print('hello')\n" * 400)
    text = char_lm(path=str(tmp_path), order="streams")
    way = learning_rules.TEXT["uoro"]
    losses, held_out = learning_rules.modelling(
        "indrnn", way, text, updates=2, hidden=3, batch=2, held_out=1
    )
    assert losses.shape == (2,) and 4 < held_out < 20
    curves = {"text": {"uoro": losses[None]}}
    learning_rules.figure(curves, {"text": 4.5}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


@pytest.mark.thorough
def test_a_life_takes_a_few_steps(as_a_user, tmp_path):
    order = (0, 1, 0)
    contender = lifelong.CONTENDERS["tbptt 1,4"]
    told = lifelong.live(contender, order, 4, seeds=1)
    assert told.online.shape == (1, 3, 4) and told.held.shape == (1, 3)
    assert all(np.isfinite(v).all() for v in told)
    lifelong.figure({"tbptt 1,4": told}, order, tmp_path / "stream.png")
    assert (tmp_path / "stream.png").exists()


def test_the_first_task_comes_back(as_a_user):
    """The targets of the last phase are those that the first task has for these inputs."""
    order, steps = (0, 1, 0), 50
    xs, ys = lifelong.stream(jax.random.key(0), order, steps)
    alone = lifelong.stream(jax.random.key(0), (0, 0, 0), steps)
    np.testing.assert_array_equal(xs, alone[0])
    same = np.isclose(ys, alone[1]).reshape(3, steps)
    assert same[0].all() and same[2].all() and not same[1].any()


def test_a_sign_is_followed_by_its_reward(as_a_user):
    xs, ys = (np.asarray(v) for v in columns.stream(jax.random.key(0), 2000))
    shown, rewards = np.flatnonzero(xs[:, 0:6].sum(axis=1)), np.flatnonzero(xs[:, 6])
    assert (xs[shown, :6].sum(axis=1) == 3).all() and 0.3 < len(rewards) / len(shown) < 0.7
    for t in rewards:  # 6 to 10 steps after a pattern, which always means the same
        (before,) = [s for s in shown if 6 <= t - s <= 10]
        np.testing.assert_allclose(ys[before, 0], 0.9 ** (t - before - 1), atol=0.2)
    meaning = {}
    for s, end in zip(shown[:-1], shown[1:], strict=True):
        meaning.setdefault(tuple(xs[s, :6]), set()).add(xs[s:end, 6].sum())
    assert all(len(found) == 1 for found in meaning.values())


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["columnar", "ccn", "constructive"])
def test_columns_take_a_few_steps(name, as_a_user):
    told = columns.live(columns.contenders(24)[name], 24, seeds=1)
    assert told.shape == (1, 24) and np.isfinite(told).all()


@pytest.mark.thorough
def test_a_chaotic_system_is_learned_and_gone_on_with(as_a_user, monkeypatch):
    monkeypatch.setattr(chaos, "LENGTH", 5)
    monkeypatch.setattr(chaos, "WIDTH", 4)
    ys, held = chaos.series()
    assert abs(float(ys.mean())) < 1e-3 and held.shape == (chaos.ALONE, 3)
    cell, params, alphas = chaos.train(None, ys, updates=3, seed=0)
    assert alphas.shape == (3,) and (alphas <= 1).all()
    stsp, spectra = chaos.measured(cell, params, held[:500])
    assert stsp > 0 and 0 < spectra <= 1


@pytest.mark.thorough
@pytest.mark.parametrize("way", feedback.WAYS)
def test_continuing_takes_two_updates(way, as_a_user, monkeypatch):
    monkeypatch.setattr(feedback, "HIDDEN", 3)
    told = feedback.errors(*feedback.train(way, updates=2), count=4)
    assert told.shape == (feedback.TOLD + feedback.ALONE,) and np.isfinite(told).all()


def test_the_pendulum_keeps_its_energy_and_its_noise_is_not_in_the_truth():
    theta, speed = koopman.pendulum(60, inner=20).T
    np.testing.assert_allclose(speed**2 / 2 - 9.8 * np.cos(theta), -9.8 * np.cos(0.8), rtol=1e-3)
    (noisy, clean), (_, same) = koopman.series(0.1, 0), koopman.series(0.0, 0)
    np.testing.assert_array_equal(clean, same)
    left = noisy - clean[: len(noisy)]
    np.testing.assert_allclose(left.std(), 0.1 * clean.std(), rtol=0.05)


@pytest.mark.thorough
def test_a_koopman_autoencoder_takes_two_steps(as_a_user):
    frames, clean = koopman.series(0.0, 0)
    layer = koopman.train(frames, koopman.WEIGHTS["and consistent"], seed=0, updates=2, batch=4)
    assert 0.1 < koopman.error(layer, clean) < 10


@pytest.mark.thorough
def test_memories_are_compared_over_segments(as_a_user, tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENTS", (1, 2))
    curves = {}
    for task, trial in segments.TRIALS.items():
        short = replace(trial, stages=tuple((n, 2) for n, _ in trial.stages))
        found = segments.curve(segments.train("lstm", short, batch=4), trial.task, count=16)
        assert len(found) == 2 and all(0 <= one <= 1 for one in found)
        curves[task] = {"lstm": found}
    segments.draw(curves, str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.thorough
@pytest.mark.parametrize("name", ntm.TRIALS)
def test_wrong_bits_are_counted_where_answers_are_due(as_a_user, name, monkeypatch):
    loss, errors = ntm.learn("lstm", name, updates=20)
    assert 0 < loss and len(errors) == 3 and all(0.2 < one < 0.7 for one in errors)
    task = make(name, **ntm.TRIALS[name].options)

    def right_but_for_the_first(model, batch):
        shown = batch.y.at[:, :, 0].set(1 - batch.y[:, :, 0])
        return jnp.where(batch.mask[..., None] > 0, 9 * (2 * shown - 1), 9.0)

    monkeypatch.setattr(ntm, "run", right_but_for_the_first)
    size = ntm.TRIALS[name].sizes[1]
    bits = task.spec.outputs.size
    np.testing.assert_allclose(ntm.bit_errors(None, name, size), 1 / bits, rtol=1e-5)


@pytest.mark.thorough
def test_memories_that_keep_their_needle_are_found(tmp_path):
    needles = np.array([0, 1, 0, 1])
    apart = (
        np.zeros((4, 3, 1, 2))
        + needles[:, None, None, None]
        + 0.01 * np.arange(4)[:, None, None, None]
    )
    assert smt_figures.kept(apart, needles) == 1
    assert smt_figures.kept(apart, np.array([0, 0, 1, 1])) == 0
    pytest.importorskip("sklearn", reason="t-SNE needs scikit-learn: pip install -e '.[figures]'")
    long = np.random.default_rng(0).normal(size=(4, 12, 1, 2))
    shares = smt_figures.trajectory_figure({"a": long, "needle": needles}, tmp_path / "t.png")
    assert (tmp_path / "t.png").exists() and abs(sum(shares["a"]) - 1) < 1e-9


@pytest.mark.parametrize("module", [columns, feedback, learning_rules, lifelong])
def test_the_experiments_say_what_to_expect(module):
    heads = [line.split()[0] for line in module.__doc__.splitlines() if line[:1].islower()]
    assert [h for h in heads if h in ("command", "hardware", "time", "expected")] == [
        "command", "hardware", "time", "expected",
    ]  # fmt: skip
