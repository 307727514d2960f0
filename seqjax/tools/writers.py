"""Models that write text: those of runs, and imported ones, with what their tokens stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from seqjax.models import find
from seqjax.stacks.model import Model
from seqjax.tasks.texts.char_lm import SPEC, spelling_of
from seqjax.tasks.texts.language import LanguageModel, Spelling
from seqjax.tasks.texts.translation import BEGIN, END, TranslationTask
from seqjax.train.config import MeshConfig, task_of
from seqjax.train.imported import load as load_imported, stored
from seqjax.train.record import read_config
from seqjax.train.trained import load_model


class Writer(NamedTuple):
    model: Model
    spelling: Spelling
    before: int  # the token that a text follows
    between: bytes = b""  # what is printed between a prompt and what is written
    end: int | None = None  # the token that ends a text, where there is one


def writer(run: Path, step: int | None = None, mesh: MeshConfig | None = None) -> Writer:
    """Of a run on a language model or on translation. Raises ValueError for other tasks."""
    config = read_config(run)
    if config.task.name == "char_lm" and config.task.options.get("data") is None:
        spelling = spelling_of(bytes(range(256)))  # of bytes: needs no data
        return Writer(load_model(run, SPEC, step, mesh=mesh)[0], spelling, ord("\n"))
    task = task_of(config)
    between, end = b"", None
    if isinstance(task, LanguageModel):
        found, before = task.spelling, task.before
    elif isinstance(task, TranslationTask):
        before, between, end = BEGIN, b"\n", END
        found = task.spelling._replace(encode=lambda text: task.prompt(text).tolist())
    elif task.spec == SPEC:
        found, before = spelling_of(bytes(range(256))), ord("\n")
    else:
        raise ValueError(
            f"{run} was trained on {config.task.name}: only a language model of text writes"
        )
    return Writer(load_model(run, task.spec, step, mesh=mesh)[0], found, before, between, end)


def imported_writer(folder: Path, context: int | None = None) -> Writer:
    """Of an imported model, by its own tokenizer. Raises ValueError where it has none."""
    checkpoint = load_imported(folder, context=context)
    content = checkpoint.carried.get("tokenizer.json")
    if content is None:
        raise ValueError(f"{folder} has no tokenizer.json: its tokens are not known")
    return Writer(checkpoint.model, of_tokenizer(content), first_token(checkpoint.config))


def of_tokenizer(content: bytes) -> Spelling:
    """Of a tokenizer.json, by the package tokenizers; no mark is added to a text."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(
            f"a tokenizer needs the extra `data`: pip install 'seqjax[data]' ({error})"
        ) from error
    tokenizer = Tokenizer.from_buffer(content)

    def encode(text: bytes) -> list[int]:
        return tokenizer.encode(text.decode(errors="replace"), add_special_tokens=False).ids

    def decode(tokens) -> bytes:
        return tokenizer.decode([int(token) for token in tokens]).encode()

    names = [tokenizer.decode([n]) for n in range(tokenizer.get_vocab_size())]
    return Spelling(names, encode, decode)


def first_token(config: str) -> int:
    """What a text follows: the token that begins one, or where there is none the one that ends it,
    of a config.json. Raises ValueError where it has neither."""
    fields = json.loads(config)
    for name in ("bos_token_id", "eos_token_id"):
        found = fields.get(name)
        found = found[0] if isinstance(found, list) and found else found
        if isinstance(found, int):
            return found
    raise ValueError("the config has no bos_token_id and no eos_token_id: a text follows neither")


def any_writer(run: Path, step: int | None = None, context: int | None = None) -> Writer:
    """Of a folder of either kind, or of a model that comes with the package."""
    run = find(run)
    if not stored(run):
        if context is not None:
            raise ValueError("--context is for imported models: what a trained one sees is "
                             "an option of its layers")  # fmt: skip
        return writer(run, step)
    if step is not None:
        raise ValueError(f"{run} is an imported model: it has no steps to choose from")
    return imported_writer(run, context)
