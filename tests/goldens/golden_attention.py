"""Goldens answered by `softmax_attention`: they rename and reshape, and never compute."""

from functools import partial

import jax.numpy as jnp
from golden_ops import by_evaluators, key_scale

import seqjax
from seqjax.ops.look_back import Cache
from seqjax.ops.positions import alibi, hard_alibi


def attention(x, meta, evaluator, *, window=None, bias=None, **options):
    """Over the cache given, and the steps. Beyond the window of a case with one lies nothing."""
    q, k, v = (x[name] for name in "qkv")
    B, T, H, _ = q.shape
    held = x["k_cache"].shape[1] if "k_cache" in x else 0
    window = held + T if window is None else window
    state = None
    if held:
        cached = (x[f"{name}_cache"][:, max(0, held + 1 - window) :] for name in "kv")
        free = window - 1 - min(held, window - 1)
        items = tuple(jnp.pad(z, ((0, 0), (free, 0), (0, 0), (0, 0))) for z in cached)
        state = Cache(items, jnp.full(B, window - 1 - free, jnp.int32))
    bias = None if bias is None else bias(H, window)
    o, _ = seqjax.softmax_attention(
        q,
        k,
        v,
        state,
        window=window,
        bias=bias,
        scale=key_scale(x, meta),
        evaluator=evaluator,
        **options,
    )
    return {"o": o}


def in_window(x, meta, evaluator):
    return attention(x, meta, evaluator, window=meta["window"])


def with_alibi(x, meta, evaluator):
    meta.expect(window=None)
    return attention(x, meta, evaluator, bias=alibi)


def with_hard_alibi(x, meta, evaluator):
    return attention(x, meta, evaluator, bias=partial(hard_alibi, masked=meta["num_masked_heads"]))


def forgetting(x, meta, evaluator):
    window, heads = meta["options"].get("window"), x["q"].shape[2] // x["k"].shape[2]
    assert meta["options"].get("gqa", heads) == heads
    return attention(x, meta, evaluator, window=window, log_f=x["g"])


ADAPTERS = {
    "softmax_attn": by_evaluators("softmax_attention", in_window),
    "alibi_attn": by_evaluators("softmax_attention", with_alibi),
    "hard_alibi_attn": by_evaluators("softmax_attention", with_hard_alibi),
    "forgetting_attn": by_evaluators("softmax_attention", forgetting),
}
