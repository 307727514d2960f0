"""Goldens of the whole mixers of Mamba and Mamba-2, and of Mamba-3 with several inputs."""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_layers import build, by_evaluator
from golden_tools import without_resets

from seqjax.layers.ssm.mamba3 import Mamba3State
from seqjax.ops import OPS
from seqjax.zoo import make


def linear(x, **names):
    """Torch linears under our names, with their biases where they have them."""
    found = {f"{ours}.kernel": x[f"{theirs}.weight"].T for ours, theirs in names.items()}
    biases = {f"{ours}.bias": f"{theirs}.bias" for ours, theirs in names.items()}
    return found | {ours: x[theirs] for ours, theirs in biases.items() if theirs in x}


def common(x):
    """What both mixers have."""
    values = linear(x, W_in="in_proj", W_out="out_proj") | {
        name: x[name] for name in ("A_log", "D")
    }
    values["conv.weight"] = x["conv1d.weight"][:, 0].T
    return values | ({"conv.bias": x["conv1d.bias"]} if "conv1d.bias" in x else {})


def switches(x, o):
    """The options that say which parameters there are."""
    biases = dict(bias="in_proj.bias" in x, conv_bias="conv1d.bias" in x)
    for name, default in (("bias", False), ("conv_bias", True)):
        assert o.get(name, default) == biases[name]
    return biases


def mamba1(x, meta, *, evaluator):
    o, features = meta["options"], x["x"].shape[2]
    values = common(x) | linear(x, W_x="x_proj") | {"dt_bias": x["dt_proj.bias"]}
    values["W_dt.kernel"] = x["dt_proj.weight"].T
    layer = build(
        "mamba",
        features,
        values,
        state=o["d_state"],
        conv=o["d_conv"],
        expand=o["expand"],
        dt_rank=o.get("dt_rank"),
        **switches(x, o),
    )
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


def mamba2(x, meta, *, evaluator):
    o, features, P = meta["options"], x["x"].shape[2], meta["options"]["headdim"]
    expand, groups = o.get("expand", 2), o.get("ngroups", 1)
    normed, per_channel = o.get("rmsnorm", True), o.get("D_has_hdim", False)
    size = o.get("d_ssm", expand * features)
    values = common(x) | {"dt_bias": x["dt_bias"]}
    if normed:
        values["norm.weight"] = x["norm.weight"].reshape(groups, -1)
    if per_channel:
        values["D"] = x["D"].reshape(-1, P)
    layer = build(
        "mamba2",
        features,
        values,
        state=o["d_state"],
        heads=size // P,
        groups=groups,
        conv=o.get("d_conv", 4),
        expand=expand,
        ssm_size=size,
        dt_limit=tuple(o.get("dt_limit", (0.0, jnp.inf))),
        D_per_channel=per_channel,
        norm_groups=None if normed else 0,
        norm_first=o.get("norm_before_gate", False),
        **switches(x, o),
    )
    return {"y": layer(x["x"], evaluator=evaluator)[0]}


def mamba3(x, meta, *, evaluator):
    """Theirs is [heads, rank, ..], ours [rank, heads, ..]; their angles are not taken modulo 2 pi:
    what they turn, the last B and S, are compared."""
    (_, _, H, P), (R, groups, N) = x["V"].shape, x["Q"].shape[2:]
    meta["options"].expect(mimo_rank=R)
    norm = meta["options"]["fused_norm"]
    sizes = dict(expand=1, state=N, heads=H, groups=groups, rank=R)
    layer = nnx.eval_shape(lambda: make("mamba3", H * P, **sizes, norm=norm, rngs=nnx.Rngs(0)))
    layer.angles = x["Angles"].shape[3]
    flip = lambda z: jnp.swapaxes(z, -3, -2)  # noqa: E731
    values = {"C_bias": "Q_bias", "B_bias": "K_bias", "X": "MIMO_V", "O": "MIMO_O", "Z": "MIMO_Z"}
    for ours, theirs in values.items():
        if theirs in x:
            getattr(layer, ours).set_value(flip(x[theirs]))
    layer.D.set_value(x.get("D", jnp.zeros(H)))
    if norm:
        layer.norm.weight.set_value(x["norm_weight"])
    h = jax.tree.map(lambda s: jnp.zeros((len(x["V"]), *s.shape)), layer.initial())
    if "SSM0" in x:
        S = jnp.swapaxes(x["SSM0"], 2, 3)
        h = Mamba3State(S, x["Angle0"], flip(x["K0"]), x["x0"])

    def one(C, B, v, z, log_alpha, dt, trap, phi, h, flow):
        lam = jax.nn.sigmoid(trap)
        return layer.mix(C, B, v, z, log_alpha, dt, lam, phi, h, flow)

    names = ("Q", "K", "V", "Z", "ADT", "DT", "Trap", "Angles")
    y, h = without_resets(one, evaluator)(*(x.get(name) for name in names), h)
    return {
        "o": y,
        "SSM": jnp.swapaxes(h.S, 2, 3),
        "K_last": flip(h.B),
        "V_last": flip(layer.inputs(h.x)),
    }


MATRIX = ("naive", "chunked")

ADAPTERS = {
    "mamba1_layer": by_evaluator(mamba1, *OPS["selective_scan"].evaluators),
    "mamba2_layer": by_evaluator(mamba2, *MATRIX),
    "mamba3_mimo": by_evaluator(mamba3, *MATRIX),
}
