"""What a run is good for once it is trained: `seqjax eval RUN` and `seqjax generate RUN`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from seqjax.core.common import printable
from seqjax.core.ranges import Count, Fraction, NotNegative, Range, Seed
from seqjax.models import find
from seqjax.train.config import MeshConfig
from seqjax.train.processes import ALONE, Processes, job, printed_once

if TYPE_CHECKING:
    from seqjax.stacks.model import Model
    from seqjax.tasks import Task
    from seqjax.tasks.texts.translation import TranslationTask

Step = Annotated[int, Range(0)]
ONE = MeshConfig()  # device
Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def evaluate(
    run: Run,
    step: Step | None = None,
    batch: Count | None = None,
    length: Count | None = None,
    batches: Count | None = None,
    weights: Literal["average", "last"] | None = None,
    held_out: str | None = None,
    beam: Count = 1,
    length_penalty: NotNegative = 1.0,
    cache: Count | None = None,
    theta: NotNegative = 0.1,
    cache_weight: Fraction = 0.1,
    compute: Literal["float32", "bfloat16", "float64"] | None = None,
    mesh: MeshConfig = ONE,
    processes: Processes = ALONE,
) -> int:
    """Score a trained model on validation batches.

    Args:
        run: folder of the run, or the name of a model that comes with the package
        step: which checkpoint; by default the best one
        batch: sequences per batch; by default as in training
        length: time steps per sequence; by default as in training
        batches: how many batches; by default as in training
        weights: of a run with an average of weights: that, which is the default, or the last
        held_out: of a task of data: the part to score, as test; by default as in training
        beam: of translation: how many beginnings a beam search keeps; 1: the likeliest token
        length_penalty: of a beam search: log p is divided by the length to this power
        cache: of a language model: how many of the last words a neural cache keeps; none by default
        theta: how much more a kept word counts where the model was in a similar state
        cache_weight: the share of the cache in the probabilities
        compute: dtype of activations; by default as in training
        mesh: of devices for the model and its batches; by default one device, however it trained
        processes: of several with one such mesh, each of which is started with the same command
    """
    from seqjax.tasks.texts.translation import TranslationTask
    from seqjax.train.cache import NeuralCache
    from seqjax.train.config import check_config, task_of
    from seqjax.train.evaluation import make_evaluate
    from seqjax.train.layout import Layout
    from seqjax.train.progress import table
    from seqjax.train.record import read_config
    from seqjax.train.step import take_apart
    from seqjax.train.trained import load

    with job(processes), printed_once():
        run = find(run)
        config = read_config(run)
        given = {"batch": batch, "evaluation_length": length, "evaluation_batches": batches}
        changed = {name: value for name, value in given.items() if value is not None}
        config = replace(
            config, task=replace(config.task, **changed), mesh=mesh,
            optimiser=replace(config.optimiser, accumulate=1),  # no matter of evaluation
        )  # fmt: skip
        if held_out is not None:
            options = {**config.task.options, "held_out": held_out}
            config = replace(config, task=replace(config.task, options=options))
        check_config(config)
        model, task, _, at = load(run, step, weights=weights, compute=compute, mesh=mesh)
        if compute not in (None, config.model.compute):
            print(f"in {compute} what was trained in {config.model.compute}")
        if beam > 1 and not isinstance(task, TranslationTask):
            raise ValueError(f"--beam is of translation, and {config.task.name} is none")
        if held_out is not None:
            task = task_of(config)
        kept = None if cache is None else NeuralCache(cache, theta, cache_weight)
        params, frozen, _, rebuild = take_apart(model)
        evaluation = make_evaluate(config, task, rebuild, kept, layout=Layout.of(config))
        metrics = evaluation(params, frozen)
        length = config.task.evaluation_length or config.task.length
        print(f"step {at}    {table(metrics)}")
        if baseline := task.baseline(length):
            print(f"baseline  {table(baseline)}")
        if isinstance(task, TranslationTask):
            bleu = translated(model, task, config.task.batch, beam, length_penalty)
            print(f"bleu {bleu:.2f}")
        if task.drawn:
            print(f"paths     {table(forecast(model, task, length))}")
        return 0


def forecast(
    model: Model, task: Task, length: int, windows: int = 64, paths: int = 200
) -> dict[str, float]:
    """How what is held out lies in paths that the model draws, and the errors of their mean."""
    import jax
    import numpy as np

    from seqjax.train.forecast import calibration, sample_paths

    batch = task.spread(windows, length)
    y, horizon = np.asarray(batch.y[:, -task.drawn :, :-1]), task.drawn
    drawn = sample_paths(
        model, batch.x, batch.y[:, -1, -1], horizon, paths=paths, key=jax.random.key(0)
    )
    error = drawn.mean(axis=1) - y
    errors = {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean())}
    return errors | calibration(drawn, y)


def translated(
    model: Model, task: TranslationTask, batch: int, beam: int = 1, length_penalty: float = 1.0
) -> float:
    """BLEU of what is held out, by the likeliest token at every step or by beam search."""
    from seqjax.answers.metrics import bleu
    from seqjax.tasks.texts.translation import END
    from seqjax.train.beam import beam_search
    from seqjax.train.generate import generate

    known: dict[str, Any] = dict(width=beam, end=END, length_penalty=length_penalty)
    sources, references = task.texts()
    written: list[str] = []
    for start in range(0, len(sources), batch):
        part = sources[start : start + batch]
        prompts = [task.prompt(one) for one in [*part, *part[-1:] * (batch - len(part))]]
        if beam > 1:
            rows = beam_search(model, prompts, task.steps, **known).tokens[:, 0]
        else:
            rows = generate(model, prompts, task.steps, temperature=0)
        texts = (task.spelling.decode(row.tolist()) for row in rows[: len(part)])
        written += [text.decode(errors="replace") for text in texts]
    return bleu(written, references)


def generate(
    run: Run,
    prompt: tuple[str, ...] = ("\n",),
    length: Annotated[int, Range(0)] = 400,
    temperature: NotNegative = 0.8,
    top_k: Count | None = None,
    top_p: Annotated[float, Range(above=0, high=1)] | None = None,
    beam: Count | None = None,
    length_penalty: NotNegative = 1.0,
    draft: Path | None = None,
    guesses: Count = 4,
    seed: Seed = 0,
    step: Step | None = None,
    context: Count | None = None,
    raw: bool = False,
    figure: Path | None = None,
    mesh: MeshConfig = ONE,
    processes: Processes = ALONE,
) -> int:
    """Write on after prompts with a trained model of text, or an imported one.

    Control bytes are written as escapes, as in \\x1b, but for newlines and tabs.

    Args:
        run: folder of the run, or of an imported model, or the name of a model that comes with the
            package, `seqjax list --kind models`
        prompt: one or more texts to go on from; for an imported model numbers of tokens,
            as in "17 4 25": its tokenizer is carried along, and not run
        length: bytes, or tokens, to write after each
        temperature: below 1 likelier bytes are preferred; 0 always takes the likeliest
        top_k: sample from the k likeliest bytes only
        top_p: sample from the likeliest bytes that together have this probability
        beam: in place of sampling the likeliest text of all that a beam search of this width finds
        length_penalty: of a beam search: log p is divided by the length to this power
        draft: a smaller model of the same tokens, as RUN is given, whose guesses the model accepts
            or corrects: what is written has the distribution of the model alone, in fewer of its
            steps. The share accepted is printed after it, on standard error
        guesses: of the draft, how many at a time
        seed: of the samples
        step: which checkpoint of a run; by default the best one
        context: tokens that full attention of an imported model can look back, and so the size
            of its state; by default what it was imported with
        raw: bytes as they are, control bytes too, for a file or a pipe
        figure: of a decoder that looks at its source, as bahdanau does: a picture of where it
            looked when it wrote each token, .png, .svg, .pdf ...
        mesh: of devices for the parameters; by default one device has them
        processes: of several with one such mesh, each of which is started with the same command
    """
    import jax

    from seqjax.core.files import check_figure, save_figure
    from seqjax.tools.writers import writer
    from seqjax.train.beam import beam_search
    from seqjax.train.generate import generate as write_on
    from seqjax.train.imported import load as load_imported, stored
    from seqjax.train.layout import spread
    from seqjax.train.speculate import speculate

    if draft is not None and not (beam is None and top_k is None and top_p is None):
        raise ValueError("--draft is for samples of all tokens: leave out --beam, --top-k, --top-p")
    if raw and sys.stdout.isatty():
        raise ValueError("--raw may write control bytes: send it to a file or a pipe")
    with job(processes), printed_once():
        if figure is not None:
            check_figure(figure)
        run = find(run)
        between, end, spelling = b"", None, None
        if stored(run):
            if step is not None:
                raise ValueError(f"{run} is an imported model: it has no steps to choose from")
            model = spread(load_imported(run, context=context).model, mesh)
            encode, decode = _numbers, _spaced
        else:
            if context is not None:
                raise ValueError("--context is for imported models: what a trained one sees is "
                                 "an option of its layers")  # fmt: skip
            model, spelling, _, between, end = writer(run, step, mesh)
            encode, decode = lambda text: list(spelling.encode(os.fsencode(text))), spelling.decode
        prompts, accepted = [encode(text) for text in prompt], None
        if draft is not None:
            draft, names = find(draft), None
            if stored(draft):
                small = spread(load_imported(draft, context=context).model, mesh)
            else:
                small, spells, *_ = writer(draft, None, mesh)
                names = list(spells.names)
            if names != (None if spelling is None else list(spelling.names)):
                raise ValueError(f"{draft} writes other tokens than {run}")
            key = jax.random.key(seed)
            known: dict[str, Any] = dict(k=guesses, key=key, temperature=temperature)
            rows, accepted = speculate(model, small, prompts, length, **known)
        elif beam is not None:
            known = dict(width=beam, end=end, length_penalty=length_penalty)
            found = beam_search(model, prompts, length, **known).tokens[:, 0]
            rows: Any = [row[row >= 0] for row in found]
        else:
            known = dict(temperature=temperature, top_k=top_k, top_p=top_p)
            rows = write_on(model, prompts, length, key=jax.random.key(seed), **known)
        if figure is not None:
            from seqjax.tools.looked import looked_picture

            if spelling is None:
                raise ValueError("--figure is of models that were trained here on pairs")
            save_figure(looked_picture(model, prompts, rows, spelling.names, end), figure, dpi=150)
        for text, row in zip(prompt, rows, strict=True):
            whole = os.fsencode(text) + between + decode(row)
            if raw:
                sys.stdout.buffer.write(whole + b"\n")
            else:
                print(printable(whole.decode(errors="backslashreplace")))
        if accepted is not None:
            print(f"accepted: {accepted:.3f} of the tokens that {draft} wrote", file=sys.stderr)
        return 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError:
        raise ValueError(f"a prompt of an imported model is numbers, got {text!r}") from None


def _spaced(tokens) -> bytes:
    return "".join(f" {token}" for token in tokens.tolist()).encode()
