"""The config.json of a checkpoint, read field by field: what is not understood is refused.

A field is asked for by name, or declared neutral because it does not change what the model computes
(initialisation, training, other libraries' kernels). Whatever is left over at the end may change
the meaning of the weights, so it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqjax.common import unknown
from seqjax.layers.parts import gelu, gelu_tanh, relu, silu

REQUIRED = object()
NEUTRAL = """
    _name_or_path architectures attention_dropout attn_implementation auto_map bos_token_id
    chunk_size dtype eos_token_id hidden_dropout initializer_range model_type num_logits_to_keep
    output_attentions output_hidden_states output_router_logits pad_token_id return_dict
    router_aux_loss_coef torch_dtype transformers_version use_cache
""".split()
ACTIVATIONS = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
}


class Config:
    def __init__(self, fields: Mapping[str, Any]):
        self.fields = {name: _plain(value) for name, value in fields.items()}
        self.seen: set[str] = set(NEUTRAL)
        self.kind = self.fields.get("model_type")
        self.context = 0  # how far full attention looks back

    def __call__(self, name: str, default: Any = REQUIRED) -> Any:
        """The field, or the default where it is absent or null."""
        self.seen.add(name)
        value = self.fields.get(name)
        if value is None:
            if default is REQUIRED:
                raise ValueError(f"config.json of this {self.kind} lacks {name!r}")
            return default
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse all but these values, of which the first is meant where the field is absent."""
        value = self(name, allowed[0])
        if value not in allowed:
            known = " or ".join(map(repr, allowed))
            raise ValueError(f"{self.kind}: {name} = {value!r} is not supported, only {known}")

    def neutral(self, names: str) -> None:
        """These fields do not change what the model computes."""
        self.seen.update(names.split())

    def finish(self) -> None:
        left = {n: v for n, v in self.fields.items() if n not in self.seen and v is not None}
        if left:
            told = ", ".join(f"{name} = {value!r}" for name, value in sorted(left.items()))
            raise ValueError(
                f"{self.kind}: config.json has fields that may change the meaning and are not "
                f"understood: {told}"
            )

    def activation(self, name: str) -> Any:
        value = self(name, "silu")
        if value not in ACTIVATIONS:
            raise ValueError(unknown(f"activation in {name}:", value, ACTIVATIONS))
        return ACTIVATIONS[value]

    def rope(self, fraction: float = 1.0) -> dict[str, float]:
        """Options of `Attention` for its rotary positions; none without a base."""
        told = dict(self("rope_parameters", {}))
        old = self("rope_scaling", {})
        kind = told.pop("rope_type", old.get("rope_type", old.get("type", "default")))
        base = told.pop("rope_theta", self("rope_theta", 10_000.0))
        share = told.pop("partial_rotary_factor", self("partial_rotary_factor", None))
        if kind != "default" or told:
            raise ValueError(f"{self.kind}: rotary positions {kind!r} {told or ''} are not known")
        if base is None:
            return dict(rotary_fraction=0.0)
        return dict(rotary_fraction=float(share or fraction), base=float(base))


def _plain(value: Any) -> Any:
    """Floats that JSON cannot say, as transformers writes them: {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
