"""Supervised memory training: diagnostics and experiments."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_smt import B, D, K, T, V, X, Y, close, student, teacher

from seqjax.learn import smt_diagnostics as diagnostics
from seqjax.learn.smt_students import roll

# ---- diagnostics --------------------------------------------------------------------------------


def test_drift_is_zero_for_the_encoder_and_one_for_its_mean():
    m = jax.random.normal(jax.random.key(0), (B, T, K, D))
    mean = jnp.broadcast_to(jnp.mean(m, axis=(0, 1))[None, None], m.shape)
    assert float(diagnostics.unexplained(m, m)) == 0
    close(diagnostics.unexplained(mean, m), jnp.asarray(1.0))
    found = jax.jit(diagnostics.drift)(teacher(causal=True), student(), X)
    assert found.by_step.shape == (T + 1,) and float(found.by_step[0]) == 0
    assert float(found.rollout) > 0.1 and float(found.one_step) > 0.1  # untrained


@pytest.mark.thorough
def test_gradient_norms_by_finite_differences():
    s, t, y = student(), teacher(causal=True), Y.at[:, -1].set(1)
    back = jax.jit(diagnostics.bptt_gradient_norms)(s, X[:1], y[:1])
    direct = jax.jit(diagnostics.smt_gradient_norms)(t, X[:1], y[:1])
    assert back.shape == direct.shape == (T + 1,)
    at, x = 2, X[0]  # the norm of the gradient with respect to m_2

    def from_student(m):
        return -jax.nn.log_softmax(s.readout(roll(s, m, x[at:])[-1]))[1]

    def from_teacher(m):
        logits = t.decode(m, jnp.append(x[at:], 0))
        return -jax.nn.log_softmax(logits[-1])[1]

    start = roll(s, s.start(), x[:at])[-1], t.encode(x[:at])
    for f, m, norm in zip((from_student, from_teacher), start, (back, direct)):
        f, eps = jax.jit(jax.vmap(f)), 1e-5
        steps = eps * jnp.eye(K * D).reshape(-1, K, D)
        slopes = (f(m[None] + steps) - f(m[None] - steps)) / (2 * eps)
        np.testing.assert_allclose(norm[at], jnp.linalg.norm(slopes), rtol=1e-6)


def test_rescaled():
    s = student()
    other = diagnostics.rescaled(s, "update", 2.0)
    close(other.update.P_in[...], 2 * s.update.P_in[...])
    close(other.update.layer.W.bias[...], s.update.layer.W.bias[...])
    close(other.head.kernel[...], s.head.kernel[...])
    with pytest.raises(ValueError, match="nothing"):
        diagnostics.rescaled(s, "nothing", 2.0)


def test_lengths():
    def sample(key, length):
        x = jax.random.randint(key, (4, length), 0, V)
        return x, x

    rows = diagnostics.length_generalisation(
        teacher(causal=True), student(), sample, (3, 5), jax.random.key(0)
    )
    assert [row["length"] for row in rows] == [3, 5]
    assert all(0 <= row[who] <= 1 for row in rows for who in ("student", "teacher"))


def test_iso_loss():
    losses = [[4.0, 2.0, 9.0], [2.0, 1.0, 9.0], [1.0, 1.0, 9.0]]
    found = diagnostics.iso_loss([1, 4, 16], losses, 3.0)
    np.testing.assert_allclose(found, [2.0, 1.0, np.nan])  # half way from 1 to 4, in logarithms
    with pytest.raises(ValueError, match="sizes, budgets"):
        diagnostics.iso_loss([1, 4], losses, 3.0)


def test_pca_finds_the_plane():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(K * D, 2)))[0]
    flat = rng.normal(size=(50, 2)) * np.array([5.0, 1.0])
    points, share = diagnostics.pca((flat @ plane.T + 3.0).reshape(50, K, D))
    flat = flat - flat.mean(axis=0)
    assert points.shape == (50, 3) and share[0] > share[1] > 1e-3 > share[2]
    between = lambda p: np.linalg.norm(p[:, None] - p[None], axis=2)  # noqa: E731
    np.testing.assert_allclose(between(points), between(flat), atol=1e-9)


def test_tsne_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        diagnostics.tsne(np.zeros((4, K, D)))


# ---- experiments --------------------------------------------------------------------------------

SMOKE = dict(
    features=8, hidden=8, batch=2, heads=2, encoder_depth=1, cuts=2,
    smt_steps=2, dmt_steps=2, evaluation=64, bptt_rates=(1e-3,),
)  # fmt: skip


@pytest.fixture
def as_a_user():
    """In float32, with the promotion that optax needs."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.thorough
def test_the_experiment_takes_two_steps(as_a_user, capsys, tmp_path):
    from experiments import smt as study, smt_figures as figures

    size = replace(study.Size(), **SMOKE)
    rows = [study.compare(study.stack(), size, 6)]
    study.show("stack", rows)
    assert "stack: accuracy (loss)" in capsys.readouterr().out
    for who in ("teacher", "smt", "smt -> dmt", "bptt"):
        assert 0 <= rows[0][who]["accuracy"] <= 1 and np.isfinite(rows[0][who]["loss"])
    found = figures.gradients(5, (1.0,), size)
    figures.figure(found, tmp_path / "gradients.png")
    assert (tmp_path / "gradients.png").exists()
    losses = figures.contours(6, size, memories=(1,), budgets=(2,))
    assert losses.shape == (1, 1) and np.isfinite(losses).all()


def test_pixel_sequences(as_a_user, monkeypatch):
    from experiments import smt_mnist as study

    stored = np.random.default_rng(0).integers(0, 2, (9, 196)).astype(np.int32)
    monkeypatch.setattr(study, "images", lambda split: stored)
    task = study.mnist()
    x, y = task.sample(jax.random.key(0), 2, 10)
    np.testing.assert_array_equal(y, np.c_[x[:, 1:], [-1, -1]])
    assert all(any((row == image[:10]).all() for image in stored) for row in np.asarray(x))


def test_the_tasks_answer_what_they_ask(as_a_user):
    from experiments import smt as study

    x, y = map(np.asarray, study.needle(8).sample(jax.random.key(0), 20, 12))
    for row, answer in zip(x, y):
        first = np.flatnonzero(row == 0)[0]
        assert row[-1] == 0 and first < 6 and row[first + 1] == answer[-1] + 1
        assert (answer[:-1] == -1).all()
    x, y = map(np.asarray, study.stack(4, 3).sample(jax.random.key(0), 20, 30))
    for row, answer in zip(x, y):
        stored = []
        for act, told in zip(row, answer):
            if act:
                stored.append(act - 1)
                assert told == -1
            else:
                assert told == stored.pop()
            assert len(stored) <= 3
