"""Noise-padded CIFAR (arXiv:1902.09689): a photograph in 32 steps, then 968 steps of noise.

command     seqjax train npcifar                   (SEQJAX_DATA: the folder with CIFAR-10)
hardware    2 CPU cores; Python 3.11.7, jax 0.10.2, 2026-11-30
time        3 minutes
expected    validation accuracy 0.19 after 1.3 epochs of the JPEG subset (chance: 0.10)

An LSTM that begins by keeping, up to 1000 steps (arXiv:1804.11188): what it knows of the photograph
it has to carry through the noise. A look at a small part of the data; the paper trains on all.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("npcifar", {"noise": "normal"}, batch=50, length=1000, evaluation_batches=None),
    model=ModelConfig(
        layer=(LayerConfig("chrono_lstm", {"longest": 1000.0}),), features=64, depth=1
    ),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=20),
    train=TrainConfig(steps=240, evaluate_every=120, save_every=240),
)
