"""Tasks of texts that are not continued: sentiment, retrieval, chunks."""

import jax
import numpy as np
import pytest
from made_texts import MADE_TEXTS, SENTENCE

from seqjax.answers import Chunks
from seqjax.data import DATASETS, DataError, prepared
from seqjax.data.sets.conll2000 import read_sentences
from seqjax.tasks import make
from seqjax.tasks.texts.tagging import LONGEST, TAGS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    return tmp_path


def chunks_by_loop(tags):
    """(kind, first, last) as in the rules of conlleval, tag by tag."""
    found, begun = set(), None
    for t, tag in enumerate([*tags, "O"]):
        kind = tag[2:] if tag != "O" else None
        if begun and (tag[0] != "I" or kind != begun[0]):
            found.add((*begun, t - 1))
            begun = None
        if kind and not begun:
            begun = (kind, t)
    return found


def test_whole_chunks_are_counted():
    """Against a loop over random tags, of which many are no sensible ones, in rows that end early
    and with holes."""
    tags = ("B-X", "I-X", "O", "I-YY", "B-YY", "B-Z")
    answer, rng = Chunks(6, per_step=True, tags=tags), np.random.RandomState(0)
    totals, counted, weights, means = np.zeros(3), {}, [], []
    score, (rows, steps) = jax.jit(answer.score), (30, 12)
    for _ in range(2):
        y, guess = rng.randint(0, 6, (2, rows, steps)).astype(np.int32)
        guess = np.where(rng.rand(rows, steps) < 0.7, y, guess)
        mask = (rng.rand(rows, steps) < 0.9) * (np.arange(steps) < rng.randint(1, steps, (rows, 1)))
        mask = mask.astype(np.float64)
        for one, other, there in zip(guess, y, mask):
            sides = [
                chunks_by_loop([tags[n] if here else "O" for n, here in zip(side, there)])
                for side in (one, other)
            ]
            totals += [len(sides[0] & sides[1]), len(sides[0]), len(sides[1])]
        found = score(60 * np.eye(6)[guess], y, mask)
        weights.append(mask.sum())
        means.append({name: float(value) for name, value in found.items()})
    counted = {n: np.average([one[n] for one in means], weights=weights) for n in means[0]}
    summary = answer.summary(counted)
    hits, predicted, actual = totals
    np.testing.assert_allclose(
        [summary["precision"], summary["recall"], summary["f1"]],
        [hits / predicted, hits / actual, 2 * hits / (predicted + actual)], rtol=1e-6,
    )  # fmt: skip
    assert set(summary) >= {"loss", "accuracy"} and "predicted" not in summary
    nothing = answer.summary(score(np.zeros((rows, steps, 6)), y, np.zeros((rows, steps))))
    assert nothing["f1"] == 0


@pytest.mark.parametrize("count, tags", [(2, ("O", "X-Y")), (3, ("O", "B-Y")), (0, ())])
def test_tags_that_are_none(count, tags):
    with pytest.raises(ValueError, match="Chunks"):
        Chunks(count, per_step=True, tags=tags)


def test_conll2000_is_what_was_published():
    paths = DATASETS["conll2000"].find()[1]
    found = {split: list(read_sentences(path)) for split, (path,) in paths.items()}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 8936, "test": 2012}
    words = {split: sum(len(row["words"].split()) for row in rows) for split, rows in found.items()}
    assert words == {"train": 211727, "test": 47377}
    seen = {tag for rows in found.values() for row in rows for tag in row["chunks"].split()}
    assert seen <= set(TAGS) and len(TAGS) == 23
    assert LONGEST == max(len(r["words"].split()) for rows in found.values() for r in rows)
    begun = sum(tag[0] == "B" for row in found["test"] for tag in row["chunks"].split())
    assert begun == 23852  # phrases, as conlleval counts those of the test
    with_pos = found["train"][0]
    assert with_pos["words"].split()[:3] == ["Confidence", "in", "the"]
    assert with_pos["pos"].split()[:3] == ["NN", "IN", "DT"]


def test_words_are_tagged(folder, monkeypatch):
    MADE_TEXTS["conll2000", "full"](folder)
    monkeypatch.setattr(
        "seqjax.tasks.texts.tagging.PARTS", {"train": "train", "validation": "test"}
    )
    task = make("tagging")
    assert task.tokens == ["<unk>", ".", "0,0", "The", "cats", "sleep"]
    (batch,) = task.validation(2, 7)
    names = [[task.classes[n] for n in row[:5]] for row in batch.y]
    assert names == [["B-NP", "I-NP", "I-NP", "B-VP", "O"]] * 2
    assert batch.mask.tolist() == [[1] * 5 + [0] * 2] * 2
    score = jax.jit(lambda y_hat: task.summary(task.score(y_hat, batch)))
    assert score(60 * np.eye(23)[batch.y])["f1"] == 1
    constant = score(60 * np.eye(23)[np.zeros((2, 7), int)])
    assert constant["f1"] == 0 and constant["accuracy"] == pytest.approx(0.2)
    assert task.baseline(7)["accuracy"] == pytest.approx(0.4)  # I-NP
    assert SENTENCE.count(b"I-NP") == 2


def test_questions_on_stories(folder, monkeypatch):
    MADE_TEXTS["babi", "full"](folder)
    monkeypatch.setattr("seqjax.tasks.texts.babi.VALIDATION", "")
    monkeypatch.setattr("seqjax.tasks.texts.babi.TRAIN", "")
    task = make("babi", kinds=(1, 12), questions="1k")
    assert len(task.train) == len(task.apart) == 3 and task.decides["length"] == 25
    assert task.classes == ["<unk>", "e", "bathroom", "milk,apple"]
    shown = {}
    (batch,) = task.validation(3, 30)
    for x, y, mask, there in zip(*map(np.asarray, (batch.x, batch.y, batch.mask, batch.present))):
        words = " ".join(task.tokens[n] for n in x[there])
        shown[words] = [(task.tokens[x[t]], task.classes[y[t]]) for t in np.flatnonzero(mask)]
    assert shown == {
        "mary moved to the bathroom . john took the milk . where is mary ? mary got the apple "
        "there . what is carried ?": [("?", "bathroom"), ("?", "milk,apple")],
        "the hall is east of the attic . how do you go from the attic to the hall ?": [("?", "e")],
    }
    found = next(e for e in prepared("babi").source("qa1_test") if b"Mary" in e["text"])
    assert found["facts"] == b"1\n2 4" and found["text"].split(b"\n")[2] == b"Where is Mary?"
    assert make("babi", kinds=(12,), questions="1k", held_out="test").apart[0]["answers"] == b"e"


@pytest.mark.parametrize("story, message", [
    ("1 Mary sat.\n3 Where is Mary?\thall\t1\n", "line 2 has the number 3 after 1"),
    ("2 Mary sat.\n", "line 1 has the number 2 after 0"),
    ("1 Mary sat.\n2 Where is Mary?\thall\t2\n", "line 2 has the facts 2, of 1 lines before"),
    ("1 Mary sat.\n2 Where is Mary?\n", "line 2 is '2 Where is Mary"),
    ("1 Mary sat.\thall\t1\n", "line 1 is"),
    ("Mary sat.\n", "line 1 is 'Mary sat"),
    ("1 Mary sat.", "its last line does not end"),
])  # fmt: skip
def test_stories_that_are_none(folder, story, message):
    MADE_TEXTS["babi", "full"](folder)
    path = folder / "babi/tasks_1-20_v1-2/en/qa7_counting_train.txt"
    path.write_text(story)
    with pytest.raises(DataError, match=message) as caught:
        make("babi", questions="1k")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_kind_of_questions_that_is_not_there(folder):
    with pytest.raises(DataError, match=r"no files of babi_10k in .*qa\*_train.txt.*tar.gz"):
        make("babi")
    MADE_TEXTS["babi", "full"](folder)
    (folder / "babi/tasks_1-20_v1-2/en/qa7_counting_train.txt").unlink()
    with pytest.raises(DataError, match="en is not what it should be: it has no qa7_counting_tr"):
        make("babi", questions="1k")
    with pytest.raises(ValueError, match="some of 1 to 20, each once, got "):
        make("babi", kinds=(1, 1))


def test_reviews_by_words_and_by_bytes(folder, monkeypatch):
    MADE_TEXTS["imdb", "full"](folder)
    parts = {"train": "train", "validation": "test", "test": "test"}
    monkeypatch.setattr("seqjax.tasks.texts.imdb.PARTS", parts)
    task = make("imdb", vocabulary=6)
    assert task.tokens == ["<unk>", "good", ".", "!", "a", "bad"]
    texts = sorted(e["text"] for e in prepared("imdb").source("test"))
    assert texts == [b"Bad, b\xc3\xa4d film", b"Good"]
    (batch,) = task.validation(2, 4)
    shown = {tuple(row): (y, there.sum()) for row, y, there in zip(batch.x, batch.y, batch.present)}
    assert shown == {(5, 0, 0, 0): (0, 4), (1, 0, 0, 0): (1, 1)}  # bad , bäd film; good
    task = make("lra_text", held_out="test")
    (batch,) = task.validation(2, 9)
    texts = [bytes(row[there].tolist()) for row, there in zip(batch.x, batch.present)]
    shown = dict(zip(texts, batch.y))
    assert shown == {b"Bad, b\xc3\xa4d": 0, b"Good": 1}
    assert task.decides["length"] == 4096 and "IMDb reviews (full)" in task.description


def test_all_reviews_of_the_subset():
    data = prepared("imdb")
    if data.layout != "subset_5k_5k":
        pytest.skip("all reviews are here")
    assert (data.size("train"), data.size("test")) == (5000, 5000)
    task = make("lra_text")
    assert (len(task.train), len(task.apart)) == (4500, 500)
    assert "subset_5k_5k" in task.description
    assert abs(task.baseline(8)["accuracy"] - 0.5) < 0.05


def test_two_papers_are_one_sequence(folder):
    MADE_TEXTS["aan", "full"](folder)
    task = make("lra_retrieval")
    (batch,) = task.validation(4, 13)
    text = {y: row for row, y in zip(batch.x.tolist(), batch.y.tolist())}
    assert text[0] == [*b"So", 256, *b"Not so", 0, 0, 0, 0]
    assert text[1] == [*b'A "pap', 256, *b"On tre"]
    with pytest.raises(ValueError, match="length >= 3, got 2"):
        task.batches(0, 1, 2)
    assert task.decides["length"] == 8001
