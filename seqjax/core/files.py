"""Writing a file so that whoever looks, and whatever happens, finds the old one or the new one."""

from __future__ import annotations

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write `content` beside `path`, onto the disk, and then give it its name.

    A process that is killed and a disk that is full leave `path` as it was. The temporary file,
    `.NAME.XXXX`, is removed on an error; a kill may leave it behind.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(number, "wb") as file:
            os.fchmod(number, 0o666 & ~umask())  # mkstemp's are readable by their owner alone
            file.write(data)
            file.flush()
            os.fsync(number)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_figure(figure: Any, path: str | Path, **options: Any) -> None:
    """`figure.savefig(path, **options)` of matplotlib, written atomically."""
    path, drawn = Path(path), BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix(".") or "png", **options)
    write_atomically(path, drawn.getvalue())


def check_figure(path: str | Path) -> None:
    """Raise ValueError if `save_figure` cannot write there, before anything is computed for it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path, kinds = Path(path), sorted(FigureCanvasAgg.filetypes)
    if path.suffix.removeprefix(".") not in kinds:
        raise ValueError(f"figure must end in one of .{', .'.join(kinds)}, got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"figure must be a file in a folder that exists, got {str(path)!r}")


def umask() -> int:
    """Of this process: the permissions that new files do not get."""
    mask = os.umask(0)  # the only way to ask for it is to set it
    os.umask(mask)
    return mask
