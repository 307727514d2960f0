"""Training runs in child processes, to be disturbed."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from seqjax.train.config import Config, MeshConfig

context = multiprocessing.get_context("forkserver")


def one_of(config: Config, folder: str, count: int, index: int, port: int) -> None:
    """Train, as one process of `count`."""
    from rich.console import Console

    from seqjax.train.loop import train
    from seqjax.train.processes import Processes, job
    from seqjax.train.progress import Progress

    if count > 1:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # gloo prints
    with job(Processes(count, index, f"localhost:{port}")):
        status = train(config, folder, Progress(config.train.steps, Console(quiet=True))).status
    sys.exit(status)


def start_all(config: Config, folder: Path, count: int) -> list[Any]:
    """A run of that many processes, with two devices each if they are several."""
    if count > 1:
        config = replace(config, mesh=MeshConfig(data=2, fsdp=count),
                         task=replace(config.task, batch=2 * count))  # fmt: skip
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [context.Process(target=one_of, args=(config, str(folder), count, index, port))
                for index in range(count)]  # fmt: skip
    for child in children:
        child.start()
    return children


@contextmanager
def folder_for(count: int) -> Iterator[Path]:
    """For the runs of one script; all runs in it are imported once and compiled once."""
    if count > 1:
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    context.set_forkserver_preload(["seqjax.train.loop"])
    with TemporaryDirectory() as name:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(name, "compiled"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        yield Path(name)


def whole_number(text: str) -> int:
    """Of an option: 1 to 1000."""
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1000, got {text!r}")
    return int(text)
