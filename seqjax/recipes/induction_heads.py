"""Induction at four times the trained length: what Mamba selects it holds (arXiv:2312.00752).

command     seqjax train induction_heads
hardware    2 CPU cores, shared with other work
time        5 minutes
expected    accuracy 1.00 at length 256, trained at length 64 (chance: 0.0625)

Every repetition is a target, so that 200 steps are enough.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "induction_heads", {"every": True}, batch=32, length=64,
        evaluation_batches=2, evaluation_length=256,
    ),
    model=ModelConfig(layer=(LayerConfig("mamba"),), features=32, depth=2),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=20, weight_decay=0.0),
    train=TrainConfig(steps=200, evaluate_every=200, save_every=200),
)  # fmt: skip
