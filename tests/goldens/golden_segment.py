"""Adapters of the goldens of layers over segments."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from golden_layers import build

from seqjax.core.flow import Carry, Flow
from seqjax.layers.segment.infini_transformer import Compressed
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


ADAPTERS = {
    "infini_attention": {"sequential": infini_attention},
    "infini_memory": {"sequential": infini_memory},
    "rmt_segments": {"sequential": rmt},
}
