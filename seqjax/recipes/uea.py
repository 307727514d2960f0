"""Nine speakers of a Japanese vowel (JapaneseVowels of UEA): twelve numbers a step, 7 to 29 steps.

command     seqjax train uea
hardware    2 CPU cores
time        1 minute
expected    accuracy 0.976 on the 370 test series

The 270 training series are all trained on, as in the papers; one nearest neighbour by dynamic time
warping has 0.949 (arXiv:1811.00075).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("uea", {"dataset": "JapaneseVowels", "held_out": "test"}, batch=32),
    model=ModelConfig(layer=(LayerConfig("min_gru"),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.05),
    train=TrainConfig(steps=400, evaluate_every=100, save_every=400),
)
