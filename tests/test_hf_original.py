"""The original code of released architectures, run beside ours on other random weights.

Needs torch and transformers, pip install -e '.[reference]'; what they computed once is compared
without them in test_hf_released.py.
"""

import json
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from test_hf_released import NAMES, at_once_and_one_by_one

from scripts.released import FOLDER, measure
from seqjax.hf import read

INSTALL = "pip install -e '.[reference]'; for some more see scripts/released_*.py"
BESIDE = {"fla": ("fla",), "plamo": ("mlx",)}
# code that no package has
OWN = {
    "minimax": "modeling_minimax_text_01.py",
    "plamo": "plamo2.py",
    "rwkv6": "modeling_rwkv6.py",
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_the_original_code_computes_the_same(name, tmp_path):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    for package in ("torch", "transformers", *BESIDE.get(stored["how"], ())):
        if find_spec(package) is None:  # not imported yet: Triton looks at how it is to run then
            pytest.skip(f"the original code needs {package}: {INSTALL}")
    own = OWN.get(stored["how"])
    if own and not (Path(os.environ.get("RELEASED_CODE", "none")) / own).exists():
        pytest.skip(f"{own} is not in the folder that RELEASED_CODE names")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        options = dict(instead=stored.get("instead"), seed=1)
        original = measure(stored["how"], stored["config"], tmp_path, **options)
    bound = 1e-6 * np.abs(original["logits"]).max() + 2 * original["noise"]
    # the folder is as the original code saved it, its config.json too
    whole, steps = at_once_and_one_by_one(read(tmp_path, context=16), original["tokens"])
    np.testing.assert_allclose(whole, original["logits"], rtol=0, atol=bound)
    if original["apart"] < 1e-3:
        np.testing.assert_allclose(steps, original["logits"], rtol=0, atol=bound)
