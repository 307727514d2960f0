"""Quasi-recurrent network (Bradbury et al. 2017, arXiv:1611.01576).

    z_t = tanh(W_z [x_t, x_{t-1}, .. x_{t-k+1}])                   k = window              eq. 1
    f_t = sigmoid(W_f [..]),  o_t = sigmoid(W_o [..]),  i_t = sigmoid(W_i [..])

    "f"     c_t = f_t * c_{t-1} + (1 - f_t) * z_t = y_t                                    eq. 3
    "fo"    the same c_t,                              y_t = o_t * c_t                     eq. 4
    "ifo"   c_t = f_t * c_{t-1} + i_t * z_t,           y_t = o_t * c_t                     eq. 5

Rows of W are stacked in the order z, f, o, i (as many as the pooling has), its columns newest input
first; W carries a bias. The gates see inputs only, so pooling is a diagonal scan over c [hidden].

zoneout: f becomes 1 - (1 - zoneout) (1 - f), what zoneout is in the mean (sec. 2.1 draws it as
dropout on 1 - f while training). eigenvalues "[-1,1]": the f_t that multiplies c_{t-1} becomes
2 f_t - 1 (arXiv:2411.12537), what is written stays.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from seqjax.layers.base import Layer, option
from seqjax.layers.gates import EIGENVALUES, multiplier
from seqjax.ops.convolution import short_convolution
from seqjax.ops.linear_scan import LINEAR_SCAN, linear_scan

POOLINGS = {"f": 2, "fo": 3, "ifo": 4}  # blocks of W


class QRNNState(NamedTuple):
    window: jax.Array  # [window - 1, features], newest last
    c: jax.Array  # [hidden]


class QRNN(Layer):
    evaluators = tuple(LINEAR_SCAN.evaluators)

    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        window: int = 2,
        pooling: str = "fo",
        zoneout: float = 0.0,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if window < 1:
            raise ValueError(f"a step sees at least its own input, got window={window}")
        if not 0 <= zoneout < 1:
            raise ValueError(f"zoneout is a share in [0, 1), got {zoneout}")
        self.features, self.out_features = features, hidden or features
        self.pooling = option("pooling", pooling, POOLINGS)
        self.window, self.zoneout = window, zoneout
        self.eigenvalues = option("eigenvalues", eigenvalues, EIGENVALUES)
        self.W = nnx.Linear(window * features, POOLINGS[pooling] * self.out_features, rngs=rngs)

    def initial(self):
        return QRNNState(jnp.zeros((self.window - 1, self.features)), jnp.zeros(self.out_features))

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        start, seen, window = self.start(), [x], h.window
        for age in range(1, self.window):  # x_{t - age}: a convolution with that tap alone
            taps = jnp.zeros((self.window, self.features), x.dtype).at[-1 - age].set(1)
            older, window = short_convolution(
                x, taps, h.window, resets=resets, mask=mask, reset_state=start.window
            )
            seen.append(older)
        parts = jnp.split(self.W(jnp.concatenate(seen, axis=1)), POOLINGS[self.pooling], axis=1)
        z, written = jnp.tanh(parts[0]), (1 - self.zoneout) * jax.nn.sigmoid(-parts[1])
        entering = jax.nn.sigmoid(parts[3]) if self.pooling == "ifo" else written
        c, last = linear_scan(
            multiplier(1 - written, self.eigenvalues),
            entering * z,
            h.c,
            resets=resets,
            mask=mask,
            reset_state=start.c,
            evaluator=evaluator,
        )
        y = c if self.pooling == "f" else jax.nn.sigmoid(parts[2]) * c
        return y, QRNNState(window, last)
