"""Adapters of the goldens that layers answer: the references' weights under our names."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from golden_tools import with_parameters, without_resets

from seqjax.layers.classic.bidirectional import BiState
from seqjax.layers.classic.lstm import LSTMState
from seqjax.layers.elementwise.slstm import SLSTMState
from seqjax.layers.segment.transformer_xl import Memory
from seqjax.zoo import make


def build(name, features, parameters, **options):
    """The layer of this name with these parameters; its own are never drawn."""
    layer = nnx.eval_shape(lambda: make(name, features, rngs=nnx.Rngs(0), **options))
    return with_parameters(layer, parameters)


def under(prefix, parameters):
    return {f"{prefix}.{name}": value for name, value in parameters.items()}


def identity(features):
    """Weights of an input projection for references that start at the pre-activations."""
    return jnp.eye(features)


def by_evaluator(adapter, *evaluators):
    return {name: partial(adapter, evaluator=name) for name in evaluators}


def all_states(layer, x, h, evaluator):
    """Every state, and the outputs read off them (layers return the last state only)."""
    states, _ = without_resets(layer.states, evaluator)(x, h)
    return states, jax.vmap(jax.vmap(layer.readout))(states, x)


# ---- torch.nn.RNN, LSTM, GRU: several layers, both directions, packed ---------------------------


def elman_weights(weight_ih, weight_hh, bias_ih=None, bias_hh=None, weight_hr=None):
    values = {"W.kernel": weight_ih.T, "U": weight_hh}
    if bias_ih is not None:
        values["W.bias"] = bias_ih + bias_hh
    return values if weight_hr is None else values | {"P": weight_hr}


def gru_weights(weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    values = {"W.kernel": weight_ih.T, "U": weight_hh}
    if bias_ih is None:
        return values
    gates, c_n = jnp.split(bias_hh, [2 * len(bias_hh) // 3])
    bias = bias_ih + jnp.concatenate([gates, jnp.zeros_like(c_n)])
    return values | {"W.bias": bias, "c_n": c_n}


def torch_rnn(inputs, meta, *, layer, weights, blocks, options=None, evaluator="sequential"):
    x, hidden = inputs["x"], len(inputs["weight_hh_l0"]) // blocks
    options = dict(hidden=hidden, bias=meta.get("bias", True), **(options or {}))
    if "proj_size" in meta:
        options["projection"] = meta["proj_size"]
    inner = (layer, options)
    directions = ("", "_reverse") if meta.get("bidirectional") else ("",)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    depth = meta.get("num_layers", sum(name.startswith("weight_ih") for name in inputs))
    parameters, states = {}, []
    for level in range(depth):
        found = []
        for which, direction in enumerate(directions):
            path = ("layers", level, "forward", "backward")
            prefix = f"layers.{level}" + (f".{path[2 + which]}" if len(directions) == 2 else "")
            keys = {name: f"{name}_l{level}{direction}" for name in names}
            taken = {name: inputs[key] for name, key in keys.items() if key in inputs}
            parameters |= under(prefix, weights(**taken))
            index = level * len(directions) + which
            found.append(
                LSTMState(inputs["h0"][index], inputs["c0"][index])
                if "c0" in inputs
                else inputs["h0"][index]
            )
        states.append(BiState(*found) if len(directions) == 2 else found[0])
    spec = ("bidirectional", {"layer": inner}) if len(directions) == 2 else inner
    stack = build("stacked", x.shape[2], parameters, layers=[spec] * depth)
    mask = None
    if meta.get("packed"):
        mask = jnp.arange(x.shape[1])[None] < inputs["lengths"][:, None]
    y, last = stack(x, tuple(states), mask=mask, evaluator=evaluator)
    leaves = jax.tree.leaves(last)
    if "c0" in inputs:
        return {"y": y, "h_n": jnp.stack(leaves[::2]), "c_n": jnp.stack(leaves[1::2])}
    return {"y": y, "h_n": jnp.stack(leaves)}


# ---- gated cells --------------------------------------------------------------------------------


def stack_gates(inputs, kind, gates):
    return jnp.concatenate([inputs[f"{kind}_{gate}"] for gate in gates])


def gru_reset_before(inputs, meta, *, evaluator):
    # the reference's z multiplies the candidate: sigmoid(-a) = 1 - sigmoid(a)
    flipped = {k: -v if k in ("W_z", "U_z", "b_z") else v for k, v in inputs.items()}
    parameters = {
        "W.kernel": stack_gates(flipped, "W", "rzh").T,
        "W.bias": stack_gates(flipped, "b", "rzh"),
        "U": stack_gates(flipped, "U", "rzh"),
    }
    x = inputs["x"]
    gru = build("gru", x.shape[2], parameters, hidden=inputs["h0"].shape[1], reset="before")
    return {"y": gru(x, inputs["h0"], evaluator=evaluator)[0]}


def lstm_variant(inputs, meta, *, evaluator, gates="ifo", **options):
    """Rows of the gates there are and of the cell's input."""
    blocks = [name for name in "ifgo" if f"W_{name}" in inputs]
    parameters = {
        "W.kernel": stack_gates(inputs, "W", blocks).T,
        "W.bias": stack_gates(inputs, "b", blocks),
        "U": stack_gates(inputs, "U", blocks),
    }
    if options.get("peepholes"):
        parameters["p"] = stack_gates(inputs, "p", gates).reshape(3, -1)
    x, h = inputs["x"], LSTMState(inputs["h0"], inputs["c0"])
    options = dict(hidden=h.h.shape[1], gates=gates, **options)
    y, last = build("lstm", x.shape[2], parameters, **options)(x, h, evaluator=evaluator)
    return {"y": y, "c": last.c}


def block_diagonal_lstm(inputs, meta, *, evaluator):
    x, R = inputs["x"], inputs["R"]
    B, T, _, H = x.shape
    blocks = jnp.einsum("hgoi,hk->ghoki", R, jnp.eye(len(R)))
    parameters = {
        "W.kernel": identity(4 * H),
        "W.bias": inputs["b"].reshape(-1),
        "U": blocks.reshape(4 * H, H),
    }
    lstm = build("lstm", 4 * H, parameters, hidden=H)
    h = LSTMState(*inputs["states0"]) if "states0" in inputs else None
    y, last = lstm(x.reshape(B, T, 4 * H), h, evaluator=evaluator)
    return {"y": y, "states": jnp.stack(last)}


def slstm(inputs, meta, *, evaluator):
    x, R = inputs["x"], inputs["R"]
    B, T, _, H = x.shape
    parameters = {"W.kernel": identity(4 * H), "R": R, "b": inputs["b"]}
    layer = build("slstm", 4 * H, parameters, hidden=H, heads=len(R))
    h = SLSTMState(*inputs["states0"]) if "states0" in inputs else None
    y, last = layer(x.reshape(B, T, 4 * H), h, evaluator=evaluator)
    return {"y": y, "states": jnp.stack(last)}


# ---- elementwise, linear, residual ----------------------------------------------------


def indrnn(inputs, meta, *, evaluator):
    x, u = inputs["x"], inputs["weight_hh"]
    parameters = {"W.kernel": identity(len(u)), "W.bias": jnp.zeros(len(u)), "u": u}
    layer = build("indrnn", len(u), parameters, bound=None)
    return {"h": layer(x, inputs["h0"], evaluator=evaluator)[0]}


def min_gru(inputs, meta, *, evaluator):
    x, W = inputs["x"], inputs["to_hidden_and_gate.weight"]
    parameters = {"W.kernel": W.T, "W.bias": jnp.zeros(len(W))}
    if "to_out.weight" in inputs:
        parameters["V.kernel"] = inputs["to_out.weight"].T
    expansion = meta["options"]["expansion"]
    layer = build("min_gru", x.shape[2], parameters, expansion=expansion)
    y, h = layer(x, inputs.get("h0"), evaluator=evaluator)
    return {"y": y, "h": h}


def min_lstm(inputs, meta, *, evaluator):
    x, W = inputs["x"], inputs["to_hidden_and_f_i_gate.weight"]
    parameters = {"W.kernel": W.T, "W.bias": jnp.zeros(len(W))}
    if "to_out.weight" in inputs:
        parameters["V.kernel"] = inputs["to_out.weight"].T
    layer = build("min_lstm", x.shape[2], parameters, expansion=meta["options"]["expansion"])
    h = inputs.get("h0")
    if h is not None and x.shape[1] > 1:
        h = h + 0.5  # the reference's log-space branch passes a positive h0 through g
    y, h = layer(x, h, evaluator=evaluator)
    return {"y": y, "h": h}


def qrnn(inputs, meta, *, evaluator):
    x, W, b, o = inputs["x"], inputs["linear.weight"], inputs["linear.bias"], meta["options"]
    masks = inputs.get("zoneout_mask", jnp.zeros((*x.shape[:2], 0), x.dtype))
    assert (masks.shape[2] > 0) == meta.get("training", False)
    hidden = len(W) // (3 if o["output_gate"] else 2)
    sign = jnp.ones(len(W)).at[hidden : 2 * hidden].set(-1)  # its f is the input gate, 1 - f
    layer = build(
        "qrnn",
        x.shape[2] + masks.shape[2],
        {"W.kernel": (sign[:, None] * W).T, "W.bias": sign * b},
        hidden=hidden,
        window=o["window"],
        pooling="fo" if o["output_gate"] else "f",
        zoneout=o["zoneout"],
        masks=masks.shape[2],
    )
    h = layer.batch_state(len(x), x.dtype)
    if "x_prev" in inputs:
        h = h._replace(window=inputs["x_prev"][:, None])
    if "h0" in inputs:
        h = h._replace(c=inputs["h0"])
    y, h = layer(jnp.concatenate([x, masks], axis=2), h, evaluator=evaluator)
    return {"y": y, "c": h.c}


def lru(inputs, meta, *, evaluator):
    u, options = inputs["u"], {name: meta[name] for name in ("exp_param", "gamma_norm")}
    N, features = inputs["B_re"].shape
    log = "_log" if options["exp_param"] else ""
    gamma = {"gamma_log": inputs["gamma_log"]} if options["gamma_norm"] else {}
    parameters = gamma | {
        f"nu{log}": inputs["nu"],
        f"theta{log}": inputs["theta"],
        "B": jnp.stack([inputs["B_re"], inputs["B_im"]]),
        "C": jnp.stack([inputs["C_re"], inputs["C_im"]]),
        "D": inputs["D"],
    }
    layer = build("lru", features, parameters, state=N, **options)
    h, y = all_states(layer, u, layer.batch_state(len(u), u.dtype), evaluator)
    return {"h": h, "y": y}


def e59(inputs, meta, *, evaluator):
    x = inputs["x"]
    parameters = {
        "P.kernel": inputs["in_proj.weight"].T,
        "Q.kernel": inputs["out_proj.weight"].T,
        "W.kernel": inputs["cell.W"].T,
        "W.bias": inputs["cell.b"],
        "log_alpha": inputs["cell.log_alpha"],
    }
    expansion = len(inputs["cell.b"]) / x.shape[2]
    layer = build("e59", x.shape[2], parameters, norm=True, expansion=expansion)
    y, h = layer(x, inputs.get("h0"), evaluator=evaluator)
    return {"y": y, "h": h}


# ---- Transformer-XL -----------------------------------------------------------------------------


def attention_weights(inputs, prefix=""):
    named = {"W_q.kernel": 0, "W_k.kernel": 1, "W_v.kernel": 2}
    qkv = jnp.split(inputs[f"{prefix}qkv_net.weight"], 3)
    return {name: qkv[i].T for name, i in named.items()} | {
        "W_r.kernel": inputs[f"{prefix}r_net.weight"].T,
        "W_o.kernel": inputs[f"{prefix}o_net.weight"].T,
        "norm.weight": inputs[f"{prefix}layer_norm.weight"],
        "norm.bias": inputs[f"{prefix}layer_norm.bias"],
        "u": inputs["r_w_bias"],
        "v": inputs["r_r_bias"],
    }


def attention_sublayer(inputs, meta):
    x, mem = inputs["x"], inputs.get("mem")
    B, length, features = x.shape
    memory = 0 if mem is None else mem.shape[1]
    layer = build(
        "transformer_xl",
        features,
        attention_weights(inputs),
        heads=meta["n_head"],
        head_size=inputs["r_w_bias"].shape[1],
        length=length,
        memory=memory,
        feed_forward=0,
        pre_norm=meta["pre_lnorm"],
    )
    if mem is None:
        return {"y": layer(x)[0]}
    h = layer.batch_state(B, x.dtype)
    return {"y": layer(x, h._replace(memory=Memory(mem, jnp.full(B, memory, jnp.int32))))[0]}


def segments(inputs, meta):
    x, memory = inputs["x"], meta["mem_len"]
    options = dict(
        heads=meta["n_head"],
        head_size=inputs["r_w_bias"].shape[1],
        memory=memory,
        length=x.shape[1] // meta["segments"],
        detach_memory=True,
        feed_forward=len(inputs["0.pos_ff.CoreNet.0.bias"]),
    )
    parameters = {}
    for level in range(2):
        feed = {
            "feed.W_1.kernel": inputs[f"{level}.pos_ff.CoreNet.0.weight"].T,
            "feed.W_1.bias": inputs[f"{level}.pos_ff.CoreNet.0.bias"],
            "feed.W_2.kernel": inputs[f"{level}.pos_ff.CoreNet.3.weight"].T,
            "feed.W_2.bias": inputs[f"{level}.pos_ff.CoreNet.3.bias"],
            "feed.norm.weight": inputs[f"{level}.pos_ff.layer_norm.weight"],
            "feed.norm.bias": inputs[f"{level}.pos_ff.layer_norm.bias"],
        }
        attention = attention_weights(inputs, f"{level}.dec_attn.")
        parameters |= under(f"layers.{level}", attention | feed)
    stack = build("stacked", x.shape[2], parameters, layers=[("transformer_xl", options)] * 2)
    y, states = stack(x)
    kept = min(memory, x.shape[1])
    remembered = [h.memory.inputs for h in states] + [y]
    return {"y": y, "mems": jnp.stack([seen[:, seen.shape[1] - kept :] for seen in remembered])}


elman = partial(torch_rnn, layer="elman", weights=elman_weights, blocks=1)
tanh, relu = (partial(elman, options={"activation": name}) for name in ("tanh", "relu"))
lstm = partial(torch_rnn, layer="lstm", weights=elman_weights, blocks=4)
lstmp = partial(torch_rnn, layer="lstmp", weights=elman_weights, blocks=4,
                options={"peepholes": False})  # fmt: skip
gru = partial(torch_rnn, layer="gru", weights=gru_weights, blocks=3, options={"reset": "after"})
cifg = partial(lstm_variant, gates="fo", coupled=True)
CELL = ("sequential", "newton", "parallel_backward")
SCAN = ("sequential", "associative", "chunked", "primitive")

ADAPTERS = {
    "torch_rnn_tanh": by_evaluator(tanh, "sequential", "newton"),
    "torch_rnn_relu": by_evaluator(relu, "sequential"),
    "torch_lstm": by_evaluator(lstm, "sequential"),
    "torch_lstm_proj": by_evaluator(lstmp, "sequential", "parallel_backward"),
    "torch_gru": by_evaluator(gru, "sequential", "parallel_backward"),
    "gru_reset_before": by_evaluator(gru_reset_before, *CELL),
    "lstm_peephole": by_evaluator(partial(lstm_variant, peepholes=True), *CELL),
    "lstm_cifg": by_evaluator(cifg, *CELL),
    "xlstm_lstm_blockdiag": by_evaluator(block_diagonal_lstm, "sequential"),
    "slstm": by_evaluator(slstm, "sequential", "parallel_backward"),
    "indrnn": by_evaluator(indrnn, *CELL),
    "mingru": by_evaluator(min_gru, *SCAN),
    "minlstm": by_evaluator(min_lstm, *SCAN),
    "qrnn": by_evaluator(qrnn, *SCAN),
    "lru": by_evaluator(lru, *SCAN),
    "elman_e59": by_evaluator(e59, *CELL),
    "txl_rel_attn": {"sequential": attention_sublayer},
    "txl_segments": {"sequential": segments},
}
