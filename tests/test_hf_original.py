"""The original code of released architectures, run beside ours on other random weights.

Needs torch and transformers, pip install -e '.[reference]'; what they computed once is compared
without them in test_hf_released.py.
"""

import json
import warnings

import numpy as np
import pytest
from test_hf_released import NAMES, at_once_and_one_by_one

from scripts.released import FOLDER, measure
from seqjax.hf import read


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_the_original_code_computes_the_same(name, tmp_path):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    if stored["how"] in ("transformers", "base", "fla"):
        reason = "the original code needs torch and transformers: pip install -e '.[reference]'"
        pytest.importorskip("torch", reason=reason)
        pytest.importorskip("transformers", reason=reason)
    if stored["how"] == "fla":
        pytest.importorskip("fla", reason="pip install flash-linear-attention triton einops")
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
