"""Attention to the steps of chosen pools against a loop in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seqjax.hf.qwen4 import PooledQueries
from seqjax.nn.base import cast_parameters
from seqjax.ops import rope

D, HEADS, KV, K, SIZE, HEADS_I = 5, 4, 2, 6, 4, 5


def rms(z, weight):
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-6) * (1 + weight)


def turned(z, place, rates, gain):
    """z [.., K] by the angles place * rates."""
    half, z = len(rates), z.copy()
    a, b = z[..., :half].copy(), z[..., half : 2 * half].copy()
    cos, sin = gain * np.cos(place * rates), gain * np.sin(place * rates)
    z[..., :half], z[..., half : 2 * half] = a * cos - b * sin, b * cos + a * sin
    return z


def naive(layer, x, resets, mask, *, window, top, pool):
    W = {n: np.asarray(getattr(layer, n).kernel[...]) for n in ("W_q", "W_k", "W_v", "W_o")}
    W |= {n: np.asarray(getattr(layer, n).kernel[...]) for n in ("W_gate", "W_iq", "W_ik")}
    norm = {n: np.asarray(getattr(layer, n).weight[...]) for n in
            ("q_norm", "k_norm", "iq_norm", "ik_norm")}  # fmt: skip
    rates, steps, outputs = np.array(layer.rates), [], np.zeros_like(x)
    for t, now in enumerate(x):
        if not mask[t]:
            continue
        steps = [] if resets[t] else steps
        steps.append(now)
        here, first = len(steps) - 1, max(0, len(steps) - window)
        q = turned(rms((now @ W["W_q"]).reshape(HEADS, K), norm["q_norm"]), here, rates, layer.gain)
        iq = rms((now @ W["W_iq"]).reshape(HEADS_I, SIZE), norm["iq_norm"])
        iq, scores = turned(iq, here, rates, layer.gain), {}
        for a in range((here + 1) // pool):
            if a * pool >= first:
                mean = np.mean([s @ W["W_ik"] for s in steps[a * pool : (a + 1) * pool]], axis=0)
                key = turned(rms(mean, norm["ik_norm"]), a * pool, rates, layer.gain)
                scores[a] = np.maximum(iq @ key, 0).sum() / SIZE**0.5
        chosen = sorted(scores, key=lambda a: (-scores[a], a))[: top // pool]
        tail = (here + 1) // pool * pool
        seen = [s for s in range(first, here + 1) if s // pool in chosen or s >= tail]
        k = [turned(rms((steps[s] @ W["W_k"]).reshape(KV, K), norm["k_norm"]), s, rates, layer.gain)
             for s in seen]  # fmt: skip
        v = [(steps[s] @ W["W_v"]).reshape(KV, K) for s in seen]
        y = []
        for head in range(HEADS):
            g = head // (HEADS // KV)
            p = np.exp([K**-0.5 * q[head] @ one[g] for one in k])
            y.append(sum(w * one[g] for w, one in zip(p / p.sum(), v)))
        gate = 1 / (1 + np.exp(-now @ W["W_gate"]))
        outputs[t] = (np.concatenate(y) * gate) @ W["W_o"]
    return outputs


@pytest.mark.share(1)
@pytest.mark.parametrize("window, top, pool", [(64, 6, 3), (11, 4, 2), (5, 2, 1)])
def test_queries_see_the_best_pools_that_are_over_and_the_one_that_is_not(window, top, pool):
    rates, gain = rope.yarn(4, 100.0, original=16, factor=4.0)
    layer = PooledQueries(
        D, heads=HEADS, kv_heads=KV, head_size=K, window=window, rates=rates, gain=gain, gate=True,
        qk_norm="head", norm_offset=1.0, norm_eps=1e-6, heads_i=HEADS_I, size=SIZE, top=top,
        pool=pool, rngs=nnx.Rngs(0),
    )  # fmt: skip
    draw = np.random.default_rng(0)
    layer = cast_parameters(layer, jnp.float64)
    layer = jax.tree.map(lambda p: p + 0.3 * draw.normal(size=p.shape), layer)
    T = 33
    x, resets, mask = draw.normal(size=(T, D)), np.arange(T) == 24, draw.random(T) < 0.85
    run = jax.jit(lambda *flags: layer(jnp.asarray(x)[None], None, *flags)[0])
    y = run(jnp.asarray(resets)[None], jnp.asarray(mask)[None])
    want = naive(layer, x, resets & mask, mask, window=window, top=top, pool=pool)
    np.testing.assert_allclose(y[0], want, atol=1e-10)
