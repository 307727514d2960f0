"""The rotary positions of a config.json, plain or stretched, as options of `Attention`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqjax.core.common import unknown
from seqjax.ops import rope

if TYPE_CHECKING:
    from seqjax.hf.config import Config

SAME = "the positions of text are the same number three times"
FIRST = "it stretches only what is longer than the model may be"
KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")


def positions(
    config: Config, fraction: float, base: float, size: int | None, of: str | None
) -> dict[str, Any]:
    """See `Config.rope`."""
    name = "rope_scaling" if config("rope_scaling", {}) else "rope_parameters"
    if name == "rope_scaling":
        config.ignore("rope_scaling is read", "rope_parameters")
    whole = config.inside(name)
    given = whole if of is None else whole.inside(of)
    given.ignore(SAME, "mrope_interleaved mrope_section")
    kind = given("rope_type", given("type", "default"))
    given.ignore("rope_type is read", "type")
    if kind not in KINDS:
        raise ValueError(f"{given.kind}: {unknown('rope_type', kind, KINDS)}")
    home = given if "rope_theta" in given.fields else config
    config.used.add("rope_theta")
    given.used.add("rope_theta")
    if home.fields.get("rope_theta", base) is None:
        return dict(rotary_fraction=0.0)
    theta = home.positive("rope_theta", base)
    turns = "partial_rotary_factor"
    if given.fields.get(turns) is not None:
        config.ignore(f"that of {name} is read", turns)
        share = given.positive(turns)
    else:
        share = config.positive(turns, fraction)
    heads = config.size("num_attention_heads")
    own: int = size or config.size("head_dim", config.size("hidden_size") // heads)
    turned = int(own * share)
    if kind == "dynamic":
        given.ignore(FIRST, "factor")
    if kind in ("default", "dynamic") and turned % 2 == 0:
        return dict(rotary_fraction=float(share), base=float(theta))
    rates, gain = stretched(config, given, kind, turned, theta, own, share)
    return dict(rates=tuple(rates.tolist()), gain=gain)


def stretched(
    config: Config, given: Config, kind: str, turned: int, base: float, size: int, share: float
) -> rope.Rates:
    """The rates of a kind of positions that is not the default, its fields in `given`."""
    if kind in ("default", "dynamic"):  # of an odd number of channels
        return rope.plain(turned, base)
    if kind == "proportional":
        return rope.proportional(size, base, share=share, factor=given.positive("factor", 1.0))
    if kind == "linear":
        return rope.linear(turned, base, factor=given.positive("factor"))
    own, longest = "original_max_position_embeddings", config.longest
    original = config.size(own, given.size(own, longest, most=None), most=None)
    if original is None:
        raise ValueError(f"{given.kind}: lacks {own!r}")
    if kind == "llama3":
        return rope.llama3(
            turned,
            base,
            original=original,
            factor=given.positive("factor"),
            low=given.positive("low_freq_factor"),
            high=given.positive("high_freq_factor"),
        )
    factor = given.positive("factor", (longest or original) / original)
    gain = given.positive("attention_factor", None)
    if kind == "longrope":
        beyond = config.context > original
        given.ignore("of another length than the context", "long_factor short_factor")
        factors = given("long_factor" if beyond else "short_factor", [])
        return rope.longrope(
            turned, base, factors=factors, original=original, factor=factor, gain=gain
        )
    one, all_ = given.positive("mscale", None), given.positive("mscale_all_dim", None)
    if gain is None and one and all_:
        gain = rope.mscale(factor, one) / rope.mscale(factor, all_)
    return rope.yarn(
        turned,
        base,
        original=original,
        factor=factor,
        fast=given.positive("beta_fast", 32.0),
        slow=given.positive("beta_slow", 1.0),
        truncate=given("truncate", True),
        gain=gain,
    )
