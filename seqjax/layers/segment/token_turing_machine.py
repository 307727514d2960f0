"""Token Turing machine (Ryoo et al. 2022, arXiv:2211.09119): a memory M [m, d] of tokens, of which
a step reads, with its own tokens I [n, d], what it processes, and into which it writes.

    Z_t = S_r([M_t; I_t])                  read: r = `process` tokens
    O_t = process(Z_t)
    M_{t+1} = S_m([M_t; I_t; O_t])         write: m tokens                     (sec. 3)
    y_t = O_t

features = n d, out_features = r d: a step of the sequence is a frame of tokens, which lie flat.
S_r and S_m each make their k tokens of all, V [p, d]:

    mode      "TL"          A V,  A = softmax over the p tokens of MLP(LN(V))^T     (TokenLearner)
              "TL-MHA"      k learned queries attend to V, with `heads`: M is then a linear map of
                            itself, which nothing bounds over a long sequence, as in the release
              "TL-AddErase" S_r is that of "TL", and M is erased and added to by 8 writes:
                            M_{t+1} = M * prod_i (1 - w_i e_i^T) + mean_i (1 - w_i a_i^T)
                            w = softmax over the m tokens of MLP(LN(M))^T,
                            e and a [8, d] each an MLP over tokens, then over channels, of LN(O)
              "mean"        each token is the mean of a k-th of the tokens
    unit      "transformer" `depth` encoder blocks on learned positions, a norm
              "mixer"       MLP mixers: over the tokens (of 128 units), over the channels, a norm
              "mlp"         LN and an MLP, without a residual, a norm

`units` is the width of the MLPs that process, 64 that of those that choose, gelu by tanh. With
`positions` learned vectors are added to what S_r and S_m see. M_0 = 0. That what is added is
1 - w a^T, whose mean is near 1, is as in the release.

The outputs are part of the state: what a step returns is made of the memory before it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.nn.activations import gelu_tanh
from seqjax.nn.base import option
from seqjax.nn.linear import merge_heads, per_head, split_heads
from seqjax.nn.norms import Norm
from seqjax.nn.recurrent import Recurrent
from seqjax.ops.dense_attention import attend

CHOICE, WRITES, MIXED = 64, 8, 128  # widths of the release
INIT = nnx.initializers.normal(0.02)


class MLP(nnx.Module):
    def __init__(self, n: int, wide: int, m: int, rngs: nnx.Rngs):
        self.W_1, self.W_2 = nnx.Linear(n, wide, rngs=rngs), nnx.Linear(wide, m, rngs=rngs)

    def __call__(self, x):
        return self.W_2(gelu_tanh(self.W_1(x)))


class Heads(nnx.Module):
    """softmax(q k^T / sqrt(d / heads)) v of all heads, with biases: x [n, d] looks at z [m, d]."""

    def __init__(self, d: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (nnx.Linear(d, d, rngs=rngs) for _ in range(4))

    def __call__(self, x, z):
        q, k, v = (
            split_heads(W(y), self.heads) for W, y in ((self.W_q, x), (self.W_k, z), (self.W_v, z))
        )
        return self.W_o(merge_heads(attend(q, k, v, scale=q.shape[2] ** -0.5)))


def layer_norm(d: int) -> Norm:
    return Norm(d, centre=True, bias=True)


class Learner(nnx.Module):
    """A V of "TL"."""

    def __init__(self, d: int, k: int, rngs: nnx.Rngs):
        self.norm, self.mlp = layer_norm(d), MLP(d, CHOICE, k, rngs)

    def weights(self, V):
        """[k, p], each row of which adds up to 1."""
        return jax.nn.softmax(self.mlp(self.norm(V)).T, axis=-1)

    def __call__(self, V):
        return self.weights(V) @ V


class Queries(nnx.Module):
    """Those of "TL-MHA"."""

    def __init__(self, d: int, k: int, heads: int, rngs: nnx.Rngs):
        self.tokens, self.attention = nnx.Param(INIT(rngs.params(), (k, d))), Heads(d, heads, rngs)

    def __call__(self, V):
        return self.attention(self.tokens[...].astype(V.dtype), V)


class Pool(nnx.Module):
    """Those of "mean": the i-th is of the tokens from floor(i p / k) to ceil((i + 1) p / k)."""

    def __init__(self, k: int):
        self.k = k

    def __call__(self, V):
        ends = np.arange(self.k + 1) * len(V) / self.k
        j = np.arange(len(V))[None]
        taken = (j >= np.floor(ends[:-1, None])) & (j < np.ceil(ends[1:, None]))
        return jnp.asarray(taken / taken.sum(1, keepdims=True), V.dtype) @ V


class AddErase(nnx.Module):
    """The write of "TL-AddErase", of M [m, d] and what was processed, Y [r, d]."""

    def __init__(self, d: int, r: int, rngs: nnx.Rngs):
        self.select = Learner(d, WRITES, rngs)
        self.norms = nnx.List([layer_norm(d) for _ in range(2)])
        self.over_tokens = nnx.List([MLP(r, CHOICE, WRITES, rngs) for _ in range(2)])
        self.over_channels = nnx.List([MLP(d, CHOICE, d, rngs) for _ in range(2)])

    def __call__(self, M, Y):
        w = self.select.weights(M)
        erased, added = (
            1 - w[:, :, None] * channels(tokens(norm(Y).T).T)[:, None]
            for norm, tokens, channels in zip(self.norms, self.over_tokens, self.over_channels)
        )
        return M * erased.prod(0) + added.mean(0)


class Encoder(nnx.Module):
    """A block of a Transformer, or of a mixer: over the tokens, then over the channels."""

    def __init__(self, d: int, r: int, unit: str, units: int, heads: int, rngs: nnx.Rngs):
        self.norms = nnx.List([layer_norm(d) for _ in range(2)])
        self.attention: Any = Heads(d, heads, rngs) if unit == "transformer" else None
        self.mixing: Any = MLP(r, MIXED, r, rngs) if unit == "mixer" else None
        self.mlp = MLP(d, units, d, rngs)

    def __call__(self, Z):
        V = self.norms[0](Z)
        if self.attention is not None:
            Z = Z + self.attention(V, V)
        else:
            Z = Z + self.mixing(V.T).T
        return Z + self.mlp(self.norms[1](Z))


class Plain(nnx.Module):
    def __init__(self, d: int, units: int, rngs: nnx.Rngs):
        self.norm, self.mlp = layer_norm(d), MLP(d, units, d, rngs)

    def __call__(self, Z):
        return self.mlp(self.norm(Z))


class Tokens(NamedTuple):
    M: jax.Array  # [memory, d]
    Y: jax.Array  # [process, d], the O of the last step


class TokenTuringMachine(Recurrent):
    learned = "M"

    def __init__(
        self,
        features: int,
        *,
        tokens: int = 1,
        process: int = 8,
        memory: int = 16,
        mode: str = "TL",
        unit: str = "transformer",
        depth: int = 1,
        units: int = 512,
        heads: int = 4,
        positions: bool = False,
        rngs: nnx.Rngs,
    ):
        if memory < 1:
            raise ValueError(f"memory must be at least 1 token, got {memory}")
        d = self.width = per_head("features", features, tokens)
        self.features, self.out_features = features, process * d
        self.tokens, self.process, self.memory = tokens, process, memory
        self.mode = option("mode", mode, ("TL", "TL-MHA", "TL-AddErase", "mean"))
        self.unit = option("unit", unit, ("transformer", "mixer", "mlp"))
        if unit == "transformer" or mode == "TL-MHA":
            per_head("features / tokens", d, heads)

        def chooser(k):
            if mode == "mean":
                return Pool(k)
            return Queries(d, k, heads, rngs) if mode == "TL-MHA" else Learner(d, k, rngs)

        def places(count, wanted):
            return nnx.Param(INIT(rngs.params(), (count, d))) if wanted else None

        self.p_r = places(memory + tokens, positions)
        self.p_m = places(memory + tokens + process, positions and mode != "TL-AddErase")
        self.read: Any = chooser(process)
        self.write: Any = AddErase(d, process, rngs) if mode == "TL-AddErase" else chooser(memory)
        self.p = places(process, unit == "transformer")
        if unit == "mlp":
            blocks = [Plain(d, units, rngs) for _ in range(depth)]
        else:
            blocks = [Encoder(d, process, unit, units, heads, rngs) for _ in range(depth)]
        self.blocks, self.norm = nnx.List(blocks), layer_norm(d)

    def initial(self):
        return Tokens(*(jnp.zeros((n, self.width)) for n in (self.memory, self.process)))

    def drive(self, x):
        return x.reshape(len(x), self.tokens, self.width)

    def step(self, h, z):
        M, X = h.M, z.astype(h.M.dtype)
        Y = placed(self.read(placed(jnp.concatenate([M, X]), self.p_r)), self.p)
        for block in self.blocks:
            Y = block(Y)
        Y = self.norm(Y)
        if self.mode == "TL-AddErase":
            return Tokens(self.write(M, Y), Y)
        return Tokens(self.write(placed(jnp.concatenate([M, X, Y]), self.p_m)), Y)

    def readout(self, h, x):
        return h.Y.ravel()


def placed(V, p):
    return V if p is None else V + p[...].astype(V.dtype)
