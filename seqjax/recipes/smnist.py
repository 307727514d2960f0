"""Sequential digits (arXiv:1504.00941): an image, pixel by pixel, and its class at the end.

command     seqjax train smnist
hardware    2 CPU cores
time        2 minutes
expected    validation accuracy 0.97; `seqjax eval RUN --held-out test`: 0.936, of other writers

The digits are those of scikit-learn. All of MNIST, its pixels permuted:

    seqjax train smnist --task.options data=mnist order=permuted
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "smnist",
        batch=50,
        length=64,
    ),
    model=ModelConfig(layer=(LayerConfig("lru", {}),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50),
    train=TrainConfig(steps=600, evaluate_every=100, save_every=300),
)
