"""`seqjax lm_eval RUN`: a model of text on the tasks of EleutherAI's lm-evaluation-harness.

    loglikelihood(context, continuation)     sum of log p(token) of the continuation, and whether
                                             each is the likeliest one
    loglikelihood_rolling(text)              sum of log p(token) of the text
    generate_until(context, until=...)       the likeliest tokens, up to the first of these texts

A recurrence reads a text in pieces of CHUNK steps, with its state carried from piece to piece: no
text is too long, none is cut, and one program runs them all. Attention of an imported model looks
back over its own `context`: there a context is cut to its end, and a long text is read in pieces
that do not overlap.
"""

from __future__ import annotations

import json as json_
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax

from seqjax.core.common import accumulation_dtype
from seqjax.core.ranges import Count, Range, Seed
from seqjax.tasks import Spec
from seqjax.tools.screen import print_json, print_table
from seqjax.tools.writers import Writer, any_writer

CHUNK = 128  # steps that are read at once
WRITTEN = 16  # tokens that are written at once, before a look at whether they end


class Scored(NamedTuple):
    log_p: float
    greedy: bool  # each token is the likeliest


def harness(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    tasks: tuple[str, ...],
    include: Path | None = None,
    limit: Count | None = None,
    fewshot: Annotated[int, Range(0)] | None = None,
    batch: Count = 8,
    step: Annotated[int, Range(0)] | None = None,
    context: Count | None = None,
    seed: Seed = 0,
    json: bool = False,
) -> int:
    """Score a model of text on tasks of lm-evaluation-harness (the extra `lm_eval`).

    Args:
        run: folder of the run, or of an imported model with its tokenizer, or the name of a model
            that comes with the package
        tasks: their names, as in lambada_openai hellaswag
        include: a folder of tasks of one's own, as the harness reads them; then of these alone
        limit: of each task the first documents only
        fewshot: examples before each document; by default as the task has it
        batch: texts at once
        step: which checkpoint of a run; by default the best one
        context: tokens that full attention of an imported model can look back
        seed: of what is drawn, where a task draws
        json: print JSON
    """
    evaluator = _package("lm_eval")
    manager = _package("lm_eval.tasks").TaskManager(
        include_path=None if include is None else str(include), include_defaults=include is None
    )
    found = evaluator.simple_evaluate(
        adapter(Scorer(any_writer(run, step, context), batch, seed)), tasks=list(tasks),
        num_fewshot=fewshot, limit=limit, task_manager=manager, log_samples=False,
        bootstrap_iters=0,
    )  # fmt: skip
    results = found["results"]
    if json:
        print_json(json_.loads(json_.dumps(results, default=str)))
        return 0
    rows = [
        (task, name.partition(",")[0], f"{value:.4f}")
        for task, metrics in results.items() for name, value in metrics.items()
        if isinstance(value, float)
    ]  # fmt: skip
    print_table("lm-evaluation-harness", ("task", "metric", "value"), rows)
    return 0


def adapter(scorer: Scorer) -> Any:
    """The model as the harness takes it: an LM of it with the methods of `scorer`."""
    base = _package("lm_eval.api.model").LM
    names = ("loglikelihood", "loglikelihood_rolling", "generate_until")

    def method(name: str) -> Any:
        def answered(self, requests, disable_tqdm: bool = False) -> list[Any]:
            return getattr(scorer, name)([request.args for request in requests])

        return answered

    return type("Adapter", (base,), {name: method(name) for name in names})()


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"the harness needs the extra `lm_eval`: pip install 'seqjax[lm_eval]' ({error})"
        ) from error


class Scorer:
    """Log probabilities and continuations of texts, by a model of `writer`."""

    def __init__(self, writer: Writer, batch: int = 8, seed: int = 0):
        self.model, self.spelling, self.before, *_ = writer
        spec = Spec(self.model.inputs, self.model.outputs)
        if not spec.generates or spec.outputs.bound is None or self.model.encoder is not None:
            raise ValueError(f"the harness takes a language model, got {spec}")
        self.batch, self.key = batch, jax.random.key(seed)
        self.chunk = min(CHUNK, self.model.context or CHUNK)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each (context, continuation); a context without tokens is the token `before`.

        Tokens are those of both texts together: one that both have a part in is of the second.
        """
        rows = []
        for context, continuation in pairs:
            first, whole = self.encode(context), self.encode(context + continuation)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, whole)))
            rows.append((whole[:same] or [self.before], whole[same:]))
        return [(one.log_p, one.greedy) for one in self.scored(rows)]

    def loglikelihood_rolling(self, texts: Sequence[tuple[str]]) -> list[float]:
        """Of all of each text, after the token `before`."""
        pieces, owner = [], []
        for n, (text,) in enumerate(texts):
            tokens = [self.before, *self.encode(text)]
            size = self.model.context or len(tokens)
            for start in range(0, len(tokens) - 1, size):
                part = tokens[start : start + size + 1]
                pieces.append((part[:1], part[1:]))
                owner.append(n)
        totals = [0.0] * len(texts)
        for n, one in zip(owner, self.scored(pieces)):
            totals[n] += one.log_p
        return totals

    def generate_until(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """What is written after each context, up to the first text of `until`.

        Other options: max_gen_toks (256), and with do_sample temperature, top_k and top_p.
        """
        return [self._written(context, options) for context, options in requests]

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self.spelling.encode(text.encode())]

    def scored(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
        """Of the second tokens of each row after the first ones; rows of like length together."""
        order = sorted(range(len(rows)), key=lambda n: -sum(map(len, rows[n])))
        found: dict[int, Scored] = {}
        for start in range(0, len(order), self.batch):
            part = order[start : start + self.batch]
            for n, one in zip(part, self._scored([rows[n] for n in part])):
                found[n] = one
        return [found[n] for n in range(len(rows))]

    def _scored(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[Scored]:
        for _, second in rows:
            if self.model.context and len(second) > self.model.context:
                raise ValueError(
                    f"a continuation of {len(second)} tokens, and attention looks back over "
                    f"{self.model.context}: --context may be larger"
                )
        tokens = [self._cut([*first, *second]) for first, second in rows]
        counts = [len(second) for _, second in rows]
        steps = -(-max(len(one) - 1 for one in tokens) // self.chunk) * self.chunk
        x, y = np.zeros((2, self.batch, steps), np.int32)
        there, counted = np.zeros((2, self.batch, steps), bool)
        for n, (one, count) in enumerate(zip(tokens, counts)):
            last = len(one) - 1
            x[n, :last], y[n, :last], there[n, :last] = one[:-1], one[1:], True
            counted[n, last - count : last] = True
        h, total, greedy = self.model.start(self.batch), np.zeros(self.batch), np.ones(self.batch)
        for start in range(0, steps, self.chunk):
            at = np.s_[:, start : start + self.chunk]
            log_p, likeliest, h = _score(self.model, x[at], y[at], there[at], counted[at], h)
            total, greedy = total + np.asarray(log_p), greedy * np.asarray(likeliest)
        return (Scored(float(total[n]), bool(greedy[n])) for n in range(len(rows)))

    def _cut(self, tokens: list[int]) -> list[int]:
        """What attention can look back over, and the last target."""
        return tokens[-self.model.context - 1 :] if self.model.context else tokens

    def _written(self, context: str, options: Mapping[str, Any]) -> str:
        until = options.get("until") or []
        until = [until] if isinstance(until, str) else [text for text in until if text]
        limit = int(options.get("max_gen_toks", 256))
        sampling = {
            "temperature": float(options.get("temperature") or 1),
            "top_k": options.get("top_k"),
            "top_p": options.get("top_p"),
        } if options.get("do_sample") else None  # fmt: skip
        tokens = self.encode(context) or [self.before]
        if self.model.context:
            tokens = tokens[max(0, len(tokens) + limit - self.model.context) :] or tokens[-1:]
        size = -(-len(tokens) // self.chunk) * self.chunk
        x, there = np.zeros((1, size), np.int32), np.arange(size)[None] >= size - len(tokens)
        x[0, size - len(tokens) :] = tokens
        h, y_hat = self.model.start(1), None
        for start in range(0, size, self.chunk):
            at = np.s_[:, start : start + self.chunk]
            y_hat, h = _read(self.model, x[at], there[at], h)
        written: list[int] = []
        while len(written) < limit:
            key = jax.random.fold_in(self.key, len(written))
            y_hat, h, more = _write(self.model, y_hat, h, key, sampling)
            written += np.asarray(more).tolist()
            text = self._text(written[:limit])
            ends = [text.index(one) for one in until if one in text]
            if ends:
                return text[: min(ends)]
        return self._text(written[:limit])

    def _text(self, tokens: Sequence[int]) -> str:
        return self.spelling.decode(tokens).decode(errors="replace")


@jax.jit
def _score(model, x, y, there, counted, h):
    """Sums of log p of the targets that count, whether each is the likeliest, the state after."""
    y_hat, h = model(x, h, mask=there)
    logits = y_hat.astype(accumulation_dtype(y_hat.dtype))
    nats = model.outputs.loss(logits, y)
    right = model.outputs.predict(logits).astype(y.dtype) == y
    return -jnp.sum(jnp.where(counted, nats, 0), axis=1), jnp.all(right | ~counted, axis=1), h


@jax.jit
def _read(model, x, there, h):
    """The answer after the last step, which is there, and the state."""
    y_hat, h = model(x, h, mask=there)
    return y_hat[:, -1], h


@jax.jit
def _write(model, y_hat, h, key, sampling):
    """WRITTEN more tokens of one text."""

    def step(carry, n):
        y_hat, h = carry
        if sampling is None:
            y = model.outputs.predict(y_hat)
        else:
            y = model.outputs.sample(jax.random.fold_in(key, n), y_hat[0], **sampling)[None]
        y_hat, h = model(y[:, None], h)
        return (y_hat[:, -1], h), y[0]

    (y_hat, h), tokens = lax.scan(step, (y_hat, h), jnp.arange(WRITTEN, dtype=jnp.int32))
    return y_hat, h, tokens
