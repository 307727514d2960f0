"""Consistent Koopman autoencoder (Azencot et al. 2020, arXiv:2003.02236).

Frames f of a dynamical system are encoded to where the system is linear, and moved there by one
matrix C, forwards, and one matrix D, backwards:

    f~_k = chi_d(chi_e(f_k))    f^_{k+l} = chi_d(C^l chi_e(f_k))    f'_{k-l} = chi_d(D^l chi_e(f_k))

chi_e and chi_d are three tanh layers, `width` units wide, chi_e without the last tanh; `hidden`
is the size of C and D. They are trained by the sum of four weighted errors, sec. 4:

    E_id     f~ against f                       E_fwd    f^ against f, over `steps` steps
    E_bwd    f' against f, over `back` steps
    E_con    sum_k 1/(2k) (|D_k. C_.k - I_k|^2 + |C_k. D_.k - I_k|^2)     forth and back is nothing

with D_k. the first k rows and C_.k the first k columns. `losses` returns the four as released:
means over the entries of a frame, summed over the steps from the first frame or back from the last
one, and E_id of the first frame, `steps` times. `experiments/koopman.py` trains by them.

As a layer it forecasts the next frame from those before it, y_t = f^_{t+1}:

    q_t = C (alpha chi_e(x_t) + (1 - alpha) q_{t-1})       y_t = chi_d(q_t)

with alpha = 1 for the first frame and `forcing` after it: 1 looks at each frame alone, 0 at the
first one only, which is the paper's forecast; between them it is a linear recurrence corrected by
what is seen (this form is ours). For series of physical systems, from one frame to a horizon.

C starts orthogonal times 0.99, as released, D as its inverse, and all else by Glorot's normal rule
with biases at 0.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from seqjax.core.mesh import loop
from seqjax.nn.recurrent import Recurrent

START = 0.99  # of the singular values of C


class Losses(NamedTuple):
    identity: Array
    forward: Array
    backward: Array
    consistency: Array


class KoopmanState(NamedTuple):
    q: Array  # [hidden], chi_e of the frame that is expected next
    begun: Array  # [], 1 where a frame was seen


class Coder(nnx.Module):
    """Three layers, tanh between them."""

    def __init__(self, inputs: int, width: int, outputs: int, *, rngs: nnx.Rngs):
        sizes = (inputs, width, width, outputs)
        self.layers = nnx.List(
            [
                nnx.Linear(n, m, kernel_init=nnx.initializers.glorot_normal(), rngs=rngs)
                for n, m in zip(sizes, sizes[1:])
            ]
        )

    def __call__(self, x):
        first, second, last = self.layers
        return last(jnp.tanh(second(jnp.tanh(first(x)))))


class KoopmanAE(Recurrent):
    learned = ""  # the first frame is the start

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        width: int = 16,
        forcing: float = 0.5,
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        H = self.hidden = hidden or features
        self.forcing = forcing
        self.chi_e = Coder(features, width, H, rngs=rngs)
        self.chi_d = Coder(H, width, features, rngs=rngs)
        Q = nnx.initializers.orthogonal()(rngs.params(), (H, H))
        self.C, self.D = nnx.Param(START * Q), nnx.Param(Q.T / START)

    def decode(self, q: Array) -> Array:
        return jnp.tanh(self.chi_d(q))

    def initial(self):
        return KoopmanState(jnp.zeros(self.hidden), jnp.zeros(()))

    def drive(self, x):
        return self.chi_e(x)

    def step(self, h, z):
        alpha = jnp.where(h.begun > 0, jnp.asarray(self.forcing, z.dtype), 1)
        return KoopmanState(self.C @ (alpha * z + (1 - alpha) * h.q), jnp.ones_like(h.begun))

    def readout(self, h, x):
        return self.decode(h.q)

    def reconstruct(self, x: Array) -> Array:
        return self.decode(self.chi_e(x))

    def forecast(self, x: Array, steps: int) -> Array:
        """The `steps` frames after x [features]: [steps, features]."""
        return self.moved(self.C[...], x, steps)

    def backcast(self, x: Array, steps: int) -> Array:
        """The `steps` frames before x [features], the nearest first: [steps, features]."""
        return self.moved(self.D[...], x, steps)

    def moved(self, matrix: Array, x: Array, steps: int) -> Array:
        def step(q, _):
            q = matrix @ q
            return q, q

        return self.decode(loop(step, self.chi_e(x), length=steps)[1])

    def losses(self, x: Array, *, back: int | None = None) -> Losses:
        """E_id, E_fwd, E_bwd and E_con of x [steps + 1, features], consecutive frames.

        back: the steps backwards from the last frame; None: all of them.
        Raises ValueError for fewer than two frames, and for more steps back than there are.
        """
        steps = len(x) - 1
        back = steps if back is None else back
        if x.ndim != 2 or not 0 <= back <= steps or steps < 1:
            raise ValueError(
                f"losses are of two frames or more, x [steps + 1, {self.features}], and of at "
                f"most as many steps back; got {list(x.shape)} and back={back}"
            )

        def error(expected, frames):
            return jnp.sum(jnp.mean((expected - frames) ** 2, axis=-1))

        return Losses(
            identity=steps * error(self.reconstruct(x[0]), x[0]),
            forward=error(self.forecast(x[0], steps), x[1:]),
            backward=error(self.backcast(x[-1], back), x[::-1][1 : back + 1]),
            consistency=consistency(self.C[...], self.D[...]),
        )


def consistency(C: Array, D: Array) -> Array:
    """sum_k 1/(2k) (|D_k. C_.k - I_k|^2 + |C_k. D_.k - I_k|^2), k = 1 ... n, of n x n matrices."""
    k = jnp.arange(1, len(C) + 1, dtype=C.dtype)

    def squares(product):
        # The k x k corners of one matrix, each the sum of all that is in them.
        corners = jnp.cumsum(jnp.cumsum((product - jnp.eye(len(C))) ** 2, axis=0), axis=1)
        return jnp.diagonal(corners)

    return jnp.sum((squares(D @ C) + squares(C @ D)) / (2 * k))
