"""Tokenize a text that comes in pieces, such as a chromosome, with exactly the ids of the whole.

The tokens of a piece are given out up to a token that begins well before its end; the next piece is read on from the
start of that token. If the same token comes out again, every neighbouring pair of tokens is what the tokenizer makes of
its own text, and then the sequence is what it makes of the whole: for byte pairs because merged tokens only take part
in later merges (Berglund et al. 2024), for k-mers because their grid begins at a token. If it does not, the text is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from longstrand.errors import TokenizerError

if TYPE_CHECKING:
    from longstrand.tokenization.base import IntArray, Tokenizer

MARGIN = 1024
"""Letters of the text to come within which a token may still change; the own engine looks ahead by 64."""


def encode_pieces(
    tokenizer: Tokenizer, pieces: Iterable[str], *, margin: int = MARGIN
) -> Iterator[tuple[IntArray, npt.NDArray[np.int64]]]:
    """Tokenize a text of any length in bounded memory; a run of N that is one token is held as a whole.

    Args:
        tokenizer: any.
        pieces: the text, cut anywhere.
        margin: letters at the end of what has come whose tokens wait for the next piece.

    Yields:
        Ids int32 ``(n,)`` and offsets int64 ``(n, 2)`` in the whole text, without special tokens around.

    Raises:
        TokenizerError: a token depends on letters further away than the margin.
    """
    rest, start, expected = "", 0, None
    for piece in pieces:
        rest += piece
        ids, offsets = tokenizer.encode_ids(rest)
        _check(ids, expected, start)
        cut = int(np.searchsorted(offsets[:, 0], len(rest) - margin, side="right")) - 1
        if cut < 1:
            continue
        yield ids[:cut], offsets[:cut].astype(np.int64) + start
        expected, begin = int(ids[cut]), int(offsets[cut, 0])
        rest, start = rest[begin:], start + begin
    if rest:
        ids, offsets = tokenizer.encode_ids(rest)
        _check(ids, expected, start)
        yield ids, offsets.astype(np.int64) + start


def _check(ids: IntArray, expected: int | None, start: int) -> None:
    if expected is not None and (not len(ids) or int(ids[0]) != expected):
        raise TokenizerError(
            f"the token at base {start + 1} depends on letters too far to its right to read this sequence in pieces; "
            "predict on intervals of it instead."
        )
