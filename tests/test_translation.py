"""Translation: pairs of sentences, what is written of them, and its score."""

from types import SimpleNamespace

import numpy as np
import pytest
from made_texts import CAPTIONS, MADE_TEXTS, lines_of

from seqjax.data import DATASETS, DataError
from seqjax.data.sets.translation import read_lines
from seqjax.tasks import make
from seqjax.tasks.texts.translation import BEGIN, END, byte_pairs
from seqjax.tools import runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQJAX_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    return tmp_path


def test_multi30k_is_what_was_published():
    paths = DATASETS["multi30k"].find()[1]
    counts = {"train": 29000, "validation": 1014, "test": 1000, "test_2017": 1000}
    for split, count in counts.items():
        assert {len(read_lines(paths[f"{split}.{one}"][0])) for one in ("en", "de", "fr")} == {
            count
        }


@pytest.mark.parametrize("units", ["pairs", "bytes"])
def test_a_sentence_is_read_whole_and_written(folder, units):
    MADE_TEXTS["multi30k", "full"](folder)
    task = make("translation", units=units, source="fr", target="de", vocabulary=300,
                held_out="test")  # fmt: skip
    (batch,) = task.validation(3, 40)
    sources, references = task.texts()
    assert sorted(source.decode() for source in sources) == sorted(CAPTIONS["fr"])
    for n, (source, reference) in enumerate(zip(sources, references)):
        read = batch.x.source[n][batch.x.present[n]].tolist()
        assert task.spelling.decode(read) == source and read[-1] == END
        assert task.prompt(source).tolist() == read
        written = batch.y[n][batch.present[n]].tolist()
        assert task.spelling.decode(written).decode() == reference and written[-1] == END
        target = batch.x.target[n][batch.present[n]].tolist()
        assert target == [BEGIN, *written[:-1]]
        assert CAPTIONS["fr"].index(source.decode()) == CAPTIONS["de"].index(reference)
    assert task.spec.inputs.source.vocabulary == len(task.tokens) >= batch.y.max()
    (short,) = task.validation(3, 4)
    np.testing.assert_array_equal(short.x.source, batch.x.source[:, :4])
    assert short.present.all() and not (short.y == END).any()


def test_byte_pairs_spell_every_text_and_mark_none_of_it():
    spelling = byte_pairs(CAPTIONS["en"] * 3, 310)
    assert spelling.names == byte_pairs(CAPTIONS["en"] * 3, 310).names
    for text in ("A man </s> <s>  sleeps", "naïve 😀 \n", ""):
        tokens = spelling.encode(text.encode())
        assert spelling.decode(tokens).decode() == text and not {END, BEGIN} & set(tokens)
    assert len(spelling.encode(b"A man sleeps.")) < len("A man sleeps.")
    assert spelling.decode([*spelling.encode(b"Go!"), END, 77, 10**6]) == b"Go!"


def test_the_score_is_of_all_that_is_written(folder, monkeypatch):
    """One that knows the translations scores 100, one that writes a sentence short less."""
    pytest.importorskip("sacrebleu")
    MADE_TEXTS["multi30k", "full"](folder)
    task = make("translation", held_out="test", vocabulary=300)
    known = dict(zip(*task.texts()))

    def writes(short):
        def generate(model, prompts, length, *, temperature):
            assert temperature == 0 and len(prompts) == 2
            found = [known[task.spelling.decode(prompt.tolist())] for prompt in prompts]
            found = ["Zwei Hunde & eine Katze" if short and "Katze" in t else t for t in found]
            rows = [task.spelling.encode(text.encode()) for text in found]
            return np.array([[*row, END, *[9] * (length - len(row) - 1)] for row in rows])

        def beam_search(model, prompts, length, *, width, end, length_penalty):
            assert (width, end, length_penalty) == (4, END, 0.5)
            rows = generate(model, prompts, length, temperature=0)
            return SimpleNamespace(tokens=np.stack([rows, np.zeros_like(rows)], axis=1))

        return SimpleNamespace(generate=generate, beam_search=beam_search)

    scores = []
    for wrong in (False, True):
        for module in ("generate", "beam"):
            monkeypatch.setitem(runs.sys.modules, f"seqjax.train.{module}", writes(wrong))
        scores.append(runs.translated(None, task, 2))
        assert runs.translated(None, task, 2, 4, 0.5) == scores[-1]
    assert scores[0] == pytest.approx(100) and 20 < scores[1] < 95


def test_a_source_is_read_backwards(folder):
    """But for its end; what is written of it is as it was, and so is a prompt."""
    MADE_TEXTS["multi30k", "full"](folder)
    plain, turned = (
        make("translation", units="bytes", held_out="test", reversed_source=on)
        for on in (False, True)
    )
    (one,), (other,) = plain.validation(3, 90), turned.validation(3, 90)
    np.testing.assert_array_equal(one.y, other.y)
    for source, there, back in zip(one.x.source, one.x.present, other.x.source):
        n = int(there.sum())
        assert back[:n].tolist() == [*source[: n - 1][::-1], END] and source[n - 1] == END
    text = turned.texts()[0][0]
    assert turned.prompt(text).tolist() == [*plain.prompt(text)[:-1][::-1], END]
    (short,) = turned.validation(3, 4)
    for row, back in zip(one.x.source, short.x.source):
        letters = [token for token in row[:4].tolist() if token != END]
        assert back.tolist() == [*letters[::-1], *[END] * (4 - len(letters))]


def test_lines_that_are_no_translations(folder):
    MADE_TEXTS["wmt14", "full"](folder)
    (folder / "wmt14/train.en").write_bytes(lines_of("en", 2))
    with pytest.raises(DataError, match="wmt14/train.de are no .*: 6 in en, 3 in de"):
        make("translation", data="wmt14")


def test_talks_are_shared_out_as_published(folder):
    MADE_TEXTS["iwslt14", "full"](folder)
    task = make("translation", data="iwslt14", units="bytes", held_out="test")
    sources, references = task.texts()
    assert set(zip(sources, references)) == {
        (one.encode(), other) for one, other in zip(CAPTIONS["en"], CAPTIONS["de"])
    }
    for options in (dict(target="fr"), dict(source="de")):
        with pytest.raises(ValueError, match="must be two of en, de, got"):
            make("translation", data="iwslt14", **options)
