"""The ``longstrand`` command: a table of verbs, each imported only when it is called.

Exit codes: 0 done; 1 failure (one sentence says what, where and what to do); 2 wrong usage; 130 interrupted.
``--debug`` anywhere on the line shows the traceback instead of the sentence alone.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from longstrand import __version__
from longstrand.errors import LongstrandError, UsageError, is_out_of_memory, nearest
from longstrand.runtime import act_as_process, one_voice, part_processes, rank, silence_libraries, world_size

SHARED = ("predict", "embed", "variants", "benchmark")
"""Commands whose work is shared out by part: each process writes its own, the last joins all."""
ALONE = ("evaluate", "calibrate", "tokenizer", "data", "motifs", "design", "haplotype", "convert")
"""Commands of one process: several would do the same work and write the same files at once."""
VERBS: dict[str, str] = tomllib.loads(Path(__file__).with_name("verbs.toml").read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit the process with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    silence_libraries()
    say = one_voice()
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s")
    if not debug:
        _quieten("transformers", "torch", "numba", "accelerate", "filelock", "fsspec", "matplotlib")
    try:
        code = _dispatch(_take_shard(words))
    except SystemExit as end:  # how a command ends
        if arguments is None and isinstance(end.code, int):  # else somebody goes on in this process
            part_processes(end.code)
        raise
    except LongstrandError as error:
        if debug:
            raise
        say(f"longstrand: {error}")
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        if debug or error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(f"longstrand: {where}{error.strerror}; check space and permissions, then run the same command again.")
        code = 1
    except (MemoryError, RuntimeError) as error:
        if debug or not is_out_of_memory(error):
            raise
        who, what = f"process {rank()}: " * (world_size() > 1), (str(error).strip() or "MemoryError").splitlines()[0]
        say(
            f"longstrand: {who}not enough memory ({what}); use smaller batches (training.micro_batch_size, "
            "--batch-tokens) or training.gradient_checkpointing=true. Finished parts and checkpoints stay."
        )
        code = 1
    except KeyboardInterrupt:
        say("longstrand: interrupted; the same command resumes where a resumable run left off.")
        code = 130
    sys.exit(code)


def help_text() -> str:
    """Give the text of ``longstrand --help``."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{line}" for verb, line in VERBS.items())
    return (
        "Usage: longstrand COMMAND [OPTIONS]\n\n"
        "DNA language models on long sequences: from FASTA, BED and CSV files to a trained model,\n"
        "predictions and a report.\n\n"
        f"Commands:\n{verbs}\n\n"
        "Options:\n"
        "  -h, --help            Show this text; 'longstrand COMMAND -h' explains one command.\n"
        "  --version             Show the version.\n"
        "  --shard I/N           predict, embed, variants, benchmark: do the I-th of N shares of the work.\n"
        "  --debug               Show tracebacks and debug messages.\n"
        "  --install-completion  Complete commands and options with the tabulator key in this shell.\n\n"
        "New here? Run: longstrand demo"
    )


def _dispatch(words: list[str]) -> int:
    verb = words[0] if words else "--help"
    if "_LONGSTRAND_COMPLETE" in os.environ or verb in ("--install-completion", "--show-completion"):
        return _complete(words)
    if verb in {"--help", "-h", "help"}:
        print(help_text())
        return 0 if words else 2
    if verb == "--version":
        print(f"longstrand {__version__}")
        return 0
    if verb not in VERBS:
        what = "option" if verb.startswith("-") else "command"
        print(f"longstrand: no {what} '{verb}'{nearest(verb, VERBS)}; see 'longstrand --help'.", file=sys.stderr)
        return 2
    if verb in ALONE and world_size() > 1:
        raise UsageError(f"'{verb}' is for one process; run it without torchrun.")
    module = importlib.import_module(f"longstrand.cli.{verb}")
    module.app(args=words[1:], prog_name=f"longstrand {verb}")
    return 0


def _take_shard(words: list[str]) -> list[str]:
    """Take ``--shard I/N`` out of a line: this process does the I-th of N shares, as one of N processes would.

    Raises:
        UsageError: the command has no shares, or the text is none.
    """
    place = next((i for i, word in enumerate(words) if word.partition("=")[0] == "--shard"), None)
    if place is None:
        return words
    _, equals, text = words[place].partition("=")
    text = text if equals else "".join(words[place + 1 : place + 2])
    if words[0] not in SHARED:
        raise UsageError(f"--shard is for {', '.join(SHARED)}; '{words[0]}' does not share out its work so.")
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard '{text}' is no share; write the first of four as 1/4.")
    act_as_process(int(number) - 1, int(count))
    return words[:place] + words[place + (1 if equals else 2) :]


def _complete(words: list[str]) -> int:
    """Answer a shell that completes a line, or install that; the one case in which all verbs are imported."""
    import typer
    from typer.main import get_command

    root = typer.Typer()
    root.callback()(lambda: None)
    group: Any = get_command(root)
    for verb in VERBS:
        group.add_command(get_command(importlib.import_module(f"longstrand.cli.{verb}").app), verb)
    group.main(args=words, prog_name="longstrand")
    return 0


def _quieten(*names: str) -> None:
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
