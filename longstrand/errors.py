"""Exceptions of Longstrand: everything that the outside world can get wrong.

Misuse of a function by a programmer raises ``ValueError`` or ``TypeError``. Whatever comes from files, settings or
checkpoints raises a subclass of `LongstrandError`, whose message is one sentence: what we got, where, and what to do.
The command line prints that sentence and exits with ``exit_code``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable


class LongstrandError(Exception):
    """Base of all errors that a user can cause and mend."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the sentence in one line: line breaks in what a file holds are shown as such."""
        return super().__str__().replace("\n", "\\n").replace("\r", "\\r")


class UsageError(LongstrandError):
    """The command line or a function call asks for something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or ``key=value`` setting is wrong."""


class InputError(LongstrandError):
    """A data file is missing, damaged or contradicts another one."""


class ColumnError(InputError):
    """A table lacks a column with the usual name.

    Attributes:
        message: what is there, without what to do.
        what: the usual name: ``sequence`` or ``label``.
    """

    def __init__(self, message: str, what: str) -> None:
        super().__init__(f"{message}; call yours '{what}' (or give {what}_column= where a function has it).")
        self.message, self.what = message, what

    def with_options(self, options: Container[str]) -> InputError:
        """Say the same to who uses a command with these options."""
        named = (f"--{self.what}-column", *(["--column"] if self.what == "sequence" else []))
        other = next((f", or name it with {option}" for option in named if option in options), "")
        return InputError(f"{self.message}; call yours '{self.what}'{other}.")


class SequenceError(InputError):
    """One of the sequences that a function was given is damaged, too long or too short.

    Attributes:
        row: its number, from 0; the message counts from 1.
        what: the message without it, for who knows a better name of the sequence.
    """

    def __init__(self, row: int, what: str) -> None:
        super().__init__(f"sequence {row + 1}: {what}")
        self.row, self.what = row, what


class TokenizerError(LongstrandError):
    """A tokenizer cannot be read, or does not belong to the model."""


class CheckpointError(LongstrandError):
    """A checkpoint folder is incomplete, damaged or contradicts its config."""


class TrainingError(LongstrandError):
    """Training cannot go on: its numbers are no longer finite."""


class ServerError(LongstrandError):
    """A server does not answer, or not with what was asked for."""


class ResumeError(LongstrandError):
    """A run folder cannot be resumed as asked."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that the device or the machine has too little memory."""
    words = r"out of memory|can't allocate memory|not enough memory|failed to allocate"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(re.search(words, str(error), re.I))
    )


def nearest(name: str, choices: Iterable[str]) -> str:
    """Give ``" (did you mean 'x'?)"`` for the closest choice, or an empty string.

    Example:
        >>> nearest("hiden_size", ["hidden_size", "vocab_size"])
        " (did you mean 'hidden_size'?)"
    """
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def one_of(name: str, choices: Iterable[str], what: str) -> str:
    """Return ``name`` if it is one of ``choices``.

    Raises:
        UsageError: naming the closest choice and all choices.
    """
    known = list(choices)
    if name in known:
        return name
    raise UsageError(f"unknown {what} '{name}'{nearest(name, known)}; known: {', '.join(known)}.")
