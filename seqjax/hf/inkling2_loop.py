"""Inkling 2 with a loop: blocks that are run several times, and hear what they left before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from seqjax.hf.config import Config
from seqjax.hf.decoder import Branch, Description, Names, moved, under
from seqjax.hf.inkling2 import AT, described, steps, whole
from seqjax.hf.tensors import Rule, Transposed
from seqjax.stacks.blocks import Block
from seqjax.stacks.config import ModelConfig


class Rewound(nnx.Module):
    """The stream back before a loop: its current sum is what it was there, and the last sums, those
    that are heard, are those of the loop's blocks.

    over: blocks before the loop. blocks: in the loop.
    """

    def __init__(self, features: int, over: int, blocks: int):
        self.features, self.over, self.blocks = features, over, blocks

    def __call__(self, x: Array) -> Array:
        D, first, n = self.features, (1 + self.over) * self.features, self.blocks
        heard = x[..., first + D : first + n * D], x[..., :D]
        parts = x[..., first : first + D], x[..., D : x.shape[-1] - n * D], *heard
        return jnp.concatenate(parts, axis=-1)


class Pass(Block):
    """One of several runs of a block that all of them share, with a state of its own.

    block: which of the model's shared modules. listens: whether it hears what the last pass left.
    rewind: what is done to the stream before, at the first block of a pass.
    """

    def __init__(self, config: ModelConfig, block: int, *, listens: bool, rewind: Rewound | None):
        super().__init__(nnx.Module(), config)
        self.block, self.listens, self.rewind = block, listens, rewind

    def whole(self, shared):
        return shared[self.block].layer

    def start(self, batch, dtype, shared=None, source=None):
        assert shared is not None
        return shared[self.block].start(batch, dtype)

    def __call__(self, x, h, flow, key, embedding=None, shared=None, source=None, tokens=None):
        assert shared is not None
        own = nnx.merge(*nnx.split(shared[self.block]))
        own.connection.listens = self.listens
        return own(x if self.rewind is None else self.rewind(x), h, flow, key)


@dataclass(frozen=True)
class Again(Branch):
    """A run of the branch that is the n-th of the shared ones, whose tensors it has not."""

    n: int = 0
    listens: bool = False
    rewind: Rewound | None = None

    def block(self, of, config, *, rngs):
        return Pass(config, self.n, listens=self.listens, rewind=self.rewind)


@dataclass(frozen=True)
class Heard:
    """Two tensors [2 n, D] of n blocks: queries of messages for queries and the second layer, and
    for keys and values; here a parameter of each connection."""

    n: int

    def under(self, prefix: str) -> Heard:
        return self

    def rules(self, model, theirs):
        def take(arrays):
            one, two = (a.reshape(self.n, 2, -1) for a in arrays)
            first = np.concatenate([one[:, :1], two], axis=1)
            return [w for i in range(self.n) for w in (first[i], one[i, 1:])]

        def give(arrays):
            one = [np.stack([a[0], b[0]]) for a, b in zip(arrays[::2], arrays[1::2])]
            return [np.concatenate(one), np.concatenate([a[1:] for a in arrays[::2]])]

        ours = tuple(f"shared.{k}.connection.heard.w" for k in range(2 * self.n))
        yield Rule(theirs, ours, take, give)


CONTROLLERS: Names = {
    "down_weight": Transposed("W.kernel"),
    "forget_weight": Transposed("F.kernel"),
    "gain_weight": Transposed("G.kernel"),
}
OLD = {  # what the release calls the fields of a loop, in an object of their own
    "loop_layer_index_start": "core_start",
    "loop_layer_index_end": "core_end",
    "loop_num_passes": "num_passes",
    "loop_gate_rank": "gate_rank",
}


def loop_of(config: Config, size: int) -> tuple[range, int, int]:
    """The blocks of the loop, how often they are run, and the rank of their gates."""
    whole = config.inside("loop_config")

    def field(name: str, default: int) -> int:
        return whole.size(OLD[name], config.size(name, default))

    start, end = field("loop_layer_index_start", 6), field("loop_layer_index_end", 18)
    if start % size or end % size or not start < end <= config.depth():
        raise ValueError(
            f"{config.kind}: the blocks from {start} to {end} are run again; both have to be "
            f"multiples of n_layers_per_attn_res_block = {size}, and rise to at most "
            f"{config.depth()}"
        )
    return range(start, end), field("loop_num_passes", 3), field("loop_gate_rank", 64)


def text(config: Config, **fields: Any) -> Description:
    eps, size = config("rms_norm_eps", 1e-6), config.size("n_layers_per_attn_res_block", 6)
    loop, passes, rank = loop_of(config, size)
    over, blocks = loop.start // size, len(loop) // size
    every = steps(config, eps, size, loop, messages=blocks, rank=rank)
    first, last = 2 * loop.start, 2 * loop.stop
    looped, again = every[first:last], []
    names: dict[Any, Any] = {}
    rewind = Rewound(config.size("hidden_size"), over, blocks)
    for turn in range(passes):
        for n, branch in enumerate(looped):
            back = rewind if turn and not n else None
            again.append(Again(branch.layer, {}, "", n=n, listens=turn > 0, rewind=back))
    for n, branch in enumerate(looped):
        i, at = loop[n // 2], f"shared.{n}"
        names |= moved(branch.names, branch.prefix, f"{at}.layer")
        names |= {theirs: under(at, ours) for theirs, ours in branch.around.items()}
        for q, gate in enumerate(("mlp",) if n % 2 else ("attn", "k", "v")):
            theirs = f"{AT}.layers.{i}.controllers.{gate}"
            names |= moved(CONTROLLERS, theirs, f"{at}.connection.gates.{q}")
    queries = f"{AT}.middle_cycle_cross_pass_queries", f"{AT}.middle_cycle_cross_pass_kv_queries"
    names[queries] = Heard(len(loop))
    found = described(
        config, eps, size, every[:first] + again + every[last:], blocks, names, **fields
    )
    return replace(found, shared=tuple(looped))


def inkling2_loop_text(config: Config) -> Description:
    """Inkling 2 with a loop, of Thinking Machines: the text model alone, as transformers saves it.

    The equations are those of `inkling2_loop`.
    """
    return text(config)


def inkling2_loop(config: Config) -> Description:
    """Inkling 2 Mini (thinkingmachines/Inkling-2-Mini), the text model, as of transformers 5.24.

        x <- x + c(attention(rms(z_q), rms(z_k), rms(z_v))),   x <- x + c(experts(rms(z)))
        z <- (1 - tanh(F a)) z + tanh(G a) m,  a = W [rms(z), rms(m)]       from the second pass on
        m = sum_n a_n u_n,  a = softmax_n(D^-1/2 w . u_n)        u: rms of what the last pass left

    `inkling2`, of which the blocks from loop_layer_index_start to loop_layer_index_end are run
    loop_num_passes times, each time from the same stream, with keys and values of its own. What
    they left, the sums of their blocks, are messages m to those of the next pass.
    """
    return whole(config, text)
