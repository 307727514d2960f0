"""Edge-of-stability echo state network (Ceni & Gallicchio 2023, arXiv:2308.02902).

    h_t = (1 - beta) O h_{t-1} + beta tanh(W h_{t-1} + W_in x_t + b) = y_t       eq. 4

with O a random orthogonal matrix: `residual_esn` with alpha = 1 - beta. The eigenvalues of its
Jacobian lie near a circle of radius 1 - beta: the proximity `beta` is the distance from the edge of
stability, one number or one per unit. Useful for memory as long as the reservoir is large.
"""

from collections.abc import Sequence

from flax import nnx

from seqjax.layers.reservoir.residual_esn import ResidualESN


class ES2N(ResidualESN):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        beta: float | Sequence[float] = 0.1,
        spectral_radius: float = 0.9,
        density: float = 1.0,
        law: str = "uniform",
        input_density: float = 1.0,
        input_scale: float = 1.0,
        input_law: str = "uniform",
        bias_scale: float = 0.0,
        feedback: int = 0,
        feedback_scale: float = 1.0,
        activation: str = "tanh",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            beta=beta,
            spectral_radius=spectral_radius,
            density=density,
            law=law,
            input_density=input_density,
            input_scale=input_scale,
            input_law=input_law,
            bias_scale=bias_scale,
            feedback=feedback,
            feedback_scale=feedback_scale,
            activation=activation,
            rngs=rngs,
        )
        self.alpha = None  # 1 - beta
