"""Signals that end a run."""

from __future__ import annotations

import signal
import threading


class Stop:
    """SIGTERM, SIGHUP or Ctrl-C ask the loop to save and end; a second Ctrl-C ends it at once.

    A signal that is ignored stays so: under `nohup` a terminal that goes away ends nothing.
    Of several processes all end after the same step, whichever of them has the signal: the step
    itself has `word` of each process, and returns the largest (`seqjax.train.layout`).
    """

    def __init__(self, several: bool = False):
        self.several = several
        self.own: str | None = None
        self.heard: str | None = None

    @property
    def signal(self) -> str | None:
        return self.heard if self.several else self.own

    @property
    def word(self) -> int:
        """What the other processes must know: the number of the signal that came here."""
        return signal.Signals[self.own] if self.own else 0

    def hear(self, word: float) -> None:
        """What the step has of all processes."""
        if word:
            self.heard = signal.Signals(int(word)).name

    def __enter__(self) -> Stop:
        self.before = {}
        if threading.current_thread() is threading.main_thread():  # Python's rule for handlers
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        del frame
        if self.own and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.own = signal.Signals(number).name
