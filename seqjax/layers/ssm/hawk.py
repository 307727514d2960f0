"""Hawk: Griffin's recurrent blocks without its attention (De et al. 2024, arXiv:2402.19427).

    z = x + W_out (gelu(W_y n) * RG-LRU(conv(W_x n))),  n = RMSNorm(x)       sec. 2, fig. 2
    y = z + W_3 (gelu(W_1 n) * W_2 n),                  n = RMSNorm(z)

`blocks` of them on top of each other; the parts and options are those of
`seqjax.layers.ssm.griffin`.
"""

from flax import nnx

from seqjax.layers.ssm.griffin import Griffin


class Hawk(Griffin):
    def __init__(
        self,
        features: int,
        *,
        blocks: int = 1,
        width: int | None = None,
        heads: int = 4,
        conv: int = 4,
        expansion: float = 3.0,
        unscaled_start: bool = False,
        eigenvalues: str = "[0,1]",
        rngs: nnx.Rngs,
    ):
        if blocks < 1:
            raise ValueError(f"hawk has at least 1 block, got {blocks}")
        super().__init__(
            features,
            pattern=("recurrent",) * blocks,
            width=width,
            heads=heads,
            conv=conv,
            expansion=expansion,
            unscaled_start=unscaled_start,
            eigenvalues=eigenvalues,
            rngs=rngs,
        )
