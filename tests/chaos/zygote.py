"""Start commands in processes forked from this one, which has imported everything: a command starts at once.

Each line of the input is a request as JSON (``words``, ``said``: file for what is printed, ``limit``: most bytes of a
file, or null); the answers are two lines, the id of the process and its exit status (negative: the signal).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import traceback

import torch  # noqa: F401

from longstrand.cli.main import VERBS, main

for verb in VERBS:
    importlib.import_module(f"longstrand.cli.{verb}")
for module in ("training.finetune", "training.pretrain", "benchmarks.run", "benchmarks.probe_run", "inference.contigs"):
    importlib.import_module(f"longstrand.{module}")


def run(words: list[str], said: str, limit: int | None) -> int:
    output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush(), sys.stderr.flush()
    return 0


print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(run(**json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
