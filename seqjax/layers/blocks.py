"""Residual blocks as papers stack them: norm, mixing; norm, feed forward; each added to the stream.

    z = x + mixing(norm(x))
    y = z + feed(norm(z))                                left out where there is no feed

The state is the tuple of the mixing layers' states.
"""

from collections.abc import Callable, Sequence

from flax import nnx
from jax import Array

from seqjax.layers.attention import Attention
from seqjax.layers.base import Layer


class Blocks(Layer):
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

    def initial(self):
        return tuple(layer.initial() for layer in self.mixing)

    def start(self):
        return tuple(layer.start() for layer in self.mixing)

    def canonical(self, h):
        return tuple(layer.canonical(state) for layer, state in zip(self.mixing, h))

    def learn_initial(self):
        for layer in self.mixing:
            if not isinstance(layer, Attention):  # a cache starts empty
                layer.learn_initial()

    def sequence(self, x, h, *, resets=None, mask=None, evaluator=None):
        states = []
        for i, layer in enumerate(self.mixing):
            known = evaluator if evaluator in layer.evaluators else None
            y, state = layer.sequence(
                self.norms[i](x), h[i], resets=resets, mask=mask, evaluator=known
            )
            states.append(state)
            x = x + y
            if self.feeds:
                x = x + self.feeds[i](self.feed_norms[i](x))
        return x, tuple(states)
