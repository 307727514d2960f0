"""Hashed n-grams against Python's own integers, and the layer that adds them to the streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.core.flow import Carry, Flow
from seqjax.hf.qwen4 import multipliers, primes
from seqjax.nn.convolution import ShortConv
from seqjax.nn.ngrams import HashedNGrams, digits, product, remainder, token_of

# Qwen3.8-Flash-Next: what transformers 5.24 derives from its config
VOCABULARY, END = 248_320, 248_044
A = (23703573157769, 20109073645365, 8052911324071)
P = [
    20000003, 20000023, 20000033, 20000047, 20000059, 20000063, 20000069, 20000077, 20000081,
    20000093, 20000107, 20000147, 20000153, 20000159, 20000161, 20000171,
]  # fmt: skip


def naive(tokens, resets, mask, *, multipliers, divisors, end):
    """Rows [T][heads], step by step, in integers of any size; None for a step left out."""
    order = len(multipliers) - 1
    past, found = [end] * order, []
    for token, fresh, kept in zip(tokens, resets, mask):
        if not kept:
            found.append(None)
            continue
        past = [end] * order if fresh else past
        words = [token]
        for word in past:
            words.append(end if end in words[1:] else word)
        row, offset, mixed = [], 0, words[0] * multipliers[0]
        for n in range(order):
            mixed ^= words[n + 1] * multipliers[n + 1]
            for p in divisors[n * len(divisors) // order : (n + 1) * len(divisors) // order]:
                row.append(offset + mixed % 2**64 % p)
                offset += p
        found.append(row)
        past = [token, *past][:order]
    return found


def test_constants_of_the_release():
    assert multipliers(VOCABULARY, 3, 1234) == A and primes(20_000_000, 16) == P
    assert primes(1, 5) == [2, 3, 5, 7, 11]


def test_words_of_64_bits_are_exact():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 2**32, size=40, dtype=np.uint32)
    for a in (0, 1, 2**63 - 1, 2**64 - 1, *A, int(draw.integers(0, 2**63))):
        high, low = product(jnp.asarray(x), a)
        want = [int(v) * a % 2**64 for v in x]
        assert [(int(h) << 32) | int(w) for h, w in zip(high, low)] == want
        for p in ([3, 7], P[-2:], [2**31 - 1, 5]):
            assert remainder(high, low, np.array(p)).tolist() == [[w % d for d in p] for w in want]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_digits_of_tokens_are_exact_in_every_dtype(dtype):
    tokens = np.array([[0, 255, 256], [VOCABULARY - 1, 2**24 - 1, 65_535]], np.int32)
    there = digits(jnp.asarray(tokens), jnp.dtype(dtype))
    np.testing.assert_array_equal(digits(jnp.asarray(tokens, jnp.int64), jnp.float32), there)
    assert there.shape == (2, 3, 3) and there.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(token_of(there), tokens)


@pytest.mark.share(1)
@pytest.mark.parametrize(
    "options",
    [dict(multipliers=A, divisors=P, end=END), dict(multipliers=(3, 1, 4, 5), divisors=[5, 7, 11],
     end=2), dict(multipliers=(7, 9), divisors=[5, 7], end=1)],
    ids=["release", "four", "pairs"],
)  # fmt: skip
def test_rows_are_those_of_whole_numbers(options):
    layer = nnx.eval_shape(lambda: HashedNGrams(16 * 3, **options, rngs=nnx.Rngs(0)))
    draw = np.random.default_rng(1)
    count = VOCABULARY if options["end"] == END else 6
    tokens = draw.integers(0, count, size=60)
    tokens[draw.random(60) < 0.2] = options["end"]
    resets, mask = draw.random(60) < 0.1, draw.random(60) < 0.8
    want = naive(tokens.tolist(), resets, mask, **options)
    kept = [t for t in range(60) if mask[t]]
    rows, h = [], layer.initial()

    @jax.jit
    def run(tokens, h, resets, mask):
        words, h = layer.words(tokens, Carry(h, layer.initial()), Flow(resets, mask))
        return layer.rows(words), h

    for cut in (slice(0, 30), slice(30, 60)):
        some, h = run(np.float32(tokens[cut]), h, resets[cut], mask[cut])
        rows += some.tolist()
    assert [rows[t] for t in kept] == [want[t] for t in kept]


def test_a_dilated_convolution_is_the_sum_over_its_taps():
    conv = ShortConv(3, 4, bias=True, dilation=3, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    y, window = conv(jnp.asarray(x), conv.initial())
    weight = np.asarray(conv.weight[...])
    for t in range(40):
        taps = [weight[j] * x[t - 3 * (3 - j)] for j in range(4) if t >= 3 * (3 - j)]
        np.testing.assert_allclose(y[t], sum(taps), atol=1e-6)
    np.testing.assert_array_equal(window, x[-9:])
    one, two = (ShortConv(3, 4, dilation=d, rngs=nnx.Rngs(0)) for d in (1, 2))
    assert [c.span for c in (one, two)] == [4, 7]
    assert jax.tree.map(jnp.shape, (one.initial(), two.initial())) == ((3, 3), (6, 3))
