"""Mixers, by family: one file per paper. Their table is `seqjax.zoo`."""
