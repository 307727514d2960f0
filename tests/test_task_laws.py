"""What the solvers of tasks do not see: the laws the inputs are drawn by."""

import re
from itertools import permutations, product
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_tasks import CASES
from test_tasks import BATCH, built, draw, same, score

from seqjax.tasks.synthetic import letter_stream, listops
from seqjax.tasks.synthetic.mackey_glass import scale
from seqjax.tasks.synthetic.state_tracking import GROUPS
from seqjax.tasks.task import draw_distinct


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


@pytest.mark.share(1)
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


def test_every_repetition_is_a_target():
    x, _, mask, *_ = (
        np.asarray(v) for v in draw("induction_heads", 40, vocabulary=6, every=True)[:3]
    )
    special = x == 6
    assert (special.sum(axis=1) == 40 // 8 + 1).all() and special[:, -1].all()
    assert (mask == (special & (np.cumsum(special, axis=1) > 1))).all()
    assert special[:, :38].any(axis=0).all()
    x, _, mask, *_ = (np.asarray(v) for v in draw("associative_recall", 31, keys=6, every=True)[:3])
    again = [[t % 2 == 0 and row[t] in row[:t:2] for t in range(31)] for row in x]
    assert (mask == again).all() and mask[:, -1].all()
    drawn = np.bincount(x[:, :-1:2].ravel()) / x[:, :-1:2].size
    assert (abs(drawn - 1 / 6) < 5 * (5 / 36 / x[:, :-1:2].size) ** 0.5).all()


def test_a_needle_is_where_it_is_put():
    x = np.asarray(draw("needle", 20).x)
    place = x.argmin(axis=1) + 1
    assert ((x == 0).sum(axis=1) == 2).all() and (x[:, -1] == 0).all()
    assert set(place) == set(range(1, 10))
    far = np.asarray(draw("needle", 20, distance=7).x)
    assert (far[:, 20 - 1 - 7 - 1] == 0).all() and ((far == 0).sum(axis=1) == 2).all()


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


def test_dyck_opens_by_a_coin_up_to_its_depth():
    kinds, depth = 3, 4
    x = np.asarray(draw("dyck", 24, kinds=kinds, depth=depth).x)
    opened = x < kinds
    before = np.cumsum(2 * opened - 1, axis=1) - (2 * opened - 1)
    assert (before.min(), before.max()) == (0, depth)
    assert opened[before == 0].all() and not opened[before == depth].any()
    free = opened[(before > 0) & (before < depth)]
    assert abs(free.mean() - 1 / 2) < 5 * (0.25 / free.size) ** 0.5
    counts = np.bincount(x[opened]) / opened.sum()
    assert (abs(counts - 1 / 3) < 5 * (2 / 9 / opened.sum()) ** 0.5).all()


def test_words_of_counters_have_every_length_as_often():
    n = (np.asarray(draw("counting", 17, letters=3).present).sum(axis=1)) // 3
    counts = np.bincount(n, minlength=6)[1:] / BATCH
    assert len(counts) == 5 and (abs(counts - 0.2) < 5 * (0.16 / BATCH) ** 0.5).all()


def test_brackets_are_drawn_by_the_published_recursion():
    """The last operator outside of all brackets but the first: where it stands is uniform."""
    symbols = np.array([*"01234+-*()"])
    words = ["".join(row) for row in symbols[np.asarray(draw("modular_arithmetic", 24).x)]]
    lefts, operators = [], []
    for word in words:
        depth = np.cumsum([(c == "(") - (c == ")") for c in word])
        places = [t for t in range(1, 23) if depth[t] == 1 and word[t] in "+-*"
                  and word[t - 1] not in "(+-*"]  # fmt: skip
        (place,) = places
        lefts.append(place - 1)
        operators.append("+-*".index(word[place]))
    for drawn, low, high in ((lefts, 1, 20), (operators, 0, 2)):
        counts = np.bincount(drawn, minlength=high + 1)[low:] / BATCH
        p = 1 / (high - low + 1)
        assert len(counts) == high - low + 1
        assert (abs(counts - p) < 5 * (p * (1 - p) / BATCH) ** 0.5).all()
    shortest = [draw("modular_arithmetic", n).x for n in (1, 2, 3, 4)]
    found = ["".join(symbols[np.asarray(x[0])]) for x in shortest]
    assert [word.translate(str.maketrans("01234", "ddddd")) for word in found] == [
        "d", "-d", "(d)", "(-d)",
    ]  # fmt: skip


def test_streams_are_groups_and_sentences_as_often_as_they_should():
    """And what can be known of the next letter, from those before, is right."""
    task, batch = built("letter_stream"), draw("letter_stream", 20)
    same(batch.x[:, 1:], batch.y[:, :-1])
    rows = ["".join(task.tokens[i] for i in row) for row in np.asarray(batch.x)]
    assert all(re.fullmatch("(ba|dii|guuu)*(b|d|di|g|gu|guu)?", row) for row in rows)
    y_hat = np.zeros((BATCH, 20, 6), np.float32)
    for row, out in zip(rows, y_hat):
        for t in range(20):
            last = re.split("(?=[bdg])", row[: t + 1])[-1]
            certain = next((g[len(last)] for g in ("ba", "dii", "guuu")
                            if g.startswith(last) and g != last), None)  # fmt: skip
            likely = [certain] if certain else ["b", "d", "g"]
            out[t] = [0 if letter in likely else -1e4 for letter in task.tokens]
    metrics, weights = score(task, y_hat, batch), task.weights(batch)
    assert all(abs(float(metrics[f"loss_{c}"]) - np.log(3)) < 1e-5 for c in "bdg")
    assert all(float(metrics[f"loss_{v}"]) == 0 for v in "aiu")
    assert all(float(weights[f"loss_{c}"]) == np.sum(np.asarray(batch.y) == task.tokens.index(c))
               for c in task.tokens)  # fmt: skip
    groups = re.findall("[bdg]", "".join(row[:-4] for row in rows))
    assert all(abs(groups.count(c) / len(groups) - 1 / 3) < 5 * (2 / 9 / len(groups)) ** 0.5
               for c in "bdg")  # fmt: skip

    task = built("letter_stream", stream="words")
    rows = np.array(task.tokens)[np.asarray(draw("letter_stream", 20, stream="words").x)]
    known = {" ".join(words): p for p, words in letter_stream.sentences()}
    for row in rows:  # there is a way to read it
        starts = {0}
        for i, size in product(range(20), (2, 3)):
            if i in starts and " ".join(row[i : i + size]) in known:
                starts.add(i + size)
        assert max(starts) >= 18
    choices = {"lion eat man": 3 * 4, "mouse break": 3 * 2, "rock move": 3 * 2,
               "woman see car": 4 * 2 * 3, "boy see man": 4 * 3 * 4}  # fmt: skip
    for sentence, count in choices.items():
        assert abs(known[sentence] - 1 / 16 / count) < 1e-12, "of 16 templates"
    p = np.zeros(len(task.tokens))  # of the first word
    for sentence, share in known.items():
        p[task.tokens.index(sentence.split()[0])] += share
    seen = np.array([np.mean(rows[:, 0] == word) for word in task.tokens])
    assert abs(sum(known.values()) - 1) < 1e-12 and len(task.tokens) == 29
    assert (abs(seen - p) <= 5 * (p / BATCH) ** 0.5).all()


def published_length(random, depth, levels, arguments):
    """Tokens of a tree, as the generator of arXiv:2011.04006 draws it."""
    if depth == levels or random.random() > 0.25:
        return 1
    count = random.randint(2, arguments)
    return 2 + sum(published_length(random, depth + 1, levels, arguments) for _ in range(count))


def test_expressions_are_as_long_as_those_of_the_published_generator():
    law, random = listops.length_law(60, 5, 5), Random(0)
    found = [published_length(random, 1, 5, 5) for _ in range(20_000)]
    seen = np.bincount([n for n in found if n <= 60], minlength=61) / len(found)
    assert (abs(seen - law) < 5 * (law / len(found)) ** 0.5 + 1e-12).all()
    # at the published sizes: the share of trees that are kept, and their mean
    long = listops.length_law(1999, 10, 10)
    assert abs(long[1] - 0.75) < 1e-12 and abs(long[501:].sum() - 0.0828) < 5e-5
    assert abs(np.arange(501, 2000) @ long[501:] / long[501:].sum() - 1035.0) < 0.1


def test_listops_draws_lengths_operators_and_arguments_by_the_law():
    shortest, T = 6, 30
    batch = draw("listops", T, shortest=shortest, depth=4, arguments=5)
    x, present = np.asarray(batch.x), np.asarray(batch.present)
    law = listops.length_law(T, 4, 5)
    law[:shortest] = 0
    law /= law.sum()
    seen = np.bincount(present.sum(axis=1), minlength=T + 1) / BATCH
    assert (abs(seen - law) <= 5 * (law / BATCH) ** 0.5).all()
    written, depth, count, counts = x[present], [], [], []
    for row, there in zip(x, present):
        level = np.cumsum(np.where(row >= 14, -1, (row >= 10).astype(int)) * there)
        depth.append(level.max() + 1)
        assert level[there.sum() - 1] == 0 and (level[: there.sum() - 1] > 0).all()
        for token in row[there]:  # how many arguments each operator has
            if token == 14:
                counts.append(count.pop())
            if (token < 10 or token == 14) and count:
                count[-1] += 1
            if 10 <= token < 14:
                count.append(0)
    assert max(depth) == 4 and set(counts) == {2, 3, 4, 5}
    operators = np.bincount(written[(written >= 10) & (written < 14)] - 10)
    n = operators.sum()
    assert (abs(operators / n - 1 / 4) < 5 * (3 / 16 / n) ** 0.5).all()
    digits = np.bincount(written[written < 10])
    assert (abs(digits / digits.sum() - 0.1) < 5 * (0.09 / digits.sum()) ** 0.5).all()


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
