"""What supervised memory training does to gradients, lengths and memory (arXiv:2606.06479).

command     python -m experiments.smt_figures        (or some of: gradients lengths contours)
hardware    2 CPU cores, shared with other work; 2026-11-22
time        5 minutes
expected    the numbers below, and runs/smt/gradients.png

Gradients before training, by gain of the weights: |d loss / d m_t| by steps from m_t to the loss
(figure 11). Those of BPTT vanish or explode with the gain, those of SMT stay in range:

           BPTT: 0.5      1        2        4          SMT: 0.5      1        2        4
    8            2e-05    4e-03    1e+00    3e+02           3e-02    2e-01    8e-01    1e+00
    32           1e-18    7e-10    2e+00    2e+09           6e-03    3e-02    1e-01    2e-02
    64           4e-36    6e-19    7e+00    1e+19           3e-03    2e-02    8e-02    9e-04

Beyond the trained length of 24 (figure 13) the student of parity is right more often than its
teacher: 0.91 and 0.67 at 24; 0.72 and 0.60 at 48; 0.61 and 0.55 at 96; 0.55 and 0.52 at 192. More
compute buys a smaller memory (figure 9): the teacher of a stack of 24 steps reaches a loss of 0.478
with 64 numbers after 200 steps and with 16 after 400, while sizes in between are not in order.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from experiments.smt import STUDIES, Size, build, fit, needle, score, stack, stream, train_smt
from seqjax.learn import smt_diagnostics as diagnostics
from seqjax.learn.smt import smt, smt_optimiser

RUN = Path("runs/smt")
USUAL, SMALL = Size(), Size(features=16, heads=2, horizon=8)


def gradients(
    length: int = 64, gains=(0.5, 1.0, 2.0, 4.0), size: Size = USUAL
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
    length: int = 24, size: Size = SMALL,
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


def show_gradients() -> None:
    found, steps = gradients(), (0, 8, 16, 32, 64)
    figure(found, RUN / "gradients.png")
    print("\n|d loss / d memory| at a distance of steps from the loss")
    print(f"{'':18}" + "".join(f"{d:>10}" for d in steps))
    for label, norms in found.items():
        print(f"{label:18}" + "".join(f"{norms[::-1][d]:10.1e}" for d in steps))


def show_lengths() -> None:
    print("\nparity at lengths not trained on: accuracy")
    for row in generalise():
        told = f"{row['student']:.2f}, its teacher {row['teacher']:.2f}"
        print(f"{row['length']:6.0f}   student {told}", flush=True)


def show_contours() -> None:
    losses = contours()
    print("\nloss of the teacher: memory tokens x steps\n", losses.round(3))
    target = float(np.quantile(losses, 0.25))
    needed = diagnostics.iso_loss([16, 32, 64], losses, target).round(1)
    print(f"memory needed for a loss of {target:.3f}: {needed}")


FIGURES = {"gradients": show_gradients, "lengths": show_lengths, "contours": show_contours}

if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        FIGURES[name]()
