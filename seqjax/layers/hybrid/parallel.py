"""Layers side by side on one input, as the heads of Hymba (Dong et al. 2024, arXiv:2411.13676).

    y_t = W_o [1/n sum_i beta_i * N(f_i(x)_t)]              N: RMS norm, beta_i [width], from 1

so that attention's exact memory of a few steps and the fading memory of a state space read the same
input, and neither outweighs the other at first: outputs of a recurrence are larger. The paper's f_i
are heads of one projection of the input; here each is a layer with its own, `mamba` and `attention`
by default. Its learned tokens before the sequence, and keys shared between layers, are not here.

`seqjax.nn.Parallel` is the sum, or the outputs one after the other, without norms. The state is
the tuple of the layers' states.
"""

from collections.abc import Callable, Sequence

from flax import nnx

from seqjax.layers.attention.attention import Attention
from seqjax.layers.ssm.mamba import Mamba
from seqjax.nn.base import Layer
from seqjax.nn.norms import Norm


class ParallelHeads(Layer):
    """layers: callables (features, *, rngs) -> Layer of one width; `make` also takes names, and
    pairs (name, options)."""

    sequence_parallel = True  # where the layers inside are

    def __init__(
        self,
        features: int,
        *,
        layers: Sequence[Callable[..., Layer]] = (Mamba, Attention),
        rngs: nnx.Rngs,
    ):
        self.features = self.out_features = features
        self.layers = nnx.List([layer(features, rngs=rngs) for layer in layers])
        widths = {layer.out_features for layer in self.layers}
        if len(widths) != 1:
            raise ValueError(f"layers side by side have outputs of one width, got {sorted(widths)}")
        (width,) = widths
        self.norms = nnx.List([Norm(width) for _ in self.layers])  # their weights are the beta
        self.W_o = nnx.Linear(width, features, use_bias=False, rngs=rngs)
        self.causal = all(layer.causal for layer in self.layers)

    def parts(self):
        return tuple(self.layers)

    def run(self, x, h, flow):
        sides, states = [], []
        for n, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y, state = layer.example(x, h[n], flow.part(n).of(layer.evaluators))
            sides.append(norm(y))
            states.append(state)
        return self.W_o(sum(sides[1:], sides[0]) / len(sides)), tuple(states)
