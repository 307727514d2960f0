"""Phone-book look-up among six entries: attention by hard ALiBi, a copier (arXiv:2402.01032).

command     seqjax train phonebook
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        9 minutes
expected    accuracy 0.997 (chance: 0.1); 0.988 of the numbers, of four digits, without a mistake

Half of the heads see the last one, two, three and four tokens, so that a layer knows what a digit
follows, and the next one finds it in the book.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("phonebook", {"names": 20, "digits": 4}, batch=64, length=35),
    model=ModelConfig(
        layer=(LayerConfig("attention", {"heads": 8, "window": 35, "positions": "hard_alibi"}),),
        features=64, depth=2,
    ),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, weight_decay=0.01),
    train=TrainConfig(steps=700, evaluate_every=350, save_every=350),
)  # fmt: skip
