"""Associative recurrent memory Transformer (Rodkin et al. 2024, arXiv:2407.04841).

RMT's segments of `length` steps and memory tokens m, but what is written is kept by every block, in
a matrix that the tokens are keys and values of (sec. 2). H = [x_s; m] goes through the blocks of
`seqjax.nn.transformer`, and before each of them

    H_j <- H_j + A phi(W_q H_j) / (z . phi(W_q H_j))                  zero where nothing is known

After a block, its memory tokens m_i, which see all of the segment, are written:

    k_i = W_k m_i    v_i = W_v m_i    beta_i = sigmoid(w_beta m_i)
    v~_i = A phi(k_i) / (z . phi(k_i))    gamma_i = 1 - z . phi(k_i) / |phi(k_i)|^2
    A <- A + sum_i beta_i (v_i - v~_i) phi(k_i)^T    z <- z + sum_i gamma_i phi(k_i)

with phi DPFP-`nu` of vectors of `size` channels, 2 size nu numbers (arXiv:2102.11174), A and z zero
at first, A [features, 2 size nu]; here gamma is held in [0, 1], so that z stays positive. A key
that is known changes its value, and z counts it once. The tokens m begin every segment as the same
parameters: A and z are all that is remembered.

For facts that are many, far apart and changed. As of `rmt`, a step of a stream costs a run over its
segment, and the gradient flows through all segments.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.feature_maps import dpfp
from seqjax.nn.norms import Norm
from seqjax.nn.segmented import Segmented
from seqjax.nn.transformer import Block


class Associations(NamedTuple):
    A: jax.Array  # [depth, features, 2 size nu]
    z: jax.Array  # [depth, 2 size nu]


class Association(nnx.Module):
    """Reading and writing of one block's A and z."""

    def __init__(self, features: int, size: int, nu: int, rngs: nnx.Rngs):
        self.nu = nu
        self.W_q, self.W_k = (
            nnx.Linear(features, size, use_bias=False, rngs=rngs) for _ in range(2)
        )
        self.W_v = nnx.Linear(features, features, use_bias=False, rngs=rngs)
        self.w_beta = nnx.Linear(features, 1, rngs=rngs)

    def phi(self, x):
        return dpfp(x[:, None], self.nu)[:, 0].astype(x.dtype)

    def read(self, A, z, x):
        return recalled(A, z, self.phi(self.W_q(x)))

    def write(self, A, z, m):
        phi = self.phi(self.W_k(m))
        beta = jax.nn.sigmoid(self.w_beta(m))
        square = jnp.sum(phi * phi, axis=1)
        known = phi @ z / jnp.where(square > 0, square, 1)
        gamma = jnp.clip(1 - known, 0, 1)
        change = beta * (self.W_v(m) - recalled(A, z, phi))
        return A + change.T @ phi, z + gamma @ phi


class ARMT(Segmented):
    block = True
    structure = "a Transformer and its associations, from segment to segment"
    learned = ""  # zeros mean that nothing is known

    def __init__(
        self,
        features: int,
        *,
        heads: int = 1,
        length: int = 64,
        memory: Annotated[int, Range(1)] = 4,
        size: Annotated[int, Range(1)] = 16,
        nu: int = 3,
        depth: Annotated[int, Range(1)] = 2,
        expansion: float = 2.0,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.length, self.depth, self.keys = length, depth, 2 * size * nu
        self.m = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (memory, features)))
        self.blocks = nnx.List(
            [Block(features, heads=heads, expansion=expansion, rngs=rngs) for _ in range(depth)]
        )
        self.associations = nnx.List([Association(features, size, nu, rngs) for _ in range(depth)])
        self.norm = Norm(features)

    def memory(self):
        A = jnp.zeros((self.depth, self.features, self.keys))
        return Associations(A, jnp.zeros((self.depth, self.keys)))

    def segment(self, m, x, flow):
        C, n = len(x), len(self.m[...])
        sees = jnp.tri(C + n, dtype=bool).at[:C, :C].set(flow.joined(C))
        H, positions = jnp.concatenate([x, self.m[...].astype(x.dtype)]), jnp.arange(C + n)
        written = []
        for block, association, A, z in zip(self.blocks, self.associations, *m.now):
            H = H + association.read(A, z, H).astype(H.dtype)
            H = block(H, positions, sees)
            written.append(association.write(A, z, H[C:].astype(A.dtype)))
        return self.norm(H[:C]), Associations(*map(jnp.stack, zip(*written)))


def recalled(A, z, phi):
    """A phi / (z . phi) of rows phi; zero where z has nothing of them."""
    mass = phi.astype(z.dtype) @ z
    there = mass > 1e-6
    value = phi.astype(A.dtype) @ A.T / jnp.where(there, mass, 1)[:, None]
    return jnp.where(there[:, None], value, 0)
