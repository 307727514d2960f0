"""The code that RWKV-6 was released with for transformers (RWKV/v6-Finch-*-HF), on the CPU.

    pip install torch transformers
    RELEASED_CODE=rwkv6_model/ python -m scripts.released NAME..

RELEASED_CODE is a folder with configuration_rwkv6.py and modeling_rwkv6.py, as in rwkv6_model/ of
github.com/BBuf/RWKV-World-HF-Tokenizer. All of it is the original but for its first weights, some
of which have another shape than those it loads. It computes in float32, whatever its weights.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.released_minimax import classes


def prepare(fields: Mapping[str, Any]) -> Any:
    """The classes of the release for its config and its model."""
    del fields
    folder = Path(os.environ["RELEASED_CODE"]).resolve()
    sys.path.insert(0, str(folder.parent))
    own: Any = importlib.import_module(f"{folder.name}.modeling_rwkv6")
    own.Rwkv6PreTrainedModel._init_weights = lambda self, module: None
    own.Rwkv6ForCausalLM._tied_weights_keys = None  # a list, which transformers 5 does not take
    return classes(own.Rwkv6Config, own.Rwkv6ForCausalLM)
