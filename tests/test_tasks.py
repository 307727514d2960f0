"""Every task against a solver that reads the inputs alone, and against its stated baseline."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_tasks import CASES

from seqjax.tasks import TASKS, Batch, make
from seqjax.tasks.synthetic.series import narma

# One batch size and cached tasks: a sampler takes a second to compile and no time to run.
BATCH = 512


@cache
def built(name, **options):
    return make(name, **options)


@cache
def scorer(task):
    return jax.jit(task.score)


def draw(name, length, **options):
    return built(name, **options).sample(jax.random.key(7), BATCH, length)


def score(task, y_hat, batch):
    return scorer(task)(y_hat, batch)


def logits(answer, count):
    """Logits of a predictor that is sure of `answer`."""
    return 60 * np.eye(count, dtype=np.float32)[np.asarray(answer)]


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.share(7)
@pytest.mark.parametrize("case", CASES)
def test_the_inputs_alone_determine_the_answer(case):
    name, length, options, solve = CASES[case]
    task, batch = built(name, **options), draw(name, length, **options)
    answer = solve(np.asarray(batch.x))
    if not task.spec.outputs.shape:  # classes
        metrics = score(task, logits(answer, task.spec.outputs.count), batch)
        assert metrics["accuracy"] == 1 and metrics.get("sequence_accuracy", 1) == 1
        assert metrics["loss"] < 1e-6
    else:
        assert score(task, answer, batch)["mse"] == 0


def guess(task, batch):
    """The trivial predictor of each docstring: it has learned frequencies, and has no memory."""
    x = np.asarray(batch.x)
    y_hat = np.zeros((*batch.y.shape, task.spec.outputs.count), np.float32)
    if task.name == "copy":  # blank until the answer is due, then any symbol
        blank = task.spec.outputs.blank
        due = np.cumsum(x == blank + 1, axis=1) - (x == blank + 1)
        y_hat[..., :blank] = np.where(due, 0, -1e4)[..., None]
        y_hat[..., blank] = np.where(due, -1e4, 0)
    if task.name == "selective_copy":  # any symbol
        y_hat[..., 0] = -1e4
    if task.name == "mqar":  # any value in sight
        y_hat[:] = -1e4
        pairs = round(1 / task.baseline(x.shape[1])["accuracy"])
        values = np.broadcast_to(x[:, None, 1 : 2 * pairs : 2], (*x.shape, pairs))
        np.put_along_axis(y_hat, values, 0, axis=2)
    return y_hat


STREAMS = {"letters": ("letter_stream", 20, {}, None),
           "words": ("letter_stream", 20, dict(stream="words"), None)}  # fmt: skip
COUNTED = [n for n in CASES if n.startswith("tomita")] + ["cycle_navigation", "majority"]
# What of a step of the inputs the predictor knows: the clock t and the symbol x.
FREQUENT = {
    **dict.fromkeys(("dyck", "dyck-1"), "tx"),
    **dict.fromkeys(("counting", "counting-3"), "x"),
    **dict.fromkeys(("brackets", "brackets-every", "no_brackets", "listops"), ""),
    **dict.fromkeys(STREAMS, ""),
}
APART = {"adding", "adding-short", "mqar-uniform", "string_copy", *COUNTED, *FREQUENT}
GUESSED = [name for name in CASES if name not in APART]


@pytest.mark.share(4)
@pytest.mark.parametrize("case", GUESSED)
def test_a_trivial_predictor_scores_the_stated_baseline(case):
    name, length, options, _ = CASES[case]
    task, batch = built(name, **options), draw(name, length, **options)
    expected = task.baseline(length)
    loss = score(task, guess(task, batch), batch)["loss"]
    np.testing.assert_allclose(loss, expected["loss"], 1e-5)
    # Sure of one class (the first value seen in mqar): right as often as stated, within 5 sigma.
    sure = np.asarray(batch.x)[:, 1] if name == "mqar" else np.ones(BATCH, np.int32)
    sure = np.broadcast_to(sure.reshape(-1, *[1] * (batch.y.ndim - 1)), batch.y.shape)
    accuracy = float(score(task, logits(sure, task.spec.outputs.count), batch)["accuracy"])
    counted = np.asarray(batch.mask) * (np.asarray(batch.y) != task.spec.outputs.blank)
    drawn = BATCH if case.endswith("-every") else counted.sum()  # answers of a row are the same
    sigma = (expected["accuracy"] * (1 - expected["accuracy"]) / drawn) ** 0.5
    assert abs(accuracy - expected["accuracy"]) < 5 * sigma


@pytest.mark.share(2)
@pytest.mark.parametrize("case", COUNTED)
def test_a_predictor_that_knows_the_clock_scores_the_stated_baseline(case):
    name, length, options, _ = CASES[case]
    task, batch = built(name, **options), draw(name, length, **options)
    count = task.spec.outputs.count
    share = np.stack([np.mean(np.asarray(batch.y) == c, axis=0) for c in range(count)], axis=1)
    y_hat = np.broadcast_to(np.log(share + 1e-9), (BATCH, length, count)).astype(np.float32)
    metrics, expected = score(task, y_hat, batch), task.baseline(length)
    for what in expected:
        assert abs(float(metrics[what]) - expected[what]) < 0.04, what


@pytest.mark.share(2)
@pytest.mark.parametrize("case", FREQUENT)
def test_a_predictor_that_knows_frequencies_scores_the_stated_baseline(case):
    name, length, options, _ = {**CASES, **STREAMS}[case]
    task, batch = built(name, **options), draw(name, length, **options)
    y, mask = np.asarray(batch.y), np.asarray(batch.mask)
    known = np.zeros(y.shape, int)
    if "x" in FREQUENT[case]:
        known = np.asarray(batch.x)
    if "t" in FREQUENT[case]:
        known = known * length + np.arange(length)
    counts = np.full((known.max() + 1, task.spec.outputs.count), 1e-9)
    np.add.at(counts, (known, y), mask)
    y_hat = np.log(counts / counts.sum(axis=1, keepdims=True))[known].astype(np.float32)
    metrics, expected = score(task, y_hat, batch), task.baseline(length)
    for what in expected:
        assert abs(float(metrics[what]) - expected[what]) < 0.03, what


def test_string_copy_baseline_counts_and_forgets():
    task, batch = built("string_copy"), draw("string_copy", 15)
    ends = np.asarray(batch.y) == 26
    y_hat = np.where(ends[..., None] == (np.arange(27) == 26), 0, -1e4).astype(np.float32)
    y_hat[..., 1] += 1e-4  # sure of one letter
    metrics, expected = score(task, y_hat, batch), task.baseline(15)
    for what in expected:
        np.testing.assert_allclose(metrics[what], expected[what], rtol=0.04)


def test_adding_baseline_is_the_variance_of_the_sum():
    task, batch = built("adding"), draw("adding", 50)
    mse = float(score(task, np.ones((BATCH, 1), np.float32), batch)["mse"])
    # The squared error of the sum of two uniforms has standard deviation 0.197.
    assert abs(mse - task.baseline(50)["mse"]) < 5 * 0.197 / BATCH**0.5


@pytest.mark.share(3)
@pytest.mark.parametrize("name", TASKS)
def test_rows_build_and_draw_what_they_specify_from_a_key(name):
    task = built(name, **TASKS[name].smoke)
    length = TASKS[name].length or task.decides["length"]
    assert task.name == name
    batch, again, other = (task.sample(jax.random.key(seed), BATCH, length) for seed in (1, 1, 2))
    same(batch, again)
    drawn, others = (jax.tree.leaves(one.x) for one in (batch, other))
    assert not np.array_equal(drawn[0], others[0])
    kinds, outputs = filter(None, task.spec.inputs.pair), task.spec.outputs
    steps = (BATCH, length)
    for inputs, x in zip(kinds, drawn):
        first = steps[: len(inputs.axes)]  # of one vector per sequence no steps
        assert x.shape == (*first, *inputs.shape) and x.dtype == inputs.dtype
        if not inputs.shape:
            assert x.min() >= 0 and x.max() < inputs.vocabulary
    answers = steps if outputs.per_step else steps[:1]
    counted = answers if outputs.aligned else steps[:1]
    assert batch.y.shape[: len(counted)] == counted and batch.y.dtype == outputs.dtype
    inner = batch.y.shape[len(counted) :]
    assert len(inner) == len(outputs.shape)
    assert all(n in (None, m) for n, m in zip(outputs.shape, inner))
    if outputs.bound is not None:
        assert batch.y.min() >= 0 and batch.y.max() < outputs.bound
    y_hat = np.zeros((*answers, outputs.size), jnp.bfloat16)
    assert batch.mask.shape == counted and batch.mask.dtype == np.float32
    metrics = jax.eval_shape(lambda *pair: task.summary(task.score(*pair)), y_hat, batch)
    assert metrics["loss"].dtype == jnp.float32 and set(task.baseline(length)) <= set(metrics)
    with pytest.raises(ValueError, match="expects an answer of shape"):
        jax.eval_shape(task.score, y_hat[..., None], batch)


def test_validation_is_fixed_and_apart_from_training():
    task = built("copy")
    held_out = list(task.validation(BATCH, 30, 3))
    assert len(held_out) == 3
    same(held_out, list(task.validation(BATCH, 30, 3)))
    assert not np.array_equal(held_out[0].x, next(task.batches(0, BATCH, 30)).x)
    with pytest.raises(ValueError, match="count="):
        task.validation(BATCH, 30)


@pytest.mark.parametrize(
    "name, options, length, needed",
    [
        ("adding", {}, 1, ">= 2"),
        ("copy", {}, 20, "> 20"),
        ("selective_copy", {}, 31, ">= 32"),
        ("induction_heads", {}, 2, ">= 3"),
        ("induction_heads", dict(every=True), 2, ">= 3"),
        ("associative_recall", dict(every=True), 2, ">= 3"),
        ("needle", {}, 2, ">= 3"),
        ("needle", dict(distance=9), 10, "at a distance of 9 needs length >= 11"),
        ("associative_recall", {}, 12, "odd length from 5 to 55"),
        ("associative_recall", {}, 57, "odd length from 5 to 55"),
        ("mqar", {}, 30, "even length >= 32"),
        ("mqar", {}, 33, "even length >= 32"),
        ("counting", dict(letters=3), 2, ">= 3"),
        ("modular_arithmetic", dict(brackets=False), 8, "odd length"),
        ("listops", dict(depth=2, arguments=4), 600, "501 to 600 tokens to be likelier than 0.001"),
        ("pathfinder", {}, 784, "a length of 256, 1024, 4096, 16384, 65536 pixels"),
        ("pathfinder", dict(rows=16), 256, "images of 16 rows have a length of 16, got 256"),
        ("capacity", {}, 50, "a window of 50 needs more steps"),
        ("lstm_2b", {}, 1, ">= 2"),
        ("phonebook", dict(names=3), 41, "a multiple of 8 from 16 to 32"),
        ("phonebook", dict(names=3), 40, "a multiple of 8 from 16 to 32"),
        ("string_copy", dict(shortest=5), 11, ">= 12"),
        ("reverse", dict(paired=False), 1, ">= 2"),
        ("composition", {}, 17, r"17 k \+ 1"),
        ("char_lm", TASKS["char_lm"].smoke, 10**8, "too short for 1 x 100000000"),
    ],
)
def test_an_impossible_length_is_answered_at_once(name, options, length, needed):
    with pytest.raises(ValueError, match=needed):
        make(name, **options).batches(0, 2, length)


def test_typos_are_answered_with_the_nearest_names():
    with pytest.raises(ValueError, match="no task 'mqra'; did you mean mqar"):
        make("mqra")
    with pytest.raises(TypeError, match="no option 'vocabulery'; did you mean vocabulary"):
        make("mqar", vocabulery=10)
    with pytest.raises(TypeError, match="adding has no option 'symbols'; it takes none"):
        make("adding", symbols=10)
    with pytest.raises(ValueError, match="no group 'S6'.*A5, S5"):
        make("state_tracking", group="S6")
    with pytest.raises(ValueError, match="modulus must be a whole number from 2 to"):
        make("state_tracking", modulus=1)
    with pytest.raises(ValueError, match="unknown series 'lorentz'; did you mean 'lorenz'"):
        make("mackey_glass", series="lorentz")
    with pytest.raises(ValueError, match="horizon = 1, got 2"):
        make("mackey_glass", series="narma", horizon=2)
    with pytest.raises(ValueError, match="unknown form 'rk4'"):
        narma(jnp.ones(3), form="rk4")
    with pytest.raises(ValueError, match="unknown stream 'word'; did you mean 'words'"):
        make("letter_stream", stream="word")
    with pytest.raises(ValueError, match="vocabulary >= 18"):
        make("mqar", pairs=8, vocabulary=16)


def test_nothing_leaks_from_where_nothing_is_asked():
    task, batch = built("induction_heads"), draw("induction_heads", 16)
    y_hat = jax.random.normal(jax.random.key(0), (BATCH, 16, 16), jnp.float32)
    spoiled = y_hat.at[:, :-1].set(jnp.nan)
    loss = jax.jit(jax.value_and_grad(lambda y: task.score(y, batch)["loss"]))
    value, grad = loss(y_hat)
    same(loss(spoiled), (value, grad))
    last, right = np.asarray(y_hat[:, -1], np.float64), np.asarray(batch.y[:, -1])
    expected = np.log(np.exp(last).sum(axis=1)) - last[np.arange(BATCH), right]
    np.testing.assert_allclose(value, expected.mean(), 1e-6)
    assert not np.asarray(grad[:, :-1]).any() and np.asarray(grad[:, -1]).all()


def test_the_mask_weighs_and_an_empty_one_is_no_nan():
    task, (x, y, mask, *_) = built("adding"), draw("adding", 50)
    errors = np.resize(np.float32([1, 2, 3]), (BATCH, 1))
    weights = np.resize(np.float32([1, 3, 0]), BATCH)
    expected = (weights * errors[:, 0] ** 2).sum() / weights.sum()
    mse = score(task, y + errors, Batch(x, y, weights))["mse"]
    np.testing.assert_allclose(mse, expected, 1e-6)
    assert score(task, y + errors, Batch(x, y, 0 * mask))["mse"] == 0


def test_one_wrong_symbol_spoils_the_sequence_and_a_wrong_blank_does_not():
    task, batch = built("copy"), draw("copy", 30)
    answer = np.array(batch.y)
    answer[0, -1] = (answer[0, -1] + 1) % 8
    answer[1, 3] = 0
    metrics = score(task, logits(answer, 9), batch)
    np.testing.assert_allclose(metrics["accuracy"], 1 - 1 / (10 * BATCH), 1e-6)
    np.testing.assert_allclose(metrics["sequence_accuracy"], 1 - 1 / BATCH, 1e-6)
