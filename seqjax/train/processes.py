"""A run of several processes: how they find each other, agree, and end.

    with job(Processes(count=2, index=0, coordinator="localhost:1234")):
        train(config, "runs/parity")        # the same in each process, but for the index

`jax.distributed` joins them, the mesh of the config spans their devices, and each process does the
same steps at the same time. What one of them decides or reads for all, it does in `first`. Process
0 writes the run; a checkpoint has pieces from each process.

A process that ends, by an error or by a kill, ends the job: each of the others has one line of why
and exits with 1, within `SILENT` seconds at most. The same command for all goes on from the last
checkpoint. Once a process is part of a job, jax ends it, too, when the coordinator is gone.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import platform
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Annotated, Any, TypeVar

import jax
import numpy as np

from seqjax.core.common import printable
from seqjax.core.ranges import Count, Range

T = TypeVar("T")
SILENT = 20.0  # seconds without a sign of life after which a process counts as ended
PERIOD = 1.0  # seconds between two of them
VARIABLES = {
    "count": "JAX_NUM_PROCESSES",
    "index": "JAX_PROCESS_ID",
    "coordinator": "JAX_COORDINATOR_ADDRESS",
}
FAILED = "seqjax/failed"  # why the first process that failed did
_calls = itertools.count()  # of `first` and `barrier`, the same in each process
_ending = threading.Lock()


@dataclass(frozen=True)
class Processes:
    """Of one job; what is None is read from JAX_NUM_PROCESSES, JAX_PROCESS_ID and
    JAX_COORDINATOR_ADDRESS. Without any of it there is one process."""

    count: Count | None = None  # processes of the job
    index: Annotated[int, Range(0)] | None = None  # of this one
    coordinator: str | None = None  # HOST:PORT of process 0, with a port that is free there
    cluster: bool = False  # let jax find all three: Slurm, TPU pods, Kubernetes, Open MPI
    timeout: Annotated[int, Range(1)] = 120  # seconds to wait for the others at the start

    def filled(self) -> Processes:
        """With what the environment has. Raises ValueError for what cannot be a job."""
        found: dict[str, Any] = {}
        for name, variable in VARIABLES.items():
            text = os.environ.get(variable)
            if getattr(self, name) is None and text:
                if name != "coordinator" and not text.isdigit():
                    raise ValueError(f"{variable} must be a whole number, got {text!r}")
                found[name] = text if name == "coordinator" else int(text)
        job = replace(self, **found)
        if job.cluster:
            return job
        given = [name for name in VARIABLES if getattr(job, name) is not None]
        lacks = [f"processes.{name}" for name in VARIABLES if name not in given]
        if given and lacks and job.count != 1:
            raise ValueError(f"several processes need {' and '.join(lacks)} too")
        if job.count and job.index is not None and job.index >= job.count:
            raise ValueError(
                f"processes.index must be below processes.count={job.count}, got {job.index}"
            )
        host, _, port = (job.coordinator or "host:1").rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"processes.coordinator must be HOST:PORT, got {job.coordinator!r}")
        return job


ALONE = Processes()


@contextmanager
def job(processes: Processes) -> Iterator[None]:
    """Be one of these processes inside; an error there ends the process, and with it the job.

    One process alone is as it would be without.
    """
    given = processes.filled()
    if not given.cluster and given.count in (None, 1):
        yield
        return
    _join(given)
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    if _state().process_id:
        threading.Thread(target=_wait_for_coordinator, daemon=True).start()
    try:
        _same_count()
        yield
        barrier()
    except KeyboardInterrupt:
        _end("Ctrl-C", 130)
    except SystemExit as stop:
        if stop.code:
            _end(f"exit status {stop.code}", 1)
        raise
    except (ValueError, TypeError, KeyError) as error:
        _end(printable(error), 2)
    except Exception as error:
        line = printable(str(error).partition("\n")[0])
        if isinstance(error, jax.errors.JaxRuntimeError):  # perhaps of one that has ended
            sleep(1)  # `_watch` may know which, and why
            line = f"another process may have ended: {line}"
        _end(line, 1)
    _over.set()
    if leads():
        _client().key_value_set(FAILED, "")  # nobody: all that watch wake up
    watch.join()


def _join(given: Processes) -> None:
    """Find the other processes. Ends this one where they do not come."""
    # jax would take SIGTERM for itself; seqjax.train.stop does
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(given.timeout, _nobody, [given])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            given.coordinator,
            given.count,
            given.index,
            initialization_timeout=given.timeout + 60,  # `_nobody` comes before
            # of processes that all are at their end
            shutdown_timeout_seconds=60,
        )
    except (RuntimeError, ValueError) as error:
        line = str(error).partition("\n")[0]
        raise ValueError(f"processes.*: the job cannot start: {line}") from None
    finally:
        late.cancel()
    _delay_abort()


def _delay_abort() -> None:
    """Where the coordinator is gone, jax aborts the process at once, with a stack of C++ calls. Of
    glibc: the handler of SIGABRT is sleep(SIGABRT): six seconds for `_wait_for_coordinator`."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
        libc.signal.restype = ctypes.c_void_p
        libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _same_count() -> None:
    """Before there are devices: jax waits for all processes to tell theirs."""
    client, count = _client(), str(_state().num_processes)
    if _state().process_id == 0:
        client.key_value_set("seqjax/count", count)
    if (other := client.blocking_key_value_get("seqjax/count", 60_000)) != count:
        raise ValueError(f"processes.count must be that of process 0, {other}, got {count}")


def several() -> bool:
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this process writes and prints."""
    return jax.process_index() == 0


def whole(array: jax.Array) -> np.ndarray:
    """All of an array, in each process."""
    from jax.experimental.multihost_utils import process_allgather

    return np.asarray(process_allgather(array, tiled=True) if several() else array)


@contextmanager
def printed_once() -> Iterator[None]:
    """What is printed inside is printed by process 0 alone."""
    with ExitStack() as stack:
        if not leads():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
        yield


def first(function: Callable[[], T]) -> T:
    """function() of process 0 alone, in each process: what it returned, or raised."""
    if not several():
        return function()
    key = f"seqjax/first/{next(_calls)}"
    if leads():
        try:
            found: Any = function(), None
        except Exception as raised:
            found = None, raised
        _client().key_value_set_bytes(key, pickle.dumps(found))
    else:
        found = pickle.loads(_get(key))
    value, error = found
    if error is not None:
        raise error
    return value


def barrier() -> None:
    """Wait until each process is here. Unlike a collective, it waits as long as the others live."""
    if several():
        _client().wait_at_barrier(f"seqjax/barrier/{next(_calls)}", 2**31 - 1)


def agree(what: Mapping[str, Any]) -> None:
    """Raise ValueError in each process, with the names, where they do not all have the same."""
    if not several():
        return
    number, index, mine = next(_calls), jax.process_index(), dict(what)
    theirs = first(lambda: mine)
    differ = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    key = f"seqjax/agree/{number}"
    _client().key_value_set_bytes(f"{key}/{index}", pickle.dumps(differ))

    def found() -> list[tuple[int, str]]:
        of_each = (pickle.loads(_get(f"{key}/{n}")) for n in range(jax.process_count()))
        return [(n, ", ".join(names)) for n, names in enumerate(of_each) if names]

    for other, names in first(found):
        raise ValueError(f"each process needs the same config: that of process {other} differs "
                         f"from that of process 0 in {names}")  # fmt: skip


# ---- the end of one is the end of all ---------------------------------------------------------

_over = threading.Event()  # the job ended well


def _watch() -> None:
    """Show the others that this process lives, and end it when one of them failed or is silent."""
    client, index = _client(), _state().process_id
    others = range(1, _state().num_processes) if index == 0 else [0]
    seen = {n: ("", monotonic()) for n in others}
    for beat in itertools.count():
        try:
            client.key_value_set(f"seqjax/alive/{index}/beat", str(beat), allow_overwrite=True)
            alive = dict(client.key_value_dir_get(f"seqjax/alive/{'' if index == 0 else '0/'}"))
            failed = _reason(client)
        except Exception:
            return  # the coordinator is gone: `_wait_for_coordinator` has it
        if _over.is_set() or failed == "":
            return
        if failed:
            _end(failed, 1)
        for n in others:
            last, since = seen[n]
            if (now := alive.get(f"seqjax/alive/{n}/beat", "")) != last:
                seen[n] = now, monotonic()
            elif monotonic() - since > SILENT:
                _end(f"process {n} has given no sign of life for {SILENT:.0f} s", 1)


def _wait_for_coordinator() -> None:
    """End this process when process 0 has ended: its system closes a connection at once."""
    host, _, port = _state().coordinator_address.rpartition(":")
    tries = 0
    while tries < 2 and not _over.is_set():
        try:
            with socket.create_connection((host, int(port)), 5) as connection:
                tries = 0
                connection.settimeout(None)
                while connection.recv(1024):
                    pass  # a greeting of the server, which closes what is silent for long, too
        except OSError:
            tries += 1
        sleep(0.25)
    if not _over.is_set():
        _end("process 0, the coordinator, has ended", 1, alone=True)


def _reason(client: Any) -> str | None:
    """Why another process failed, waited for a little while."""
    try:
        return client.blocking_key_value_get(FAILED, int(1000 * PERIOD))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return None
        raise


def _end(line: str, status: int, *, alone: bool = False) -> None:
    """Say why, in this process and to the others, and end: without the rest of a Python process,
    which would wait for the others."""
    if os.environ.get("SEQJAX_TRACEBACK"):
        traceback.print_exc()
    if not _ending.acquire(blocking=False):
        sleep(1 if alone else 60)  # the other thread ends the process, if it can
        os._exit(status)
    client, index, count = _client(), _state().process_id, _state().num_processes
    with suppress(OSError):
        print(f"seqjax: process {index} of {count}: {line}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    if alone:
        os._exit(status)
    with suppress(Exception):
        client.key_value_set(FAILED, f"process {index} ended: {line}")  # the first one stays
    with suppress(Exception):
        client.key_value_set(f"seqjax/left/{index}", "")
        until = monotonic() + 2
        # with process 0 the others lose the coordinator: let them read why first
        while index == 0 and monotonic() < until:
            if len(client.key_value_dir_get("seqjax/left/")) == count:
                break
            sleep(0.05)
    os._exit(status)


def _nobody(given: Processes) -> None:
    """The others did not come. jax would end the process with a stack of C++ calls."""
    host, _, port = (given.coordinator or ":").rpartition(":")
    why = f"not all of the {given.count or ''} processes came"
    if given.index:
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError as error:
            why = f"process 0 is not there ({error.strerror or error})"
    where = given.coordinator or "the coordinator of the cluster"
    with suppress(OSError):
        print(f"seqjax: {where}: {why}, waited {given.timeout} s", file=sys.stderr, flush=True)
    os._exit(2)


def _get(key: str) -> bytes:
    while True:
        try:
            return _client().blocking_key_value_get_bytes(key, 10_000)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _state() -> Any:
    from jax._src import distributed  # the key-value store has no public name

    return distributed.global_state


def _client() -> Any:
    return _state().client
