"""The copy memory task over a delay of 100 steps: eigenvalues on a ring near the unit circle.

command     seqjax train copy
hardware    2 CPU cores
time        1 minute
expected    validation accuracy of the recalled symbols 1.00 (chance: 0.125)

The linear recurrent unit keeps ten symbols apart by phase (arXiv:2303.06349, sec. 3.4); a gated
network of the same width is not there yet after as many steps:

    seqjax train copy --model.layer gru                           accuracy 0.24
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("copy", {"memorised": 10}, batch=32, length=120),
    model=ModelConfig(
        layer=(LayerConfig("lru", {"state": 128, "r_min": 0.9, "r_max": 0.999}),),
        features=64, depth=2,
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=300),
)  # fmt: skip
