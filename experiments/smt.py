"""Supervised memory training against BPTT: the same student, the same data (arXiv:2606.06479).

command     python -m experiments.smt        (or some of: needle "needle, GRU" stack parity
            gradients lengths contours)
hardware    2 CPU cores, shared with other work; 2026-11-22
time        20 minutes; of them needle over 64 steps: SMT 167 s, DMT 17 s, each BPTT 85 s
expected    accuracy (loss) on fresh sequences; drift: 1 - R^2 of one step -> rolled out

             length  teacher       SMT           SMT -> DMT    BPTT          drift: SMT, DMT
    needle       16  1.00 (0.006)  1.00 (0.014)  1.00 (0.000)  0.11 (2.081)  0.00->0.00 0.00->0.00
    needle       32  1.00 (0.013)  0.71 (1.417)  1.00 (0.000)  0.11 (2.081)  0.01->0.20 0.01->0.01
    needle       64  1.00 (0.002)  0.33 (4.856)  1.00 (0.000)  0.11 (2.081)  0.00->1.25 0.00->0.01
    needle, GRU  32  1.00 (0.020)  0.96 (0.202)  1.00 (0.000)  0.11 (2.081)  0.00->0.09 0.01->0.02
    stack        32  0.81 (0.400)  0.82 (0.391)  0.85 (0.337)  0.98 (0.048)  0.02->0.03 0.01->0.02
    parity       24  0.66 (0.406)  0.68 (0.459)  0.90 (0.175)  1.00 (0.000)  0.00->0.05 0.00->0.00

The student is an Elman network, ungated, but for the row that says GRU; chance is 0.125, 0.25, 0.5;
BPTT is the better of two learning rates, on as many sequences as SMT and DMT together. The claim on
long distances holds: BPTT stays at chance, gated or not, SMT -> DMT always finds the needle. So
does the need for DMT: over 32 steps and more the student of SMT drifts away. The claim on state
tracking does not hold at this size: where most steps are answered, BPTT learns from fewer sequences
than the teacher, which is what its student can learn from.

Gradients before training, by gain of the weights: |d loss / d m_t| by steps from m_t to the loss
(figure 11). Those of BPTT vanish or explode with the gain, those of SMT do neither:

           BPTT: 0.5      1        2        4          SMT: 0.5      1        2        4
    8            2e-05    4e-03    1e+00    3e+02           3e-02    2e-01    8e-01    1e+00
    32           1e-18    7e-10    2e+00    2e+09           6e-03    3e-02    1e-01    2e-02
    64           4e-36    6e-19    7e+00    1e+19           3e-03    2e-02    8e-02    9e-04

Beyond the trained length of 24 (figure 13) the student of parity is right more often than its
teacher: 0.91 and 0.67 at 24; 0.72 and 0.60 at 48; 0.61 and 0.55 at 96; 0.55 and 0.52 at 192. More
compute buys a smaller memory (figure 9): the teacher of a stack of 24 steps reaches a loss of 0.478
with 64 numbers after 200 steps and with 16 after 400, while sizes in between are not in order.

The teacher's encoder is causal, so that all memories of a sequence are learned from at once; the
paper's code for such tasks is not published. The figure goes to runs/smt/gradients.png.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.smt_tasks import Task, needle, parity, stack
from seqjax.learn import smt_diagnostics as diagnostics
from seqjax.learn.bptt import bptt
from seqjax.learn.learner import Learner, batched, cross_entropy
from seqjax.learn.smt import adamw, dmt, smt, smt_optimiser
from seqjax.learn.smt_students import Student, as_student_cell, make_student, roll
from seqjax.learn.smt_teacher import Teacher

RUN = Path("runs/smt")


@dataclass(frozen=True)
class Size:
    """Everything that a larger machine would change."""

    student: str = "elman"
    hidden: int = 128
    features: int = 32
    memory: int = 1
    encoder_depth: int = 2
    decoder_depth: int = 1
    heads: int = 4
    batch: int = 16
    cuts: int = 4  # places per sequence at which the future is predicted
    horizon: int | None = None  # None: to the end of the sequence
    every: int = 1  # steps between imitated ones
    smt_steps: int = 800
    dmt_steps: int = 800
    smt_rate: float = 3e-3
    dmt_rate: float = 3e-3
    bptt_rates: tuple[float, ...] = (1e-3, 3e-3)
    evaluation: int = 512  # sequences


# The paper's sizes, for an accelerator: memory 16 x 256, a Transformer as the student.
LARGE = Size(
    student="smt_memory_rnn", features=256, memory=16, encoder_depth=8, decoder_depth=4, heads=8,
    batch=128, smt_steps=20_000, dmt_steps=1500, smt_rate=3e-4, dmt_rate=3e-5, bptt_rates=(3e-4,),
)  # fmt: skip


def build(task: Task, size: Size, seed: int = 0) -> tuple[Teacher, Student]:
    common: dict[str, Any] = dict(
        outputs=task.outputs, features=size.features, memory=size.memory, heads=size.heads
    )
    teacher = Teacher(
        task.vocabulary, encoder_depth=size.encoder_depth, decoder_depth=size.decoder_depth,
        causal=True, rngs=nnx.Rngs(seed), **common,
    )  # fmt: skip
    options: dict[str, Any] = {"hidden": size.hidden}
    if size.student == "smt_memory_rnn":
        options = {"depth": size.encoder_depth}
    student = make_student(
        size.student, task.vocabulary, readout_depth=size.decoder_depth,
        rngs=nnx.Rngs(seed + 1), **common, **options,
    )  # fmt: skip
    return teacher, student


def stream(task: Task, size: Size, length: int) -> Callable[[jax.Array], Any]:
    """key -> one batch."""
    return lambda key: task.sample(key, size.batch, length)


def fit(
    learner: Learner,
    optimiser: optax.GradientTransformation,
    params: Any,
    state: Any,
    sample: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    steps: int,
    key: jax.Array,
) -> tuple[Any, float, float]:
    """Parameters after `steps` windows of fresh sequences, the mean loss of the last tenth, and
    seconds, compilation included."""
    began = monotonic()

    @jax.jit
    def run(params, state):
        def body(carry, key):
            params, moments, state = carry
            loss, grads, state = learner.grad(params, state, *sample(key))
            updates, moments = optimiser.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments, state), loss

        start = params, optimiser.init(params), state
        carry, losses = jax.lax.scan(body, start, jax.random.split(key, steps))
        return carry[0], losses

    params, losses = run(params, state)
    return params, float(jnp.mean(losses[-max(1, steps // 10) :])), monotonic() - began


def schedule(rate: float, steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, rate, max(1, steps // 20), max(2, steps))


def episodes(learner: Learner) -> Learner:
    """Every window begins afresh."""

    def grad(params, state, xs, ys):
        return learner.grad(params, learner.init(params), xs, ys)

    return Learner(learner.init, grad)


def score(memories: Callable, reader: Teacher | Student, x, y) -> dict[str, float]:
    """Accuracy and loss of what `reader` reads off the memories [T + 1, K, features] of x [T]."""

    @jax.jit
    def measure(reader, x, y):
        logits = jax.vmap(lambda x: jax.vmap(reader.readout)(memories(x)[1:]))(x)
        loss = jax.vmap(jax.vmap(cross_entropy))(logits, y)
        return diagnostics.accuracy(logits, y), jnp.sum(loss) / jnp.sum(y >= 0)

    found = measure(reader, x, y)
    return {"accuracy": float(found[0]), "loss": float(found[1])}


def train_smt(task: Task, size: Size, length: int, seed: int = 0):
    """Teacher and student after SMT, and after DMT, with seconds."""
    teacher, student = build(task, size, seed)
    sample = stream(task, size, length)
    keys = jax.random.split(jax.random.key(seed), 3)
    learner, params = smt(
        teacher, student, horizon=size.horizon or length + 1, cuts=size.cuts, batch=size.batch
    )
    optimiser = smt_optimiser(schedule(size.smt_rate, size.smt_steps))
    state = learner.init(params, keys[0])
    params, _, first = fit(learner, optimiser, params, state, sample, size.smt_steps, keys[1])
    nnx.update(teacher, params["teacher"])
    nnx.update(student, params["student"])

    learner, params = dmt(teacher, student, every=size.every, batch=size.batch)
    optimiser = adamw(schedule(size.dmt_rate, size.dmt_steps))
    state = learner.init(params)
    params, _, second = fit(learner, optimiser, params, state, sample, size.dmt_steps, keys[2])
    imitated = nnx.clone(student)
    nnx.update(imitated, params)
    return teacher, student, imitated, first, second


def train_bptt(task: Task, size: Size, length: int, rate: float, seed: int = 0):
    """The student after BPTT on as many sequences as SMT and DMT see together, and seconds."""
    student = build(task, size, seed)[1]
    sample = stream(task, size, length)
    cell, params = as_student_cell(student)
    asked = float(jnp.mean(jnp.sum(sample(jax.random.key(seed))[1] >= 0, axis=1)))
    learner = episodes(batched(bptt(cell, lambda y, t: cross_entropy(y, t) / asked), size.batch))
    steps = size.smt_steps + size.dmt_steps
    params, _, seconds = fit(
        learner, adamw(schedule(rate, steps)), params, learner.init(params), sample, steps,
        jax.random.key(seed + 1),
    )  # fmt: skip
    nnx.update(student, params)
    return student, seconds


def compare(task: Task, size: Size, length: int, seed: int = 0) -> dict[str, Any]:
    """One row: accuracy and loss of the teacher, of SMT, of SMT -> DMT and of the best BPTT."""
    evaluation = task.held_out or task.sample
    x, y = evaluation(jax.random.key(10_000 + seed), size.evaluation, length)
    teacher, first, second, t_smt, t_dmt = train_smt(task, size, length, seed)
    start = teacher.encode(x[0, :0])
    row: dict[str, Any] = {"length": length}
    row["teacher"] = score(teacher.prefixes, teacher, x, y)
    row["smt"] = score(partial(roll, first, start), teacher, x, y)
    row["smt -> dmt"] = score(partial(roll, second, start), second, x, y)
    tried, t_bptt = [], 0.0
    for rate in size.bptt_rates:
        student, seconds = train_bptt(task, size, length, rate, seed)
        memories = partial(roll, student, student.start())
        tried.append(score(memories, student, x, y))
        t_bptt += seconds
    row["bptt"] = min(tried, key=lambda s: s["loss"])
    drift = jax.jit(lambda student: diagnostics.drift(teacher, student, x[:64]))
    row["drift"] = [(float(d.one_step), float(d.rollout)) for d in map(drift, (first, second))]
    row["seconds"] = {"smt": t_smt, "dmt": t_dmt, "bptt": t_bptt / len(size.bptt_rates)}
    return row


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """accuracy (loss) of each; drift: 1 - R^2 one step -> rolled out, of SMT and of SMT -> DMT."""
    names = ("teacher", "smt", "smt -> dmt", "bptt")
    print(f"\n{title}: accuracy (loss)")
    print("length " + "".join(f"{n:>15}" for n in names) + f"{'drift smt':>15}{'smt -> dmt':>15}"
          + "   seconds smt, dmt, bptt")  # fmt: skip
    for row in rows:
        cells = [f"{row[n]['accuracy']:.2f} ({row[n]['loss']:.3f})" for n in names]
        drifts = [f"{a:.2f} -> {b:.2f}" for a, b in row["drift"]]
        seconds = ", ".join(f"{s:.0f}" for s in row["seconds"].values())
        print(f"{row['length']:6d} " + "".join(f"{c:>15}" for c in cells + drifts)
              + f"   {seconds}", flush=True)  # fmt: skip


def gradients(
    length: int = 64, gains=(0.5, 1.0, 2.0, 4.0), size: Size = Size()
) -> dict[str, np.ndarray]:
    """Their figure 11: the gradient at m_t of the loss at the end, before any training."""
    task = needle()
    x, y = task.sample(jax.random.key(0), 32, length)
    teacher, student = build(task, size)
    back, direct = jax.jit(diagnostics.bptt_gradient_norms), jax.jit(diagnostics.smt_gradient_norms)
    found = {}
    for gain in gains:
        scaled = diagnostics.rescaled(student, "update", gain)
        found[f"bptt, gain {gain}"] = np.asarray(back(scaled, x, y))
    for gain in gains:
        scaled = diagnostics.rescaled(teacher, "decoder", gain)
        found[f"smt, gain {gain}"] = np.asarray(direct(scaled, x, y))
    return found


def figure(found: dict[str, np.ndarray], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, norms in found.items():
        distance = np.arange(len(norms))[::-1]
        shown = np.where(norms > 0, norms, np.nan)  # what underflows is not drawn
        ax.semilogy(distance, shown, "--" if "bptt" in name else "-", label=name)
    ax.set(xlabel="steps between the memory and the loss", ylabel="|d loss / d memory|")
    ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path)
    plt.close(fig)


def contours(
    length: int = 24, size: Size = Size(features=16, heads=2, horizon=8),
    memories=(1, 2, 4), budgets=(100, 200, 400),
) -> np.ndarray:  # fmt: skip
    """Their figure 9: the teacher's loss [memory sizes, budgets of steps], and its contours."""
    task, losses = stack(), []
    x, y = task.sample(jax.random.key(1), size.evaluation, length)
    for memory in memories:
        teacher, student = build(task, replace(size, memory=memory))
        learner, params = smt(
            teacher, student, horizon=size.horizon or length, cuts=size.cuts, batch=size.batch
        )
        row, before = [], 0
        for budget in budgets:
            params, *_ = fit(
                learner, smt_optimiser(size.smt_rate), params,
                learner.init(params, jax.random.key(budget)),
                stream(task, size, length), budget - before,
                jax.random.key(budget + 1),
            )  # fmt: skip
            nnx.update(teacher, params["teacher"])
            row.append(score(teacher.prefixes, teacher, x, y)["loss"])
            before = budget
        losses.append(row)
    return np.asarray(losses)


def generalise(name: str = "parity", times=(1, 2, 4, 8)) -> list[dict[str, float]]:
    """Their figure 13: accuracy of SMT -> DMT and of its teacher at multiples of the length."""
    task, sizes = STUDIES[name]
    length, size = next(iter(sizes.items()))
    teacher, _, student, *_ = train_smt(task, size, length)
    return diagnostics.length_generalisation(
        teacher, student, lambda key, n: task.sample(key, 128, n), [n * length for n in times],
        jax.random.key(2),
    )  # fmt: skip


# A task, and the sizes at the lengths at which it is tried.
STUDIES: dict[str, tuple[Task, dict[int, Size]]] = {
    "needle": (needle(), {16: Size(), 32: Size(), 64: Size(smt_steps=3000)}),
    "needle, GRU": (needle(), {32: Size(student="gru")}),
    "stack": (stack(), {32: Size(horizon=8)}),
    "parity": (parity(), {24: Size(horizon=4)}),
}


def main(names: list[str]) -> None:
    for name in names:
        if name == "gradients":
            found = gradients()
            figure(found, RUN / "gradients.png")
            print("\n|d loss / d memory| at a distance of steps from the loss")
            print(f"{'':18}" + "".join(f"{d:>10}" for d in (0, 8, 16, 32, 64)))
            for label, norms in found.items():
                cells = (f"{norms[::-1][d]:10.1e}" for d in (0, 8, 16, 32, 64))
                print(f"{label:18}" + "".join(cells))
        elif name == "contours":
            losses = contours()
            print("\nloss of the teacher: memory tokens x steps\n", losses.round(3))
            target = float(np.quantile(losses, 0.25))
            needed = diagnostics.iso_loss([16, 32, 64], losses, target).round(1)
            print(f"memory needed for a loss of {target:.3f}: {needed}")
        elif name == "lengths":
            print("\nparity at lengths not trained on: accuracy")
            for row in generalise():
                told = f"{row['student']:.2f}, its teacher {row['teacher']:.2f}"
                print(f"{row['length']:6.0f}   student {told}", flush=True)
        else:
            task, sizes = STUDIES[name]
            show(name, [compare(task, size, length) for length, size in sizes.items()])


if __name__ == "__main__":
    main(sys.argv[1:] or [*STUDIES, "gradients", "lengths", "contours"])
