"""The adapter to lm-evaluation-harness: its sums are those of the model's full passes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.nn.base import cast_parameters
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks.texts.char_lm import SPEC, spelling_of
from seqjax.tasks.texts.translation import byte_pairs
from seqjax.tools.cli import main
from seqjax.tools.harness import CHUNK, WRITTEN, Scorer, adapter
from seqjax.tools.writers import Writer, any_writer, first_token, of_tokenizer

BEFORE = ord("\n")


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(layer=(LayerConfig("min_gru"),), features=8, depth=1, compute="float64")
    made = cast_parameters(Model(config, SPEC, rngs=nnx.Rngs(0)), jnp.float64)
    made.head.kernel.set_value(20 * made.head.kernel.get_value())  # far from uniform
    return made


@pytest.fixture
def scorer(model):
    return Scorer(Writer(model, spelling_of(bytes(range(256))), BEFORE), batch=3)


@pytest.fixture(scope="module")
def full(model):
    """Log probabilities [N, 256] after each byte, of one pass over all of them."""
    call = jax.jit(lambda x: model(x)[0])

    def log_p(tokens):
        x = np.zeros((1, 3 * CHUNK), np.int32)  # of one length: one program
        x[0, : len(tokens)] = tokens
        y_hat = np.asarray(call(x))[0, : len(tokens)]
        return y_hat - np.log(np.exp(y_hat).sum(-1, keepdims=True))

    return log_p


def text(seed, n):
    return bytes(np.random.RandomState(seed).randint(97, 123, n).astype(np.uint8)).decode()


# context and continuation: none, across the border of pieces, of many pieces, spaces between
PAIRS = [("", text(1, 5)), (text(2, 3), " of it"), (text(3, CHUNK - 2), text(4, 7)), ("a  ", "b"),
         (text(5, 2 * CHUNK), text(6, CHUNK - 1)), ("x", ""), ("é", "è")]  # fmt: skip


def test_a_continuation_has_the_sum_of_its_log_p(scorer, full):
    found = scorer.loglikelihood(PAIRS)
    assert len(found) == len(PAIRS)
    for (context, continuation), (log_p, greedy) in zip(PAIRS, found):
        first = list(context.encode()) or [BEFORE]
        tokens = [*first, *continuation.encode()]
        rows = full(tokens[:-1] or tokens)[len(first) - 1 :][: len(continuation.encode())]
        y = np.array(tokens[len(first) :], int)
        np.testing.assert_allclose(log_p, rows[np.arange(len(y)), y].sum(), rtol=1e-9, atol=1e-12)
        assert greedy == bool((rows.argmax(-1) == y).all())


def test_a_text_has_the_sum_of_all_its_log_p(scorer, full):
    texts = [text(7, 2 * CHUNK + 9), "", "a", text(8, 40)]
    found = scorer.loglikelihood_rolling([(one,) for one in texts])
    for one, log_p in zip(texts, found):
        tokens = [BEFORE, *one.encode()]
        rows, y = full(tokens)[:-1], np.array(tokens[1:], int)
        np.testing.assert_allclose(log_p, rows[np.arange(len(y)), y].sum(), rtol=1e-9, atol=1e-12)


def written(full, context, count):
    """The likeliest bytes, by a full pass for each."""
    tokens = list(context.encode()) or [BEFORE]
    first = len(tokens)
    for _ in range(count):
        tokens.append(int(full(tokens)[-1].argmax()))
    return tokens[first:]


def test_what_is_written_is_the_argmax_of_full_passes(scorer, full):
    count = WRITTEN + 5
    for context in ("", text(9, CHUNK + 3)):
        expected = written(full, context, count)
        (found,) = scorer.generate_until([(context, {"max_gen_toks": count})])
        assert found == bytes(expected).decode(errors="replace")
        tokens, other = list(context.encode()) or [BEFORE], [*expected[:5], 255 - expected[5]]
        one, two = scorer.scored([(tokens, expected[:6]), (tokens, other)])
        assert one.greedy and not two.greedy
    stop = found[7:9]
    (cut,) = scorer.generate_until([(context, {"max_gen_toks": count, "until": ["\0none", stop]})])
    assert cut == found[: found.index(stop)] and stop not in cut
    drawn = [scorer.generate_until([("a", dict(max_gen_toks=9, do_sample=True, temperature=t))])
             for t in (1.0, 1.0, 1e-4)]  # fmt: skip
    assert drawn[0] == drawn[1]
    assert drawn[2] == scorer.generate_until([("a", {"max_gen_toks": 9})])


def test_a_token_of_both_texts_is_of_the_second(model):
    spelling = byte_pairs(["the cat the cat the cat"] * 3, 280)
    scorer = Scorer(Writer(model, spelling, 0))
    seen = []
    scorer.scored = lambda rows: seen.extend(rows) or [type("S", (), dict(log_p=0, greedy=True))()]
    scorer.loglikelihood([("the ", "cat")])
    ((first, second),) = seen
    assert [spelling.names[n] for n in first] == [" the"]
    assert [spelling.names[n] for n in second] == [" cat"]


def test_attention_reads_what_it_can_see(model):
    config = ModelConfig(layer=(LayerConfig("min_gru"),), features=8, depth=1)
    near = Model(config, SPEC, rngs=nnx.Rngs(0))
    near.context = 6
    scorer = Scorer(Writer(near, spelling_of(bytes(range(256))), BEFORE), batch=2)
    long, short = scorer.loglikelihood([("0123456789abcd", "xy"), ("9abcd", "xy")])
    np.testing.assert_allclose(long[0], short[0], rtol=1e-5)  # six before the last target
    (whole,) = scorer.loglikelihood_rolling([("0123456789",)])
    parts = scorer.loglikelihood([("", "012345"), ("5", "6789")])
    np.testing.assert_allclose(whole, parts[0][0] + parts[1][0], rtol=1e-5)
    with pytest.raises(ValueError, match="a continuation of 7 tokens, and attention looks back"):
        scorer.loglikelihood([("a", "0123456")])


def test_tokenizers_and_first_tokens_of_checkpoints():
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<unk>": 0, "the": 1, "cat": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    spelling = of_tokenizer(made.to_str().encode())
    assert spelling.encode(b"the cat dog") == [1, 2, 0] and spelling.decode([2, 1]) == b"cat the"
    assert first_token('{"bos_token_id": null, "eos_token_id": [7, 8]}') == 7
    assert first_token('{"bos_token_id": 1, "eos_token_id": 2}') == 1
    with pytest.raises(ValueError, match="no bos_token_id and no eos_token_id"):
        first_token("{}")


def test_models_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="mqar: only a language model of text writes"):
        any_writer("mqar")
    with pytest.raises(ValueError, match="--context is for imported models"):
        any_writer("python", context=8)


def test_without_the_extra_one_line_names_it(scorer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.api.model", None)
    with pytest.raises(ValueError, match=r"pip install 'seqjax\[lm_eval\]'"):
        adapter(scorer)


TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{context}}}}"
doc_to_target: "{{{{target}}}}"
metric_list:
  - metric: {metric}
"""


@pytest.mark.filterwarnings("ignore")
def test_the_harness_scores_a_local_task(tmp_path, monkeypatch, capsys):
    """Its accuracy and its perplexities, of the model that comes with the package."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    rows = [{"context": "import num", "target": "py"}, {"context": "def f(self", "target": "):"},
            {"context": "for i in ra", "target": "nge"}]  # fmt: skip
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    for name, kind, metric in (("ends", "loglikelihood", "perplexity"),
                               ("whole", "loglikelihood_rolling", "bits_per_byte")):  # fmt: skip
        text = TASK.format(name=name, kind=kind, metric=metric, data=data)
        if kind == "loglikelihood_rolling":
            text = text.replace('doc_to_text: "{{context}}"', 'doc_to_text: ""')
        (tmp_path / f"{name}.yaml").write_text(text)
    words = ["lm_eval", "python", "--tasks", "ends", "whole", "--include", str(tmp_path), "--json"]
    assert main(words) == 0
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])
    scorer = Scorer(any_writer("python"))
    nats = [one[0] for one in scorer.loglikelihood([(r["context"], r["target"]) for r in rows])]
    np.testing.assert_allclose(found["ends"]["perplexity,none"], np.exp(-np.mean(nats)), rtol=1e-4)
    total = sum(scorer.loglikelihood_rolling([(r["target"],) for r in rows]))
    size = sum(len(row["target"]) for row in rows)
    np.testing.assert_allclose(found["whole"]["bits_per_byte,none"], -total / size / np.log(2),
                               rtol=1e-4)  # fmt: skip
