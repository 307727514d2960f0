"""Beam search against all that could be written, and speculative decoding against the model.

The golden of beam search is in `test_goldens`.
"""

from dataclasses import replace
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.answers import Pair, Paired
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Features, Spec, Tokens, Values
from seqjax.train.beam import beam_search
from seqjax.train.generate import generate
from seqjax.train.speculate import speculate

V, T, END = 3, 4, 1
CONFIG = ModelConfig(layer=(LayerConfig("gru"), LayerConfig("min_gru")), features=8, depth=3)
TEXT = Spec(Tokens(V), Classes(V, per_step=True))
PAIRS = Spec(Pair(Tokens(V), Tokens(V), V - 1), Classes(V, per_step=True))
PROMPTS = [[0, 1, 2, 1], [1]]


def built(spec, seed=0, sharp=15.0, **changes):
    model = Model(replace(CONFIG, **changes), spec, rngs=nnx.Rngs(seed))
    model.head.kernel.set_value(sharp * model.head.kernel.get_value())
    return model


TEXTS, TRANSLATES = built(TEXT, seed=3), built(PAIRS, bridge="both", bridge_heads=2)
DECODES = built(PAIRS, layer=(LayerConfig("bahdanau"),), encoder=(LayerConfig("gru"),))
every_model = pytest.mark.parametrize(
    "model", [TEXTS, TRANSLATES, DECODES], ids=["text", "pairs", "looks"]
)


def log_p(model, prompt, written):
    """log p of each token of sequences [N, T] after one prompt, by one pass over all of them."""
    written = jnp.asarray(written, jnp.int32)
    before = jnp.broadcast_to(jnp.asarray(prompt, jnp.int32), (len(written), len(prompt)))
    if isinstance(model.inputs, Pair):
        first = jnp.full((len(written), 1), model.inputs.begin, jnp.int32)
        x, at = Paired(before, jnp.concatenate([first, written[:, :-1]], axis=1)), 0
    else:
        x, at = jnp.concatenate([before, written[:, :-1]], axis=1), len(prompt) - 1
    y = jax.nn.log_softmax(model(x)[0][:, at:], axis=-1)
    return np.asarray(jnp.take_along_axis(y, written[:, :, None], axis=-1)[:, :, 0], np.float64)


def exact(model, prompt, penalty, end=END):
    """All that may be written, the best first: (score, tokens)."""
    whole = np.array(list(product(range(V), repeat=T)))
    found = {}
    for tokens, each in zip(whole.tolist(), log_p(model, prompt, whole)):
        n = tokens.index(end) + 1 if end in tokens else T
        found[tuple(tokens[:n])] = each[:n].sum() / n**penalty
    return sorted(((score, tokens) for tokens, score in found.items()), reverse=True)


@pytest.mark.share(1)
@every_model
def test_a_beam_of_all_beginnings_is_exact(model):
    for penalty in (0.0, 1.0):
        found = beam_search(model, PROMPTS, T, width=V**T, end=END, length_penalty=penalty)
        for prompt, tokens, scores in zip(PROMPTS, found.tokens, found.scores):
            expected = exact(model, prompt, penalty)
            count = len(expected)
            np.testing.assert_allclose(scores[:count], [s for s, _ in expected], atol=1e-4)
            assert np.all(scores[count:] == -np.inf) and np.all(tokens[count:] == -1)
            for row, (_, one) in zip(tokens[:5], expected):
                assert row.tolist() == [*one, *[-1] * (T - len(one))]


@pytest.mark.thorough
@every_model
def test_a_beam_of_one_is_greedy(model):
    found = beam_search(model, PROMPTS, 9, width=1)
    greedy = generate(model, PROMPTS, 9, temperature=0)
    np.testing.assert_array_equal(found.tokens[:, 0], greedy)
    for prompt, row, score in zip(PROMPTS, greedy, found.scores[:, 0]):
        np.testing.assert_allclose(score, log_p(model, prompt, row[None]).sum(), atol=1e-4)


@pytest.mark.thorough
def test_a_beam_is_the_plain_algorithm():
    """Of width 2, in Python: extensions by log p, the ended ones aside."""
    for prompt in PROMPTS:
        beams, done = [((), 0.0)], []
        for n in range(1, T + 1):
            longer = [(tokens + (t,), 0.0) for tokens, _ in beams for t in range(V)]
            rows = np.array([tokens for tokens, _ in longer])
            each = log_p(TEXTS, prompt, np.pad(rows, ((0, 0), (0, T - n))))[:, :n].sum(axis=1)
            order = np.argsort(-each)[:2]
            kept = [(tuple(rows[i].tolist()), float(each[i])) for i in order]
            done += [(s / n**0.7, tokens) for tokens, s in kept if tokens[-1] == END or n == T]
            beams = [one for one in kept if one[0][-1] != END]
            if not beams:
                break
        assert len({len(tokens) for _, tokens in done}) > 1
        found = beam_search(TEXTS, [prompt], T, width=2, end=END, length_penalty=0.7)
        for row, score, (expected, tokens) in zip(
            found.tokens[0], found.scores[0], sorted(done, reverse=True)
        ):
            assert row[row >= 0].tolist() == list(tokens)
            np.testing.assert_allclose(score, expected, atol=1e-4)


@pytest.mark.parametrize("options, message", [
    (dict(width=0), "needs width >= 1"),
    (dict(width=2, length_penalty=-1), "length_penalty >= 0"),
    (dict(width=2, end=V), "the end must be a token of 0 .. 2, got 3"),
])  # fmt: skip
def test_searches_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        beam_search(TEXTS, PROMPTS, T, **options)
    series = Model(CONFIG, Spec(Features(1), Values(1, per_step=True)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="only a model of tokens"):
        beam_search(series, [[[0.0]]], 2, width=2)


# --- speculative decoding


DRAFTS = {  # a good one, another one, and one that knows nothing
    "itself": TEXTS,
    "other": built(TEXT, seed=5, layer=(LayerConfig("gru"),), depth=1),
    "blind": built(TEXT, seed=5, sharp=0.0),
}


@pytest.mark.share(1)
@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("k", [1, 4])
def test_greedy_speculation_is_the_model_alone(draft, k):
    found = speculate(TEXTS, DRAFTS[draft], PROMPTS, 13, k=k, temperature=0)
    expected = generate(TEXTS, PROMPTS, 13, temperature=0)
    np.testing.assert_array_equal(found.tokens, expected)
    assert len(set(expected.ravel())) > 1
    assert found.accepted == 1 if draft == "itself" else 0 <= found.accepted < 1


@pytest.mark.thorough
def test_a_pair_is_speculated_too():
    draft = built(PAIRS, seed=3, layer=(LayerConfig("gru"),), depth=1, bridge="state")
    found = speculate(DECODES, draft, PROMPTS, 9, k=3, temperature=0)
    np.testing.assert_array_equal(found.tokens, generate(DECODES, PROMPTS, 9, temperature=0))


@pytest.mark.thorough
@pytest.mark.parametrize("draft", ["other", "blind"])
def test_what_is_speculated_has_the_distribution_of_the_model(draft):
    """Chi-squared of 4000 draws of all 27 texts, at a temperature."""
    model, n, prompt = built(TEXT, sharp=6.0), 4000, PROMPTS[0]
    found = speculate(
        model, DRAFTS[draft], [prompt] * n, 3, k=2, key=jax.random.key(1), temperature=1.3
    )
    whole = np.array(list(product(range(V), repeat=3)))
    model.head.kernel.set_value(model.head.kernel.get_value() / 1.3)  # the same temperature
    expected = n * np.exp(log_p(model, prompt, whole).sum(axis=1))
    count = np.bincount(found.tokens @ np.array([V**2, V, 1]), minlength=V**3)
    assert expected.sum() == pytest.approx(n, rel=1e-3) and 0 < found.accepted < 1
    likely = expected >= 5  # the others as one
    pairs = [*zip(count[likely], expected[likely])]
    if not likely.all():
        pairs.append((count[~likely].sum(), expected[~likely].sum()))
    chi = sum((c - e) ** 2 / e for c, e in pairs)
    freedom = len(pairs) - 1
    assert chi < freedom + 4 * (2 * freedom) ** 0.5, (chi, freedom)
    assert chi < len(pairs) * 4 and freedom > 10


@pytest.mark.parametrize("draft, options, message", [
    (built(PAIRS, bridge="state"), {}, "the draft must read what the model reads, Tokens"),
    (TEXTS, dict(k=0), "needs k >= 1"),
    (TEXTS, dict(temperature=1.0), "sampling needs a key"),
])  # fmt: skip
def test_drafts_that_cannot_be(draft, options, message):
    with pytest.raises(ValueError, match=message):
        speculate(TEXTS, draft, PROMPTS, 3, **{"temperature": 0, **options})
