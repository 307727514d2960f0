"""Nine speakers of a Japanese vowel (JapaneseVowels of UEA): twelve numbers a step, 7 to 29 steps.

command     seqjax train uea
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        2 minutes
expected    `seqjax eval RUN --held-out test`: accuracy 0.965 of the 370 test series (the likeliest
            speaker: 0.084); of the 54 validated on 0.944

A fifth of the 270 training series is validated on; papers train on all of them (--task.options
held_out=test), where one nearest neighbour by dynamic time warping has 0.949 (arXiv:1811.00075).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("uea", {"dataset": "JapaneseVowels"}, batch=32),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.05),
    train=TrainConfig(steps=400, evaluate_every=100, save_every=400),
)
