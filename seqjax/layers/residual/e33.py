"""E33, self-gated Elman (the elman project): the state gates itself.

    u_t = silu(conv(P x_t))                                              u, h [expansion features]
    h_t = tanh(W u_t + U h_{t-1} + b)                                    `elman`
    y_t = Q (h_t * silu(h_t))

`e1` with h in place of Z x in the gate, which saves Z; all else, options included, is as there.
"""

from seqjax.layers.residual.e1 import E1


class E33(E1):
    gated = False
