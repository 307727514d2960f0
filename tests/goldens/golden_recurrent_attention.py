"""Adapters of networks with recurrences and attention in one layer: R-Transformer, Memformer."""

import jax
import jax.numpy as jnp
from golden_layers import build, elman_weights, gru_weights, under

CELLS = {
    "RNN": ("rnn", elman_weights),
    "GRU": ("gru", gru_weights),
    "LSTM": ("lstm", elman_weights),
}


def linear(inputs, name, path):
    return {f"{path}.kernel": inputs[f"{name}.weight"].T, f"{path}.bias": inputs[f"{name}.bias"]}


def r_transformer(inputs, meta, *, evaluator=None):
    x, depth, values = inputs["x"], meta["local_layers"], {}
    cell, weights = CELLS[meta["rnn"]]
    norms = [f"w_layers.{n}.connection.norm" for n in range(depth)]
    norms += [f"w_connections.{n}.norm" for n in range(2)]
    for n, name in enumerate(norms):
        values |= under(f"norms.{n}", {"a": inputs[f"{name}.a_2"], "b": inputs[f"{name}.b_2"]})
    for n in range(depth):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        rnn = {name: inputs[f"w_layers.{n}.local_rnn.rnn.{name}_l0"] for name in names}
        values |= under(f"local.{n}.rnn", weights(**rnn))
    for n, letter in enumerate("qkvo"):
        values |= linear(inputs, f"w_pooling.linears.{n}", f"attention.W_{letter}")
    for n in (1, 2):
        values |= linear(inputs, f"w_feed_forward.w_{n}", f"feed.W_{n}")
    layer = build(
        "r_transformer",
        x.shape[2],
        values,
        cell=cell,
        width=meta["ksize"],
        local_layers=depth,
        heads=meta["heads"],
        window=x.shape[1],
        expansion=len(inputs["w_feed_forward.w_1.bias"]) / x.shape[2],
    )
    return {"y": layer(x, evaluator=evaluator)[0]}


def memformer(inputs, meta):
    """Padded steps, where there are any, are seen by no other, but have outputs: by the parts."""
    tokens, mask = inputs["tokens"], inputs["mask"]
    encoder, blocks = "w_encoder", "w_encoder.layer_blocks"
    values = {
        "b": inputs["w_memory_slots"],
        "distances": inputs[f"{blocks}.rel_pos_emb.relative_attention_bias.weight"],
        **norm(inputs, f"{encoder}.norm", "norm"),
        **multi_head(inputs, "w_mem_updater", "write"),
        **feed(inputs, "w_mem_ff.fn.fn", "write_feed"),
        **norm(inputs, "w_mem_ff.fn.norm", "write_norm"),
    }
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values |= under("gru", gru_weights(**{name: inputs[f"w_gru.{name}"] for name in names}))
    for n in range(meta["depth"]):
        block = f"{blocks}.layers.{n}"
        for k in range(3):
            values |= norm(inputs, f"{block}.{k}.fn.norm", f"blocks.{n}.norms.{k}")
        values |= multi_head(inputs, f"{block}.0.fn.fn", f"blocks.{n}.self_attention")
        values |= multi_head(inputs, f"{block}.1.fn.fn", f"blocks.{n}.cross")
        values |= feed(inputs, f"{block}.2.fn.fn", f"blocks.{n}.feed")
    x = inputs["w_encoder.token_emb.weight"][tokens]
    layer = build(
        "memformer",
        x.shape[3],
        values,
        length=x.shape[2],
        slots=meta["num_slots"],
        depth=meta["depth"],
        heads=meta["heads"],
        update="gru",
        updates=meta["num_mem_updates"],
        causal=False,
        released=True,
    )
    answers, h = {}, None
    for n in range(x.shape[1]):
        if meta["masked"]:
            m = layer.batch_state(len(x), x.dtype).memory if h is None else h
            pairs = mask[:, n, :, None] & mask[:, n, None]
            y = jax.vmap(layer.encode)(m, x[:, n], pairs)
            h = memory = jax.vmap(layer.written)(m, y, mask[:, n])
        else:
            y, h = layer(x[:, n], h)
            memory = h.memory
        answers |= {f"enc{n}": y, f"mem{n}": memory}
    return answers


def norm(inputs, name, path):
    return {f"{path}.{part}": inputs[f"{name}.{part}"] for part in ("weight", "bias")}


def feed(inputs, name, path):
    return linear(inputs, f"{name}.net.0", f"{path}.W_1") | linear(
        inputs, f"{name}.net.2", f"{path}.W_2"
    )


def multi_head(inputs, name, path):
    values = linear(inputs, f"{name}.to_q", f"{path}.W_q")
    values |= linear(inputs, f"{name}.to_out", f"{path}.W_o")
    for kind, many in (("kernel", "weight"), ("bias", "bias")):
        k, v = jnp.split(inputs[f"{name}.to_kv.{many}"], 2)
        values |= {f"{path}.W_k.{kind}": k.T, f"{path}.W_v.{kind}": v.T}
    return values


ADAPTERS = {"r_transformer": {"sequential": r_transformer}, "memformer": {"sequential": memformer}}
