"""A hybrid of 6.9 G parameters on a TPU v5p of 512 chips: gated delta rules and attention.

command     seqjax plan hybrid_7b --topology v5p:8x8x8
hardware    for the plan no TPU: 2 CPU cores, shared with other work; jax 0.10.2, libtpu 0.0.42.1,
            2026-12-01
time        11 minutes to compile
expected    9.35 GiB of 95 on each chip; a step of 4.2 M tokens takes 1.59 s at the peaks of the
            chip, 1.68 where no collective hides behind other work: 2.5 M tokens/s

As `hybrid_1b`, twice as wide, with a window of 2,048: parameters lie on 64 chips, and eight such
groups share the examples. `seqjax train hybrid_7b` trains it there.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, MeshConfig, OptimiserConfig, TaskConfig, TrainConfig

DELTA = LayerConfig("gated_deltanet", {"heads": 32, "key_size": 128, "value_size": 128})
ATTENTION = LayerConfig("attention", {"heads": 32, "window": 2048})
CONFIG = Config(
    task=TaskConfig("char_lm", batch=512, length=8192, evaluation_batches=1),
    model=ModelConfig(
        layer=(DELTA, DELTA, DELTA, ATTENTION), features=4096, depth=32, expansion=2.5,
        vocabulary=32_768, compute="bfloat16", remat="layer", loss_chunk=1024,
    ),
    optimiser=OptimiserConfig(learning_rate=3e-4, warmup=2000),
    train=TrainConfig(steps=250_000, evaluate_every=1000, save_every=1000),
    mesh=MeshConfig(data=8, fsdp=64),
)  # fmt: skip
