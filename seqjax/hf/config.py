"""The config.json of a checkpoint: every field of it is used, ignored or refused.

    used      config("hidden_act", "silu"), config.size(..), config.only(..), ..: computed with
    ignored   config.ignore(REASON, "names"): it cannot change the result; the summary names it
    refused   whatever is left at the end, and values that are not computed with: it may change the
              meaning of the weights, so it is an error, with what the field means

The measure of the result is what the reference, the modelling code that the checkpoint came with,
computes: a field that it does not read is ignored whatever its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

from seqjax.core.common import unknown
from seqjax.hf.rope import positions
from seqjax.nn.activations import gelu, gelu_tanh, relu, relu2, silu

REQUIRED = object()
LARGEST = 2**31 - 1  # of a size
DEEPEST = 10_000  # blocks
MOST = 4096  # tokens of context, unless more is requested
# Reasons why a field cannot change the result.
TRAINING = "of training alone"
START = "of the weights before training"
RUNNING = "how the reference runs, not what it computes"
TOKENS = "of the tokenizer and of sampling"
FILES = "about the files"
UNREAD = "not read by the reference"
ANYWHERE = {  # in the config of any architecture
    TRAINING: """
        attention_dropout classifier_dropout hidden_dropout output_router_logits resid_pdrop
        router_aux_loss_coef
    """,
    START: "initializer_range",
    RUNNING: """
        _attn_implementation _attn_implementation_autoset _experts_implementation
        attn_implementation chunk_size chunk_size_feed_forward gradient_checkpointing
        keys_to_ignore_at_inference logits_to_keep num_logits_to_keep output_attentions
        output_hidden_states return_dict torchscript use_bfloat16 use_cache
    """,
    TOKENS: """
        bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty
        do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id
        exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty
        max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
        output_scores pad_token_id prefix remove_invalid_values repetition_penalty
        return_dict_in_generate sep_token_id suppress_tokens temperature tokenizer_class top_k top_p
        typical_p
    """,
    FILES: """
        _commit_hash _name_or_path architectures auto_map dtype finetuning_task id2label is_decoder
        label2id model_name problem_type task_specific_params torch_dtype transformers_version
        unsloth_fixed unsloth_version
    """,
}
ACTIVATIONS = {
    "silu": silu,
    "swish": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
    "relu2": relu2,
}


class Config:
    def __init__(
        self,
        fields: Mapping[str, Any],
        most: int = LARGEST,
        deepest: int = DEEPEST,
        context: int | None = None,
    ):
        """most, deepest: bounds of a size, and of the number of blocks.

        context: how far full attention looks back; None: as the fields allow, at most `MOST`.
        """
        self.fields = {name: _plain(value) for name, value in fields.items()}
        self.kind = self.fields.get("model_type")
        self.used: set[str] = {"model_type"}
        self.ignorable: dict[str, str] = {}  # name -> reason
        self.most, self.deepest = min(most, LARGEST), min(deepest, DEEPEST)
        self.parts: dict[str, Config] = {}  # objects in the config
        self.layout = 0  # which of the ways in which the reference saved the same numbers
        for reason, names in ANYWHERE.items():
            self.ignore(reason, names)
        self.wanted, self.context = context, self._context(context)
        self.only("quantization_config", "the weights are stored in fewer bits", None, {})
        self.only("is_encoder_decoder", "an encoder stands beside the decoder", False)
        self.only("add_cross_attention", "the decoder also attends to an encoder", False)
        self.only("pruned_heads", "heads of attention are missing", None, {}, [])

    def _context(self, wanted: int | None) -> int:
        if wanted is not None and not 1 <= wanted <= (self.longest or LARGEST):
            raise ValueError(f"context has to be from 1 to {self.longest or LARGEST}, got {wanted}")
        return wanted or min(self.longest or MOST, MOST)

    @property
    def longest(self) -> int | None:
        """The longest sequence that the model is for, if the config gives one."""
        longest = self.size("max_position_embeddings", None, most=LARGEST)
        return self.size("model_max_length", longest, most=LARGEST)

    def __call__(self, name: str, default: Any = REQUIRED) -> Any:
        """The field, or the default where it is absent or null; of the default's type."""
        self.used.add(name)
        value = self.fields.get(name)
        if value is None:
            if default is REQUIRED:
                raise ValueError(f"config.json of this {self.kind} lacks {name!r}")
            return default
        for types, word in ((bool, "true or false"), (Real, "a number"), (dict, "an object"),
                            (list, "a list")):  # fmt: skip
            if isinstance(default, types):
                if not isinstance(value, types) or (types is Real and isinstance(value, bool)):
                    raise self.wrong(name, f"it has to be {word}")
                break
        return value

    def size(
        self, name: str, default: Any = REQUIRED, *, least: int = 1, most: int | None = None
    ) -> Any:
        """A field that counts something: an integer from `least` to `most` (None: the numbers
        that are stored)."""
        value = self(name, REQUIRED if default is REQUIRED else None)
        if value is None:
            return default
        stored = " (so many numbers are stored)" if most is None and self.most < LARGEST else ""
        most = self.most if most is None else most
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(name, f"it has to be an integer from {least} to {most}{stored}")
        return value

    def named(self, *names: str) -> str:
        """The one of these names for the same field that is there; the first where none is."""
        return next((name for name in names if self.fields.get(name) is not None), names[0])

    def depth(self, name: str = "num_hidden_layers", default: Any = REQUIRED) -> int:
        """The number of blocks."""
        return self.size(name, default, most=self.deepest)

    def each(
        self,
        name: str,
        depth: int,
        meanings: Mapping[str, Any],
        default: Callable[[], list[str]],
        instead: str = "",
    ) -> list:
        """The values of a field block by block, its words replaced by what they mean.

        default: computes the words where the field is absent, from the fields named by `instead`.
        """
        self.ignore(f"{name} is read", instead)
        words = default() if self.fields.get(name) is None else self(name, [])
        if len(words) != depth:
            raise self.wrong(name, f"it has to name {depth} blocks, one after the other")
        for word in words:
            if str(word) not in meanings:
                message = unknown(f"kind of block in {name}:", word, meanings)
                raise ValueError(f"{self.kind}: {message}")
        return [meanings[str(word)] for word in words]

    def only(self, name: str, meaning: str, *allowed: Any) -> None:
        """Refuse all values but these; where the field is absent, one of them is meant."""
        self.used.add(name)
        value = self.fields.get(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, f"{meaning}; only {' or '.join(map(repr, allowed))} is known")

    def choice(self, name: str, default: str, meanings: Mapping[str, Any]) -> Any:
        """What the word of a field means."""
        word = self(name, default)
        if str(word) not in meanings:
            raise ValueError(f"{self.kind}: {unknown(f'{name}:', word, meanings)}")
        return meanings[word]

    def inside(self, name: str, fields: Mapping[str, Any] | None = None) -> Config:
        """The fields of an object in the config, to be read like these; fields: where it is one of
        several."""
        if name in self.parts:
            return self.parts[name]
        fields = self(name, {}) if fields is None else fields
        inner = Config(fields or {}, self.most, self.deepest, self.wanted)
        inner.kind, inner.layout = f"{self.kind}, {name}", self.layout
        self.parts[name] = inner
        return inner

    def ignore(self, reason: str, names: str) -> None:
        """These fields cannot change the result, for this reason."""
        self.ignorable |= dict.fromkeys(names.split(), reason)

    def wrong(self, name: str, why: str) -> ValueError:
        value = repr(self.fields.get(name))
        value = value if len(value) <= 80 else f"{value[:77]}..."
        return ValueError(f"{self.kind}: {name} = {value} is not supported: {why}")

    def finish(self) -> dict[str, str]:
        """The ignored fields that are there, with the reason; an error for what was not read."""
        there = {name: value for name, value in self.fields.items() if value is not None}
        ignored = {name: self.ignorable[name] for name in there if name in self.ignorable}
        left = sorted(set(there) - set(ignored) - self.used)
        if left:
            listed = ", ".join(f"{name} = {there[name]!r}" for name in left)
            raise ValueError(
                f"{self.kind}: config.json has fields that may change the meaning and are not "
                f"understood: {listed}"
            )
        ignored = {name: reason for name, reason in ignored.items() if name not in self.used}
        for at, part in self.parts.items():
            ignored |= {f"{at}.{name}": reason for name, reason in part.finish().items()}
        return ignored

    def activation(self, name: str, default: str = "silu") -> Any:
        value = self(name, default)
        if value not in ACTIVATIONS:
            raise ValueError(unknown(f"activation in {name}:", value, ACTIVATIONS))
        return ACTIVATIONS[value]

    def positive(self, name: str, default: Any = REQUIRED) -> Any:
        """A field that is a number above zero."""
        value = self(name, default)
        if value is None or value is default:
            return value
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise self.wrong(name, "it has to be a number above 0")
        return float(value)

    def rope(
        self,
        fraction: float = 1.0,
        base: float = 10_000.0,
        *,
        size: int | None = None,
        of: str | None = None,
    ) -> dict[str, Any]:
        """Options of `Attention` for its rotary positions; none where the base is null.

        fraction, base: where the config does not say.
        size: channels of a head, where they are not head_dim.
        of: the kind of block, where each has positions of its own.
        """
        return positions(self, fraction, base, size, of)


@contextmanager
def describing() -> Iterator[None]:
    """One error for fields that pass one by one and make no model together."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError) as error:
        raise ValueError(f"config.json describes no model: {error}") from error


def _plain(value: Any) -> Any:
    """Floats that JSON cannot hold, as transformers writes them: {"__float__": "Infinity"}."""
    if isinstance(value, Mapping):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
