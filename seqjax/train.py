"""Training: one loop, to be read from top to bottom.

    result = train(config)                  # nothing is written
    result = train(config, "runs/parity")   # metrics, curves, checkpoints; call again to go on

The step is one `jax.jit` over plain arrays by name, with its memory donated. The host runs a few
steps ahead of the device: it prepares the next batch while the device computes.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.checkpoint import CheckpointError, Checkpoints
from seqjax.common import keep_memory
from seqjax.config import Config
from seqjax.models import Model
from seqjax.optimiser import adamw
from seqjax.progress import Progress, table
from seqjax.record import Record, read_config, write_config
from seqjax.step import Arrays, TrainState, make_evaluate, make_update, take_apart
from seqjax.tasks import Spec, Task, make

AHEAD = 2  # steps the host may be ahead of the device


class NotFinite(ArithmeticError):
    """The loss or its gradient became NaN or infinite."""


class Result(NamedTuple):
    model: Model  # as after the last step
    step: int
    metrics: dict[str, float]  # of the last evaluation
    best: dict[str, float]  # loss and step of the best evaluation
    reason: str  # why it ended: finished, time, patience, or the name of a signal
    seconds: float


def train(
    config: Config, run: str | Path | None = None, progress: Progress | None = None
) -> Result:
    """Train the model of `config`; in the folder `run`, go on from its last checkpoint.

    On CPU a run that was stopped and resumed is bitwise the run that was not, unless the clock
    decides (`max_seconds`). SIGTERM and Ctrl-C save and end it. Raises NotFinite when the loss
    does not stay finite; what was saved before stays.
    """
    keep_memory()
    t, run = config.train, None if run is None else Path(run)
    task = make(config.task.name, **config.task.options)
    params_key, dropout_key = jax.random.split(jax.random.key(t.seed))
    model = Model(config.model, task.spec, rngs=nnx.Rngs(params_key))
    params, frozen, decayed, rebuild = take_apart(model)
    optimiser = adamw(config.optimiser, decayed)
    carry = model.start(config.task.batch) if task.carries_state else None
    moments, key = optimiser.init(params), jax.random.key_data(dropout_key)
    state = TrainState(jnp.int32(0), params, frozen, moments, key, carry)
    update = make_update(config, task, rebuild, optimiser)
    evaluate = make_evaluate(config, task, rebuild)
    data = task.batches(t.seed, config.task.batch, config.task.length)

    step, seconds, best, checkpoints = 0, 0.0, {"loss": float("inf"), "step": 0}, None
    metrics, evaluated = {}, 0  # the last evaluation, and the step it was of
    if run is not None:
        write_config(run, config)
        checkpoints = Checkpoints(run / "checkpoints", t.max_to_keep)
        if checkpoints.steps():
            state, extra = checkpoints.restore(state)
            data.set_state(extra["data"])
            step, seconds, best = int(state.step), extra["seconds"], extra["best"]
            metrics, evaluated = extra["metrics"], extra["evaluated"]
    progress = progress or Progress(t.steps)
    if step:
        progress.say(f"going on from step {step}")

    began, saved = monotonic() - seconds, step
    ahead: deque[tuple[int, Arrays]] = deque()  # steps under way on the device
    window: list[dict[str, float]] = []  # metrics since the last line
    since = None  # the step and the time the rate is measured from: the first one compiles

    def share() -> float:
        """How much of the run is over, by steps or by the clock."""
        time = (monotonic() - began) / t.max_seconds if t.max_seconds else 0
        return min(1.0, max(step / t.steps, time))

    with Stop() as stop, checkpoints or nullcontext(), Record(run, step) as record, progress:
        while True:
            over = "finished" if step >= t.steps else "time" if share() >= 1 else None
            reason = stop.asked or over
            evaluating = evaluated < step and (step % t.evaluate_every == 0 or over is not None)
            saving = saved < step and (step % t.save_every == 0 or reason is not None)

            while len(ahead) > (0 if evaluating or saving else AHEAD):
                number, told = ahead.popleft()
                window.append({name: float(v) for name, v in jax.device_get(told).items()})
                if not np.isfinite([window[-1]["loss"], window[-1]["gradient_norm"]]).all():
                    raise NotFinite(_blame(number, window[-1], checkpoints))
                since = since or (number, monotonic())
                if number % t.log_every == 0:
                    mean = {name: float(np.mean([w[name] for w in window])) for name in told}
                    taken = (number - since[0]) * config.task.batch * config.task.length
                    rate = taken / max(1e-9, monotonic() - since[1])
                    since, window = (number, monotonic()), []
                    elapsed = monotonic() - began
                    record.write(number, {**mean, "tokens_per_second": rate, "seconds": elapsed})
                    left = elapsed * (1 - share()) / share()
                    progress.update(number, share(), mean["loss"], rate, left)

            paused = monotonic()
            measured = evaluate(state.params, state.frozen, stop) if evaluating else {}
            if measured:
                metrics, evaluated = measured, step
                record.write(step, {f"validation_{name}": v for name, v in metrics.items()})
                progress.say(f"step {step}: validation {table(metrics)}")
                if metrics["loss"] < best["loss"]:
                    best, saving = {"loss": metrics["loss"], "step": step}, saved < step
                elif t.patience and step - best["step"] >= t.patience * t.evaluate_every:
                    reason, saving = reason or "patience", saved < step
            elif evaluating:  # it was interrupted, and comes first when the run goes on
                reason, saving = stop.asked, saved < step
            if saving and checkpoints:
                checkpoints.best, saved = best["step"], step
                extra = {"step": step, "seconds": monotonic() - began, "data": data.get_state()}
                extra |= {"evaluated": evaluated, "metrics": metrics, "best": best}
                checkpoints.save(step, state, extra)
            since = since and (since[0], since[1] + monotonic() - paused)
            if reason:
                break

            state, told = update(state, next(data), np.float32(share()))
            step += 1
            ahead.append((step, told))
    if stop.asked:
        progress.say(f"{stop.asked}: " + (f"saved step {step} in {run}" if run else "stopped"))
    model = rebuild(state.params, state.frozen)
    return Result(model, step, metrics, best, reason, monotonic() - began)


def load(run: str | Path, step: int | None = None) -> tuple[Model, Task, Config, int]:
    """The model of the run in the folder `run`, its task and config, and the step it is of.

    step: which of the checkpoints; None: the one with the best validation loss, or the last.
    """
    config = read_config(Path(run))
    task = make(config.task.name, **config.task.options)
    model, at = load_model(run, task.spec, step)
    return model, task, config, at


def load_model(run: str | Path, spec: Spec, step: int | None = None) -> tuple[Model, int]:
    """`load` of the model alone, which needs no data: `spec` is what its task says of it."""
    run = Path(run)
    config = read_config(run)
    if not (run / "checkpoints").exists():
        raise CheckpointError(f"{run} has no checkpoint yet")
    model = Model(config.model, spec, rngs=nnx.Rngs(config.train.seed))
    params, frozen, _, rebuild = take_apart(model)
    with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
        at = checkpoints.read()[1]["best"]["step"] if step is None else step
        at = at if at in checkpoints.steps() or step is not None else None
        arrays, extra = checkpoints.restore({"params": params, "frozen": frozen}, at)
    return rebuild(arrays["params"], arrays["frozen"]), extra["step"]


class Stop:
    """SIGTERM or Ctrl-C ask the loop to save and end; a second Ctrl-C ends it at once."""

    def __init__(self):
        self.asked: str | None = None

    def __enter__(self) -> Stop:
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # Python's rule for handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        del frame
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name


def _blame(step: int, metrics: dict[str, float], checkpoints: Checkpoints | None) -> str:
    last = "no checkpoint was saved before it"
    if checkpoints and (kept := checkpoints.steps()):
        last = f"the last good checkpoint is {checkpoints.folder / str(kept[-1])}"
    return f"step {step}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}; {last}"
