"""Checkpoints of the transformers library as models of ours, and back.

    config.py         its config.json, read field by field; what is not understood is refused
    decoder.py        an architecture is a Description of its branches, of which the model is made
    tensors.py        names of tensors -> our parameters: one table, read in two directions
    files.py          which files of a folder are read, and folders that are written
    folder.py         read and write a checkpoint
    architectures.py  model_type -> the function that describes it; one short file per family

Attention, experts and recurrences are the layers of `seqjax.zoo`.
"""

from seqjax.hf.architectures import ARCHITECTURES, describe
from seqjax.hf.decoder import Branch, Decoder, Description
from seqjax.hf.folder import Checkpoint, read, write

__all__ = [
    "ARCHITECTURES",
    "Branch",
    "Checkpoint",
    "Decoder",
    "Description",
    "describe",
    "read",
    "write",
]
