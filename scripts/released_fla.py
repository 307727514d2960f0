"""flash-linear-attention on the CPU: its kernels are run by the interpreter of Triton.

    pip install torch transformers flash-linear-attention triton einops
    python -m scripts.released NAME..

All modelling code and all kernels are the original ones; what is put in their place:

    the search for the fastest form of a kernel     the first one is taken
    flash-attn, which needs a GPU                   softmax attention as torch has it
    the chunks of MesaNet, which it cannot run      the exact loop that the package tests them with
"""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
os.environ["TORCHDYNAMO_DISABLE"] = "1"


def flash_attn_func(q, k, v, causal: bool = True, window_size=(-1, -1)):
    """softmax(K^-1/2 q k) v [B, T, H, K] over the last keys, as flash_attn has it."""
    import torch  # pyright: ignore[reportMissingImports]

    shared, (T, S) = q.shape[2] // k.shape[2], (q.shape[1], k.shape[1])
    k, v = (z.repeat_interleave(shared, dim=2) for z in (k, v))
    lag = torch.arange(T)[:, None] + S - T - torch.arange(S)[None]
    seen = lag >= 0
    if window_size[0] >= 0:
        seen = seen & (lag <= window_size[0])
    scores = torch.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshv->bthv", weights, v)


def mesa_net(q, k, v, g, beta, lamb, h_kk_init=None, h_kv_init=None, **options):
    """The outputs and both states, q and k brought to length one first."""
    from fla.modules.l2norm import l2_norm  # pyright: ignore[reportMissingImports]
    from fla.ops.mesa_net.naive import (  # pyright: ignore[reportMissingImports]
        naive_mesa_net_exact,
    )

    del options
    return naive_mesa_net_exact(l2_norm(q), l2_norm(k), v, g, lamb, beta, h_kk_init, h_kv_init)


def prepare() -> None:
    import fla.layers.attn  # pyright: ignore[reportMissingImports]
    import fla.layers.mesa_net  # pyright: ignore[reportMissingImports]
    from triton.runtime.autotuner import Autotuner  # pyright: ignore[reportMissingImports]

    Autotuner._bench = lambda self, *args, config, **options: [0.0, 0.0, 0.0]
    fla.layers.attn.flash_attn_func = flash_attn_func
    fla.layers.mesa_net.chunk_mesa_net = mesa_net
