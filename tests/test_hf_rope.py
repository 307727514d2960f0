"""Stretched rotary positions: the rates that transformers 5.24.0 computes (ROPE_INIT_FUNCTIONS)."""

import numpy as np
import pytest

from seqjax.hf import describe

LFM = dict(  # heads of 12 channels
    model_type="lfm2", vocab_size=11, hidden_size=24, num_attention_heads=2, num_key_value_heads=1,
    num_hidden_layers=1, intermediate_size=8, layer_types=["full_attention"],
    max_position_embeddings=64,
)  # fmt: skip
LONG = dict(
    rope_type="longrope", original_max_position_embeddings=16,
    long_factor=[1.0, 1.5, 2, 3, 4, 5], short_factor=[1, 1, 1.1, 1.2, 1.3, 1.4],
)  # fmt: skip
LLAMA = dict(
    rope_type="llama3", factor=8.0, original_max_position_embeddings=32, low_freq_factor=0.4,
    high_freq_factor=2.0,
)  # fmt: skip
YARN = dict(rope_type="yarn", factor=4.0, beta_fast=4, beta_slow=1)
CASES = {
    "linear": (
        dict(rope_type="linear", factor=2.5),
        [0.4, 0.2084003, 0.1085767, 0.05656854, 0.02947225, 0.01535507],
        1.0,
    ),
    "proportional": (
        dict(rope_type="proportional", factor=2.0, partial_rotary_factor=0.6),
        [0.5, 0.2605004, 0.1357209, 0, 0, 0],
        1.0,
    ),
    "yarn": (
        dict(YARN, original_max_position_embeddings=32, beta_fast=2.0, beta_slow=0.5),
        [1.0, 0.5210007, 0.2035813, 0.07071068, 0.01842016, 0.009596917],
        1.138629436111989,
    ),
    "yarn without rounding, with mscale": (
        dict(
            rope_type="yarn", factor=8.0, original_max_position_embeddings=128, truncate=False,
            mscale=0.7, mscale_all_dim=1.3, rope_theta=1000.0,
        ),
        [1.0, 0.2105391, 0.03315661, 0.003952847, 0.00125, 0.0003952848],
        0.9017839869787123,
    ),
    "yarn of a part": (
        dict(
            YARN, original_max_position_embeddings=16, attention_factor=1.7,
            partial_rotary_factor=0.67,
        ),
        [1.0, 0.09401508, 0.03535534, 0.01329574],
        1.7,
    ),
    "longrope": (
        LONG,
        [1.0, 0.3473338, 0.1357209, 0.04714045, 0.01842016, 0.007677533],
        1.224744871391589,
    ),
    "llama3": (LLAMA, [1.0, 0.5210007, 0.1797685, 0.04244598, 0.009210078, 0.004798458], 1.0),
}  # fmt: skip


def attention(given, context=None, **fields):
    config = {**LFM, "rope_parameters": {"rope_theta": 50.0, **given}, **fields}
    return describe(config, context).branches[0].layer.keywords


@pytest.mark.parametrize("name", CASES)
def test_rates_are_those_of_transformers(name):
    given, rates, gain = CASES[name]
    found = attention(given)
    np.testing.assert_allclose(found["rates"], rates, rtol=1e-6)
    assert found["gain"] == pytest.approx(gain, rel=1e-12)


def test_what_depends_on_the_length_of_a_sequence_depends_on_the_context():
    short = attention(LONG, context=16)
    np.testing.assert_allclose(
        short["rates"], [1.0, 0.5210007, 0.2467652, 0.1178511, 0.0566774, 0.02741976], rtol=1e-6
    )
    dynamic = attention(dict(rope_type="dynamic", factor=2.0))
    assert dynamic["base"] == 50.0 and dynamic["rotary_fraction"] == 1.0


def test_fields_of_releases():
    """rope_scaling goes before rope_parameters; the length of training may stand outside."""
    whole = attention({}, rope_scaling=dict(LLAMA, rope_theta=50.0))
    assert whole["rates"] == attention(LLAMA)["rates"]
    outside = {n: v for n, v in LLAMA.items() if n != "original_max_position_embeddings"}
    moved = attention(outside, original_max_position_embeddings=32)
    assert moved["rates"] == whole["rates"]
    old = attention({}, rope_scaling=dict(type="linear", factor=2.0), rope_theta=50.0)
    np.testing.assert_allclose(old["rates"], 50 ** (-np.arange(6) / 6) / 2)
    turned = attention(dict(partial_rotary_factor=0.6))  # 7 channels: 4 pairs, as the reference
    np.testing.assert_allclose(turned["rates"], 50 ** (-np.arange(0, 7, 2) / 7))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(rope_type="yarns"), "unknown rope_type 'yarns'; did you mean 'yarn'"),
        (dict(LLAMA, factor=None), "lacks 'factor'"),
        (dict(LLAMA, factor=0), "factor = 0 is not supported: it has to be a number above 0"),
        (dict(LLAMA, factor="8"), "factor = '8' is not supported"),
        (dict(LLAMA, beta_fast=1), "rope_parameters: .* not understood: beta_fast = 1"),
        (dict(LONG, long_factor=[1.0, 2.0]), "longrope has 2 factors, expected 6"),
        (dict(rope_theta="high"), "it has to be a number"),
        (dict(factor=2.0), "rope_parameters: .* not understood: factor = 2.0"),
    ],
)
def test_positions_that_are_not_understood_are_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        attention(change)
