"""Pallas kernels, one file a kernel and platform: arrays in, arrays out.

They import nothing of seqjax and nothing imports them but the primitive or op whose meaning they
share, when it is lowered for their platform. `scripts/check_kernels.py` compiles them all.
"""
