"""Numbers of the original code of released models, small and with random weights: tests/released/.

    pip install torch transformers
    python -m scripts.released NAME.. [--how transformers]

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
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from seqjax.core.files import write_atomically

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
    write_atomically(folder / "config.json", json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---- the original code -------------------------------------------------------------------------


def transformers(fields: Mapping[str, Any]) -> Any:
    """The classes of transformers that read this config.json and make its model."""
    from transformers import (  # pyright: ignore[reportMissingImports]
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    if "vision_config" in fields:
        return AutoConfig, AutoModelForImageTextToText
    return AutoConfig, AutoModelForCausalLM


def base(fields: Mapping[str, Any]) -> Any:
    """The same of a model without a head, of which features are compared."""
    from transformers import AutoConfig, AutoModel  # pyright: ignore[reportMissingImports]

    return AutoConfig, AutoModel


def minimax(fields: Mapping[str, Any]) -> Any:
    """The same of the code that MiniMax-Text-01 came with."""
    from scripts import released_minimax

    return released_minimax.prepare(fields)


def fla(fields: Mapping[str, Any]) -> Any:
    """The same of flash-linear-attention."""
    from scripts import released_fla

    released_fla.prepare()
    return transformers(fields)


def rwkv6(fields: Mapping[str, Any]) -> Any:
    """The same of the code that RWKV-6 came with for transformers."""
    from scripts import released_rwkv6

    return released_rwkv6.prepare(fields)


def plamo(fields: Mapping[str, Any]) -> Any:
    """The same of a port of the code that PLaMo 2 came with."""
    from scripts import released_plamo

    return released_plamo.prepare(fields)


def inkling2(fields: Mapping[str, Any]) -> Any:
    """The same of transformers, in float64 where that is wanted."""
    from scripts import released_inkling2

    return released_inkling2.prepare(fields)


HOW = {
    "base": (base, ("transformers", "torch")),
    "transformers": (transformers, ("transformers", "torch")),
    "inkling2": (inkling2, ("transformers", "torch")),
    "minimax": (minimax, ("transformers", "torch")),
    "rwkv6": (rwkv6, ("transformers", "torch")),
    "plamo": (plamo, ("mlx",)),
    "fla": (fla, ("flash-linear-attention", "transformers", "torch", "triton")),
}
SINGLE = ("minimax", "plamo", "rwkv6", "fla")  # whose states and kernels compute in float32 alone
MASKED = ("forgetting_transformer",)  # go on with a state only where a mask is given
STATES = ("past_key_values", "cache", "cache_params", "state")  # what models call theirs


def saved(how: str, folder: Path) -> tuple[dict[str, list[int]], dict[str, np.ndarray]]:
    """Have the original code save a model of the config.json in `folder` there.

    Names and shapes of all tensors, and those that are no parameters and follow from the config.
    """
    import torch  # pyright: ignore[reportMissingImports]

    configs, models = HOW[how][0](json.loads((folder / "config.json").read_text()))
    config = configs.from_pretrained(folder)
    text = config.get_text_config()
    if (getattr(text, "pad_token_id", None) or 0) >= text.vocab_size:
        text.pad_token_id = None
    model = models.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    buffers = {n for n, b in model.named_buffers() if b.any() or not b.is_floating_point()}
    constants = {name: tensor for name, tensor in tensors.items() if name in buffers}
    return {name: list(tensor.shape) for name, tensor in tensors.items()}, constants


def logits(how: str, folder: Path, tokens: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the original code of the checkpoint in `folder`: at once, and one by one."""
    import torch  # pyright: ignore[reportMissingImports]

    _, models = HOW[how][0](json.loads((folder / "config.json").read_text()))
    options = dict(dtype=getattr(torch, dtype), experts_implementation="eager")
    model = models.from_pretrained(folder, **options).eval()
    ids = torch.tensor(tokens)
    with torch.no_grad():
        whole = answer(model(input_ids=ids, use_cache=False))
        steps = torch.cat([one_by_one(model, row[None]) for row in ids])
    return whole.double().numpy(), steps.double().numpy()


def answer(out: Any) -> Any:
    return out.logits if "logits" in out else out.last_hidden_state


def one_by_one(model: Any, ids: Any) -> Any:
    """The logits of one sequence [1, T], token by token."""
    import torch  # pyright: ignore[reportMissingImports]

    taken = signature(model.forward).parameters
    state, steps = {}, []
    for t in range(ids.shape[1]):
        at = dict(position_ids=torch.tensor([[t]])) if "position_ids" in taken else {}
        if model.config.model_type in MASKED:
            at["attention_mask"] = torch.ones(1, t + 1, dtype=torch.long)
        out = model(input_ids=ids[:, t : t + 1], use_cache=True, **at, **state)
        state = {name: out[name] for name in STATES if name in taken and name in out}
        steps.append(answer(out))
    return torch.cat(steps, dim=1)


def measure(
    how: str,
    config: Mapping[str, Any],
    folder: Path,
    *,
    instead: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What the original code computes for a config and the numbers of `weights`.

    instead: fields that the original needs otherwise to run on this machine.
    noise: how far its own logits in float32 are from those in float64, or, where it cannot compute
    these, from those with every weight moved to the next float32; apart: how far its logits one by
    one are from those at once. `folder` keeps the checkpoint, its config as saved.
    """
    write_atomically(folder / "config.json", json.dumps({**config, **(instead or {})}))
    shapes, constants = saved(how, folder)
    content = json.loads((folder / "config.json").read_text())
    numbers, double = weights(shapes, seed) | constants, how not in SINGLE
    moved = {name: np.nextafter(w, np.float32(np.inf)) for name, w in numbers.items()}
    tokens = (np.array(TOKENS) % config.get("text_config", config)["vocab_size"]).tolist()
    save(folder, content, numbers if double else moved)
    single, _ = logits(how, folder, tokens, "float32")
    save(folder, content, numbers)
    whole, steps = logits(how, folder, tokens, "float64" if double else "float32")
    kept = {name: tensor.tolist() for name, tensor in constants.items()}
    return dict(
        tensors=shapes,
        **(dict(constants=kept) if kept else {}),
        tokens=tokens,
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
        as_given = {name: content[name] for name in ("config", "instead") if name in content}
        with tempfile.TemporaryDirectory() as folder:
            found = measure(how, folder=Path(folder), **as_given)
        found["logits"] = [
            [[float(f"{number:.{DIGITS}g}") for number in row] for row in sequence]
            for sequence in found["logits"]
        ]
        versions = ", ".join(f"{package} {version(package)}" for package in HOW[how][1])
        content = {**as_given, "how": how, "versions": versions, **found}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{name}: {versions}; noise {found['noise']:.1e}, apart {found['apart']:.1e}")


if __name__ == "__main__":
    main()
