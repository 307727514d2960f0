"""Goldens of flash-linear-attention and of fast and forgetful memory: layers with a gate of the
family of gated linear attention."""

import jax.numpy as jnp
from flax import nnx
from golden_layers import SCAN, all_states, build, by_evaluator
from golden_tools import without_resets
from jax import lax

from seqjax.zoo import make

MATRIX = ("naive", "chunked")


def linears(x, names):
    """Our names of linear maps -> {kernel, bias} of torch ones, called w_{theirs}."""
    found = {}
    for ours, theirs in names.items():
        found[f"{ours}.kernel"] = x[f"w_{theirs}.weight"].T
        if f"w_{theirs}.bias" in x:
            found[f"{ours}.bias"] = x[f"w_{theirs}.bias"]
    return found


def taps(x, *names):
    """One convolution [width, channels] of those of torch [channels, 1, width], side by side."""
    names = [name for name in names if f"w_{name}.weight" in x]
    if not names:
        return {}
    found = {"conv.weight": jnp.concatenate([x[f"w_{n}.weight"][:, 0].T for n in names], axis=1)}
    if f"w_{names[0]}.bias" in x:
        found["conv.bias"] = jnp.concatenate([x[f"w_{n}.bias"] for n in names])
    return found


def convolved(values):
    """The options of a layer with these taps, or without."""
    width = len(values["conv.weight"]) if "conv.weight" in values else 0
    return dict(conv=width, conv_bias="conv.bias" in values)


def abc(inputs, meta, *, evaluator):
    q, k, v, s = (inputs[name] for name in "qkvs")
    groups, heads = q.shape[2] // k.shape[2], k.shape[2]
    assert meta.get("options", {}).get("gqa", groups) == groups
    sizes = dict(key_size=q.shape[3], value_size=v.shape[3], slots=s.shape[3])
    layer = nnx.eval_shape(lambda: make("abc", 4, heads=heads, rngs=nnx.Rngs(0), **sizes))
    h = layer.batch_state(len(q), q.dtype)
    if "hk0" in inputs:
        h = h._replace(K=inputs["hk0"], V=inputs["hv0"])

    def attend(q, k, v, s, h, flow):
        return layer.attend(q, k, v, s, h, flow, scale=meta["scale"])

    o, h = without_resets(attend, evaluator)(q, k, v, s, h)
    return {"o": o} if groups > 1 else {"o": o, "hk": h.K, "hv": h.V}


def lightnet(inputs, meta, *, evaluator):
    x, heads = inputs["x"], meta["num_heads"]
    names = {f"W_{n}": f"{n}_proj" for n in "qkvo"}
    values = linears(inputs, names | {"W_g.W_1": "g_proj.0", "W_g.W_2": "g_proj.1"})
    values |= taps(inputs, *(f"{n}_conv1d" for n in "qkv"))
    norm = "rms" if "w_g_norm.weight" in inputs else "plain"
    if norm == "rms":
        values["norm.weight"] = inputs["w_g_norm.weight"]
    options = dict(heads=heads, key_size=meta["expand_ratio"], rank=meta["gate_low_rank_dim"])
    if "conv.weight" in values:
        meta.expect(use_short_conv=True, conv_size=len(values["conv.weight"]))
    layer = build("lightnet", x.shape[2], values, norm=norm, **options, **convolved(values))
    return {"y": layer(x, evaluator=evaluator)[0]}


def rodimus(inputs, meta, *, evaluator):
    x = inputs["x"]
    maps = {"W_gate": "gate_proj", "W_up": "up_proj", "W_down": "down_proj"}
    maps |= {"W_q": "q_proj", "W_k": "k_proj", "W_g": "g_gate_proj", "W_tau": "tau_gate_proj"}
    maps |= {"W_i.W_1": "i_gate_proj.0", "W_i.W_2": "i_gate_proj.1"}
    values = linears(inputs, maps) | taps(inputs, "short_conv")
    values |= {"b_g": values.pop("W_g.bias"), "b_tau": values.pop("W_tau.bias")}
    values |= {"d": inputs["w_residual_weight"], "norm.weight": inputs["w_activation_norm.weight"]}
    meta.expect(conv_size=convolved(values)["conv"] or meta["conv_size"])
    layer = build(
        "rodimus",
        x.shape[2],
        values,
        key_size=meta["mem_size"],
        inner=meta["d_inner"],
        rank=meta["input_gate_low_rank"],
        **convolved(values),
    )
    return {"y": layer(x, evaluator=evaluator)[0]}


def ffm(inputs, meta, *, evaluator):
    x, M, C = inputs["x"], meta["memory_size"], meta["context_size"]
    features = len(inputs["w_mix.bias"])
    ends = [M, M + features, 2 * M + features]
    split = (jnp.split(inputs[f"w_pre.{part}"], ends) for part in ("weight", "bias"))
    values = {"W_3.kernel": inputs["w_mix.weight"].T, "W_3.bias": inputs["w_mix.bias"]}
    for name, W, b in zip(("W_1", "W_5", "W_2", "W_4"), *split, strict=True):
        values |= {f"{name}.kernel": W.T, f"{name}.bias": b}
    values |= {"alpha": inputs["w_ffa.a"].reshape(-1), "omega": inputs["w_ffa.b"].reshape(-1)}
    sizes = dict(out_features=features, traces=M, contexts=C)
    layer = build("ffm", x.shape[2], values, **sizes)
    h = layer.batch_state(len(x), x.dtype)
    if "s0_re" in inputs:
        h = lax.complex(inputs["s0_re"], inputs["s0_im"])
    S, y = all_states(layer, x, h, evaluator)
    return {"y": y, "s_re": S.real, "s_im": S.imag}


ADAPTERS = {
    "abc": by_evaluator(abc, *MATRIX),
    "lightnet_layer": by_evaluator(lightnet, *MATRIX),
    "rodimus_layer": by_evaluator(rodimus, *MATRIX),
    "ffm": by_evaluator(ffm, *SCAN),
}
