"""English captions in German (Multi30k), by the network that learned to align (arXiv:1409.0473).

command     seqjax train bahdanau
hardware    2 CPU cores, shared with much other work; jax 0.10.2, 2026-11-30
time        6 minutes
expected    `seqjax eval RUN --held-out test`: BLEU 8.4 of the captions of flickr 2016, with
            `--beam 4` 8.6; loss 3.01 a token (their frequencies: 5.96)

Half of the pairs have been seen, once: the recipe `translation` has seen all of them, by layers
that read a sentence at once. `seqjax generate RUN --prompt "Two dogs are playing in the snow."
--beam 4 --length 30 --figure map.png` writes "Zwei Hunde spielen im Gras." and draws what each word
looked at: its own, and the words next to it.
"""

from seqjax.stacks.config import LayerConfig, ModelConfig
from seqjax.train.config import Config, OptimiserConfig, TaskConfig, TrainConfig

CONFIG = Config(
    task=TaskConfig(
        "translation", {"steps": 40, "vocabulary": 2000}, batch=32, evaluation_batches=None
    ),
    model=ModelConfig(
        layer=(LayerConfig("bahdanau"),), features=96, depth=1, dropout=0.1,
        encoder=(LayerConfig("bidirectional", {"layer": "gru"}),),
    ),
    optimiser=OptimiserConfig(learning_rate=5e-3, warmup=50, final=0.02),
    train=TrainConfig(steps=450, evaluate_every=450, save_every=450),
)  # fmt: skip
