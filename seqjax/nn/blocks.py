"""Residual blocks as papers stack them: norm, mixing; norm, feed forward; each added to the stream.

    z = x + mixing(norm(x))
    y = z + feed(norm(z))                                left out where there is no feed

The state is the tuple of the mixing layers' states.
"""

from collections.abc import Callable, Sequence

from flax import nnx
from jax import Array

from seqjax.nn.base import Layer


class Blocks(Layer):
    block = True
    sequence_parallel = True  # where its parts are

    def __init__(
        self,
        features: int,
        mixing: Sequence[Layer],
        *,
        norm: Callable[[], Callable[[Array], Array]],
        feed: Callable[[], Callable[[Array], Array]] | None,
    ):
        """norm and feed are called once for every norm and feed forward network that is needed."""
        self.features = self.out_features = features
        self.mixing = nnx.List(list(mixing))
        self.norms = nnx.List([norm() for _ in mixing])
        self.feeds = nnx.List([feed() for _ in mixing] if feed else [])
        self.feed_norms = nnx.List([norm() for _ in mixing] if feed else [])

    def parts(self):
        return tuple(self.mixing)

    def run(self, x, h, flow):
        states = []
        for i, layer in enumerate(self.mixing):
            y, state = layer.run(self.norms[i](x), h[i], flow.part(i).of(layer.evaluators))
            states.append(state)
            x = x + y
            if self.feeds:
                x = x + self.feeds[i](self.feed_norms[i](x))
        return x, tuple(states)
