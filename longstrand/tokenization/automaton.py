"""Compile byte-pair merges into a deterministic automaton that reads a text from right to left.

After reading ``text[i:]`` backwards, the state tells the first token of the byte-pair encoding of ``text[i:]``.
Hopping from the left by those tokens then spells the encoding of the whole text: every suffix of a byte-pair
encoding that starts at a token boundary is the encoding of its own text. One table look-up a base, whatever the
size of the vocabulary. (That such finite machines exist and stay small: Berglund et al., Constructing a BPE
tokenization DFA, 2024.)

The automaton is grown merge by merge. Before merge ``(a, b) -> ab`` it encodes with all earlier merges; a text
whose encoding begins ``a b`` then begins with ``ab``. Such texts are those that reach a state of token ``a`` from a
state of token ``b`` by the letters of ``a`` backwards. The states on these paths are copied, each copy with its
distances to such states of ``b`` (several where ``a`` overlaps itself), and the last one gets the token ``ab``.
This is exact if a merge only uses tokens that earlier merges made, which `compile_merges` checks.
"""

from __future__ import annotations

import io
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from longstrand.errors import InputError
from longstrand.runtime import cache_dir, compiled, fingerprint_bytes, inlined, write_atomically
from longstrand.tokenization.text_rules import Unsupported

logger = logging.getLogger(__name__)

MAX_STATES = 1 << 24
MAX_LETTERS = 32
_FORMAT = "automaton 1"

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Automaton:
    """States numbered from 0, the state of the empty text.

    Attributes:
        letters: the letters in the order of the columns of ``step``.
        step: int32 ``(states, letters)``, the state after one more letter to the left.
        token: int32 ``(states,)``, first token: number of a letter, or ``len(letters) + rank``; -1 for the empty text.
    """

    letters: str
    step: Ints
    token: Ints


class _Machine(NamedTuple):
    """The growing automaton: capacity first; dead states have no incoming edges."""

    step: Any
    token: Any
    incoming: Any
    head: Any  # by token: its first state; states of a token are a linked list
    next: Any


class _Work(NamedTuple):
    """Scratch space of one merge: its start states and the copies it makes."""

    stamp: Any  # by state: number of the merge for which it is a start
    chain: Any  # by state: its first copy, valid if chain_stamp is the merge
    chain_stamp: Any
    starts: Any
    targets: Any
    origin: Any  # by copy: the copied state
    first: Any  # by copy: where its distances are in the pool
    count: Any
    sibling: Any  # by copy: another copy of the same state
    pool: Any
    distances: Any


@inlined
def _find_starts(machine: _Machine, work: _Work, word: Ints, a: int, b: int, merge: int) -> int:
    """List the states of token b from which the letters of a lead to a state of token a; forget dead states."""
    found = 0
    state, before = machine.head[b], -1
    while state >= 0:
        following = machine.next[state]
        if machine.incoming[state] == 0:
            if before < 0:
                machine.head[b] = following
            else:
                machine.next[before] = following
        else:
            end = state
            for j in range(len(word) - 1, -1, -1):
                end = machine.step[end, word[j]]
            if machine.token[end] == a:
                work.starts[found] = state
                work.stamp[state] = merge
                found += 1
            before = state
        state = following
    return found


@inlined
def _distances_after(machine: _Machine, work: _Work, word: Ints, place: tuple[int, int, int], letter: int) -> int:
    """Move the distances of a place (state, copy or -1, merge) on by one letter; give how many are left."""
    state, copy, merge = place
    length = len(word)
    count = 0
    if work.stamp[state] == merge and letter == word[length - 1]:
        work.distances[0] = 1
        count = 1
    if copy >= 0:
        for k in range(work.first[copy], work.first[copy] + work.count[copy]):
            distance = work.pool[k]
            if distance < length and word[length - 1 - distance] == letter:
                work.distances[count] = distance + 1
                count += 1
    return count


@inlined
def _find_copy(work: _Work, state: int, count: int, merge: int) -> int:
    """Find the copy of a state with the distances in ``work.distances``, or -1."""
    if work.chain_stamp[state] != merge:
        work.chain_stamp[state] = merge
        work.chain[state] = -1
    copy = work.chain[state]
    while copy >= 0:
        if work.count[copy] == count:
            same = True
            for k in range(count):
                if work.pool[work.first[copy] + k] != work.distances[k]:
                    same = False
                    break
            if same:
                return int(copy)
        copy = work.sibling[copy]
    return -1


@inlined
def _add_copy(machine: _Machine, work: _Work, place: tuple[int, int, int], count: int, result: tuple[int, int]) -> int:
    """Make copy number ``place[1]`` of a state; its token is the merged one if a distance is complete."""
    state, copy, number = place
    length, merged = result
    first = 0 if copy == 0 else work.first[copy - 1] + work.count[copy - 1]
    if first + count > len(work.pool) or copy >= len(work.origin) or number >= len(machine.token):
        return -1
    work.origin[copy], work.first[copy], work.count[copy] = state, first, count
    work.sibling[copy] = work.chain[state]
    work.chain[state] = copy
    token = machine.token[state]
    for k in range(count):
        work.pool[first + k] = work.distances[k]
        if work.distances[k] == length:
            token = merged
    machine.token[number] = token
    machine.incoming[number] = 0
    machine.next[number] = machine.head[token]
    machine.head[token] = number
    return int(first)


@inlined
def _grow(machine: _Machine, work: _Work, word: Ints, sizes: tuple[int, int], merge: tuple[int, int]) -> int:
    """Copy the paths from all starts of a merge; give the number of copies, or -1 if there is no room."""
    num_states, num_starts = sizes
    number, merged = merge
    copies: Any = np.int64(0)  # with a plain 0 numba compiles what is called with it twice
    item = -num_starts
    while item < copies:
        state = work.starts[num_starts + item] if item < 0 else work.origin[item]
        copy = item if item >= 0 else -1
        low, high = (word[-1], word[-1] + 1) if item < 0 else (0, machine.step.shape[1])
        for letter in range(low, high):
            target = machine.step[state, letter]
            count = _distances_after(machine, work, word, (state, copy, number), letter)
            if count:
                known = _find_copy(work, target, count, number)
                if known < 0:
                    place = (target, copies, num_states + copies)
                    if _add_copy(machine, work, place, count, (len(word), merged)) < 0:
                        return -1
                    known = copies
                    copies += 1
                target = num_states + known
            machine.incoming[target] += 1
            if item < 0:
                work.targets[num_starts + item] = target
            else:
                machine.step[num_states + item, letter] = target
        item += 1
    return int(copies)


@inlined
def _redirect(machine: _Machine, work: _Work, num_starts: int, letter: int) -> None:
    """Lead the starts to their copies, and let states die that nothing reaches any more."""
    for k in range(num_starts):
        start = work.starts[k]
        work.starts[k] = machine.step[start, letter]
        machine.step[start, letter] = work.targets[k]
    dead = 0
    for k in range(num_starts):
        old = work.starts[k]
        machine.incoming[old] -= 1
        if machine.incoming[old] == 0:
            work.targets[dead] = old
            dead += 1
    while dead:
        dead -= 1
        state = work.targets[dead]
        for letter in range(machine.step.shape[1]):
            target = machine.step[state, letter]
            machine.incoming[target] -= 1
            if machine.incoming[target] == 0:
                work.targets[dead] = target
                dead += 1


@compiled
def _build(machine: _Machine, work: _Work, merges: Ints, words: Ints, word_ends: Ints) -> int:
    """Grow the automaton by all merges ``(a, b, ab)``; give the number of states made, or -1 if there is no room."""
    num_letters = machine.step.shape[1]
    num_states = num_letters + 1
    for state in range(num_states):
        for letter in range(num_letters):
            machine.step[state, letter] = letter + 1
    machine.incoming[0] = 1
    for letter in range(num_letters):
        machine.token[letter + 1] = letter
        machine.head[letter] = letter + 1
        machine.incoming[letter + 1] = num_states
    for number in range(len(merges)):
        a, b, merged = merges[number]
        word = words[word_ends[a] : word_ends[a + 1]]
        num_starts = _find_starts(machine, work, word, a, b, number)
        if num_starts:
            copies = _grow(machine, work, word, (num_states, num_starts), (number, merged))
            if copies < 0:
                return -1
            num_states += copies
            _redirect(machine, work, num_starts, word[-1])
    return int(num_states)


@compiled
def _compact(step: Ints, token: Ints, num_states: int) -> tuple[Ints, Ints]:
    """Keep the states that the start reaches, breadth first: short contexts, which are frequent, lie together."""
    new, order = np.empty(num_states, dtype=np.int32), np.empty(num_states, dtype=np.int32)
    new[:] = -1
    new[0] = order[0] = 0
    kept, done = 1, 0
    while done < kept:
        for letter in range(step.shape[1]):
            target = step[order[done], letter]
            if new[target] < 0:
                new[target] = kept
                order[kept] = target
                kept += 1
        done += 1
    short_step = np.empty((kept, step.shape[1]), dtype=np.int32)
    short_token = np.empty(kept, dtype=np.int32)
    for state in range(kept):
        short_token[state] = token[order[state]]
        for letter in range(step.shape[1]):
            short_step[state, letter] = new[step[order[state], letter]]
    return short_step, short_token


def _reserve(capacity: int, num_letters: int, num_tokens: int) -> tuple[_Machine, _Work]:
    def empty(size: int, value: int | None = None) -> Ints:
        return np.empty(size, dtype=np.int32) if value is None else np.full(size, value, dtype=np.int32)

    step = np.empty((capacity, num_letters), dtype=np.int32)
    machine = _Machine(step, empty(capacity, -1), empty(capacity, 0), empty(num_tokens, -1), empty(capacity, -1))
    copies = max(1 << 12, capacity // 4)
    work = _Work(
        stamp=empty(capacity, -1),
        chain=empty(capacity),
        chain_stamp=empty(capacity, -1),
        starts=empty(capacity),
        targets=empty(capacity),
        origin=empty(copies),
        first=empty(copies),
        count=empty(copies),
        sibling=empty(copies),
        pool=empty(4 * capacity + (1 << 16)),
        distances=empty(1 << 14),
    )
    return machine, work


def compile_merges(merges: Sequence[tuple[str, str]], letters: str) -> Automaton:
    """Build the automaton of a merge list (in order of rank), or read it from the cache.

    Raises:
        Unsupported: a merge uses a token that no earlier merge made, a token has several merges, there are too many
            letters or too long tokens, or the automaton outgrows `MAX_STATES`.
    """
    if len(letters) > MAX_LETTERS:
        raise Unsupported(f"its merges use {len(letters)} letters, more than {MAX_LETTERS}")
    index = {letter: i for i, letter in enumerate(letters)}
    table = np.empty((len(merges), 3), dtype=np.int32)
    for rank, (a, b) in enumerate(merges):
        if a not in index or b not in index:
            raise Unsupported(f"merge {rank} uses '{a if a not in index else b}' before any merge has made it")
        if a + b in index:
            raise Unsupported(f"token '{a + b}' has two merges")
        index[a + b] = len(index)
        table[rank] = index[a], index[b], index[a + b]
    if max(map(len, index), default=1) >= 1 << 11:
        raise Unsupported("it has tokens of more than 2,047 letters")
    path = _cache_path(merges, letters)
    cached = _read_cache(path, letters)
    if cached is not None:
        return cached
    words = np.array([letters.index(letter) for token in index for letter in token], dtype=np.int32)
    word_ends = np.cumsum([0, *map(len, index)]).astype(np.int32)
    capacity = 24 * len(merges) + (1 << 14)
    while capacity <= MAX_STATES:
        machine, work = _reserve(capacity, len(letters), len(index))
        num_states = _build(machine, work, table, words, word_ends)
        if num_states >= 0:
            step, token = _compact(machine.step, machine.token, num_states)
            logger.info("compiled %d merges into %d states", len(merges), len(token))
            _write_cache(path, step, token)
            return Automaton(letters, step, token)
        capacity *= 3
    raise Unsupported(f"its automaton needs more than {MAX_STATES:,} states")


def _cache_path(merges: Sequence[tuple[str, str]], letters: str) -> Path:
    content = "\n".join([_FORMAT, letters, *(f"{a} {b}" for a, b in merges)])
    name = fingerprint_bytes(content.encode()).removeprefix("sha256:")[:32]
    return cache_dir() / "tokenizers" / f"{name}.npz"


def _read_cache(path: Path, letters: str) -> Automaton | None:
    """Read a compiled automaton; anything unreadable or out of range is treated as absent."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            step, token = arrays["step"], arrays["token"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if step.dtype != np.int32 or step.shape != (len(token), len(letters)) or token.dtype != np.int32:
        return None
    if not len(token) or step.min() < 0 or step.max() >= len(token):
        return None
    return Automaton(letters, step, token)


def _write_cache(path: Path, step: Ints, token: Ints) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, step=step, token=token)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except (OSError, InputError) as error:
        logger.info("the compiled tokenizer is not cached: %s", error)
