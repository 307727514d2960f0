"""Adapters of decoders that look at a source, of strokes of a pen, and of beam search."""

import jax
import jax.numpy as jnp
from flax import nnx
from golden_tools import with_parameters

from seqjax.answers import Strokes
from seqjax.core.flow import Source
from seqjax.layers.seq2seq.alignment import Alignment
from seqjax.layers.seq2seq.bahdanau import Attentional
from seqjax.layers.seq2seq.mdn_handwriting import gaussians
from seqjax.train.beam import search


def bahdanau(given, meta):
    """The bias of the reference is the score "mlp" of ours, which is "additive" beside it."""
    q, keys, (size, _) = given["q"], given["keys"], given["W_q"].shape
    shape = q.shape[-1], keys.shape[-1]
    align = with_parameters(
        nnx.eval_shape(lambda: Alignment(*shape, score="mlp", size=size, rngs=nnx.Rngs(0))),
        {
            "W_a.kernel": given["W_q"].T,
            "W_a.bias": given["b"],
            "U_a.kernel": given["W_k"].T,
            "v_a.kernel": given["v"][:, None],
        },
    )

    def one(q, y, there):
        seen = align.seen(Source(y, there))
        return align(q, seen), align.weights(q, seen)

    context, weights = jax.vmap(one)(q, keys, given["mask"])
    return {"context": context, "weights": weights}


def luong(given, meta):
    h, y, kind = given["h"], given["mem"], meta["kind"]
    names = {
        "linear_in": "align.W_a.kernel",
        "linear_context": "align.U_a.kernel",
        "linear_query": "align.W_a.kernel",
        "v": "align.v_a.kernel",
        "linear_out": "W_c.kernel",
    }
    weights = {ours: given[f"w_{name}.weight"].T for name, ours in names.items()
               if f"w_{name}.weight" in given}  # fmt: skip
    biases = {"linear_query": "align.W_a.bias", "linear_out": "W_c.bias"}
    weights |= {ours: given[f"w_{name}.bias"] for name, ours in biases.items()
                if f"w_{name}.bias" in given}  # fmt: skip
    size = y.shape[-1]
    layer = with_parameters(
        nnx.eval_shape(lambda: Attentional(size, size, score=kind, size=size, rngs=nnx.Rngs(0))),
        weights,
    )

    def one(h, y, length):
        seen = layer.align.seen(Source(y, jnp.arange(len(y)) < length))
        return jax.vmap(lambda h: (layer(h, seen), layer.align.weights(h, seen)))(h)

    attended, alpha = jax.vmap(one)(h, y, given["src_len"])
    return {"attn_h": attended, "weights": alpha}


def graves_window(given, meta):
    def one(hats, y, kappa):
        there = jnp.ones(len(y), bool)

        def step(kappa, hats):
            phi, kappa = gaussians(hats, kappa, there)
            return kappa, (phi, phi @ y)

        kappa, (phi, w) = jax.lax.scan(step, kappa, hats)
        return {"w": w, "phi": phi, "kappa": kappa}

    return jax.vmap(one)(given["abk"], given["c"], given["kappa0"])


def strokes(given, meta):
    """The pen is lifted with probability sigmoid(e) in the reference, sigmoid(-e) in the paper."""
    y_hat = given["params"].at[..., 0].multiply(-1)
    y = jnp.concatenate([given["xy"], given["pen"][..., None]], axis=-1)
    return {"nll": Strokes(meta["K"], per_step=True).loss(y_hat, y)}


def beam_search(given, meta):
    """The table's rows are logits; an exact search is one as wide as there are beginnings."""
    with jax.ensure_compile_time_eval():
        logp, length = jnp.asarray(given["logp"]), meta["max_len"]
        end, penalty = meta["eos"], meta["length_penalty"]

        def found(width):
            return search(
                lambda token, h: (logp[token], h), lambda h, rows: h, logp[:1], (),
                end, penalty, length=length, width=width,
            )[0]  # fmt: skip

        beams, scores = (v[0] for v in found(meta["width"]))
        exact, best = (v[0, :5] for v in found((len(logp) - 1) ** (length - 1) * len(logp)))
        greedy = found(1)[0][0, 0]
        greedy = greedy[: int(jnp.sum(greedy >= 0))]
    return {
        "beam_seq": beams, "beam_score": scores, "exact_seq": exact, "exact_score": best,
        "greedy": greedy,
    }  # fmt: skip


ADAPTERS = {
    "bahdanau_attention": {"": bahdanau},
    "luong_attention": {"": luong},
    "graves_window": {"": graves_window},
    "mdn_handwriting": {"": strokes},
    "beam_search": {"": beam_search},
}
