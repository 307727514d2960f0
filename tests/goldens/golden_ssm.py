"""Goldens answered by whole layers of the state-space, linear-attention and fast-weight families.

An adapter builds the layer at the reference's shapes, puts the reference's weights into it and
translates names; the numbers come from the layer.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build
from golden_tools import with_parameters

from seqjax.core.flow import Carry, Flow
from seqjax.layers.rwkv.rwkv7 import RWKV7
from seqjax.layers.ssm.rg_lru import RGLRU, RGLRUState
from seqjax.layers.ssm.s4d import DISCRETISATIONS, S4D


def rglru(evaluator):
    def answer(inputs, meta):
        x, blocks = inputs["x"], len(inputs["a_gate_w"])
        layer = with_parameters(
            RGLRU(x.shape[2], blocks=blocks, unscaled_start=True, rngs=nnx.Rngs(0)),
            {
                "W_a": inputs["a_gate_w"],
                "b_a": inputs["a_gate_b"].reshape(-1),
                "W_x": inputs["input_gate_w"],
                "b_x": inputs["input_gate_b"].reshape(-1),
                "Lambda": inputs["a_param"],
            },
        )
        h0 = inputs.get("h0", jnp.zeros((x.shape[0], x.shape[2])))
        state = RGLRUState(h0, jnp.zeros(len(x), bool))
        y, state = layer(x, state, inputs["segment_pos"] == 0, evaluator=evaluator)
        return {"y": y, "h": state.h}

    return answer


def s4d(evaluator, A_re, A_im, B, C, log_dt, how, length):
    """The kernel [features, length]: the layer's own, or its response to an impulse."""
    features, pairs = C.shape
    pair = lambda z: jnp.stack([z.real, z.imag])  # noqa: E731
    layer = with_parameters(
        S4D(features, state=2 * pairs, discretisation=how, mix=False, rngs=nnx.Rngs(0)),
        {
            "log_A_re": A_re,
            "A_im": A_im,
            "log_dt": log_dt,
            "B": pair(B),
            "C": pair(C),
            "D": jnp.zeros(features),
        },
    )
    if evaluator == "kernel":
        return layer.kernel(length)
    impulse = jnp.zeros((1, length, features)).at[0, 0].set(1)
    return layer(impulse, evaluator=evaluator)[0][0].T


def s4d_kernel(evaluator):
    def answer(inputs, meta):
        C = inputs["C"]
        return {
            "K": s4d(
                evaluator,
                inputs["log_A_real"],
                inputs["A_imag"],
                jnp.ones_like(C),
                C,
                inputs["log_dt"],
                "zoh",
                meta["L"],
            )
        }

    return answer


def s4d_kernel_full(evaluator):
    def answer(inputs, meta):
        length, how = meta["L"], meta["disc"]
        A_re, A_im, log_dt = inputs["log_neg_A_re"], -inputs["neg_A_im"], inputs["log_dt"]
        B, (C,) = inputs["B"], inputs["C"]
        if how not in DISCRETISATIONS:
            return {"K": dss(A_re, A_im, B, C, log_dt, length)[None]}
        return {"K": s4d(evaluator, A_re, A_im, B, C, log_dt, how, length)[None]}

    return answer


def dss(log_A_re, A_im, B, C, log_dt, length):
    """DSS' normalisation over the length (2203.14343): one layer per channel, for they differ."""

    def channel(log_A_re, A_im, W, log_dt):
        parameters = {
            "Lambda": jnp.stack([-jnp.exp(log_A_re), A_im]),
            "log_dt": log_dt[None, None],
            "W": jnp.stack([W.real, W.imag])[:, None],
            "D": jnp.zeros(1),
        }
        options = dict(state=len(W), version="softmax", separate_dt=False, mix=False)
        return build("dss", 1, parameters, length=length, **options).kernel(length)[0]

    return jax.vmap(channel)(log_A_re, A_im, C * B, log_dt)


def rwkv7_tmix(evaluator):
    def answer(inputs, meta):
        x, first = inputs["x"], meta["options"]["layer_id"] == 0
        if first:  # the reference keeps the weights that later layers use
            inputs.ignore("v0", "v1", "v2")
        features = x.shape[2]
        heads = features // meta["options"]["head_size"]
        parts = "wag" if first else "wavg"
        values = {"mu": jnp.stack([inputs[f"x_{j}"].reshape(-1) for j in "rwkvag"])}
        values |= {f"{part}.A": inputs[f"{part}1"] for part in parts}
        values |= {f"{part}.B": inputs[f"{part}2"] for part in parts}
        values |= {f"{part}.bias": inputs[f"{part}0"].reshape(-1) for part in parts if part != "g"}
        values |= {name: inputs[name].reshape(-1) for name in ("k_k", "k_a")}
        values |= {"r_k": inputs["r_k"]}
        for ours, theirs in (
            ("W_r", "receptance"),
            ("W_k", "key"),
            ("W_v", "value"),
            ("W_o", "output"),
        ):
            values[f"{ours}.kernel"] = inputs[f"{theirs}.weight"].T
        for name in ("weight", "bias"):
            values[f"norm.{name}"] = inputs[f"ln_x.{name}"].reshape(heads, -1)
        ranks = tuple(inputs[f"{part}1"].shape[1] for part in "wavg")
        layer = with_parameters(
            RWKV7(features, heads=heads, mixes_values=not first, ranks=ranks, rngs=nnx.Rngs(0)),
            values,
        )

        def mix(x, v_first=None):
            h = layer.initial()
            return layer.mix(x, Carry(h, h), Flow(evaluator=evaluator), v_first)[:2]

        y, v = jax.vmap(mix)(x) if first else jax.vmap(mix)(x, inputs["v_first"])
        return {"y": y, "v_first": v} if first else {"y": y}

    return answer


ADAPTERS = {
    "rglru": {name: rglru(name) for name in ("sequential", "primitive")},
    "s4d_kernel": {name: s4d_kernel(name) for name in ("kernel", "primitive", "fft")},
    "s4d_kernel_full": {name: s4d_kernel_full(name) for name in ("kernel", "primitive", "fft")},
    "rwkv7_tmix": {name: rwkv7_tmix(name) for name in RWKV7.evaluators},
}
