"""The command line in processes of its own, alone or two of torchrun, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

LIMIT = 400
"""Seconds for a launch on a busy machine."""


def start(words: Sequence[str], folder: Path, *, processes: int = 1) -> subprocess.Popen[str]:
    """Begin a command in a session of its own, which `finish` ends."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(torchrun if processes > 1 else []), "-m", "longstrand", *words], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip


def finish(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; gives exit status and what was printed."""
    try:
        said, _ = running.communicate(timeout=LIMIT)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    return running.returncode, said


def wait_until(there: Callable[[], object], running: subprocess.Popen[str]) -> None:
    """Wait for something that a running command makes."""
    deadline = time.monotonic() + LIMIT
    while not there():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def kill_one(running: subprocess.Popen[str]) -> None:
    """Kill one of the two processes of torchrun."""
    workers = [child for child in psutil.Process(running.pid).children() if "longstrand" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
