"""The config.json of one release or more of every architecture: its fields and flags as published,
its sizes and lists shrunk. Those of tests/released, and some more for `test_hf_config.py`.
"""

import json

from scripts.released import FOLDER

RELEASED = {path.stem: json.loads(path.read_text())["config"] for path in FOLDER.glob("*.json")}
KINDS = ["linear_attention", "hybrid", "linear_attention", "hybrid"]
PUBLISHED = {
    **dict(sorted(RELEASED.items())),
    "zamba-7b-v1 saved by 5.24": {**RELEASED["zamba-7b-v1"], "layers_block_type": KINDS},
}
