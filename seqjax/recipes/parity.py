"""Parity of a bit stream, far beyond the trained length: what eigenvalues below zero are for.

command     seqjax train parity
hardware    2 CPU cores
time        1 minute
expected    validation accuracy 0.99 at length 256, trained at length 40

The running parity of bits x_t is the recurrence s_t = -s_(t-1) where x_t = 1: a linear one needs
the eigenvalue -1 (arXiv:2411.12537). With those of the original layer it stays near chance:

    seqjax train parity --model.layer gated_deltanet heads=2      accuracy 0.55
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "state_tracking", {"group": "parity"}, batch=64, length=40,
        evaluation_batches=4, evaluation_length=256,
    ),
    model=ModelConfig(
        layer=(LayerConfig("gated_deltanet", {"heads": 2, "eigenvalues": "[-1,1]"}),),
        features=32, depth=1,
    ),
    optimiser=OptimiserConfig(learning_rate=1e-2, warmup=20, weight_decay=0.01),
    train=TrainConfig(steps=1000, evaluate_every=250, save_every=500),
)  # fmt: skip
