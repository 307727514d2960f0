"""Reversal: an encoder in both directions, and a decoder that attends to it (arXiv:1409.0473).

command     seqjax train reverse
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        2 minutes
expected    accuracy 0.998 (chance: 0.0625); 0.980 of the sources, of 6 to 12 tokens, without a
            mistake
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("reverse", batch=32, length=12),
    model=ModelConfig(
        layer=(LayerConfig("gru"),), features=64, depth=1,
        encoder=(LayerConfig("bidirectional", {"layer": "gru"}),),
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, weight_decay=0.0),
    train=TrainConfig(steps=800, evaluate_every=200, save_every=400),
)  # fmt: skip
