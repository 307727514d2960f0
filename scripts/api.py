"""The docstrings of the API pages, as `prose.markdown` has them: an extension of mkdocstrings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path[:0] = [str(Path(__file__).resolve().parent)]
from prose import markdown  # noqa: E402


class Prose(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
