"""LSTM with a recurrent projection (Sak et al. 2014, arXiv:1402.1128).

    m_t = o_t * tanh(c_t)                                                          eq. 11
    r_t = W_rm m_t       [projection], what comes back and is the output           eq. 12
    p_t = W_pm m_t       [non_recurrent], more output, which does not come back    eq. 13
    y_t = [r_t; p_t]

Gates and cell are those of `lstm` with peepholes (eqs. 7 to 10), of r_{t-1} in place of h_{t-1}.
U then has 4 hidden x projection entries, not 4 hidden^2: many cells for few parameters, as large
vocabularies and speech want it. W_rm and W_pm are the rows of P. `peepholes` False with
`non_recurrent` 0 is torch.nn.LSTM with proj_size. The paper's output layer is the model's.

cell_clip holds c_t in [-cell_clip, cell_clip]; the paper clips at 50.
"""

from flax import nnx

from seqjax.layers.classic.lstm import LSTM


class LSTMP(LSTM):
    def __init__(
        self,
        features: int,
        *,
        hidden: int | None = None,
        projection: int | None = None,
        non_recurrent: int = 0,
        peepholes: bool = True,
        cell_clip: float | None = None,
        bias: bool = True,
        recurrent_init: str = "orthogonal",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            features,
            hidden=hidden,
            projection=projection or max(1, (hidden or features) // 2),
            non_recurrent=non_recurrent,
            peepholes=peepholes,
            cell_clip=cell_clip,
            bias=bias,
            recurrent_init=recurrent_init,
            rngs=rngs,
        )
