"""Differentiable neural computer (Graves et al., Nature 538, 2016): a memory that is allocated,
freed, and read in the order in which it was written.

Of the output o_t of the controller (`external`), xi = E o_t + d, in the order of Methods, are for
each read head a key, a strength, a free gate f and read modes pi, for each write head a key, a
strength, an erase vector e, a write vector v, an allocation gate g^a and a write gate g^w:

    u_t   = (u + (1 - u) w^w) prod_i (1 - f_i w^r_i)               usage, of the step before
    a_t   : the cells of the least usage first (`addressing.allocation`)
    w^w_t = g^w (g^a a_t + (1 - g^a) content(M, k^w, beta^w))
    M_t   = M (1 - w^w e^T) + w^w v^T
    L_ij  = (1 - w^w_i - w^w_j) L_ij + w^w_i p_j,  L_ii = 0        written i right after j
    p_t   = (1 - sum w^w) p + w^w                                  written last
    w^r_t = pi_1 L^T w^r + pi_2 content(M_t, k^r, beta^r) + pi_3 L w^r
    r_t   = M_t^T w^r_t

with strengths 1 + softplus, gates and e by sigmoid, modes by softmax; it all starts at zero. The
links are cells x cells numbers and as much work in every step.

Where the released implementations differ, options are, and the defaults the paper's; what it leaves
open, as in the authors' release:

    write_heads       each with links of its own; then of pi the first and the last are for each of
                      them, pi_2 is one
    strengths         "softplus", without 1 +, in all releases
    squashed          keys and v by tanh
    usage_gradient    False: no gradient from usage into what was written before, as in the
                      authors' release
    eps               in the allocation, where usage is eps + (1 - eps) u, and in the cosine, under
                      both lengths; with `soft_lengths` also in each of them, sqrt(|v|^2 + eps)

For questions on what was shown once, in any order: graphs, trees, stories, lists.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.memory import addressing
from seqjax.layers.memory.external import ExternalMemory
from seqjax.nn.activations import sigmoid
from seqjax.nn.base import option
from seqjax.nn.linear import wide

STRENGTHS = {"oneplus": 1.0, "softplus": 0.0}  # what is added to the softplus


class DNCState(NamedTuple):
    memory: jax.Array  # [cells, width]
    usage: jax.Array  # [cells]
    links: jax.Array  # [write_heads, cells, cells]
    precedence: jax.Array  # [write_heads, cells]
    write_weights: jax.Array  # [write_heads, cells]
    read_weights: jax.Array  # [read_heads, cells]
    reads: jax.Array  # [read_heads, width]
    controller: Any  # LSTMState, or [hidden]


class DNC(ExternalMemory):
    def __init__(
        self,
        features: int,
        *,
        cells: int = 64,
        width: int = 16,
        read_heads: int = 4,
        write_heads: int = 1,
        controller: str = "lstm",
        hidden: int | None = None,
        strengths: str = "oneplus",
        squashed: bool = False,
        usage_gradient: bool = True,
        soft_lengths: bool = True,
        eps: float = 1e-6,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            reads=read_heads,
            width=width,
            controller=controller,
            hidden=hidden,
            squashed=squashed,
            rngs=rngs,
        )
        self.cells, self.write_heads = cells, write_heads
        self.strengths = option("strengths", strengths, STRENGTHS)
        self.usage_gradient = usage_gradient
        self.eps, self.inside = eps, eps if soft_lengths else 0.0
        R, H, W = read_heads, write_heads, width
        self.sizes = (R * W, R, H * W, H, H * W, H * W, R, H, H, R * (1 + 2 * H))
        self.E = nnx.Linear(self.hidden, sum(self.sizes), rngs=rngs)

    def initial(self):
        N, R, H = self.cells, self.read_heads, self.write_heads
        M, u, L = jnp.zeros((N, self.width)), jnp.zeros(N), jnp.zeros((H, N, N))
        p, w_w, w_r = jnp.zeros((H, N)), jnp.zeros((H, N)), jnp.zeros((R, N))
        return DNCState(M, u, L, p, w_w, w_r, *self.begin())

    def use(self, state, o):
        M, u, L, p, w_w, w_r, _, controller = state
        R, H = self.read_heads, self.write_heads
        emitted = jnp.split(wide(self.E(o)), list(accumulate(self.sizes))[:-1])
        k_r, beta_r, k_w, beta_w, e, v, f, g_a, g_w, pi = emitted
        f, g_a, g_w, e = map(sigmoid, (f, g_a, g_w, e.reshape(H, -1)))

        written = w_w if self.usage_gradient else jax.lax.stop_gradient(w_w)
        u = addressing.usage(u, written, f, w_r)
        a = addressing.allocations(u, g_a * g_w, self.eps)
        g_a, g_w = g_a[:, None], g_w[:, None]
        w_w = g_w * (g_a * a + (1 - g_a) * self.content(k_w, beta_w, M))
        M = addressing.erase_and_add(M, w_w, e, self.squash(v.reshape(H, -1)))
        L, p = addressing.link(L, p, w_w), addressing.precedence(p, w_w)

        back, forth = addressing.follow(L, w_r)
        found = self.content(k_r, beta_r, M)
        ways = jnp.concatenate([back, found[:, None], forth], axis=1)  # [R, 2 H + 1, cells]
        w_r = jnp.einsum("rm,rmn->rn", jax.nn.softmax(pi.reshape(R, -1), axis=1), ways)
        return DNCState(M, u, L, p, w_w, w_r, w_r @ M, controller)

    def content(self, k, beta, M):
        k = self.squash(k.reshape(len(beta), -1))
        beta = STRENGTHS[self.strengths] + jax.nn.softplus(beta)
        return addressing.content(k, beta, M, self.eps, self.inside)
