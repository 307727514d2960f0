"""The hybrid of 1.3 G parameters at a context of a million tokens, on a TPU v5e-256.

command     seqjax plan hybrid_1b_long --topology v5e:16x16
hardware    for the plan no TPU: 2 CPU cores, shared with other work; jax 0.10.2, libtpu 0.0.42.1,
            2026-12-01
time        10 minutes to compile
expected    3.22 GiB of 16 on each chip; a step of 2.1 M tokens takes 977 ms at the peaks of the
            chip, 1035 where no collective hides behind other work: 2.0 M tokens/s

A sequence of 1,048,576 tokens lies on 128 chips, 8,192 steps on each. What they exchange along time
is states and the window of attention, as large at any length (`seqjax.core.axis`). Parameters
are split over the same chips. `seqjax train hybrid_1b_long --from RUN` goes on from a
run of `hybrid_1b`.
"""

from dataclasses import replace

from seqjax.recipes import hybrid_1b
from seqjax.train.config import MeshConfig

CONFIG = replace(
    hybrid_1b.CONFIG,
    task=replace(hybrid_1b.CONFIG.task, batch=2, length=1_048_576),
    mesh=MeshConfig(data=2, sequence=128, rules={"features": "sequence"}),
)
