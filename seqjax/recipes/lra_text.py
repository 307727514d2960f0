"""Text of the Long Range Arena (arXiv:2011.04006): sentiment of reviews by their first 512 bytes.

command     seqjax train lra_text
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    validation accuracy 0.664 (chance: 0.5), of the subset of 5,000 + 5,000 reviews: 4,500
            to train on, seen twice, 500 held out

Quasi-recurrent layers (arXiv:1611.01576) whose convolutions see six bytes. Papers read 4096 bytes,
of 25,000 reviews.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("lra_text", batch=32, length=512, evaluation_batches=None),
    model=ModelConfig(
        layer=(LayerConfig("qrnn", {"window": 6}),), features=64, depth=2, dropout=0.2, pool="mean"
    ),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=30, final=0.02),
    train=TrainConfig(steps=280, evaluate_every=140, save_every=140),
)
