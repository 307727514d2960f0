"""What a gradient takes in memory, by what is computed again (`model.remat`).

command     python -m experiments.memory memory.png
hardware    2 CPU cores, shared; jax 0.10.2, 2026-11-30
time        8 minutes, nearly all of it in the compiler
expected    MiB

                lstm, MiB with T         512    2048    8192
                none                     320    1271    5079
                layer                     80     314    1252
                chunk                     27      67     243
                full                      78     298    1188
                offload                   80     314    1252

                lru, MiB with T          512    2048    8192
                none                     260    1028    4104
                layer                     66     261    1043
                chunk                     24      64     243
                full                      62     245     979
                offload                   66     261    1043

                32768 words, T = 8192           MiB
                model.loss_chunk None          2160
                model.loss_chunk 2048          1141
                model.loss_chunk 512            373
                model.loss_chunk 128            180

    none      everything is kept for the backward pass
    layer     the inputs of the blocks
    chunk     the same, and states of the blocks every 128 steps: the inside of a block is there for
              128 steps at a time
    full      the inputs of each repetition of the pattern, here of two blocks, and of these again
    offload   as layer, in the memory of the host

A language model of eight blocks of 128 features, 4 sequences of T bytes: what the compiled program
of a loss and its gradient has in temporary arrays at its peak, as XLA plans it (`memory_analysis`);
nothing is run for it. Names of layers choose others, and a name that ends in .png takes the curves.

All grow with T, as the inputs of the blocks, the embedding and the logits do. Most of it is what
is inside of all blocks, and then of one; with chunks that is gone. `full` keeps every second input
of a block, and is for deeper models. The memory of a CPU is that of its host: `offload` is `layer`
there. The second table is of one block of the lru over a vocabulary of 32,768, one sequence: logits
of all steps are 1 GiB, and their gradient is as much again.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import words
from seqjax.core.files import check_figure, save_figure
from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.stacks.model import Model
from seqjax.tasks import Classes, Spec, Tokens
from seqjax.zoo import LAYERS

BYTES, BATCH, FEATURES, PATTERN, DEPTH = 256, 4, 128, 2, 8
LENGTHS = (512, 2048, 8192)
POLICIES = ("none", "layer", "chunk", "full", "offload")
NAMES = ("lstm", "lru")
WORDS, STEPS, CHUNKS = 32_768, 8192, (None, 2048, 512, 128)


def temporaries(name: str, policy: str, length: int) -> tuple[float, float]:
    """MiB of the gradient on the device, and in the memory of the host beside it."""
    config = ModelConfig(
        layer=(LayerConfig(name),) * PATTERN, features=FEATURES, depth=DEPTH,
        remat=policy,  # type: ignore[arg-type]
    )  # fmt: skip
    return planned(config, BYTES, BATCH, length)


def answered(chunk: int | None, steps: int = STEPS) -> tuple[float, float]:
    """The same of a model of many words, whose answers are there `chunk` steps at a time."""
    config = ModelConfig(
        layer=(LayerConfig(NAMES[1]),), features=FEATURES, depth=1, remat="layer", loss_chunk=chunk
    )
    return planned(config, WORDS, 1, steps)


def planned(config: ModelConfig, classes: int, batch: int, length: int) -> tuple[float, float]:
    outputs = Classes(classes, per_step=True)
    spec = Spec(Tokens(classes), outputs)
    model = nnx.eval_shape(lambda: Model(config, spec, rngs=nnx.Rngs(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, x):
        answers, _ = nnx.merge(graph, params, rest).scored(x)
        return outputs.score(answers, x, jnp.ones(x.shape, jnp.float32))["loss"]

    x = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    plan = jax.jit(jax.grad(loss)).lower(params, rest, x).compile().memory_analysis()
    assert plan is not None, "this device plans no memory"
    return plan.temp_size_in_bytes / 2**20, plan.host_temp_size_in_bytes / 2**20


def main(names: list[str], figure: str | None = None) -> None:
    if figure is not None:
        check_figure(figure)
    curves = {}
    for name in names or NAMES:
        print(f"    {name + ', MiB with T':20}" + "".join(f"{n:8}" for n in LENGTHS))
        for policy in POLICIES:
            found = np.array([temporaries(name, policy, length) for length in LENGTHS])
            curves[name, policy] = found[:, 0]
            print(f"    {policy:20}" + "".join(f"{one:8.0f}" for one in found[:, 0]), flush=True)
            if found[:, 1].any():
                print(f"    {'    of the host':20}" + "".join(f"{one:8.0f}" for one in found[:, 1]))
        print()
    print(f"    {f'{WORDS} words, T = {STEPS}':32}MiB")
    for chunk in CHUNKS:
        print(f"    {f'model.loss_chunk {chunk}':27}{answered(chunk)[0]:8.0f}", flush=True)
    if figure is not None:
        draw(curves, figure)


def draw(curves: dict[tuple[str, str], np.ndarray], path: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for name, _ in curves))
    image = Figure(figsize=(4.5 * len(names), 4), layout="constrained")
    FigureCanvasAgg(image)
    axes = np.atleast_1d(image.subplots(1, len(names), sharey=True))
    for axis, name in zip(axes, names, strict=True):
        for n, policy in enumerate(POLICIES):
            axis.plot(LENGTHS, curves[name, policy], label=policy, marker="osvD^"[n])
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
        axis.set(title=name, xlabel="T")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("temporaries of the gradient, MiB")
    axes[0].legend(frameon=False)
    save_figure(image, path, dpi=150)


if __name__ == "__main__":
    given = words("layer", LAYERS, also=lambda word: word.endswith(".png"))
    chosen = [word for word in given if word in LAYERS]
    main(chosen, *(word for word in given if word not in LAYERS))
