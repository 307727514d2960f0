"""Three recurrences as someone writes them who has read the docs: on each base class, under 40
lines, through all laws at the first run."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seqjax.core.flow import Flow
from seqjax.core.monoid import maxplus
from seqjax.nn import Associative, Recurrent, Segmented
from seqjax.nn.convolution import ShortConv
from seqjax.testing import LawBroken, check_layer

D = 4


class Peak(Associative):
    """h_t = max(h_{t-1} - softplus(V x_t), W x_t): a maximum that fades."""

    monoid = maxplus  # its elements are pairs (a, b): h = max(h + a, b)

    def __init__(self, features, *, rngs):
        self.features = self.out_features = features
        self.V, self.W = (nnx.Linear(features, features, rngs=rngs) for _ in range(2))

    def initial(self):
        return jnp.zeros(self.features)

    def lift(self, x):
        return -jax.nn.softplus(self.V(x)), self.W(x)

    def readout(self, h, x):
        return h


class Mutual(Recurrent):
    """h_t = tanh(U h_{t-1} + W x_t) * sigmoid(h_{t-1}), y_t = V h_t."""

    def __init__(self, features, *, hidden=3, rngs):
        self.features = self.out_features = features
        self.hidden = hidden
        self.U = nnx.Linear(hidden, hidden, rngs=rngs)
        self.W = nnx.Linear(features, hidden, use_bias=False, rngs=rngs)
        self.V = nnx.Linear(hidden, features, rngs=rngs)

    def initial(self):
        return jnp.zeros(self.hidden)

    def drive(self, x):
        return self.W(x)

    def step(self, h, z):
        return jnp.tanh(self.U(h) + z) * jax.nn.sigmoid(h)

    def readout(self, h, x):
        return self.V(h)


class Summaries(Segmented):
    """y = tanh(W conv(x) + m), m the mean of the segment before, five steps each."""

    length = 5

    def __init__(self, features, *, rngs):
        self.features = self.out_features = features
        self.conv = ShortConv(features, 3, rngs=rngs)
        self.W, self.U = (nnx.Linear(features, features, rngs=rngs) for _ in range(2))

    def memory(self):
        return self.conv.initial(), jnp.zeros(self.features)

    def segment(self, m, x, flow):
        window, mean = m
        u, window = self.conv(x, window, flow)
        y = jnp.tanh(self.W(u) + mean.now[None].astype(x.dtype))
        return y, (window, self.U(y).mean(0))


LAYERS = Peak, Mutual, Summaries


@pytest.mark.share(1)
@pytest.mark.parametrize("cls", LAYERS)
def test_it_keeps_every_law(cls):
    assert len(inspect.getsource(cls).splitlines()) < 40
    found = check_layer(cls(D, rngs=nnx.Rngs(0)))
    assert "single steps == whole" in found and "NaN before a reset" in found


class Forgot(Summaries):
    """The same without the flow in its convolution: resets inside a segment are not seen."""

    def segment(self, m, x, flow):
        return super().segment(m, x, Flow())


def test_a_mistake_is_named():
    with pytest.raises(LawBroken, match='Forgot breaks "reset == fresh start" first at step'):
        check_layer(Forgot(D, rngs=nnx.Rngs(0)))
