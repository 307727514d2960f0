"""Numbers of the original code of released models, small and with random weights: tests/released/.

    pip install torch transformers
    python scripts/released.py NAME.. [--how transformers]

tests/released/NAME.json holds a config.json, as the release has it. What this adds to the file: the
names and shapes of the tensors that the original code saves for it, and the logits of some tokens,
at once and token by token. The numbers in the tensors follow from their names (`weights`), so that
no file holds them: tests/test_hf_released.py fills the same ones in and compares, and where torch
is installed tests/test_hf_original.py runs the original code once more, with other numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "released"
TOKENS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [2, 7, 1, 8, 2, 8, 1, 8, 2]]
DIGITS = 8  # of a logit


def weights(shapes: Mapping[str, Iterable[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Numbers for tensors of these names and shapes, in the scale of trained ones.

    Matrices keep the variance of what they multiply, gains of norms lie around one.
    """
    found = {}
    for name, shape in shapes.items():
        shape = tuple(shape)
        rng = np.random.default_rng(zlib.crc32(name.encode()) + seed)
        z = rng.standard_normal(shape)
        if len(shape) > 1:
            z /= np.sqrt(shape[-1])
        elif "norm" in name and name.endswith("weight"):
            z = 1 + 0.3 * z
        else:
            z *= 0.5
        found[name] = z.astype(np.float32)
    return found


def save(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Path:
    """A checkpoint folder of a config and its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---- the original code -------------------------------------------------------------------------


def transformers(config: Mapping[str, Any]) -> Any:
    """The class of transformers and its configuration, for a config.json."""
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    settings = AutoConfig.for_model(**json.loads(json.dumps(config), object_hook=infinite))
    settings._experts_implementation = "eager"  # the only one in float64
    return (
        AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM,
        settings,
    )


def infinite(found: dict[str, Any]) -> Any:
    """Floats that JSON cannot hold, as transformers writes them."""
    return float(found["__float__"]) if set(found) == {"__float__"} else found


HOW = {"transformers": (transformers, ("transformers", "torch"))}


def saved(how: str, config: Mapping[str, Any], folder: Path) -> dict[str, list[int]]:
    """Have the original code save a model of this config; the names and shapes of its tensors."""
    make, _ = HOW[how]
    auto, settings = make(config)
    auto.from_config(settings).save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}


def logits(how: str, folder: Path, tokens: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the original code of the checkpoint in `folder`: at once, and one by one."""
    import torch  # pyright: ignore[reportMissingImports]

    make, _ = HOW[how]
    auto, settings = make(json.loads((folder / "config.json").read_text()))
    model = auto.from_pretrained(folder, config=settings, dtype=getattr(torch, dtype)).eval()
    ids = torch.tensor(tokens)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        cache, steps = None, []
        for t in range(ids.shape[1]):
            out = model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    return whole.double().numpy(), torch.cat(steps, dim=1).double().numpy()


def measure(how: str, config: Mapping[str, Any], folder: Path, seed: int = 0) -> dict[str, Any]:
    """What the original code computes for a config and the numbers of `weights`.

    noise: how far its own logits in float32 are from those in float64; apart: how far its logits
    one by one are from those at once. `folder` keeps the checkpoint, its config as saved.
    """
    shapes = saved(how, config, folder)
    content = json.loads((folder / "config.json").read_text())
    save(folder, content, weights(shapes, seed))
    whole, steps = logits(how, folder, TOKENS, "float64")
    single, _ = logits(how, folder, TOKENS, "float32")
    return dict(
        tensors=shapes,
        tokens=TOKENS,
        logits=whole,
        noise=float(np.abs(single - whole).max()),
        apart=float(np.abs(steps - whole).max()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="tests/released/NAME.json")
    parser.add_argument("--how", choices=HOW, help="whose code; default: as in the file")
    given = parser.parse_args()
    for name in given.names:
        path = FOLDER / f"{name}.json"
        content = json.loads(path.read_text())
        how = given.how or content.get("how", "transformers")
        with tempfile.TemporaryDirectory() as folder:
            found = measure(how, content["config"], Path(folder))
        found["logits"] = [
            [[float(f"{number:.{DIGITS}g}") for number in row] for row in sequence]
            for sequence in found["logits"]
        ]
        versions = ", ".join(f"{package} {version(package)}" for package in HOW[how][1])
        content = {"config": content["config"], "how": how, "versions": versions, **found}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{name}: {versions}; noise {found['noise']:.1e}, apart {found['apart']:.1e}")


if __name__ == "__main__":
    main()
