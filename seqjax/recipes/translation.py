"""English captions in German (Multi30k): attention to an encoder in both directions.

command     seqjax train translation
hardware    2 CPU cores, shared with other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    `seqjax eval RUN --held-out test`: BLEU 17.4 of the captions of flickr 2016, loss 2.57 a
            token (their frequencies: 5.96)

Minimal GRUs (arXiv:2410.01201) read and write, with attention between them (arXiv:1409.0473). The
pairs have been seen once; an attentive network that goes over them many times has 34.2, in lower
case (arXiv:1710.07177).
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "translation", {"steps": 40, "vocabulary": 2000}, batch=32, evaluation_batches=None
    ),
    model=ModelConfig(
        layer=(LayerConfig("min_gru"),), features=96, depth=1, dropout=0.1,
        encoder=(LayerConfig("bidirectional", {"layer": "min_gru"}),),
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=900, evaluate_every=450, save_every=450),
)  # fmt: skip
