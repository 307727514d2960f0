"""Own arrays as a task: kinds inferred, rows parted, epochs, validation, baselines, errors."""

import json
import re
import sys
import textwrap
from numbers import Real
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from seqjax.answers import Bernoullis, Classes, Features, Labels, Tokens, Values
from seqjax.stacks.model import Model
from seqjax.tasks import TASKS, Spec, from_arrays
from seqjax.tools import cli
from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig
from seqjax.train.evaluation import make_evaluate
from seqjax.train.step import take_apart
from seqjax.zoo import own

rng = np.random.default_rng(0)
X, Y = rng.integers(0, 5, (10, 4)), rng.integers(0, 3, 10)
F = rng.normal(size=(10, 4, 2))
RAGGED = [rng.integers(0, 5, n) for n in (2, 5, 5, 2, 5, 2, 2, 5, 5, 2)]
SMALL = ModelConfig(layer=(LayerConfig("min_gru"),), features=4, depth=1)


def numbered(n, **options):
    """Rows that are their own number."""
    rows = np.arange(n)
    return from_arrays(np.stack([rows, rows], 1), rows, **options)


def shown(task, seed, batch, count):
    stream = task.batches(seed, batch, 2)
    return [next(stream).x[:, 0].tolist() for _ in range(count)]


def test_every_row_once_per_epoch_in_an_order_of_the_seed():
    task = numbered(9, held_out=2)
    batches = shown(task, 0, 3, 7)  # 21 rows: three epochs of 7, which 3 does not divide
    assert all(len(batch) == 3 for batch in batches)
    rows = sum(batches, [])
    epochs = [rows[n : n + 7] for n in (0, 7, 14)]
    assert all(sorted(epoch) == sorted(task.train) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert shown(task, 0, 3, 7) == batches != shown(task, 1, 3, 7)
    assert sum(shown(task, 0, 1, 21), []) == rows  # one order, however it is cut
    stream, again = task.batches(0, 3, 2), task.batches(0, 3, 2)
    for _ in range(4):
        next(stream)
    again.set_state(stream.get_state())
    assert next(again).x[:, 0].tolist() == batches[4]


@pytest.mark.parametrize(
    "held_out, count", [(0.3, 3), (np.int64(4), 4), ([1, 7], 2), (np.arange(10) < 3, 3), (0.06, 1)]
)
def test_what_is_held_out_is_never_trained_on(held_out, count):
    task, other = (numbered(10, held_out=held_out, seed=seed) for seed in (0, 1))
    assert len(task.apart) == count
    assert sorted([*task.train, *task.apart]) == list(range(10))
    seen = set(sum(shown(task, 0, 4, 20), []))
    validated = {int(n) for b in task.validation(4, 2) for n in b.x[b.mask > 0, 0]}
    assert seen == set(task.train) and validated == set(task.apart)
    assert numbered(10, held_out=held_out).fingerprint == task.fingerprint
    drawn = isinstance(held_out, Real)
    if count > 1:
        assert (other.fingerprint != task.fingerprint) == drawn
    if isinstance(held_out, list):
        assert task.apart.tolist() == [1, 7]


def test_a_group_is_on_one_side():
    groups = np.array(list("aabbbbccdd"))
    for seed in range(5):
        task = numbered(10, groups=groups, held_out=0.3, seed=seed)
        assert not set(groups[task.train]) & set(groups[task.apart])
        assert 3 <= len(task.apart) <= 6


def test_other_rows_are_held_out():
    task = from_arrays(X, Y, held_out=(X[:3, :2] + 4, [2, 3, 2]))  # shorter, and of larger tokens
    assert (task.spec.inputs, task.spec.outputs) == (Tokens(9), Classes(4, per_step=False))
    (batch,) = task.validation(3, 4)
    assert batch.present.sum(1).tolist() == [2, 2, 2] and (batch.x[:, :2] == X[:3, :2] + 4).all()
    assert next(task.batches(0, 10, 4)).present.all()


TAGS = [row[::-1] % 3 for row in RAGGED]
KINDS = {  # x, y and options; what goes in, what is answered
    "classes": (X, Y, {}, Tokens(5), Classes(3, per_step=False)),
    "classes of steps": (X, X % 3, {}, Tokens(5), Classes(3, per_step=True)),
    "names": (["ab", "abc"] * 5, Y, {}, Tokens(256), Classes(3, per_step=False)),
    "tags of ragged rows": (RAGGED, TAGS, {}, Tokens(5), Classes(3, per_step=True)),
    "language": (X, None, {}, Tokens(5), Classes(5, per_step=True)),
    "forecast": (F, None, {}, Features(2), Values(2, per_step=True)),
    "a number": (F, F[:, 0, 0], {}, Features(2), Values(1, per_step=False)),
    "numbers": (F, F.reshape(10, 8)[:, :3], {}, Features(2), Values(3, per_step=False)),
    "numbers of steps": (F[..., 0], F, {}, Features(1), Values(2, per_step=True)),
    "ragged numbers": (RAGGED, [r / 2 for r in RAGGED], {}, Tokens(5), Values(1, per_step=True)),
    "frames": (F.reshape(5, 2, 4, 2), [2, 0, 1, 0, 2], {},
               Features(4, 2), Classes(3, per_step=False)),
    "yes or no": (X, Y > 0, {}, Tokens(5), Classes(2, per_step=False)),
    "explicit": (X, Y / 2, dict(inputs=Tokens(9), outputs=Values(1, per_step=False)),
                 Tokens(9), Values(1, per_step=False)),
    "keys": (X, np.ones((10, 4, 6)), dict(outputs=Bernoullis(6, per_step=True)),
             Tokens(5), Bernoullis(6, per_step=True)),
    "unaligned": (X, np.ones((10, 2), int), dict(outputs=Labels(7)), Tokens(5), Labels(7)),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_kinds_are_inferred_and_explicit_ones_win(case):
    x, y, options, inputs, outputs = KINDS[case]
    task = from_arrays(x, y, **options)
    assert (task.spec.inputs, task.spec.outputs) == (inputs, outputs)
    assert str(inputs) in task.description and str(outputs) in task.description
    length = task.decides["length"]
    batch = next(task.batches(0, 3, length))
    inputs.check(batch.x)
    answer = np.zeros((3, *[length] * outputs.per_step, outputs.size), np.float32)
    assert jax.eval_shape(task.score, answer, batch)["loss"].shape == ()  # checks y and mask
    assert batch.x.dtype == inputs.dtype and batch.y.dtype == outputs.dtype
    if y is None:
        values = batch.x[..., None] if batch.x.ndim == 2 else batch.x
        targets = batch.y[..., None] if batch.y.ndim == 2 else batch.y
        np.testing.assert_array_equal(values[:, 1:], targets[:, :-1])


def test_time_and_weights_travel_with_the_rows():
    dt, mask = rng.uniform(1, 2, (10, 4)), rng.uniform(1, 2, (10, 4))
    task = from_arrays(X, X, dt=dt, mask=mask, lengths=[4, 2] * 5, held_out=[0])
    assert task.spec.timed
    batch = next(task.batches(0, 9, 4))
    for x, t, m, present in zip(batch.x, batch.dt, batch.mask, batch.present):
        (n,) = [n for n in range(10) if present.sum() == 4 - 2 * (n % 2)
                and (X[n][present] == x[present]).all()]  # fmt: skip
        np.testing.assert_allclose(t, np.where(present, dt[n], 0), 1e-6)
        np.testing.assert_allclose(m, np.where(present, mask[n], 0), 1e-6)


@pytest.mark.thorough
def test_validation_is_the_same_whatever_the_batch():
    """Against a model that reads each row alone, unpadded, and a loop that counts."""
    spec = Spec(Tokens(5), Classes(3, per_step=True))
    model = Model(SMALL, spec, rngs=nnx.Rngs(0))
    answers = [np.asarray(model(row[None].astype(np.int32))[0][0], np.float64) for row in RAGGED]
    tags = [y_hat.argmax(-1) for y_hat in answers]
    for n in (0, 1, 4, 6):
        tags[n][-1] = (tags[n][-1] + 1) % 3  # short and long ones are wrong
    task = from_arrays(RAGGED, tags, held_out=7, outputs=spec.outputs)
    params, frozen, _, rebuild = take_apart(model)
    loss, right, whole = [], [], []
    for n in task.apart:
        log_p = answers[n] - np.log(np.exp(answers[n]).sum(-1, keepdims=True))
        loss += [-log_p[t, label] for t, label in enumerate(tags[n])]
        right += (answers[n].argmax(-1) == tags[n]).tolist()
        whole.append((answers[n].argmax(-1) == tags[n]).all())
    assert 0 < np.mean(whole) < 1
    expected = {"loss": loss, "accuracy": right, "sequence_accuracy": whole}
    for batch in (1, 3, 7):
        config = Config(TaskConfig(batch=batch, length=5, evaluation_batches=None), SMALL)
        found = make_evaluate(config, task, rebuild)(params, frozen)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], np.mean(values), 1e-5, err_msg=name)


def test_what_fills_rows_up_is_no_token_and_no_class():
    x, y, steps = np.full((4, 5), -1), np.full((4, 5), 255), [2, 5, 3, 1]
    mask = np.ones((4, 5))
    for n, length in enumerate(steps):
        x[n, :length], y[n, :length] = n, n % 2
    mask[1, 0], y[1, 0] = 0, 77
    task = from_arrays(x, y, lengths=steps, mask=mask)
    assert (task.spec.inputs, task.spec.outputs) == (Tokens(4), Classes(2, per_step=True))
    assert task.rows.x.min() == 0 and task.rows.y.max() == 1


def test_the_baseline_is_the_score_of_a_constant():
    mask = rng.integers(0, 3, 40) / 2
    labels, values = rng.integers(0, 4, 40) // 2, rng.normal(size=(40, 3))
    keys = rng.integers(0, 2, (40, 3))
    x = np.zeros((40, 2), int)
    for y, outputs in (
        (labels, Classes(3, per_step=False)),
        (labels, Classes(3, per_step=False, blank=0)),
        (values, Values(3, per_step=False)),
        (keys, Bernoullis(3, per_step=False)),
    ):
        task = from_arrays(x, y, mask=mask, outputs=outputs, held_out=11)
        seen, weight = y[task.train], mask[task.train]
        if isinstance(outputs, Classes):
            counts = 1 + np.array([weight[seen == k].sum() for k in range(3)])
            constant = np.log(counts / counts.sum())
        elif isinstance(outputs, Values):
            constant = (seen * weight[:, None]).sum(0) / weight.sum()
        else:
            p = ((seen * weight[:, None]).sum(0) + 1) / (weight.sum() + 2)
            constant = np.log(p / (1 - p))
        (batch,) = task.validation(11, 2)
        scored = task.score(np.tile(np.float32(constant), (11, 1)), batch)
        found = task.baseline(2)
        assert found, outputs
        for name, value in found.items():
            np.testing.assert_allclose(value, scored[name], 1e-5, err_msg=f"{outputs} {name}")


def spoiled(array, value):
    array = np.array(array)
    array[5, 1] = value
    return array


@pytest.mark.parametrize(
    "x, y, options, message",
    [
        (X, Y[:9], {}, "x has 10 rows, and y 9"),
        (spoiled(F, np.nan), Y, {}, "row 5 of x has nan.*lengths"),
        (F, spoiled(F, np.inf), {}, "row 5 of y has inf.*mask"),
        (spoiled(X, -1), Y, {}, r"row 5 of x has -1, and Tokens\(vocabulary=5\) has 0 .. 4"),
        (X, spoiled(X, -100), {}, "row 5 of y has -100, and Classes.*weight 0 in mask"),
        (X, Y + 1, dict(outputs=Classes(3, per_step=False)), r"has 3, and Classes.* has 0 \.\. 2"),
        (X.astype(float), None, dict(inputs=Tokens(5)), "x must be tokens, whole .* for Tokens"),
        (F.astype(int), Y, {}, r"features, floats .* got int64 \[10, 4, 2\]"),
        (X[0], Y, {}, r"x must be \[N, T\].*got \[4\]; one long series is cut"),
        (X > 1j, Y, {}, None),
        (X * 1j, Y, {}, "x must be whole numbers, floats or texts, got complex128"),
        ([], [], {}, "x must be rows that differ in length alone, got none"),
        ([[1, 2], 3], [0, 1], {}, r"x must be rows .* got \[2\], \[\]"),
        ([[1, 2], []], [0, 1], {}, "row 1 of x must have 1 to 2 steps, got 0"),
        (X, Y, dict(lengths=[5] * 10), "row 0 of x must have 1 to 4 steps, got 5"),
        (X, Y, dict(lengths=[4] * 9), r"lengths must be whole numbers \[10\]"),
        (RAGGED, TAGS[::-1], {}, "row 4 has 5 steps in x, and 2 in y"),
        (X, F[..., 0], {}, r"one value for each of 4 steps, then write y\[..., None\]"),
        (X, F[None], {}, "x has 10 rows, and y 1"),
        (X, F[:, :3], {}, "y must be classes"),
        (X, ["a"] * 10, {}, "y must be numbers: np.unique"),
        (X, F, dict(outputs=Values(3, per_step=True)), r"y must be floats \[10, 4, 3\] for Values"),
        (X, Y, dict(mask=np.ones((10, 3))), r"mask must be weights \[10\]"),
        (X, Y, dict(mask=np.zeros(10)), "not all 0"),
        (X, Y, dict(dt=np.ones((10, 3))), r"dt must be numbers \[10, 4\]"),
        (X[:, :1], None, {}, "row 0 of x has one step, and none to answer: give y"),
        (F.reshape(5, 2, 4, 2), None, {}, "y must be given for Features"),
        (X, Y, dict(held_out=0.0), "held_out must be a share above 0 and below 1"),
        (X, Y, dict(held_out=10), "a number of rows from 1 to 9, got 10"),
        (X, Y, dict(held_out=[10]), "held_out must be indices from 0 to 9"),
        (X, Y, dict(held_out=np.ones(9, bool)), "held_out must be indices of rows"),
        (X, Y, dict(held_out=list(range(10))), "no row is trained on"),
        (X, Y, dict(held_out=np.zeros(10, bool)), "no row is held out"),
        (X, Y, dict(held_out=[0], mask=np.arange(10)), "no row is held out, or none with weight"),
        (X, Y, dict(held_out={"z": X}), "held_out must be rows of x, y, .* got z"),
        (X, Y, dict(held_out=(X,)), "y must be given for both sets of rows"),
        (X, Y, dict(held_out=(X, Y, *[None] * 4)), "held_out must be rows of x, y"),
        (X, Y, dict(held_out=(3, 4)), "x must be an array or a list in both"),
        (X, Y, dict(inputs=5), "inputs must be of seqjax.answers, got 5"),
        (X, Y, dict(dt=-np.ones((10, 4))), "dt must be .* not below 0"),
        (None, Y, {}, "x must be an array or a list of rows, got NoneType"),
        (X, iter(Y), {}, "y must be an array or a list of rows, got .*iterator"),
        (["ab", [1, 2]], [0, 1], {}, "x must be texts or numbers, got both"),
        (1e300 * F, Y, {}, "row 0 of x has -?inf"),
        (X, Y, dict(groups=np.ones(3)), "groups must be one for each of 10 rows"),
        (X, Y, dict(groups=np.ones(10)), "no row is trained on"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(x, y, options, message):
    if message is None:  # truth values are tokens
        assert from_arrays(x != 0, y).spec.inputs == Tokens(2)
        return
    with pytest.raises(ValueError, match=message) as error:
        from_arrays(x, y, **options)
    assert "\n" not in str(error.value)


FILE = """
    import numpy as np
    from seqjax.tasks import Task, from_arrays
    from seqjax.train.config import Config, LayerConfig, ModelConfig, TaskConfig, TrainConfig

    def mine() -> Task:
        x = np.random.RandomState(0).randint(0, 3, (20, 7))
        return from_arrays(x, x.sum(1) % 2, held_out=5)

    CONFIG = Config(
        TaskConfig("mine", batch=4),
        ModelConfig(layer=(LayerConfig("min_gru"),), features=4, depth=1),
        train=TrainConfig(steps=4, evaluate_every=2, save_every=2, log_every=1),
    )
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A command, as in a new process, in a folder with the file; what it returns and prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("mine.py").write_text(textwrap.dedent(FILE))

    def command(*words):
        own.BROUGHT.clear()
        TASKS.pop("mine", None)
        return cli.main(list(words)), *capsys.readouterr()

    yield command
    own.BROUGHT.clear()
    TASKS.pop("mine", None)


def test_a_file_with_own_data_is_trained_scored_and_resumed(run):
    status, out, _ = run("train", "mine.py", "--run", "run")
    assert status == 0 and "15 rows of 7 steps to train on, 5 held out" in out
    recorded = json.loads(Path("run/config.json").read_text())["config"]["task"]
    assert (recorded["length"], recorded["evaluation_batches"]) == (7, None)  # all held out
    status, out, _ = run("eval", "run", "--batch", "2")
    assert status == 0 and re.search(r"baseline  loss 0\.\d+  accuracy", out)
    status, _, error = run("train", "mine.py", "--run", "other", "--task.length", "9")
    assert status == 2 and "have 7 steps, got length 9" in error
    Path("mine.py").write_text(textwrap.dedent(FILE).replace("randint(0, 3", "randint(0, 2"))
    status, _, error = run("train", "mine.py", "--run", "run", "--steps", "6")
    assert status == 2 and "the data of run have changed" in error
    assert not Path("other").exists()


@pytest.mark.thorough
def test_own_texts_are_written_on(run):
    text = textwrap.dedent(FILE).replace("x, x.sum(1) % 2", "['abcab'] * 9 + ['bcabc'] * 9")
    Path("mine.py").write_text(text)
    fast = ("--steps", "100", "--optimiser.learning-rate", "0.05", "--optimiser.warmup", "5")
    assert run("train", "mine.py", *fast, "--run", "run")[0] == 0
    status, out, _ = run("generate", "run", "--prompt", "a", "--length", "4", "--temperature", "0")
    assert (status, out) == (0, "abcab\n")
