"""Language models on the texts of papers: what is counted, in which orders, and what it scores."""

from itertools import islice

import jax
import numpy as np
import pytest
from made_files import zipped
from made_texts import MADE_TEXTS

from seqjax.answers.metrics import bits
from seqjax.data import DATASETS, DataError
from seqjax.data.sets.texts import articles, shared_out, stories
from seqjax.tasks import make
from seqjax.tasks.texts.char_lm import by_character, spelling_of
from seqjax.tasks.texts.language import language_model
from seqjax.tasks.texts.text import joined
from seqjax.tasks.texts.word_lm import words


def documents(name, split):
    layout, paths = DATASETS[name].find()
    return [
        example.get("text", example.get("sequence")) for example in layout.examples(paths)[split]
    ]


PUBLISHED = {  # documents and bytes
    ("shakespeare", "train"): (1, 1003854),
    ("wikitext2", "train"): (600, 10797148),
    ("wikitext2", "validation"): (60, 1121681),
    ("wikitext2", "test"): (60, 1256449),
    ("ecoli", "train"): (1, 4639675 * 90 // 100),
}


@pytest.mark.parametrize("name, split", PUBLISHED)
def test_texts_have_the_published_sizes(name, split):
    found = documents(name, split)
    assert (len(found), sum(map(len, found))) == PUBLISHED[name, split]


def test_stories_are_whole():
    train, held_out = (documents("tinystories", part) for part in ("train", "validation"))
    assert len(train) + len(held_out) == 2316
    assert not any(b"endoftext" in story or story[-2:] != b"\n\n" for story in train + held_out)


COUNTED = {"ptb": (10_000, 929_589, 73_760), "wikitext2": (33_278, 2_088_628, 217_646)}


@pytest.mark.parametrize("name", COUNTED)
def test_words_are_counted_as_papers_count_them(name):
    """In wikitext2 of the text alone: a task of it takes some seconds."""
    train, validation, test = (
        [word for text in documents(name, part) for word in words(text)]
        for part in ("train", "validation", "test")
    )
    known = set(train)
    assert (len(known), len(train), len(validation)) == COUNTED[name]
    assert len(test) == {"ptb": 82_430, "wikitext2": 245_569}[name]
    assert not set(validation) - known and not set(test) - known


def test_characters_of_penn_treebank_are_those_of_mikolov():
    task = make("char_lm", data="ptb")
    assert len(task.text.train) == 5_017_482 and len(task.text.validation) == 393_042
    assert task.spec.inputs.vocabulary == 50
    beginning = task.spelling.decode(task.text.validation[:60].tolist())
    assert beginning == b"consumers_may_want_to_move_their_telephones_a_little_closer_to_t"[:60]
    assert task.spelling.encode(beginning) == task.text.validation[:60].tolist()
    with pytest.raises(ValueError, match="got 'Q'"):
        task.spelling.encode(b"Q")


# -- what is made of a text --


@pytest.fixture
def penn(tmp_path, monkeypatch):
    """A small Penn Treebank, and its lines."""
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    MADE_TEXTS["ptb", "plain"](tmp_path)
    lines = {
        part: (tmp_path / f"ptb/ptb.{part[:5]}.txt").read_text().splitlines()
        for part in ("train", "validation", "test")
    }
    return {part: [line.split() for line in found] for part, found in lines.items()}


def test_perplexity_is_of_each_word_and_each_end_of_a_line(penn):
    """By a loop over the words, from the answers of all batches."""
    task = make("word_lm", held_out="test")
    expected = [word for line in penn["test"] for word in (*line, "<eos>")]
    seen = {word for line in penn["train"] for word in (*line, "<eos>")}
    assert task.spec.inputs.vocabulary == len(seen) == len(set(task.spelling.names))
    rng, means, weights, nats, met = np.random.RandomState(0), [], [], 0.0, []
    for batch in task.validation(3, 2):
        y_hat = rng.randn(*batch.y.shape, len(seen))
        log_p = y_hat - np.log(np.exp(y_hat).sum(-1, keepdims=True))
        for row, step in np.argwhere(batch.mask > 0):
            nats -= log_p[row, step, batch.y[row, step]]
            met.append((row, batch.y[row, step], batch.x[row, step]))
        means.append(float(task.score(y_hat, batch)["loss"]))
        weights.append(batch.mask.sum())
    order = sorted(range(len(met)), key=lambda n: met[n][0])  # streams, one below the other
    targets = [task.spelling.names[met[n][1]] for n in order]
    assert targets == [word if word in seen else "<unk>" for word in expected]
    inputs = [task.spelling.names[met[n][2]] for n in order]
    assert inputs == ["<eos>", *targets[:-1]]
    assert "<unk>" in targets and "<unk>" not in expected
    found = task.summary({"loss": np.average(means, weights=weights)})["perplexity"]
    np.testing.assert_allclose(found, np.exp(nats / len(expected)), 1e-6)
    counts = np.array([1.0] * len(seen))
    for line in penn["train"]:
        for word in (*line, "<eos>"):
            counts[task.spelling.names.index(word)] += 1
    p = dict(zip(task.spelling.names, counts / counts.sum()))
    uniform = np.exp(-np.mean([np.log(p[word]) for word in targets]))
    np.testing.assert_allclose(task.baseline(2)["perplexity"], uniform, 1e-6)


def test_what_is_held_out_has_only_characters_that_are_trained_on():
    text, symbols = by_character(joined([b"cab", b"ad"], [b"dab"]))
    assert symbols == b"abcd" and text.train.tolist() == [2, 0, 1, 0, 3]
    assert text.validation.tolist() == [3, 0, 1] and text.train_starts.tolist() == [1, 0, 0, 1, 0]
    with pytest.raises(ValueError, match="characters b'xy' are held out and not trained on"):
        by_character(joined([b"cab"], [b"xay"]))


def packing(documents, **options):
    return language_model(
        "packing", joined(documents, documents[:1]), 256, unit="bits", order="packed", before=0,
        spelling=spelling_of(bytes(range(256))), **options,
    )  # fmt: skip


def test_packed_documents_do_not_see_each_other():
    sizes = [3, 7, 1, 12, 6]
    whole = [bytes(20 * i + 1 + np.arange(n, dtype=np.uint8)) for i, n in enumerate(sizes)]
    task, first = packing(whole), {one[0] for one in whole}
    batches = list(islice(task.batches(0, 2, 6), 2 * sum(sizes) // 12 + 1))
    x, y, resets = (
        np.concatenate([np.asarray(part).reshape(-1) for part in parts])
        for parts in zip(*((b.x, b.y, b.resets) for b in batches))
    )
    begins = np.isin(y, list(first))  # each after the separator, 0, and all else after its past
    np.testing.assert_array_equal(x, np.where(begins, 0, y - 1))
    assert sorted(y[: sum(sizes)]) == sorted(b"".join(whole))  # an epoch, each token once
    np.testing.assert_array_equal(resets, begins | (np.arange(len(x)) % 6 == 0))
    assert task.baseline(6)["bits"] == bits(task.baseline(6)["loss"])
    (held_out,) = task.validation(1, 3)
    assert held_out.x.tolist() == [[0, 1, 2]] and held_out.y.tolist() == [[1, 2, 3]]
    assert held_out.resets.tolist() == [[True, False, False]]


def test_what_does_not_count_has_no_weight():
    task = packing([b"abcab" * 9], uncounted=99)
    batches = [next(task.batches(0, 2, 6)), next(task.validation(2, 6)),
               task.sample(jax.random.key(0), 3, 6)]  # fmt: skip
    for batch in batches:
        counted = np.asarray(batch.mask) > 0
        assert (batch.y != 99)[counted].all() and (np.asarray(batch.y) == 99)[~counted].all()
    assert task.baseline(6)["accuracy"] == 1 / 2  # a and b of a b . a b


def test_lower_case_and_unknown_bases(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    MADE_TEXTS["hg38", "intervals"](tmp_path)
    task = make("dna", data="hg38", held_out="test")
    assert task.spelling.decode(task.text.train.tolist()) == b"ACGTNACGTACGTNNN"
    assert task.spelling.decode(task.text.validation.tolist()) == b"GATTACA"
    assert task.text.train_starts.nonzero()[0].tolist() == [0, 8]


def test_articles_begin_at_their_titles():
    first = b" \n = A = \n \n Words . \n \n = = Part = = \n \n = not a title \n"
    text = first + b" \n = B = \n \n More . \n"
    assert articles(text) == [first, text[len(first) :]]
    assert articles(b" no title \n") == [b" no title \n"]
    assert b"".join(articles(b" Before . \n" + text)) == b" Before . \n" + text
    assert stories(b" One.\nTwo. \n<|endoftext|>\n<|endoftext|>\nThree") == [b"One.\nTwo.\n\n"]


@pytest.mark.parametrize("packed", [False, True])
def test_text_for_compression_is_cut_in_twenty_parts(tmp_path, packed):
    """90, 5 and 5 million bytes in the original."""
    text, path = bytes(range(100)), tmp_path / ("text8.zip" if packed else "text8")
    path.write_bytes(zipped({"text8": text}) if packed else text)
    cut = shared_out((90, 5), 100, {"text": [path]})
    parts = {part: b"".join(e["text"] for e in found) for part, found in cut.items()}
    assert parts == {"train": text[:90], "validation": text[90:95], "test": text[95:]}
    with pytest.raises(DataError, match="text8.* is truncated, .*100 of 200 bytes"):
        shared_out((90, 5), 200, {"text": [path]})


@pytest.mark.parametrize("options, message", [
    (dict(data="ptb", held_out=5), "held_out must be validation or test, got 5"),
    (dict(held_out="test"), "held_out must be a number of bytes without data, got 'test'"),
    (dict(data="ptb", path="x"), "path, glob and seed are of own files"),
    (dict(data="ptbb"), "data must be 'ptb' or"),
])  # fmt: skip
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        make("char_lm", **options)
