"""Quasi-recurrent network (Bradbury et al. 2017, arXiv:1611.01576).

    z_t = tanh(W_z [x_t, x_{t-1}, .. x_{t-k+1}])                   k = window              eq. 1
    f_t = sigmoid(W_f [..]),  o_t = sigmoid(W_o [..]),  i_t = sigmoid(W_i [..])

    "f"     c_t = f_t * c_{t-1} + (1 - f_t) * z_t = y_t                                    eq. 3
    "fo"    the same c_t,                              y_t = o_t * c_t                     eq. 4
    "ifo"   c_t = f_t * c_{t-1} + i_t * z_t,           y_t = o_t * c_t                     eq. 5

Rows of W are stacked in the order z, f, o, i (as many as the pooling has), its columns newest input
first; W carries a bias. The gates see inputs only, so pooling is a diagonal scan over c [hidden].

zoneout (sec. 2.1): 1 - f becomes d_t (1 - f); while training d_t is 0 for each unit with that
probability, and the unit keeps what it has; in evaluation d_t is the mean, 1 - zoneout. There is no
division by 1 - zoneout, as in the release. With a key d_t is drawn, without one a call is the
evaluation form; with `masks` = hidden the last features of x are d_t, which `draw` makes.
eigenvalues "[-1,1]": the f_t that multiplies c_{t-1} becomes 2 f_t - 1 (arXiv:2411.12537), what is
written stays. Of the release's options all are here: output_gate False is "f", and the state always
holds the last inputs (save_prev_x).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.nn.base import Layer, option
from seqjax.nn.gates import EIGENVALUES, multiplier
from seqjax.ops.convolution import short_convolution
from seqjax.ops.linear_scan import linear_scan

POOLINGS = {"f": 2, "fo": 3, "ifo": 4}  # blocks of W


class QRNNState(NamedTuple):
    window: jax.Array  # [window - 1, features - masks], newest last
    c: jax.Array  # [hidden]


class QRNN(Layer):
    ops = ("linear_scan",)
    sequence_parallel = True

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        window: int = 2,
        pooling: str = "fo",
        zoneout: float = 0.0,
        masks: int = 0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"a step sees at least its own input, got window={window}")
        if not 0 <= zoneout < 1:
            raise ValueError(f"zoneout is a share in [0, 1), got {zoneout}")
        self.features, self.masks, self.inputs = features, masks, features - masks
        self.out_features = hidden or features
        if masks not in (0, self.out_features) or self.inputs < 1:
            raise ValueError(
                f"of {features} features, {masks} cannot be masks: "
                f"they are those of all {self.out_features} units, or none"
            )
        self.pooling = option("pooling", pooling, POOLINGS)
        self.window, self.zoneout, self.noisy = window, zoneout, zoneout > 0
        self.side_ops = ("short_convolution",) if window > 1 else ()
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.W = nnx.Linear(window * self.inputs, POOLINGS[pooling] * self.out_features, rngs=rngs)

    def draw(self, key: jax.Array, batch: int, steps: int, dtype=jnp.float32) -> jax.Array:
        """Masks [batch, steps, hidden]: 1 where the new value is taken."""
        shape = (batch, steps, self.out_features)
        return jax.random.bernoulli(key, 1 - self.zoneout, shape).astype(dtype)

    def initial(self):
        return QRNNState(jnp.zeros((self.window - 1, self.inputs)), jnp.zeros(self.out_features))

    def run(self, x, h, flow):
        x, taken = jnp.split(x, (self.inputs,), axis=1)
        seen, window = [x], h.now.window
        for age in range(1, self.window):  # x_{t - age}: a convolution with that tap alone
            taps = jnp.zeros((self.window, self.inputs), x.dtype).at[-1 - age].set(1)
            older, window = short_convolution(x, taps, h.window, flow=flow.of())
            seen.append(older)
        parts = jnp.split(self.W(jnp.concatenate(seen, axis=1)), POOLINGS[self.pooling], axis=1)
        drawn = taken > 0.5 if self.masks else flow.drawn(1 - self.zoneout, (self.out_features,))
        d = 1 - self.zoneout if drawn is None else jnp.where(drawn, 1.0, 0.0)
        z, written = jnp.tanh(parts[0]), d * jax.nn.sigmoid(-parts[1])
        entering = jax.nn.sigmoid(parts[3]) if self.pooling == "ifo" else written
        kept = multiplier(1 - written, self.eigenvalues)
        c, last = linear_scan(kept, entering * z, h.c, flow=flow)
        y = c if self.pooling == "f" else jax.nn.sigmoid(parts[2]) * c
        return y, QRNNState(window, last)
