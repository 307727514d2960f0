"""Every task against a solver that reads the inputs alone, and against its stated baseline."""

import re
from functools import cache, partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.tasks import TASKS, Batch, make
from seqjax.tasks.mackey_glass import scale
from seqjax.tasks.state_tracking import GROUPS
from seqjax.tasks.task import draw_distinct

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


# Solvers: from x alone, what the published definition asks for; 0 where nothing is asked.


def solve_adding(x):
    return np.array([[sum(u for u, marked in row if marked)] for row in x], np.float32)


def solve_copy(x):
    blank, delimiter = x.max() - 1, x.max()
    answer = np.full_like(x, blank)
    for row, out in zip(x, answer, strict=True):
        after = len(row) - 1 - list(row).index(delimiter)
        out[-after:] = row[:after]
    return answer


def solve_selective_copy(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        data = [token for token in row if 0 < token < x.max()]
        out[row == x.max()] = data
    return answer


def solve_induction_heads(x):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        out[-1] = row[list(row).index(row[-1]) + 1]
    return answer


def solve_associative_recall(x, keys):
    pairs = [dict(zip(row[:-3:2], row[1:-3:2], strict=True)) for row in x]
    return np.array([known[row[-1]] - keys for known, row in zip(pairs, x, strict=True)])


def solve_mqar(x, pairs):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        known = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        for t in range(2 * pairs, len(row), 2):  # a filling may look like a query: not asked
            out[t] = known.get(row[t], 0)
    return answer


def solve_residues(x, modulus):
    return np.cumsum(x, axis=1) % modulus


def solve_permutations(x, n, even):
    """Move n objects about by hand, with no composition table."""
    elements = [p for p in permutations(range(n)) if not even or round(det(p)) == 1]
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        state = tuple(range(n))
        for t, token in enumerate(row):
            state = tuple(elements[token][place] for place in state)
            out[t] = elements.index(state)
    return answer


def det(p):
    return np.linalg.det(np.eye(len(p))[list(p)])


def permuted(n, even=False):
    return partial(solve_permutations, n=n, even=even)


def solve_lstm_2b(x):
    return (x[:, 0, 0] > 0).astype(np.int32)


def solve_phonebook(x, digits):
    answer = np.zeros_like(x)
    for row, out in zip(x, answer, strict=True):
        asked = row[list(row).index(10) + 1]
        place = list(row).index(asked)
        out[-digits:] = row[place + 1 : place + 1 + digits]
    return answer


def solve_string_copy(x):
    answer = np.zeros_like(x)
    mark = x.max() - 2
    for row, out in zip(x, answer, strict=True):
        n = list(row).index(mark) - 1
        out[n + 1 : 2 * n + 2] = [*row[1 : n + 1], mark]
    return answer


def solve_composition(x, size):
    answer = []
    for row in x:
        value = row[-1]
        for start in range(0, len(row) - 1, 2 * size + 1):
            listed = row[start + 1 : start + 1 + 2 * size]
            value = dict(zip(listed[::2], listed[1::2], strict=True))[value]
        answer.append(value)
    return np.array(answer)


def solve_majority(x):
    return np.array([[2 * sum(row[: t + 1]) > t + 1 for t in range(len(row))] for row in x], int)


TOMITA = {
    1: lambda s: re.fullmatch("1*", s),
    2: lambda s: re.fullmatch("(10)*", s),
    3: lambda s: not re.search("(?<!1)1(11)*0(00)*(?!0)", s),
    4: lambda s: "000" not in s,
    5: lambda s: s.count("0") % 2 == s.count("1") % 2 == 0,
    6: lambda s: (s.count("0") - s.count("1")) % 3 == 0,
    7: lambda s: re.fullmatch("0*1*0*1*", s),
}


def solve_tomita(x, n):
    strings = ["".join(map(str, row)) for row in x]
    return np.array(
        [[bool(TOMITA[n](s[: t + 1])) for t in range(len(s))] for s in strings], np.int32
    )


def solve_navigation(x, places):
    return np.cumsum(np.array([0, 1, -1])[x], axis=1) % places


CASES = {  # id: task, length, options, solver; the published forms
    "adding": ("adding", 50, {}, solve_adding),
    "copy": ("copy", 30, {}, solve_copy),
    "selective_copy": ("selective_copy", 56, {}, solve_selective_copy),
    "induction_heads": ("induction_heads", 16, {}, solve_induction_heads),
    "associative_recall": (
        "associative_recall",
        23,
        {},
        partial(solve_associative_recall, keys=26),
    ),
    "mqar": ("mqar", 48, dict(pairs=4, vocabulary=64), partial(solve_mqar, pairs=4)),
    "mqar-uniform": (
        *("mqar", 12, dict(pairs=3, vocabulary=9, power=1.0, random_filling=False)),
        partial(solve_mqar, pairs=3),
    ),
    "parity": ("state_tracking", 40, dict(group="parity"), partial(solve_residues, modulus=2)),
    "modular_addition": (
        *("state_tracking", 40, dict(group="modular_addition", modulus=7)),
        partial(solve_residues, modulus=7),
    ),
    "A5": ("state_tracking", 12, dict(group="A5"), permuted(5, even=True)),
    "S5": ("state_tracking", 12, dict(group="S5"), permuted(5)),
    **{
        f"tomita{n}": ("state_tracking", 13, dict(group=f"tomita{n}"), partial(solve_tomita, n=n))
        for n in TOMITA
    },
    "cycle_navigation": (
        *("state_tracking", 20, dict(group="cycle_navigation", modulus=6)),
        partial(solve_navigation, places=6),
    ),
    "lstm_2b": ("lstm_2b", 20, {}, solve_lstm_2b),
    "phonebook": ("phonebook", 32, dict(names=9), partial(solve_phonebook, digits=7)),
    "string_copy": ("string_copy", 15, {}, solve_string_copy),
    "composition": ("composition", 19, dict(size=4), partial(solve_composition, size=4)),
    "majority": ("majority", 17, {}, solve_majority),
}
SHORT = {
    "adding": solve_adding,
    "copy": solve_copy,
    "selective_copy": solve_selective_copy,
    "induction_heads": solve_induction_heads,
    "associative_recall": partial(solve_associative_recall, keys=5),
    "mqar": partial(solve_mqar, pairs=2),
    "state_tracking": permuted(3),
}
CASES |= {f"{n}-short": (n, TASKS[n].length, TASKS[n].smoke, SHORT[n]) for n in SHORT}


@pytest.mark.share(12)
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


COUNTED = [n for n in CASES if n.startswith("tomita")] + ["cycle_navigation", "majority"]
APART = {"adding", "adding-short", "mqar-uniform", "string_copy", *COUNTED}
GUESSED = [name for name in CASES if name not in APART]


@pytest.mark.share(7)
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
    sigma = (expected["accuracy"] * (1 - expected["accuracy"]) / counted.sum()) ** 0.5
    assert abs(accuracy - expected["accuracy"]) < 5 * sigma


@pytest.mark.share(3)
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


def test_string_copy_baseline_counts_and_forgets():
    task, batch = built("string_copy"), draw("string_copy", 15)
    ends = np.asarray(batch.y) == 26
    y_hat = np.where(ends[..., None] == (np.arange(27) == 26), 0, -1e4).astype(np.float32)
    y_hat[..., 1] += 1e-4  # sure of one letter
    metrics, expected = score(task, y_hat, batch), task.baseline(15)
    for what in expected:
        np.testing.assert_allclose(metrics[what], expected[what], rtol=0.04)


def test_capacity_is_what_it_was():
    x, y, mask, *_ = draw("capacity", 20, window=6, delays=3)
    x, y, mask = np.asarray(x)[..., 0], np.asarray(y), np.asarray(mask)
    assert (mask == (np.arange(20) >= 6)).all()
    for i, d in enumerate((2, 4, 6)):
        np.testing.assert_array_equal(y[:, d:, i], x[:, :-d])
    task = built("capacity", window=6, delays=3)
    mse = float(score(task, np.zeros_like(y), draw("capacity", 20, window=6, delays=3))["mse"])
    assert abs(mse - task.baseline(20)["mse"]) < 5 * (2 / mask.sum()) ** 0.5
    slow = np.asarray(draw("capacity", 64, window=6, delays=3, bandwidth=0.25).x)[..., 0]
    power = np.abs(np.fft.rfft(slow)) ** 2
    assert power[:, 8:].max() < 1e-6 * power.max() and abs(slow.std() - 1) < 1e-3


@pytest.mark.share(2)
@pytest.mark.parametrize("series", ["mackey_glass", "lorenz", "rossler", "superposed", "narma"])
def test_series_are_scaled_and_go_on(series):
    task, batch = built("mackey_glass", series=series), draw("mackey_glass", 64, series=series)
    mse = float(score(task, np.zeros_like(batch.y), batch)["mse"])
    assert abs(mse - task.baseline(64)["mse"]) < 0.1
    assert np.isfinite(batch.x).all() and np.ptp(np.asarray(batch.x)[:, 0]) > 1  # starts differ
    if series != "narma":
        np.testing.assert_array_equal(batch.x[:, 1:], batch.y[:, :-1])


def test_henon_and_narma_are_their_equations():
    mean, deviation = scale("henon")
    batch = draw("mackey_glass", 16, series="henon", horizon=2)
    x, y = (np.asarray(z, np.float64) * deviation + mean for z in batch[:2])
    for _ in range(2):
        x = np.stack([1 - 1.4 * x[..., 0] ** 2 + x[..., 1], 0.3 * x[..., 0]], axis=-1)
    np.testing.assert_allclose(x, y, atol=1e-4)
    mean, deviation = scale("narma")
    batch = draw("mackey_glass", 40, series="narma")
    u, y = (np.asarray(batch.x)[..., 0] + 1) / 4, (np.asarray(batch.y) * deviation + mean)[..., 0]
    for t in range(10, 40):
        past = 0.3 * y[:, t - 1] + 0.05 * y[:, t - 1] * y[:, t - 10 : t].sum(1)
        expected = past + 1.5 * u[:, t - 9] * u[:, t] + 0.1
        bounded = (expected < 1) & (y[:, t] < 1)
        np.testing.assert_allclose(y[bounded, t], expected[bounded], atol=1e-4)
        assert bounded.mean() > 0.9


def test_string_copy_has_every_length_as_often():
    x = np.asarray(draw("string_copy", 15).x)
    counts = np.bincount((x == 26).argmax(axis=1) - 1, minlength=7)
    assert counts[0] == 0 and (abs(counts[1:] / BATCH - 1 / 6) < 5 * (5 / 36 / BATCH) ** 0.5).all()
    assert (np.asarray(draw("string_copy", 14, shortest=6).x)[:, 7] == 26).all()


def test_adding_baseline_is_the_variance_of_the_sum():
    task, batch = built("adding"), draw("adding", 50)
    mse = float(score(task, np.ones((BATCH, 1), np.float32), batch)["mse"])
    # The squared error of the sum of two uniforms has standard deviation 0.197.
    assert abs(mse - task.baseline(50)["mse"]) < 5 * 0.197 / BATCH**0.5


@pytest.mark.parametrize("name", TASKS)
def test_rows_build_and_draw_what_they_specify_from_a_key(name):
    length = TASKS[name].length
    task = built(name, **TASKS[name].smoke)
    assert task.name == name
    batch, again, other = (task.sample(jax.random.key(seed), BATCH, length) for seed in (1, 1, 2))
    same(batch, again)
    drawn, others = (jax.tree.leaves(one.x) for one in (batch, other))
    assert not np.array_equal(drawn[0], others[0])
    kinds, outputs = filter(None, task.spec.inputs.pair), task.spec.outputs
    steps = (BATCH, length)
    for inputs, x in zip(kinds, drawn):
        assert x.shape == (*steps, *inputs.shape) and x.dtype == inputs.dtype
        if not inputs.shape:
            assert x.min() >= 0 and x.max() < inputs.vocabulary
    answers = steps if outputs.per_step else steps[:1]
    assert batch.y.shape == (*answers, *outputs.shape) and batch.y.dtype == outputs.dtype
    if not outputs.shape:
        assert batch.y.min() >= 0 and batch.y.max() < outputs.count
    y_hat = np.zeros((*answers, outputs.size), jnp.bfloat16)
    assert batch.mask.shape == answers and batch.mask.dtype == np.float32
    metrics = jax.eval_shape(task.score, y_hat, batch)
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
        ("associative_recall", {}, 12, "odd length from 5 to 55"),
        ("associative_recall", {}, 57, "odd length from 5 to 55"),
        ("mqar", {}, 30, "even length >= 32"),
        ("mqar", {}, 33, "even length >= 32"),
        ("capacity", {}, 50, "a window of 50 needs more steps"),
        ("lstm_2b", {}, 1, ">= 2"),
        ("phonebook", dict(names=3), 41, "a multiple of 8 from 16 to 32"),
        ("phonebook", dict(names=3), 40, "a multiple of 8 from 16 to 32"),
        ("string_copy", dict(shortest=5), 11, ">= 12"),
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
    with pytest.raises(ValueError, match="vocabulary >= 18"):
        make("mqar", pairs=8, vocabulary=16)


# What the solvers do not see: the laws the inputs are drawn by.


def test_distinct_draws_follow_the_law_of_successive_draws():
    p = np.array([0.6, 0.3, 0.1])
    pairs = np.asarray(
        draw_distinct(jax.random.key(0), jnp.asarray(np.log(p), jnp.float32), 20_000, 2)
    )
    for i, j in permutations(range(3), 2):
        expected = p[i] * p[j] / (1 - p[i])
        observed = np.mean((pairs[:, 0] == i) & (pairs[:, 1] == j))
        assert abs(observed - expected) < 5 * (expected / 20_000) ** 0.5


def test_adding_marks_one_step_in_each_half():
    marks = np.asarray(draw("adding", 50).x[..., 1])
    assert set(np.unique(marks)) == {0.0, 1.0}
    for half in (marks[:, :25], marks[:, 25:]):
        assert (half.sum(axis=1) == 1).all() and (half.sum(axis=0) > 0).all()


def test_copy_is_laid_out_as_published():
    x, y, mask, *_ = draw("copy", 30)  # T = 10
    assert set(np.unique(x[:, :10])) == set(range(8))
    assert (x[:, 10:19] == 8).all() and (x[:, 19] == 9).all() and (x[:, 20:] == 8).all()
    assert (y[:, :20] == 8).all() and (y[:, 20:] == x[:, :10]).all() and (mask == 1).all()


def test_selective_copy_hides_the_data_anywhere():
    x, _, mask, *_ = draw("selective_copy", 56)
    shown = np.asarray(x[:, :40])
    assert ((shown > 0).sum(axis=1) == 16).all() and (x[:, 40:] == 15).all()
    assert set(np.unique(shown)) == set(range(15))
    assert (np.asarray(mask) == (np.arange(56) >= 40)).all()
    # 16 of 40 places: each is taken with probability 0.4.
    assert (abs((shown > 0).mean(axis=0) - 0.4) < 5 * (0.24 / BATCH) ** 0.5).all()


def test_induction_heads_shows_the_special_token_twice():
    special = np.asarray(draw("induction_heads", 16).x) == 16
    assert (special.sum(axis=1) == 2).all() and special[:, -1].all() and not special[:, -2].any()
    assert special[:, :14].any(axis=0).all()


def test_associative_recall_asks_for_one_of_different_letters():
    x = np.asarray(draw("associative_recall", 23).x)  # K = 10
    letters, digits = x[:, :20:2], x[:, 1:20:2]
    assert letters.max() == 25 and digits.min() == 26 and digits.max() == 35
    assert all(len(set(row)) == 10 for row in letters)
    assert (x[:, 20:22] == 36).all()
    assert {list(row[:20:2]).index(row[-1]) for row in x} == set(range(10))


@pytest.mark.parametrize("case", ["mqar", "mqar-uniform"])
def test_mqar_draws_halves_apart_and_gaps_by_a_power_law(case):
    name, length, options, _ = CASES[case]
    pairs, half = options["pairs"], options["vocabulary"] // 2
    x, y, mask, *_ = (np.asarray(a) for a in draw(name, length, **options))
    keys, values = x[:, 0 : 2 * pairs : 2], x[:, 1 : 2 * pairs : 2]
    last = options["vocabulary"] - 1
    assert (keys.min(), keys.max(), values.min(), values.max()) == (1, half - 1, half, last)
    for drawn in (keys, values):
        assert all(len(set(row)) == pairs for row in drawn)
    rows, steps = np.nonzero(mask)
    assert (steps >= 2 * pairs).all() and (steps % 2 == 0).all()
    same(np.sort(x[rows, steps].reshape(BATCH, pairs)), np.sort(keys))
    same(np.sort(y[rows, steps].reshape(BATCH, pairs)), np.sort(values))
    # The first key takes the first draw of a gap: its law is the power law itself.
    first = np.argmax((x == keys[:, :1]) & (mask > 0), axis=1)
    places = length // 2 - pairs
    p = np.arange(1.0, places + 1) ** (options.get("power", 0.01) - 1)
    p /= p.sum()
    observed = np.bincount((first - 2 * pairs) // 2, minlength=places) / BATCH
    assert (abs(observed - p) < 5 * (p / BATCH) ** 0.5).all()
    filling = x[:, 2 * pairs + 1 :: 2]
    assert (filling.min(), filling.max()) == ((0, 63) if case == "mqar" else (0, 0))


@pytest.mark.parametrize(
    "name, order, abelian",
    [
        ("parity", 2, True),
        ("modular_addition", 7, True),
        ("S3", 6, False),
        ("A5", 60, False),
        ("S5", 120, False),
    ],
)
def test_composition_tables_are_groups(name, order, abelian):
    table = GROUPS[name](7)
    g = np.arange(order)
    assert table.shape == (order, order)
    same(table[0], g)
    same(table[:, 0], g)
    same(np.sort(table, axis=0), np.broadcast_to(g[:, None], table.shape))  # closed, invertible
    same(np.sort(table, axis=1), np.broadcast_to(g[None], table.shape))
    same(table[table], table[:, table])  # (a b) c = a (b c)
    assert np.array_equal(table, table.T) == abelian


# Score.


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
