"""Image of the Long Range Arena (arXiv:2011.04006): a photograph, pixel by pixel.

command     seqjax train lra_image                 (SEQJAX_DATA: the folder with CIFAR-10)
hardware    2 CPU cores
time        4 minutes
expected    validation accuracy 0.31 after half an epoch of the JPEG subset (chance: 0.10)

A look at half of a small part of the data; papers train for 200 epochs on all of it.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "lra_image", {"form": "colour"}, batch=16, length=1024, evaluation_batches=None
    ),
    model=ModelConfig(layer=(LayerConfig("s5", {}),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=4e-3, warmup=50),
    train=TrainConfig(steps=300, evaluate_every=100, save_every=150),
)
