"""Bases of E. coli: long convolutions (arXiv:2302.10866), as in HyenaDNA (arXiv:2306.15794).

command     seqjax train dna
hardware    2 CPU cores, shared with many other processes
time        34 minutes
expected    1.88 bits per base of 65,536 held out (their frequencies: 2.00)
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("dna", batch=16, length=256, evaluation_batches=16),
    model=ModelConfig(layer=(LayerConfig("hyena"),), features=64, depth=2),
    optimiser=OptimiserConfig(learning_rate=3e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=600, evaluate_every=200, save_every=200),
)
