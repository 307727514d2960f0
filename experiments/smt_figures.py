"""What supervised memory training does to gradients, lengths and memory (arXiv:2606.06479).

command     python -m experiments.smt_figures        (or: gradients lengths contours trajectories)
hardware    2 CPU cores, shared with other work; 2026-11-22
time        6 minutes; the last one needs scikit-learn: pip install -e '.[figures]'
expected    the numbers below, runs/smt/gradients.png and runs/smt/trajectories.png

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

Memories (figures 19 to 23): before the query of 60 sequences of 32 steps, the nearest memory holds
the same one of 8 needles for 1.00 of the encoder's, 0.67 of the rolled-out student's after SMT and
1.00 after DMT; two principal components explain 0.69, 0.72 and 0.69. The encoder leaves one common
place along one ray per needle; what SMT's student remembers drifts off its ray, and DMT's stays.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from experiments import words
from experiments.smt import STUDIES, Size, build, fit, needle, score, stack, stream, train_smt
from seqjax.core.files import save_figure
from seqjax.learn import smt_diagnostics as diagnostics
from seqjax.learn.smt import smt, smt_optimiser
from seqjax.learn.smt_students import roll

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
    save_figure(fig, path)
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


def trajectories(length: int = 32, size: Size = USUAL, count: int = 60) -> dict[str, np.ndarray]:
    """Memories along `count` needle sequences [count, length + 1, K, features], and the needles."""
    task = needle()
    x, y = task.sample(jax.random.key(3), count, length)
    teacher, first, second, *_ = train_smt(task, size, length)
    start = teacher.encode(x[0, :0])
    rolled = jax.jit(jax.vmap(lambda student, x: roll(student, start, x), in_axes=(None, 0)))
    return {
        "encoder": np.asarray(jax.jit(jax.vmap(teacher.prefixes))(x)),
        "SMT, rolled out": np.asarray(rolled(first, x)),
        "SMT -> DMT": np.asarray(rolled(second, x)),
        "needle": np.asarray(y[:, -1]),
    }


def kept(memories: np.ndarray, needles: np.ndarray) -> float:
    """The share of last memories whose nearest other one is of the same needle."""
    points = memories[:, -2].reshape(len(memories), -1)
    distance = np.square(points[:, None] - points[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return float(np.mean(needles[distance.argmin(axis=1)] == needles))


def trajectory_figure(found: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Their figures 19 to 23: every trajectory in one frame, by PCA of the encoder's and by t-SNE;
    the shares of variance that the two components explain."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    whose = [name for name in found if name != "needle"]
    flat = {n: found[n].reshape(*found[n].shape[:2], -1) for n in whose}
    shares, fig = {}, plt.figure(figsize=(9, 6), layout="constrained")
    axes = fig.subplots(2, len(whose), squeeze=False)
    for column, name in enumerate(whose):
        points = flat[name].reshape(-1, flat[name].shape[-1])
        along, shares[name] = diagnostics.pca(points, 2)
        ways = {"PCA": along, "t-SNE": diagnostics.tsne(points, perplexity=30)}
        for row, (way, placed) in enumerate(ways.items()):
            placed = placed.reshape(*flat[name].shape[:2], 2)
            for line, what in zip(placed, found["needle"], strict=True):
                axes[row, column].plot(*line.T, "-", color=f"C{what}", lw=0.4, alpha=0.4)
                axes[row, column].plot(*line[-2], "o", color=f"C{what}", ms=4)
            axes[row, column].set(title=f"{name}, {way}", xticks=[], yticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(fig, path, dpi=150)
    plt.close(fig)
    return shares


def show_trajectories() -> None:
    found = trajectories()
    shares = trajectory_figure(found, RUN / "trajectories.png")
    print("\nmemories of a needle over 32 steps, before the query: 60 sequences, 8 needles")
    for name, share in shares.items():
        told = kept(found[name], found["needle"])
        print(f"{name:16} nearest has the same needle {told:.2f}; two components {sum(share):.2f}")
    print(RUN / "trajectories.png")


FIGURES = {
    "gradients": show_gradients,
    "lengths": show_lengths,
    "contours": show_contours,
    "trajectories": show_trajectories,
}

if __name__ == "__main__":
    for name in words("figure", FIGURES) or FIGURES:
        FIGURES[name]()
