"""How many segments back does a memory reach? A token among noise, further away than in training.

command     python -m experiments.segments        (or names of layers, and FILE.png to draw into)
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-30
time        12 minutes of CPU
expected    accuracy at 1 to 32 segments, chance 0.125

    segments                     1     2     4     8    16    32
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

A token that is not noise, one of 8, is shown once at a random place and asked for at the end
(`selective_copy`). Segments are of 8 steps and training has 4 of them: with n segments the token
lies up to n of them back, n / 2 on average. One block of 32 features, 300 updates of 32 sequences,
Adam, one seed; every row at its defaults but `OPTIONS`. Evaluated on 256 sequences.

Windows end: `transformer_xl` and `r_transformer` see nothing behind theirs, and
`compressive_transformer` nothing behind what it has compressed. What is written anew in every
segment fades: slowly in `rmt`, `memformer` and `ran`, sooner in `block_recurrent` and `tlb`, and as
its decays have it in the state spaces of `rsa` and `block_state`. What is added and kept stays: the
sums of `infini_transformer`, the associations of `armt`, the cells of `ntm` and of the token Turing
machine; and so do the gates of an LSTM, which is enough where one token is all there is.
`smt_memory_rnn` has not learned it in so few updates. Rows that saw four segments in training need
not be right on fewer.
"""

from __future__ import annotations

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
TASK: Task = make("selective_copy", symbols=SYMBOLS, memorised=1)

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


def train(name: str, *, updates: int = 300, batch: int = 32, rate: float = 1e-2, seed: int = 0):
    config = ModelConfig(layer=(LayerConfig(name, OPTIONS[name]),), features=32, depth=1)
    model = Model(config, TASK.spec, rngs=nnx.Rngs(seed))
    length = TRAINED * LENGTH
    return fit(model, TASK, length, updates=updates, batch=batch, rate=rate)[0]


@nnx.jit
def accuracy(model, x, y):
    return jnp.mean(predicted(model(x)[0][:, -1]).astype(y.dtype) == y)


def curve(model: Model, *, count: int = 256) -> list[float]:
    """Its accuracy with each of SEGMENTS."""
    found = []
    for segments in SEGMENTS:
        data = TASK.sample(jax.random.key(2), count, segments * LENGTH)
        found.append(float(accuracy(model, data.x, data.y[:, -1])))
    return found


def main(names: list[str], figure: str | None = None) -> None:
    if figure is not None:
        check_figure(figure)
    print(f"    {'segments':24}" + "".join(f"{n:6}" for n in SEGMENTS))
    curves = {}
    for name in names or OPTIONS:
        began = process_time()
        curves[name] = curve(train(name))
        shown = "".join(f"{one:6.2f}" for one in curves[name])
        print(f"    {name:24}{shown}   {process_time() - began:.0f} s", flush=True)
    if figure is not None:
        draw(curves, figure)


def draw(curves: dict[str, list[float]], path: str) -> None:
    import matplotlib.pyplot as plt

    image, axis = plt.subplots(figsize=(8, 5))
    for n, (name, values) in enumerate(curves.items()):
        axis.plot(SEGMENTS, values, label=name, marker="osvD^"[n % 5], color=f"C{n % 10}")
    axis.axvline(TRAINED, color="black", linewidth=0.8, linestyle=":")
    axis.axhline(1 / SYMBOLS, color="black", linewidth=0.8, linestyle=":")
    axis.set_xscale("log", base=2)
    axis.set_xticks(SEGMENTS, [str(n) for n in SEGMENTS])
    axis.set(xlabel="segments (trained with 4)", ylabel="accuracy", ylim=(0, 1.05))
    axis.legend(fontsize=7, ncols=2, loc="lower left")
    image.tight_layout()
    save_figure(image, path, dpi=150)
    plt.close(image)


if __name__ == "__main__":
    given = words("layer", OPTIONS, also=lambda word: word.endswith(".png"))
    names = [word for word in given if word in OPTIONS]
    main(names, *(word for word in given if word not in OPTIONS))
