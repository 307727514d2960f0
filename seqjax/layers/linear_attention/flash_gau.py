"""FLASH (Hua et al. 2022, arXiv:2202.10447 sec. 3.2): mixed-chunk attention in a gated unit.

    n = Norm(x);   u, v, z = silu(W n + b)                    as in `gau`
    q, q', k, k' = kappa * z + mu                             four views of one z [size]
    inside a chunk of G = `group` steps, all pairs:
        o_i = sum_{j <= i} relu(q_i . k_j / G + b_{i-j})^2 v_j
    over all chunks before it, a linear attention whose state moves once per chunk:
        o_i += S^T q'_i / G,    S = sum over past chunks of k'_j v_j^T      S [size, inner]
    y = x + W_o (u * o) + b_o

Cost O(T G) and a state that does not grow. Chunks count from the start and from each reset; a
masked step is not counted. `shift` moves half of n's channels one step back first (not of the
paper, but of a wide-spread implementation, whose conventions of scale these are: G divides both
parts, the bias is added after). Not `causal`, the chunk is seen both ways and the linear part sums
over all T steps, its own chunk included, over T; then nothing streams, and all pairs are formed.
The bias is one of `gated_attention`'s.

The state is S, and k, k', v of the steps of the chunk that is not full yet.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from seqjax.nn.base import Layer
from seqjax.nn.convolution import token_shift
from seqjax.nn.gated_attention import INIT, RelativeBias, Views, weigh
from seqjax.nn.norms import Norm
from seqjax.nn.segmented import by_length


class FlashState(NamedTuple):
    S: Array  # [size, inner]
    pending: tuple[Array, Array, Array]  # k, k' [group - 1, size], v [group - 1, inner]; or zero
    place: Array  # int32 [], how many of them, at the end
    window: Any  # [1, features // 2], with `shift`


class FlashGAU(Layer):
    block = True
    structure = "sum of matrices, window of the past"

    def __init__(
        self,
        features: int,
        *,
        size: int = 128,
        expansion: float = 2.0,
        group: int = 256,
        bias: str = "rotary",
        shift: bool = False,
        causal: bool = True,
        rngs: nnx.Rngs,
    ):
        if group < 1:
            raise ValueError(f"group must be at least 1, got {group}")
        self.features = self.out_features = features
        self.size, self.inner, self.length = size, int(expansion * features), group
        self.shift, self.causal = shift, causal
        self.side_ops = ("short_convolution",) if shift else ()
        self.norm = Norm(features, centre=True, bias=True, eps=1e-5)

        def linear(n, m):
            return nnx.Linear(n, m, kernel_init=INIT, rngs=rngs)

        self.W_u, self.W_v = linear(features, self.inner), linear(features, self.inner)
        self.W_z, self.views = linear(features, size), Views(4, size, rngs=rngs)
        self.bias = RelativeBias(bias, group, size, causal=causal, rngs=rngs)
        self.W_o = linear(self.inner, features)

    def initial(self):
        keys, values = (jnp.zeros((self.length - 1, n)) for n in (self.size, self.inner))
        return FlashState(
            jnp.zeros((self.size, self.inner)),
            (keys, keys, values),
            jnp.zeros((), jnp.int32),
            jnp.zeros((1, self.features // 2)) if self.shift else None,
        )

    def run(self, x, h, flow):
        if not self.causal:
            return self.segment(h, x, flow)
        return by_length(self.segment, self.length, x, h, flow)

    def segment(self, h, x, flow):
        C, G, n, window = len(x), self.length, self.norm(x), None
        if self.shift:
            half = self.features // 2
            moved, window = token_shift(n[:, :half], h.window, flow=flow)
            n = jnp.concatenate([moved, n[:, half:]], axis=1)
        u, v, z = (jax.nn.silu(W(n)) for W in (self.W_u, self.W_v, self.W_z))
        q, q_linear, k, k_linear = self.views(z)

        kept = jnp.ones(C, bool) if flow.mask is None else flow.mask
        order = jnp.argsort(~kept, stable=True)  # steps left out go behind the others
        first = jnp.zeros(C, bool) if flow.begins is None else flow.begins[order]
        h, start = h.now, h.start
        count, wide = jnp.sum(kept, dtype=jnp.int32), h.S.dtype
        q, q_linear, *items = (w.astype(wide)[order] for w in (q, q_linear, k, k_linear, v))
        items = [jnp.concatenate(pair) for pair in zip(h.pending, items)]

        # Steps are numbered on over resets, the pending ones from below zero.
        number = h.place + jnp.arange(C, dtype=jnp.int32)
        numbers = h.place + jnp.arange(1 - G, C, dtype=jnp.int32)
        piece = jnp.cumsum(first, dtype=jnp.int32)
        begin = lax.cummax(jnp.where(first, number, 0))
        last = jnp.take(piece, count - 1, mode="clip") if C else 0
        last_begin = jnp.max(begin, initial=0)
        of_pending = jnp.where(numbers[: G - 1] < 0, jnp.int32(-1), 0)
        of_items = jnp.where(number < h.place + count, piece, -1)
        pieces = jnp.concatenate([of_pending, of_items])
        begins = jnp.concatenate([jnp.zeros_like(of_pending), begin])
        chunk, chunks = (number - begin) // G, (numbers - begins) // G

        same = piece[:, None] == pieces[None]
        same |= number[:, None] == numbers[None]  # itself, where it is one of those left out
        local = same & (chunk[:, None] == chunks[None])
        if self.causal:
            local &= numbers[None] <= number[:, None]
            past, n = same & (chunks[None] < chunk[:, None]), G
            fresh = q_linear @ start.S.astype(wide)
            read = jnp.where((piece == 0)[:, None], q_linear @ h.S, fresh)
        else:
            past, n = same, jnp.sum(same, axis=1, keepdims=True).astype(wide)
            read = 0
        distance = number[:, None] - numbers[None]
        o = weigh("relu2", q @ items[0].T, self.bias(distance), local, G) @ items[2]
        o += (jnp.where(past, q_linear @ items[1].T, 0) @ items[2] + read) / n
        y = x + self.W_o(u * o[jnp.argsort(order)].astype(x.dtype))

        # What of the last piece is in full chunks now moves into S, the rest is pending.
        after = h.place + count - last_begin
        left = pieces == last
        done = left & (chunks < after // G)
        S = jnp.where(last == 0, h.S, start.S.astype(wide))
        S += jnp.where(done[:, None], items[1], 0).T @ items[2]
        wait = (left & ~done)[:, None]
        pending = tuple(
            lax.dynamic_slice_in_dim(jnp.where(wait, w, 0), count, G - 1) for w in items
        )
        return y, FlashState(S, (pending[0], pending[1], pending[2]), after % G, window)
