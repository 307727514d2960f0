"""Next-generation reservoir: nonlinear vector autoregression (Gauthier et al. 2021,
arXiv:2106.07688).

    l_t = [x_t, x_{t-s}, .., x_{t-(delay-1)s}]                        s = `stride`      eq. 5
    y_t = [1, l_t, all products of `order` of its entries]                              eq. 6, 8

No weights and no nonlinear state: the features that a reservoir would only approximate, for a
linear readout (`seqjax.learn.readout`). Products are those with repetition, in lexicographic order;
what lies before the start, or a reset, is zero. `constant` False leaves out the 1, as reservoirpy
does. Useful for chaotic series: a few dozen features in place of hundreds of units, and no draw.
"""

from itertools import combinations_with_replacement
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import nnx

from seqjax.core.ranges import Range
from seqjax.nn.base import Layer
from seqjax.nn.convolution import dilated_past


class NVAR(Layer):
    learned = ""  # the past begins empty
    structure = "window of the past"

    def __init__(
        self,
        features: int,
        *,
        delay: Annotated[int, Range(1)] = 2,
        order: Annotated[int, Range(1)] = 2,
        stride: Annotated[int, Range(1)] = 1,
        constant: bool = True,
        rngs: nnx.Rngs | None = None,
    ):
        del rngs  # nothing is drawn
        self.features, self.delay, self.stride, self.constant = features, delay, stride, constant
        pairs = combinations_with_replacement(range(features * delay), order)
        self.products = tuple(pairs)
        self.out_features = constant + features * delay + len(self.products)

    def initial(self):
        return jnp.zeros(((self.delay - 1) * self.stride, self.features))

    def run(self, x, h, flow):
        flow.undivided("a nonlinear vector autoregression")
        past, window = dilated_past(x, h, width=self.delay, dilation=self.stride, flow=flow)
        linear = past[:, ::-1].reshape(len(x), -1)
        products = jnp.prod(linear[:, np.array(self.products)], axis=-1)
        parts = [linear, products]
        if self.constant:
            parts.insert(0, jnp.ones((len(x), 1), x.dtype))
        return jnp.concatenate(parts, axis=1), window
