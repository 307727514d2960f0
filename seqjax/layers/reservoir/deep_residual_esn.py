"""Deep residual echo state network (Pinna, Ceni & Gallicchio 2025, arXiv:2508.21172).

    h_t^l = alpha O^l h_{t-1}^l + beta tanh(W^l h_{t-1}^l + W_in^l h_t^{l-1} + b^l),  h_t^0 = x_t
    y_t = [h_t^1, .., h_t^L]

`residual_esn` on top of each other, as `deep_esn` has them. `skip` is O, the residual branch over
time: "random" keeps what came in, "cyclic" moves it on, "identity" smooths: the layers then act as
filters whose sequence of pass bands is a choice, from fast to slow. alpha and beta are one number
or one for each layer.
"""

from collections.abc import Sequence

from flax import nnx

from seqjax.layers.reservoir.deep_esn import Reservoirs
from seqjax.layers.reservoir.residual_esn import ResidualESN


class DeepResidualESN(Reservoirs):
    def __init__(
        self,
        features: int,
        *,
        units: Sequence[int] = (32, 32, 32),
        skip: str = "random",
        alpha: float | Sequence[float] = 0.9,
        beta: float | Sequence[float] = 0.1,
        spectral_radius: float | Sequence[float] = 0.9,
        density: float = 1.0,
        input_scale: float = 1.0,
        inter_scale: float = 1.0,
        bias_scale: float = 0.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        self.stack(
            ResidualESN,
            features,
            units,
            dict(spectral_radius=spectral_radius, alpha=alpha, beta=beta),
            skip=skip,
            density=density,
            input_scale=input_scale,
            inter_scale=inter_scale,
            bias_scale=bias_scale,
            activation=activation,
            rngs=rngs,
        )
