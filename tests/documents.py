"""Code blocks of the documentation, executed in order in one folder.

A block of ``bash`` is a list of commands, a block of ``python`` a program, a block of ``yaml`` whose first line is
``# file: NAME`` is written to that file. ``<!-- not run: reason -->`` in front of a block means that its commands are
only checked: the verb and its options exist.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from longstrand.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "files",
    "pretrain",
    "finetune",
    "compare",
    "predict",
    "variants",
    "explain",
    "design",
    "motifs",
    "long",
    "tracks",
    "serve",
    "page",
    "published",
    "running",
    "clusters",
)
GUIDE = [f"docs/guide/{name}.md" for name in PAGES]
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n+)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_OURS = {"git", "cd", "export", "source", "pip", "tensorboard", "xdg-open", "kill", "vep"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    where: str
    language: str
    code: str
    runs: bool


def blocks_of(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    found = []
    for match in BLOCK.finditer(text):
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(f"{document}:{line}", match.group(2), match.group(3), match.group(1) is None))
    return found


def commands_of(block: Block) -> list[list[str]]:
    joined = block.code.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a longstrand command in this process; anything else is only recognised."""
    if words[0] == "longstrand":
        with pytest.raises(SystemExit) as end:
            main(words[1:])
        output = capsys.readouterr()
        assert not end.value.code, f"{' '.join(words)}\n{output.out}\n{output.err}"
    else:
        check_command(words, capsys)


def check_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a command could run: make targets, verbs and options exist."""
    while re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words[0] == "torchrun":
        words = words[words.index("longstrand") :]
        assert (ROOT / "longstrand" / "__main__.py").exists()
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"the Makefile has no target {words[1]}"
    elif words[0] == "longstrand":
        verb = words[1] if len(words) > 1 else "--help"
        assert verb in VERBS or verb.startswith("--"), f"no verb {verb}"
        if verb in VERBS:
            path = words[1:3] if verb in ("tokenizer", "benchmark", "data", "variants", "explain", "motifs") else [verb]
            with pytest.raises(SystemExit):
                main([*path, "--help"])
            known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
            options = {word.split("=")[0] for word in words[2:] if word.startswith("--")}
            assert options <= known, f"{' '.join(path)} has no {', '.join(sorted(options - known))}"
    else:
        assert words[0] in NOT_OURS, f"unknown command {words[0]}"


def run_blocks(documents: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Execute every block of these documents in the current folder."""
    for block in [block for document in documents for block in blocks_of(document)]:
        try:
            if block.language == "python" and block.runs:
                exec(compile(block.code, block.where, "exec"), {"__name__": "__main__"})
            elif block.language == "yaml" and block.code.startswith("# file: "):
                Path(block.code.split("\n")[0].removeprefix("# file: ").strip()).write_text(block.code)
            elif block.language == "bash":
                for words in commands_of(block):
                    (run_command if block.runs else check_command)(words, capsys)
        except BaseException as error:
            raise AssertionError(f"{block.where}: {type(error).__name__}: {error}") from error
