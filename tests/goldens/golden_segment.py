"""Adapters of the goldens of layers over segments."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from golden_layers import build
from golden_tools import with_parameters

from seqjax.core.flow import Carry, Flow
from seqjax.layers.segment.infini_transformer import Compressed
from seqjax.nn.norms import Norm
from seqjax.ops.dense_attention import attend
from seqjax.ops.segment_recurrence import segment_recurrence
from seqjax.ops.segments import SegmentState
from seqjax.zoo import make

# ---- infini-attention ---------------------------------------------------------------------------


def infini(q, k, v, gates, *, length, delta, local=None):
    """Heads [B, T, H, K] to those of the layer, and its memory; `local` where it is given."""
    (H, K), V = q.shape[2:], v.shape[3]
    kernels = ("W_q", "W_k", "W_v", "W_o")
    layer = build(
        "infini_transformer",
        H * K,
        {f"{name}.kernel": jnp.eye(H * K) for name in kernels} | {"beta": -gates},
        heads=H,
        length=length,
        update="delta" if delta else "linear",
        rotary_fraction=0.0,
    )
    steps = tuple(jnp.zeros((length - 1, H, size)) for size in (K, V))
    empty = Compressed(jnp.zeros((H, K, V)), jnp.zeros((H, K)))
    h = SegmentState(empty, steps, jnp.zeros((), jnp.int32))

    def both(m, queries, items, i, j, seen):
        q, local = queries
        local = layer.local(q, items, i, j, seen) if local is None else local
        return layer.gated(local, m, q)

    def one(q, k, v, local):
        return segment_recurrence(both, layer.fold, (q, local), (k, v), Carry(h, h), flow=Flow())

    y, h = jax.vmap(one)(q, k, v, local)
    return y, h.memory


def infini_attention(inputs, meta):
    assert not meta.get("rotary_emb_linear_attn", False), "the memory has no positions here"
    q, k, v = (inputs[name].swapaxes(1, 2) for name in "qkv")
    length = q.shape[1] // meta["segments"]
    y, m = infini(q, k, v, inputs["head_gates"], length=length, delta=meta["delta_rule"])
    return {"y": y.swapaxes(1, 2), "kv_mem": m.M, "k_norm": m.z}


def infini_memory(inputs, meta):
    q, k, v, local = (inputs[name] for name in ("q", "k", "v", "local_out"))
    options = meta["options"]
    y, m = infini(
        q,
        k,
        v,
        inputs["head_gates"],
        length=options["segment"],
        delta=options["delta"],
        local=local,
    )
    return {"o": y, "M": m.M, "z": m.z}


# ---- recurrent memory Transformer ---------------------------------------------------------------


class Toy(nnx.Module):
    """The model around which the reference's memory is wrapped: one map of attention."""

    def __init__(self, inputs):
        self.kernels = {name: inputs[f"{name}.weight"].T for name in "qkv"}

    def __call__(self, x, positions, sees):
        q, k, v = (x @ self.kernels[name] for name in "qkv")
        q, k, v = (z[:, None] for z in (q, k, v))  # of one head
        return x + jnp.tanh(attend(q, k, v, sees, scale=q.shape[2] ** -0.5)[:, 0])


def rmt(inputs, meta):
    ids, labels, memory = inputs["input_ids"], inputs["labels"], inputs["memory"]
    (B, T), features = ids.shape, memory.shape[1]
    meta.expect(num_mem_tokens=len(memory))
    options = dict(memory=len(memory), length=meta["segment_size"])
    layer = nnx.eval_shape(lambda: make("rmt", features, rngs=nnx.Rngs(0), **options))
    layer.m_0, layer.transformer = nnx.Param(memory), nnx.data(Toy(inputs))
    if meta["alignment"] == "right":
        h = layer.aligned(B, T, memory.dtype)
    else:
        meta.expect(alignment="left")
        h = None
    y, _ = layer(inputs["emb.weight"][ids], h)
    logits = y @ inputs["out.weight"].T
    loss = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], labels[:, 1:]).mean()
    return {"logits": logits, "loss": loss}


# ---- block-recurrent Transformer ----------------------------------------------------------------


def block_recurrent(inputs, meta):
    x, heads, state = inputs["x"], meta["heads"], "state_container."
    features, inner = x.shape[2], len(inputs["to_q.weight"])
    assert len(inputs["to_kv.weight"]) * heads == 2 * inner, "keys of one head"

    def kernel(name, part=0, parts=1):
        return jnp.split(inputs[f"{name}.weight"], parts)[part].T

    # in the reference self and cross of a head lie side by side, here all heads of self
    out = inputs[f"{state}to_state_out.weight"].reshape(features, heads, 2, inner // heads)
    parameters = {
        "W_q.kernel": kernel("to_q"),
        "W_p.kernel": kernel(f"{state}q_to_state"),
        "W_k.kernel": kernel("to_kv", 0, 2),
        "W_v.kernel": kernel("to_kv", 1, 2),
        "W_o.kernel": kernel("to_out"),
        "U_q.kernel": kernel(f"{state}state_to_q"),
        "U_p.kernel": kernel(f"{state}q_from_state"),
        "U_k.kernel": kernel(f"{state}state_to_kv", 0, 2),
        "U_v.kernel": kernel(f"{state}state_to_kv", 1, 2),
        "U_o.kernel": out.swapaxes(1, 2).reshape(features, 2 * inner).T,
        "norm.weight": inputs[f"{state}state_norm.gamma"],
        "c_0": inputs[f"{state}init_state"],
        "id": inputs[f"{state}state_pos_ids"],
        "gate_1.W_z.kernel": kernel(f"{state}state_out_to_gate"),
        "gate_1.W_z.bias": inputs[f"{state}state_out_to_gate.bias"],
        "gate_1.b_g": -inputs[f"{state}learned_ema_beta"],  # its gate is of what is new
    }
    layer = build(
        "block_recurrent",
        features,
        parameters,
        heads=heads,
        kv_heads=1,
        head_size=inner // heads,
        length=x.shape[1] // meta["blocks"],
        slots=len(parameters["c_0"]),
        same_length=False,
        rotary_fraction=0.0,
    )
    norm = with_parameters(Norm(features, centre=True, eps=1e-5), {"weight": inputs["norm.gamma"]})
    y, h = layer(norm(x))
    m = h.memory
    return {"y": y, "states": m.c, "memories": jnp.stack([m.k[:, :, 0], m.v[:, :, 0]])}


# ---- Compressive Transformer --------------------------------------------------------------------


def compressive_layer(inputs, meta):
    x = inputs["x"]
    features, length = x.shape[2], x.shape[1] // meta["segments"]
    k, v = jnp.split(inputs["to_kv.weight"], 2)
    conv = inputs["compress_mem_fn.conv.weight"]
    parameters = {
        "W_q.kernel": inputs["to_q.weight"].T,
        "W_k.kernel": k.T,
        "W_v.kernel": v.T,
        "W_o.kernel": inputs["to_out.weight"].T,
        "W_o.bias": inputs["to_out.bias"],
        "f_c.kernel": conv.transpose(2, 1, 0).reshape(-1, features),
        "f_c.bias": inputs["compress_mem_fn.conv.bias"],
        "p": inputs["pos_emb"].swapaxes(0, 1),
    }
    return build(
        "compressive_transformer",
        features,
        parameters,
        heads=meta["heads"],
        length=length,
        memory=meta["mem_len"],
        compressed=meta["cmem_len"],
        ratio=meta["ratio"],
        positions="table",
        out_bias=True,
        detach_memory=True,
    )


def compressive_attention(inputs, meta):
    meta.ignore("aux_note")
    layer, segments = compressive_layer(inputs, meta), meta["segments"]
    length, C, M, ratio = layer.length, layer.compressed, layer.memory, layer.ratio
    y, h = layer(inputs["x"])
    held = filled = 0  # the reference's memories grow
    for _ in range(segments):
        gone = max(0, filled + length - M)
        assert 2 * gone % ratio == 0, "it fills up by gone % ratio steps, not by -gone % ratio"
        held, filled = min(C, held - gone // -ratio), min(M, filled + length)
    m = h.memory
    return {"y": y, "mem": m.inputs[:, M - filled :], "cmem": m.compressed[:, C - held :]}


# ---- temporal latent bottleneck -----------------------------------------------------------------

SUBLAYER = {
    "W_q.kernel": "Wq",
    "W_k.kernel": "Wk",
    "W_v.kernel": "Wv",
    "W_o.kernel": "Wo",
    "norm_q.weight": "lnq_g",
    "norm_q.bias": "lnq_b",
    "norm.weight": "lnm_g",
    "norm.bias": "lnm_b",
    "feed.W_1.kernel": "W1",
    "feed.W_1.bias": "b1",
    "feed.W_2.kernel": "W2",
    "feed.W_2.bias": "b2",
}
CROSS = SUBLAYER | {"norm_k.weight": "lnk_g", "norm_k.bias": "lnk_b"}


def tlb(inputs, meta):
    x, length, slots = inputs["x"], meta["block_size"], meta["num_state_tokens"]
    depth, rounds, updates = (meta[n] for n in ("self_per_cross", "cross_input", "cross_state"))

    def sublayer(ours, theirs, names):
        return {f"{ours}.{name}": inputs[f"{theirs}_{own}"] for name, own in names.items()}

    parameters = {"p": inputs["pe"], "p_s": inputs["state_pe"]}
    for n in range(rounds):
        for m in range(depth):
            parameters |= sublayer(f"own.{n}.{m}", f"h{n}_self{m}", SUBLAYER)
        parameters |= sublayer(f"reads.{n}", f"h{n}_cross", CROSS)
    for n in range(updates):
        parameters |= sublayer(f"writes.{n}", f"v{n}_cross", CROSS)
    features = x.shape[2]
    layer = build(
        "tlb",
        features,
        parameters,
        heads=meta["heads"],
        length=length,
        slots=slots,
        depth=depth,
        rounds=rounds,
        updates=updates,
        expansion=len(inputs["v0_cross_b1"]) / features,
        causal=False,
    )
    ys, states, h = [], [], None
    for part in jnp.split(x, x.shape[1] // length, axis=1):
        y, h = layer(part, h)
        ys.append(y)
        states.append(h.memory)
    encoder = Norm(features, centre=True, bias=True)
    encoder = with_parameters(encoder, {"weight": inputs["enc_g"], "bias": inputs["enc_b"]})
    states = jnp.stack(states, axis=1)
    return {"x": jnp.concatenate(ys, axis=1), "states": states, "encoded": encoder(h.memory)}


# ---- token Turing machine -----------------------------------------------------------------------


def flax_mlp(ours, theirs, inputs):
    return {
        f"{ours}.W_{n + 1}.{kind}": inputs[f"{theirs}.Dense_{n}.{kind}"]
        for n in range(2)
        for kind in ("kernel", "bias")
    }


def flax_norm(ours, theirs, inputs):
    weight, bias = (inputs[f"{theirs}.{kind}"] for kind in ("scale", "bias"))
    return {f"{ours}.weight": weight, f"{ours}.bias": bias}


def token_turing(inputs, meta):
    for option, answered in (
        ("memory_mode", "TL"),
        ("processing_unit", "mlp"),
        ("use_positional_embedding", False),
    ):
        assert meta.get(option, answered) == answered, f"{option} other than {answered}: no numbers"
    x, memory, process = inputs["x"], inputs["memory0"], meta["process_size"]
    meta.expect(memory_size=memory.shape[1])
    tokens, width = x.shape[2:]
    depth = meta.get("num_layers", 1)
    parameters = flax_norm("norm", f"LayerNorm_{depth}", inputs)
    for n in range(depth):
        parameters |= flax_norm(f"blocks.{n}.norm", f"LayerNorm_{n}", inputs)
        parameters |= flax_mlp(f"blocks.{n}.mlp", f"MlpBlock_{n}", inputs)
    for n, ours in enumerate(("read", "write")):
        learner = f"TokenLearnerModuleV11_{n}"
        parameters |= flax_norm(f"{ours}.norm", f"{learner}.LayerNorm_0", inputs)
        parameters |= flax_mlp(f"{ours}.mlp", f"{learner}.token_masking", inputs)
    layer = build(
        "token_turing_machine",
        tokens * width,
        parameters,
        tokens=tokens,
        process=process,
        memory=memory.shape[1],
        unit="mlp",
        depth=depth,
        units=inputs["MlpBlock_0.Dense_0.bias"].shape[0],
    )
    h = layer.batch_state(len(x), x.dtype)._replace(M=memory)
    y, h = layer(x.reshape(*x.shape[:2], tokens * width), h)
    return {"y": y.reshape(*y.shape[:2], process, width), "memory": h.M}


ADAPTERS = {
    "tlb": {"sequential": tlb},
    "token_turing": {"sequential": token_turing},
    "compressive_attention": {"sequential": compressive_attention},
    "block_recurrent": {"sequential": block_recurrent},
    "infini_attention": {"sequential": infini_attention},
    "infini_memory": {"sequential": infini_memory},
    "rmt_segments": {"sequential": rmt},
}
