"""Supervised memory training against BPTT: the same student, the same data (arXiv:2606.06479).

command     python -m experiments.smt 0    (seeds, by default 0 1 2; or some of: needle stack ...)
hardware    2 CPU cores, shared with other work; 2026-11-22
time        15 minutes a seed; of them needle over 64 steps: SMT 167 s, DMT 17 s, each BPTT 85 s
expected    accuracy (loss) on fresh sequences; drift: 1 - R^2 of one step -> rolled out

             length  teacher       SMT           SMT -> DMT    BPTT          drift: SMT, DMT
    needle       16  1.00 (0.006)  1.00 (0.014)  1.00 (0.000)  0.11 (2.081)  0.00->0.00 0.00->0.00
    needle       32  1.00 (0.013)  0.71 (1.417)  1.00 (0.000)  0.11 (2.081)  0.01->0.20 0.01->0.01
    needle       64  1.00 (0.002)  0.33 (4.856)  1.00 (0.000)  0.11 (2.081)  0.00->1.25 0.00->0.01
    needle, GRU  32  1.00 (0.020)  0.96 (0.202)  1.00 (0.000)  0.11 (2.081)  0.00->0.09 0.01->0.02
    stack        32  0.81 (0.400)  0.82 (0.391)  0.85 (0.337)  0.98 (0.048)  0.02->0.03 0.01->0.02
    parity       24  0.66 (0.406)  0.68 (0.459)  0.90 (0.175)  1.00 (0.000)  0.00->0.05 0.00->0.00

    seeds 1, 2       teacher       SMT           SMT -> DMT    BPTT
    needle       16  1.00, 1.00    1.00, 1.00    1.00, 1.00    0.15, 0.13
    needle       32  1.00, 1.00    0.87, 0.97    1.00, 1.00    0.15, 0.14
    stack        32  0.79, 0.80    0.76, 0.78    0.83, 0.85    0.97, 0.98
    parity       24  0.75, 0.73    0.71, 0.75    0.85, 0.77    1.00, 1.00

The student is an Elman network, ungated, but for the row that says GRU; chance is 0.125, 0.25, 0.5;
BPTT is the better of two learning rates, on as many sequences as SMT and DMT together. The claim on
long distances holds: BPTT stays at chance, gated or not, SMT -> DMT always finds the needle. So
does the need for DMT: over 32 steps and more the student of SMT drifts away. The claim on state
tracking does not hold at this size: where most steps are answered, BPTT learns from fewer sequences
than the teacher, which is what its student can learn from.

The teacher's encoder is causal, so that all memories of a sequence are learned from at once; the
paper's code for such tasks is not published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments import words
from seqjax import tasks
from seqjax.learn import smt_diagnostics as diagnostics
from seqjax.learn.bptt import bptt
from seqjax.learn.learner import Learner, batched, cross_entropy
from seqjax.learn.smt import adamw, dmt, smt, smt_optimiser
from seqjax.learn.smt_students import Student, as_student_cell, make_student, roll
from seqjax.learn.smt_teacher import Teacher


@dataclass(frozen=True)
class Task:
    """sample(key, batch, length) -> tokens x and answers y, int [B, T]; -1 where none is asked."""

    sample: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]]
    vocabulary: int
    outputs: int
    held_out: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]] | None = None


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


# Networks of the published size, for an accelerator: memory 16 x 256, a Transformer as student.
LARGE = Size(
    student="smt_memory_rnn", features=256, memory=16, encoder_depth=8, decoder_depth=4, heads=8,
    batch=128, smt_steps=20_000, dmt_steps=1500, smt_rate=3e-4, dmt_rate=3e-5, bptt_rates=(3e-4,),
)  # fmt: skip


def needle(elements: int = 8) -> Task:
    """`seqjax.tasks.synthetic.needle`, whose target is at the end alone."""
    task = tasks.make("needle", elements=elements)

    def sample(key, batch, length):
        x, y, mask, *_ = task.sample(key, batch, length)
        return x, jnp.where(mask > 0, y, -1)

    return Task(sample, elements + 1, elements)


def stack(elements: int = 4, depth: int = 10) -> Task:
    """Pushes of an element, and pops (0) that answer what they took; a coin where both can be."""

    def sample(key, batch, length):
        def body(carry, key):
            stored, size = carry
            coin, what = jax.random.split(key)
            push = (jax.random.bernoulli(coin, 0.5, (batch,)) & (size < depth)) | (size == 0)
            new = jax.random.randint(what, (batch,), 1, elements + 1)
            rows, top = jnp.arange(batch), jnp.maximum(size - 1, 0)
            taken = stored[rows, top]
            at = jnp.where(push, size, depth)  # beyond the end: not written
            stored = stored.at[rows, at].set(new, mode="drop")
            x, y = jnp.where(push, new, 0), jnp.where(push, -1, taken - 1)
            return (stored, jnp.where(push, size + 1, size - 1)), (x, y)

        empty = jnp.zeros((batch, depth), jnp.int32), jnp.zeros(batch, jnp.int32)
        x, y = jax.lax.scan(body, empty, jax.random.split(key, length))[1]
        return x.T, y.T

    return Task(sample, elements + 1, elements)


def parity() -> Task:
    """The running parity of a bit stream, asked on every step."""

    def sample(key, batch, length):
        x = jax.random.bernoulli(key, 0.5, (batch, length)).astype(jnp.int32)
        return x, jnp.cumsum(x, axis=1) % 2

    return Task(sample, 2, 2)


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
    row: dict[str, Any] = {"length": length, "seed": seed}
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


def show(title: str, rows: Iterable[dict[str, Any]]) -> None:
    """accuracy (loss) of each; drift: 1 - R^2 one step -> rolled out, of SMT and of SMT -> DMT."""
    names = ("teacher", "smt", "smt -> dmt", "bptt")
    print(f"\n{title}: accuracy (loss)")
    heads = "".join(f"{n:>15}" for n in (*names, "drift smt", "smt -> dmt"))
    print(f"length seed{heads}   seconds smt, dmt, bptt")
    for row in rows:
        cells = [f"{row[n]['accuracy']:.2f} ({row[n]['loss']:.3f})" for n in names]
        drifts = [f"{a:.2f} -> {b:.2f}" for a, b in row["drift"]]
        seconds = ", ".join(f"{s:.0f}" for s in row["seconds"].values())
        print(f"{row['length']:6d} {row['seed']:4d}" + "".join(f"{c:>15}" for c in cells + drifts)
              + f"   {seconds}", flush=True)  # fmt: skip


# A task, and the sizes at the lengths at which it is tried.
STUDIES: dict[str, tuple[Task, dict[int, Size]]] = {
    "needle": (needle(), {16: Size(), 32: Size(), 64: Size(smt_steps=3000)}),
    "needle, GRU": (needle(), {32: Size(student="gru")}),
    "stack": (stack(), {32: Size(horizon=8)}),
    "parity": (parity(), {24: Size(horizon=4)}),
}


def main(names: list[str], seeds: Iterable[int]) -> None:
    for name in names:
        task, sizes = STUDIES[name]
        rows = (compare(task, size, n, seed) for n, size in sizes.items() for seed in seeds)
        show(name, rows)


if __name__ == "__main__":
    given = words("study", STUDIES, str.isdigit)  # and numbers, which are seeds
    asked = [word for word in given if not word.isdigit()]
    main(asked or [*STUDIES], [int(word) for word in given if word.isdigit()] or [0, 1, 2])
