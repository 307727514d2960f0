"""Scores of tags and of translations: seqeval, sacrebleu."""

import jax.numpy as jnp
import numpy as np

from seqjax.answers import Chunks
from seqjax.answers.metrics import bleu


def tagging_f1(given, meta):
    del meta
    sides = [given["true"], given["pred"]]
    tags = tuple(sorted({tag for side in sides for tag in side.ravel() if tag}))
    there = jnp.asarray(sides[0] != "")
    y, guess = (np.where(side == "", 0, np.searchsorted(tags, side)) for side in sides)
    y_hat = 60 * np.eye(len(tags))[guess]
    answer = Chunks(len(tags), per_step=True, tags=tags)
    found = answer.score(jnp.asarray(y_hat), y.astype(np.int32), there.astype(jnp.float64))
    summary = answer.summary(found)
    parts = [summary[name] for name in ("precision", "recall", "f1")]
    return {"default": jnp.stack(parts), "accuracy": summary["accuracy"]}


def translation_scores(given, meta):
    del meta
    hypotheses, references = given["hyps"].tolist(), given["refs"].tolist()
    return {f"bleu_{name}": jnp.asarray(bleu(hypotheses, *references, tokenize=name))
            for name in ("none", "13a")}  # fmt: skip


ADAPTERS = {"tagging_f1": {"": tagging_f1}, "translation_scores": {"": translation_scores}}
