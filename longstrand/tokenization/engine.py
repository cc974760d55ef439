"""The exact byte-pair engine: one backward pass, one table look-up a base, then hops from token to token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from longstrand.runtime import compiled, inlined
from longstrand.tokenization.automaton import Automaton, compile_merges
from longstrand.tokenization.base import BoolArray, IntArray
from longstrand.tokenization.text_rules import Unsupported

_ID_BITS = 20
_ID_MASK = (1 << _ID_BITS) - 1
_HOT = 4
_LANES_FROM = 512
_WARM_UP = 64
_OTHER = 255
_ZERO: Any = np.int64(0)
"""Not the plain number: numba would compile what is called with it once more, for a constant."""

Bytes = npt.NDArray[np.uint8]
Tables = tuple[Bytes, IntArray, IntArray, IntArray]


@compiled
def _step(tables: Tables, state: int, byte: int) -> int:
    """Move by one letter: A, C, G, T by the hot table, other letters with merges by the cold one, the rest afresh."""
    classes, hot, cold, _ = tables
    letter = classes[byte]
    if letter < _HOT:
        return int(hot[(state << 2) + letter])
    columns = cold[0]
    if letter < _HOT + columns:
        return int(cold[2 + state * columns + letter - _HOT])
    return int(cold[1] + letter - _HOT - columns)


@inlined
def _scan(text: Bytes, tables: Tables, states: IntArray, start: int, end: int, state: int) -> int:
    """Fill ``states[start:end]`` from the right, given the state at ``end``; give the state at ``start``."""
    for i in range(end - 1, start - 1, -1):
        state = _step(tables, state, text[i])
        states[i] = state
    return state


@inlined
def _scan_lanes(text: Bytes, tables: Tables, states: IntArray) -> None:
    """Fill all states in four lanes at once, which hides the latency of the look-ups.

    The state at the right end of a lane is guessed by reading `_WARM_UP` letters of its neighbour; where the guess was
    wrong, the lane is read again until the states agree. The result is that of one plain scan.
    """
    classes, hot, _, _ = tables
    n = len(text)
    quarter = n // 4
    ends = (quarter, 2 * quarter, 3 * quarter)
    s0 = s1 = s2 = _ZERO
    s3 = _scan(text, tables, states, 4 * quarter, n, _ZERO)
    for i in range(_WARM_UP - 1, -1, -1):
        s0 = _step(tables, s0, text[ends[0] + i])
        s1 = _step(tables, s1, text[ends[1] + i])
        s2 = _step(tables, s2, text[ends[2] + i])
    guesses = (s0, s1, s2)
    for i in range(quarter - 1, -1, -1):
        c0, c1 = classes[text[i]], classes[text[ends[0] + i]]
        c2, c3 = classes[text[ends[1] + i]], classes[text[ends[2] + i]]
        if c0 | c1 | c2 | c3 < _HOT:
            s0, s1 = hot[(s0 << 2) + c0], hot[(s1 << 2) + c1]
            s2, s3 = hot[(s2 << 2) + c2], hot[(s3 << 2) + c3]
        else:
            s0, s1 = _step(tables, s0, text[i]), _step(tables, s1, text[ends[0] + i])
            s2, s3 = _step(tables, s2, text[ends[1] + i]), _step(tables, s3, text[ends[2] + i])
        states[i], states[ends[0] + i] = s0, s1
        states[ends[1] + i], states[ends[2] + i] = s2, s3
    for lane in range(2, -1, -1):
        if states[ends[lane]] != guesses[lane]:
            _repair(text, tables, states, ends[lane])


@inlined
def _repair(text: Bytes, tables: Tables, states: IntArray, end: int) -> None:
    """Read on to the left of ``end``, whose state is right, until the states on paper agree."""
    state: Any = np.int64(states[end])
    for i in range(end - 1, -1, -1):
        state = _step(tables, state, text[i])
        if states[i] == state:
            return
        states[i] = state


@compiled
def _encode(
    text: Bytes, tables: Tables, prefix: IntArray, suffix: IntArray, special: BoolArray
) -> tuple[IntArray, IntArray, BoolArray]:
    """Encode one text: ids, offsets and special-token mask, with ids put around it."""
    n = len(text)
    states = np.empty(n, dtype=np.int32)
    if n < _LANES_FROM:
        _scan(text, tables, states, _ZERO, n, _ZERO)
    else:
        _scan_lanes(text, tables, states)
    tokens = tables[3]
    count, at = 0, 0
    while at < n:
        token = tokens[states[at]]
        states[count] = token
        count += 1
        at += token >> _ID_BITS
    before, total = len(prefix), len(prefix) + count + len(suffix)
    ids, offsets = np.empty(total, dtype=np.int32), np.empty((total, 2), dtype=np.int32)
    mask = np.empty(total, dtype=np.bool_)
    at = 0
    for k in range(count):
        token = states[k]
        ids[before + k] = token & _ID_MASK
        offsets[before + k, 0] = at
        at += token >> _ID_BITS
        offsets[before + k, 1] = at
        mask[before + k] = special[token & _ID_MASK]
    for k in range(before):
        ids[k], mask[k], offsets[k, 0], offsets[k, 1] = prefix[k], True, 0, 0
    for k in range(len(suffix)):
        end = before + count + k
        ids[end], mask[end], offsets[end, 0], offsets[end, 1] = suffix[k], True, 0, 0
    return ids, offsets, mask


class BpeEngine:
    """Tables of one vocabulary; immutable, shared by threads and forked processes.

    Args:
        vocab: ids of all tokens, single letters and special ones included.
        merges: pairs in order of rank.
        unknown: id for characters without a token of their own, one per character.

    Raises:
        Unsupported: the vocabulary is not one that the automaton encodes exactly.
    """

    def __init__(self, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], unknown: int) -> None:
        used = {letter for pair in merges for token in pair for letter in token}
        singles = [token for token in vocab if len(token) == 1]
        _check_vocabulary(vocab, merges, used)
        letters = "ACGT" + "".join(sorted(used - set("ACGT")))
        automaton = compile_merges(merges, letters)
        resets = sorted(token for token in singles if token not in letters)
        tokens = [*letters, *(a + b for a, b in merges)]
        self.merging_letters = frozenset(used)
        self._tables = _make_tables(automaton, tokens, resets, {"": unknown, **vocab})

    def encode(
        self, text: str, prefix: IntArray, suffix: IntArray, special: BoolArray
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Encode a text as one word: ids, offsets in characters, and which ids are special."""
        return _encode(as_bytes(text), self._tables, prefix, suffix, special)


def as_bytes(text: str) -> Bytes:
    """Give one byte a character; characters beyond ASCII become one that no vocabulary holds."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.minimum(points, _OTHER).astype(np.uint8)


def _check_vocabulary(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], used: set[str]) -> None:
    if max(vocab.values()) > _ID_MASK:
        raise Unsupported(f"it has ids above {_ID_MASK:,}")
    missing = next((token for pair in merges for token in (*pair, "".join(pair)) if token not in vocab), None)
    if missing is not None:
        raise Unsupported(f"its merges need '{missing}', which is not in the vocabulary")
    foreign = next((token for token in vocab if len(token) == 1 and not token.isascii()), None)
    if foreign is not None or any(not letter.isascii() for letter in used):
        raise Unsupported("it has letters beyond ASCII")


def _make_tables(
    automaton: Automaton, tokens: Sequence[str], resets: Sequence[str], vocab: Mapping[str, int]
) -> Tables:
    """Lay out the automaton for the hot loop.

    Letters without merges, and unknown ones (id of the empty string), start the text afresh: each has one state whose
    steps are those of the empty text. Classes: 0-3 A, C, G, T; other letters with merges; then the fresh starts.
    """
    num_states, num_letters = automaton.step.shape
    classes = np.full(256, num_letters + len(resets), dtype=np.uint8)
    for number, letter in enumerate(automaton.letters):
        if letter in vocab:
            classes[ord(letter)] = number
    for number, letter in enumerate(resets):
        classes[ord(letter)] = num_letters + number
    step = np.concatenate((automaton.step, np.repeat(automaton.step[:1], len(resets) + 1, axis=0)))
    packed = np.array([len(token) << _ID_BITS | vocab.get(token, vocab[""]) for token in tokens], dtype=np.int32)
    singles = np.array([1 << _ID_BITS | vocab[token] for token in (*resets, "")], dtype=np.int32)
    by_state = np.concatenate((packed[automaton.token], singles))
    cold_head = np.array([num_letters - _HOT, num_states], dtype=np.int32)
    cold = np.concatenate((cold_head, np.ascontiguousarray(step[:, _HOT:]).ravel()))
    return classes, np.ascontiguousarray(step[:, :_HOT]).ravel(), cold, by_state
