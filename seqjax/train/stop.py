"""Signals that end a run."""

from __future__ import annotations

import signal
import threading


class Stop:
    """SIGTERM, SIGHUP or Ctrl-C ask the loop to save and end; a second Ctrl-C ends it at once.

    A signal that is ignored stays so: under `nohup` a terminal that goes away ends nothing.
    """

    def __init__(self):
        self.signal: str | None = None

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
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
