"""How many segments back does a memory reach? A token among noise, further away than in training.

command     python -m experiments.segments        (or names of tasks and layers, and FILE.png)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-30
time        30 minutes of CPU
expected    accuracy at 1 to 32 segments, chance 0.125

    selective_copy               1     2     4     8    16    32
    transformer_xl            0.48  0.86  0.47  0.31  0.23  0.17
    compressive_transformer   1.00  1.00  1.00  0.79  0.48  0.28
    infini_transformer        1.00  1.00  1.00  1.00  1.00  1.00
    rmt                       1.00  1.00  1.00  0.96  0.82  0.70
    armt                      1.00  0.94  0.97  0.92  0.90  0.89
    memformer                 1.00  0.96  0.99  0.95  0.80  0.66
    block_recurrent           1.00  1.00  1.00  0.92  0.51  0.26
    block_state               1.00  0.66  1.00  0.62  0.39  0.16
    tlb                       0.86  1.00  1.00  0.70  0.32  0.18
    ran                       1.00  1.00  1.00  0.92  0.79  0.61
    rsa                       1.00  1.00  1.00  0.80  0.50  0.29
    r_transformer             1.00  0.95  0.47  0.33  0.22  0.14
    token_turing_machine      1.00  1.00  1.00  1.00  0.99  0.88
    smt_memory_rnn            0.12  0.12  0.12  0.12  0.12  0.12
    ntm                       1.00  1.00  1.00  1.00  1.00  0.95
    dnc                       1.00  1.00  1.00  1.00  0.95  0.61
    lstm                      1.00  1.00  1.00  1.00  1.00  1.00

    needle                       1     2     4     8    16    32
    transformer_xl            0.07  0.11  0.10  0.11  0.11  0.11
    compressive_transformer   0.79  0.84  1.00  0.57  0.14  0.14
    infini_transformer        1.00  1.00  1.00  1.00  1.00  1.00
    rmt                       0.11  0.13  0.11  0.13  0.12  0.11
    armt                      0.38  0.22  1.00  0.77  0.75  0.73
    memformer                 0.12  0.12  0.32  0.18  0.20  0.23
    block_recurrent           0.15  0.98  1.00  0.48  0.17  0.15
    block_state               0.28  0.10  1.00  0.15  0.15  0.15
    tlb                       0.37  1.00  1.00  0.43  0.18  0.15
    ran                       0.40  0.00  1.00  0.28  0.27  0.21
    rsa                       1.00  1.00  1.00  0.56  0.12  0.12
    r_transformer             0.20  0.12  0.10  0.14  0.15  0.11
    token_turing_machine      1.00  1.00  1.00  1.00  1.00  0.92
    smt_memory_rnn            0.14  0.14  0.14  0.14  0.14  0.14
    ntm                       1.00  1.00  1.00  0.96  0.71  0.27
    dnc                       1.00  1.00  1.00  1.00  0.79  0.39
    lstm                      1.00  1.00  1.00  0.97  0.84  0.81

`selective_copy`: a token that is not noise, one of 8, is shown once at a random place and is due at
the end. Segments are of 8 steps and training has 4 of them: with n segments the token lies up to n
of them back, n / 2 on average. One block of 32 features, 300 updates of 32 sequences, Adam, one
seed; every row at its defaults but `OPTIONS`. Evaluated on 256 sequences.

`needle`: the token behind a mark, among others of its kind, in the first half; the mark again is
the question. A convolution over two tokens before the memory joins mark and token; training has 300
updates with one segment and 500 with four. With four from the start neither `infini_transformer`
nor `armt` nor the LSTM learned it in 300.

Windows end: `transformer_xl` and `r_transformer` see nothing behind theirs, and
`compressive_transformer` nothing behind what it has compressed. What is written anew in every
segment fades: slowly in `rmt`, `memformer` and `ran`, sooner in `block_recurrent` and `tlb`, and as
its decays have it in the state spaces of `rsa` and `block_state`. What is added and kept stays: the
sums of `infini_transformer`, the associations of `armt`, the cells of `ntm` and of the token Turing
machine; and so do the gates of an LSTM, which is enough where one token is all there is. Where all
tokens are alike, as with the needle, it forgets sooner than `infini_transformer` and the token
Turing machine, which hold it over all 32 segments. `smt_memory_rnn` has learned neither task in so
few updates, `rmt`, `memformer` and the windows not the needle. Rows that saw four segments last
need not be right on fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import words
from experiments.zoo import fit
from seqjax.core.common import predicted
from seqjax.core.files import check_figure, save_figure
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Task, make

LENGTH, TRAINED, SEGMENTS, SYMBOLS = 8, 4, (1, 2, 4, 8, 16, 32), 8


@dataclass(frozen=True)
class Trial:
    """A task with one target, at the end, and how it is learned."""

    task: Task
    stages: tuple[tuple[int, int], ...]  # segments and updates, one after the other
    rate: float
    before: tuple[LayerConfig, ...] = ()  # blocks before the memory


TRIALS = {
    "selective_copy": Trial(
        make("selective_copy", symbols=SYMBOLS, memorised=1), ((TRAINED, 300),), 1e-2
    ),
    # what lies behind the mark is found by a convolution over two tokens
    "needle": Trial(
        make("needle", elements=SYMBOLS), ((1, 300), (TRAINED, 500)), 5e-3,
        (LayerConfig("tcn", {"channels": (32,)}),),
    ),
}  # fmt: skip

# Rows with a memory, with the options that fit these segments; windows of attention as long.
SEGMENT, WINDOW = dict(length=LENGTH), dict(window=LENGTH)
OPTIONS: dict[str, dict] = {
    "transformer_xl": SEGMENT | dict(memory=LENGTH),
    "compressive_transformer": SEGMENT | dict(memory=LENGTH, compressed=LENGTH),
    "infini_transformer": SEGMENT | dict(heads=4),
    "rmt": SEGMENT | dict(heads=4),
    "armt": SEGMENT | dict(heads=4),
    "memformer": SEGMENT,
    "block_recurrent": SEGMENT | dict(slots=8),
    "block_state": SEGMENT,
    "tlb": SEGMENT,
    "ran": SEGMENT,
    "rsa": WINDOW,
    "r_transformer": WINDOW,
    "token_turing_machine": {},
    "smt_memory_rnn": {},
    "ntm": dict(cells=16, width=8),
    "dnc": dict(cells=16, width=8, read_heads=1),
    "lstm": {},
}


def train(name: str, trial: Trial, *, batch: int = 32, seed: int = 0) -> Model:
    layers = (*trial.before, LayerConfig(name, OPTIONS[name]))
    config = ModelConfig(layer=layers, features=32, depth=len(layers))
    model = Model(config, trial.task.spec, rngs=nnx.Rngs(seed))
    for segments, updates in trial.stages:
        length = segments * LENGTH
        model, _ = fit(model, trial.task, length, updates=updates, batch=batch, rate=trial.rate)
    return model


@nnx.jit
def accuracy(model, x, y):
    return jnp.mean(predicted(model(x)[0][:, -1]).astype(y.dtype) == y)


def curve(model: Model, task: Task, *, count: int = 256) -> list[float]:
    """Its accuracy with each of SEGMENTS."""
    found = []
    for segments in SEGMENTS:
        data = task.sample(jax.random.key(2), count, segments * LENGTH)
        found.append(float(accuracy(model, data.x, data.y[:, -1])))
    return found


def main(tasks: list[str], names: list[str], figure: str | None = None) -> None:
    if figure is not None:
        check_figure(figure)
    found: dict[str, dict[str, list[float]]] = {}
    for task in tasks or TRIALS:
        trial, found[task] = TRIALS[task], {}
        print(f"    {task:24}" + "".join(f"{n:6}" for n in SEGMENTS))
        for name in names or OPTIONS:
            began = process_time()
            curves = found[task][name] = curve(train(name, trial), trial.task)
            shown = "".join(f"{one:6.2f}" for one in curves)
            print(f"    {name:24}{shown}   {process_time() - began:.0f} s", flush=True)
    if figure is not None:
        draw(found, figure)


def draw(found: dict[str, dict[str, list[float]]], path: str) -> None:
    """A picture beside the other of each task."""
    import matplotlib.pyplot as plt

    image, axes = plt.subplots(1, len(found), figsize=(8 * len(found), 5), squeeze=False)
    for axis, (task, curves) in zip(axes[0], found.items(), strict=True):
        for n, (name, values) in enumerate(curves.items()):
            axis.plot(SEGMENTS, values, label=name, marker="osvD^"[n % 5], color=f"C{n % 10}",
                      linestyle="-" if n < 10 else "--")  # fmt: skip
        axis.axvline(TRAINED, color="black", linewidth=0.8, linestyle=":")
        axis.axhline(1 / SYMBOLS, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log", base=2)
        axis.set_xticks(SEGMENTS, [str(n) for n in SEGMENTS])
        label = f"segments (trained with {TRAINED})"
        axis.set(xlabel=label, ylabel="accuracy", ylim=(0, 1.05), title=task)
        axis.legend(fontsize=7, ncols=2, loc="lower left")
    image.tight_layout()
    save_figure(image, path, dpi=150)
    plt.close(image)


if __name__ == "__main__":
    known = [*TRIALS, *OPTIONS]
    given = words("task or layer", known, also=lambda word: word.endswith(".png"))
    tasks, names = ([word for word in given if word in table] for table in (TRIALS, OPTIONS))
    main(tasks, names, *(word for word in given if word not in known))
