"""Adapters of losses of sequences: connectionist temporal classification, likelihoods of series."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import seqjax
from seqjax.answers import Gaussian, NegativeBinomial, StudentT


def ctc_loss(given, meta, *, evaluator):
    loss = seqjax.ctc_loss(
        given["logits"], given["targets"], lengths=given["input_lengths"],
        label_lengths=given["target_lengths"], blank=meta["blank"],
        zero_infinity=meta["zero_infinity"], evaluator=evaluator,
    )  # fmt: skip
    return dict(loss=loss)


def ctc_decode(given, meta):
    log_p, blank = given["log_probs"], meta["blank"]
    with jax.ensure_compile_time_eval():  # how many columns there are depends on what is found
        width = (log_p.shape[1] - 1) ** (len(log_p) + 1)  # labellings
        every, four = (seqjax.ctc_beam_search(log_p, width=w, blank=blank) for w in (width, 4))
        top, beam = (rows(beams.labels[:8], blank) for beams in (every, four))
        greedy = rows(seqjax.ctc_best_path(log_p, blank=blank)[None], blank)[0]
    return dict(
        top_labels=top, top_logp=every.scores[:8], greedy=greedy, viterbi_labels=greedy,
        viterbi_logp=log_p.max(axis=-1).sum(), beam4_labels=beam, beam4_logp=four.scores,
    )  # fmt: skip


def rows(labels, blank):
    """As long as the longest, filled up with -1."""
    found = np.where(np.asarray(labels) == blank, -1, np.asarray(labels))
    return jnp.asarray(found[:, : (found >= 0).sum(axis=1).max()])


def with_scale(y, scale):
    return jnp.stack([y, jnp.broadcast_to(scale, y.shape)], axis=-1)


def deepar_nll(given, meta):
    del meta
    y_hat = jnp.stack([given["p1"], given["p2"]], axis=-1)
    counts, reals = (with_scale(given[name], given["scale"]) for name in ("y_count", "y_real"))
    found = {f"nb_{name}": NegativeBinomial(1, True, scaled=name).loss(y_hat, counts)
             for name in ("gluonts", "paper")}  # fmt: skip
    return found | {"gaussian": Gaussian(1, True, scaled=True).loss(y_hat, reals)}


def student_t_nll(given, meta):
    del meta
    answer = StudentT(1, True, scaled=True)
    y_hat = jnp.stack([given["df"], given["loc"], given["scale_raw"]], axis=-1)
    return dict(
        nll=answer.loss(y_hat, with_scale(given["y"], given["scale"])),
        mean=answer.mean(y_hat, given["scale"][..., None])[..., 0],
        df=answer.degrees(given["df"]),
    )


ADAPTERS = {
    "deepar_nll": {"": deepar_nll},
    "student_t_nll": {"": student_t_nll},
    "ctc_loss": {
        name: partial(ctc_loss, evaluator=name) for name in ("sequential", "associative", "chunked")
    },
    "ctc_decode": {"beams": ctc_decode},
}
