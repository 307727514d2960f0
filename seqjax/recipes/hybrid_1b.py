"""A hybrid of 1.3 G parameters on a TPU v5e-256: three gated delta rules, one window of attention.

command     seqjax plan hybrid_1b --topology v5e:16x16
hardware    for the plan no TPU: 2 CPU cores, shared with other work; jax 0.10.2, libtpu 0.0.42.1,
            2026-12-01
time        7 minutes to compile
expected    3.01 GiB of 16 on each chip; a step of 2.1 M tokens takes 810 ms at the peaks of the
            chip, 862 where no collective hides behind other work: 2.4 M tokens/s

Gated DeltaNet (arXiv:2412.06464), whose hybrids have windows of attention between its layers.
`seqjax train hybrid_1b` trains it there. Without a text of your own, --task.options path=FOLDER, it
reads Python's standard library, by bytes; the vocabulary has room for 32,768 tokens. Each chip has
one sequence of 8,192. The answers of 1,024 steps are there at a time: all of them are 1 GiB.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, MeshConfig, OptimiserConfig, TaskConfig, TrainConfig

DELTA = LayerConfig("gated_deltanet", {"heads": 16, "key_size": 128, "value_size": 128})
ATTENTION = LayerConfig("attention", {"heads": 16, "window": 1024})
CONFIG = Config(
    task=TaskConfig("char_lm", batch=256, length=8192, evaluation_batches=1),
    model=ModelConfig(
        layer=(DELTA, DELTA, DELTA, ATTENTION), features=2048, depth=24, expansion=2.25,
        vocabulary=32_768, compute="bfloat16", remat="layer", loss_chunk=1024,
    ),
    optimiser=OptimiserConfig(learning_rate=4e-4, warmup=1000),
    train=TrainConfig(steps=50_000, evaluate_every=1000, save_every=1000),
    mesh=MeshConfig(data=2, fsdp=128),
)  # fmt: skip
