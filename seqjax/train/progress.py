"""What a run prints while it goes: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress as Live, SpinnerColumn, TextColumn

SECONDS_BETWEEN_LINES = 5.0  # without a terminal


class Progress:
    """A context with `update` while training, and `message` for what should stay on the screen.

    A terminal that has gone away, or a pipe that nobody reads, is no reason to stop training.
    """

    def __init__(self, steps: int, console: Console | None = None):
        self.steps, self.console = steps, console or Console(highlight=False)
        self.live, self.printed, self.started = None, 0.0, monotonic()
        if self.console.is_terminal:
            columns = SpinnerColumn(), BarColumn(), TextColumn("{task.description}")
            self.live = Live(*columns, console=self.console, transient=True)

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
            self.bar = self.live.add_task("compiling", total=1.0)
        return self

    def __exit__(self, *_) -> None:
        if self.live:
            with suppress(OSError):
                self.live.stop()

    def update(self, step: int, share: float, loss: float, rate: float, left: float) -> None:
        """The step reached, the share of the run, tokens per second and seconds left."""
        text = (
            f"step {step}/{self.steps}  loss {loss:.4f}  {short(rate)} tokens/s  {clock(left)} left"
        )
        if self.live:
            with suppress(OSError):
                self.live.update(self.bar, completed=share, description=text)
        elif monotonic() - self.printed >= SECONDS_BETWEEN_LINES or step >= self.steps:
            self.printed = monotonic()
            self.message(text)

    def message(self, text: str) -> None:
        with suppress(OSError):
            self.console.print(text, soft_wrap=True)


def short(number: float) -> str:
    """A count in at most four digits: 950, 12.3k, 4.56M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def table(metrics: Mapping[str, float]) -> str:
    """loss 0.1234  accuracy 0.987, the loss first."""
    names = sorted(metrics, key=lambda name: name != "loss")
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in names)
