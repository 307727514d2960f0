"""Training: one loop, to be read from top to bottom.

    result = train(config)                  # nothing is written
    result = train(config, "runs/parity")   # metrics, curves, checkpoints; call again to go on

The step is one `jax.jit` over plain arrays by name, with its memory donated. The host runs a few
steps ahead of the device: it prepares the next batch while the device computes.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx
from rich.console import Console

from seqjax.core.common import keep_memory
from seqjax.stacks.model import Model
from seqjax.tasks import Task
from seqjax.tasks.task import DataIterator
from seqjax.train.average import Arrays, averaging
from seqjax.train.checkpoint import CheckpointError, Checkpoints
from seqjax.train.config import Config, check_config, fitted, task_of
from seqjax.train.course import Course, Window
from seqjax.train.guard import SPIKE, Bad, NotFinite
from seqjax.train.imported import build
from seqjax.train.optimiser import described as described_groups
from seqjax.train.origin import find, keep
from seqjax.train.processes import agree, barrier, first, leads, several
from seqjax.train.progress import Progress, short, table
from seqjax.train.record import (
    Logger,
    Record,
    fields,
    resolved,
    write_config,
)
from seqjax.train.step import prepare, take_apart
from seqjax.train.stop import Stop
from seqjax.zoo import own

Callback = Callable[[int, Mapping[str, float], Model], object]
PERHAPS = ("recent",)  # of a state what its checkpoint may lack, as `spike` was turned on later
AHEAD = 2  # steps the host may be ahead of the device


class Result(NamedTuple):
    model: Model  # as after the last step, its weights averaged where the config has an average
    step: int
    metrics: dict[str, float]  # of the last evaluation
    best: dict[str, float]  # step of the best evaluation, its loss and `train.best_by`
    reason: str  # why it ended: finished, time, patience, callback, or the name of a signal
    seconds: float

    @property
    def status(self) -> int:
        """Exit status of a process that did this: 0, or 128 and the number of the signal; of
        several processes 0, as the one that had the signal must not take the others with it."""
        stopped = self.reason.startswith("SIG") and not several()
        return 128 + signal.Signals[self.reason] if stopped else 0


def train(
    config: Config,
    run: str | Path | None = None,
    progress: Progress | None = None,
    *,
    origin: str | Path | None = None,
    moments: bool = False,
    task: Task | None = None,
    optimiser: optax.GradientTransformation | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> Result:
    """Train the model of `config`; in the folder `run`, go on from its last checkpoint.

    origin: a run or a checkpoint whose model is trained on (`seqjax.train.origin`).
    moments: go on with the optimiser of that run too: its moments, and its average of weights.
    task: in place of name and options in `config.task`; whoever loads the run gives it again.
    optimiser: in place of `config.optimiser`, but for `accumulate` and `average`: complete, with
        its rate.
    logger: called with (step, metrics), with all that metrics.jsonl has.
    callbacks: each called with (step, metrics, model) after an evaluation; the arrays of the model
        are used up by the next step. One that returns True ends the run.
    In several processes (`seqjax.train.processes`) each calls `train` with the same; the first one
    logs and writes, callbacks run in all and have to return the same.
    On CPU a run that was stopped and resumed is bitwise the run that was not, unless the clock
    decides (`max_seconds`), and so are its metrics. SIGTERM, SIGHUP and Ctrl-C save and end it.
    Raises ValueError, before any work and any folder, for what cannot run, and NotFinite when the
    loss does not stay finite, or spikes, and `bad_step` has it so; what was saved before stays.
    """
    if own.LOADING:
        raise ValueError(
            f"{own.LOADING[-1]} trains where it is imported: let it define CONFIG, or call train "
            'under if __name__ == "__main__"'
        )
    keep_memory()
    t, run = config.train, None if run is None else Path(run)
    if run and run.exists() and not run.is_dir():
        raise ValueError(f"run must be a folder, and {run} is a file")
    source = None if origin is None else find(origin, run, moments=moments)
    if moments and source is None:
        raise ValueError("from_moments goes with from: of which run the moments are")
    objects = [n for n, one in (("task", task), ("optimiser", optimiser)) if one is not None]
    if task is not None:
        config = replace(config, task=replace(config.task, name=task.name, options={}))
    check_config(config, task)
    if t.bad_step == "rewind" and run is None:
        raise ValueError("train.bad_step=rewind goes back to a checkpoint: give the run a folder")
    task = task_of(config, task)  # once: it may read files
    config = fitted(config if source is None else source.config(config, task), task)
    agree(fields(resolved(config)) | {"run": str(run), "from": source and source.record})
    size, groups, task, start, layout, update, _, evaluate, rebuild = prepare(
        config, source, task=task, optimiser=optimiser
    )
    key, described = jax.random.split(jax.random.key(t.seed))[0], source and source.description

    def drawn() -> tuple[Arrays, Arrays]:
        model = build(config.model, task.spec, described, rngs=nnx.Rngs(key))
        return take_apart(model, t.freeze)[:2]

    params, frozen = layout.made(drawn)
    if source is not None:
        params, frozen = (source.fill(arrays, task.spec) for arrays in (params, frozen))
    state = layout.made(start, params, frozen)
    if source is not None and moments:
        state = source.resume(state, config)
    state = layout.put(state)
    average, patience = averaging(config.optimiser), (t.patience or 0) * t.evaluate_every

    def weights() -> Arrays:
        """What is evaluated."""
        return state.params if state.average is None else state.average.mean

    alone, rows = not several(), layout.rows(config.task.batch)

    def stream(at: Mapping[str, Any] | None = None) -> DataIterator:
        of = t.seed, config.task.batch, config.task.length
        batches = task.batches(*of) if alone else task.rows(*of, rows)
        if at is not None:
            batches.set_state(at)
        return batches

    data = stream()
    step, seconds, checkpoints = 0, 0.0, None
    course = Course({"loss": float("inf"), "step": 0})
    progress = progress or Progress(t.steps)
    if not leads():
        progress = Progress(t.steps, Console(quiet=True))

    with ExitStack() as stack:
        stop = stack.enter_context(Stop(several=not alone))
        if run is not None:
            began_with = source.record if source else {}
            sizes = size._asdict()
            of_run = run, config, task.fingerprint, sizes, began_with, objects
            so_far = first(lambda: write_config(*of_run))
            folder = run / "checkpoints"
            checkpoints = stack.enter_context(Checkpoints(folder, t.max_to_keep, t.keep_every))
            if source is not None:
                first(partial(keep, source, run))
            if checkpoints.steps():
                state, extra = checkpoints.restore(state, perhaps=PERHAPS)
                state = layout.put(state)
                data = stream(extra["data"])
                step, seconds, course = int(state.step), extra["seconds"], Course.of(extra)
                now, was = config.model.compute, so_far.model.compute if so_far else None
                cast = f", in {now} what was in {was}" if was not in (None, now) else ""
                progress.message(f"going on from step {step}{cast}")
        if task.description:
            progress.message(task.description)
        if source is not None and not source.answers(task.spec):
            progress.message(f"a new head for {task.spec.outputs}: {source.path} has another")
        frozen_too = f" ({short(size.frozen)} frozen)" if size.frozen else ""
        progress.message(
            f"model.features={config.model.features}: {short(size.parameters)} parameters"
            f"{frozen_too}, "
            f"state {short(size.state_bytes)} bytes, {short(size.flops_per_token)} flops a token"
        )
        for line in described_groups(groups):
            progress.message(line)
        began, saved = monotonic() - seconds, (step, course.evaluated)
        if not step and (source is not None or t.bad_step == "rewind"):
            saved = None  # save at once: to do without its origin, and to have something to go to
        ahead: deque[tuple[int, Arrays]] = deque()  # steps under way on the device
        heard = 0.0  # of several processes, by the last step that is done
        since = None  # the step and the time the rate is measured from: the first one compiles

        def own_share() -> float:
            """How much of the run is over, by steps or by the clock."""
            time = (monotonic() - began) / t.max_seconds if t.max_seconds else 0
            return min(1.0, max(step / t.steps, time))

        def share() -> float:
            """The same by a clock that is the same for all processes."""
            return own_share() if alone else heard

        def regular(step: int) -> int:
            return step - step % t.save_every

        def save() -> None:
            if checkpoints is not None:
                checkpoints.best = course.best["step"]
                checkpoints.back = regular(step) if t.bad_step == "rewind" else None
                at = {"step": step, "seconds": monotonic() - began, "data": data.get_state()}
                checkpoints.save(step, state, at | course.extra())

        record = Record(run if leads() else None, step, course.evaluated, course.rewinds)
        stack.enter_context(record)

        def write(step: int, metrics: Mapping[str, float]) -> None:
            try:
                record.write(step, metrics)
            except OSError as error:
                text = f"metrics.jsonl of {run} could not be written: {error.strerror}"
                raise CheckpointError(f"{text}; {_last(checkpoints)}") from error
            if logger is not None and leads():
                logger(step, metrics)

        stack.enter_context(progress)
        if not alone:  # collectives wait for a process that still compiles some seconds at most
            update.lower(state, layout.batch(next(stream()), config.task.batch),
                         layout.gather(0, 0)).compile()  # fmt: skip
            evaluate.compile(weights(), state.frozen)
            barrier()

        while True:
            over = "finished" if step >= t.steps else "time" if share() >= 1 else None
            reason = stop.signal or over
            due = step % t.evaluate_every == 0 or over is not None
            evaluating = course.evaluated < step and due
            saves = any(step % every == 0 for every in (t.save_every, t.keep_every) if every)
            saving, bad = saves or reason is not None, None
            if checkpoints is not None:
                checkpoints.check()

            while len(ahead) > (0 if evaluating or saving else AHEAD):
                number, training = ahead.popleft()
                now = {name: float(v) for name, v in jax.device_get(training).items()}
                if not alone:
                    heard = now.pop("share")
                    stop.hear(now.pop("word"))
                bad = Bad.of(number, now)
                if bad and (t.bad_step == "stop" or course.bad == t.bad_in_a_row):
                    write(number, bad.record("stopped", 1))
                    raise NotFinite(_blame(bad, course.bad, checkpoints))
                if bad and t.bad_step == "rewind":
                    break
                if bad:
                    course = course._replace(skipped=course.skipped + 1, bad=course.bad + 1)
                    write(number, bad.record("skipped", course.skipped))
                    progress.message(f"{bad}: skipped")
                else:
                    course = course.add({n: v for n, v in now.items() if n != SPIKE}, t)
                since = since or (number, monotonic())
                if number % t.log_every == 0 and course.window.count:
                    mean = course.means()
                    if t.bad_step == "skip":
                        mean["skipped"] = course.skipped
                    course = course._replace(window=Window())
                    taken = (number - since[0]) * config.task.batch * config.task.length
                    rate = taken / max(1e-9, monotonic() - since[1])
                    since, elapsed = (number, monotonic()), monotonic() - began
                    write(number, {**mean, "tokens_per_second": rate, "seconds": elapsed})
                    left = elapsed * (1 - own_share()) / own_share()
                    progress.update(number, own_share(), mean["loss"], rate, left)

            if bad and t.bad_step == "rewind" and checkpoints is not None:
                state, extra = checkpoints.go_back(state, regular(bad.step - 1), PERHAPS)
                state = layout.put(state)
                step, course = int(state.step), Course.of(extra).rewound(bad, int(state.step))
                data = stream(extra["data"])
                for _ in range(bad.step - step):
                    next(data)
                ahead.clear()
                since, saved = None, (step, course.evaluated)
                save()  # at once: from now on these batches are no longer those of the run
                checkpoints.steps()
                record.go_back(step, course.evaluated, course.rewinds[:-1])
                write(step, {n: v for n, v in course.rewinds[-1].items() if n != "step"})
                progress.message(f"{bad}: back to step {step}, past the batches since")
                continue

            paused = monotonic()
            measured = None
            if evaluating:
                measured = evaluate.unless_stopped(stop, weights(), state.frozen)
            if measured is not None:
                course = course.measured(measured, step, t)
                saving = saving or course.best["step"] == step
                write(step, {f"validation_{name}": v for name, v in measured.items()})
                progress.message(f"step {step}: validation {table(measured)}")
                if average is not None and state.average is not None:
                    averaged = average.evaluated(state.average, measured["loss"])
                    state = state._replace(average=averaged)
                model = rebuild(weights(), state.frozen)
                if any([callback(step, measured, model) for callback in callbacks]):
                    reason = reason or "callback"
            elif evaluating:  # it was interrupted, and comes first when the run goes on
                reason = stop.signal
            if t.patience and course.evaluated - course.best["step"] >= patience:
                reason = reason or "patience"
            if saved != (step, course.evaluated) and (saving or reason):
                if t.bad_step == "rewind" and step % t.save_every == 0:
                    course = course._replace(bad=0)  # it came further
                saved = (step, course.evaluated)
                save()
            since = since and (since[0], since[1] + monotonic() - paused)
            if reason:
                break

            batch = layout.batch(next(data), None if alone else config.task.batch)
            state, training = update(state, batch, layout.gather(own_share(), stop.word))
            step += 1
            ahead.append((step, training))
    if stop.signal == reason:
        kept = f"saved step {step} in {run}" if run and step else "nothing to save"
        progress.message(f"{stop.signal}: {kept}")
    model = rebuild(weights(), state.frozen)
    metrics = dict(course.metrics)
    return Result(model, step, metrics, course.best, reason, monotonic() - began)


def _blame(bad: Bad, before: int, checkpoints: Checkpoints | None) -> str:
    return f"{bad}{f', after {before} bad ones in a row' if before else ''}; {_last(checkpoints)}"


def _last(checkpoints: Checkpoints | None) -> str:
    if checkpoints and (kept := checkpoints.steps()):
        return f"the last good checkpoint is {checkpoints.folder / str(kept[-1])}"
    return "no checkpoint was saved before it"
