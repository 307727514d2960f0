"""A byte-level language model of Python's own source, the running interpreter's standard library.

command     seqjax train demo
hardware    2 CPU cores, no accelerator
time        4 minutes
expected    README.md, "What the demo prints", which `make demo` prints

minGRU (arXiv:2410.01201) in as many steps as three minutes have.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig("char_lm", batch=8, length=128, evaluation_batches=8),
    model=ModelConfig(
        layer=(LayerConfig("min_gru"),), features=128, depth=3, expansion=2.0, unroll=3
    ),
    optimiser=OptimiserConfig(learning_rate=6e-3, warmup=100, final=0.02),
    train=TrainConfig(steps=100_000, max_seconds=185, evaluate_every=500, save_every=100_000),
)
