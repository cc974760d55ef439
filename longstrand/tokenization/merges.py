"""Find the merges of a byte-pair vocabulary: the same as the ``tokenizers`` library finds, in less time and memory.

The algorithm is the library's (its ``BpeTrainer``): a queue of pairs with the words in which each was seen, the most
frequent pair first, the smaller ids among equals; a pair's count is brought up to date when it comes to the top. What
it does beyond the textbook is kept, because the merges would differ: AAA counts as two pairs of A; a pair whose token
would be too long is never counted; a token that two pairs can form gets a queue entry for each, with its own words.

All data lie in flat arrays: 2 bytes a base for the text, 4 for each word of a queue entry, some 20 for each pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from longstrand.runtime import compiled, inlined, progress_bar

LETTERS = "ACGNT"
_BREAK, _DROPPED = 254, 255
_LONGEST_PIECE = 1000
_Array = npt.NDArray[Any]


def learn_merges(
    sequences: Iterable[str], *, first_id: int, vocab_size: int, min_frequency: int, max_token_length: int
) -> tuple[list[str], list[tuple[str, str]], int]:
    """Learn tokens by merging the most frequent neighbours; N, ``-`` and the ends of 1,000 bases are never crossed.

    Args:
        sequences: upper-case pieces of DNA; letters other than A, C, G, T, N and ``-`` are dropped.
        first_id: id of A; C, G, N, T and the new tokens follow.
        vocab_size: ids at most, those before ``first_id`` included.
        min_frequency: a pair rarer than this is not merged.
        max_token_length: bases of a token at most.

    Returns:
        All tokens from A on, the merges in their order, and the number of letters read.
    """
    text, starts, num_letters = _read(sequences, first_id, np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    pairs = _Pairs(text, starts, first_id, vocab_size, max_token_length)
    tokens = list(LETTERS)
    ids = {token: first_id + number for number, token in enumerate(tokens)}
    ranked: dict[tuple[str, str], None] = {}
    with progress_bar("merges", vocab_size - first_id - len(tokens), unit="tokens") as bar:
        while first_id + len(tokens) < vocab_size:
            entry = pairs.pop(max(1, min_frequency))
            if entry is None:
                break
            left, right = (tokens[number - first_id] for number in pairs.ids(entry))
            token = left + right
            if token not in ids:
                ids[token] = first_id + len(tokens)
                tokens.append(token)
                bar.update(1)
            ranked.pop((left, right), None)  # of a pair that comes again, the last place counts
            ranked[left, right] = None
            pairs.merge(entry, ids[token], len(token))
    return tokens, list(ranked), num_letters


def _read(sequences: Iterable[str], first_id: int, dtype: Any) -> tuple[_Array, _Array, int]:
    """Write the words of all sequences behind one another; give them, their starts (and the end), the letters read."""
    codes = np.full(256, _DROPPED, np.uint8)
    codes[np.frombuffer(LETTERS.encode(), np.uint8)] = first_id + np.arange(len(LETTERS))
    codes[[ord("N"), ord("-")]] = _BREAK
    text, starts, end, num_words, num_letters = np.empty(1 << 16, dtype), np.zeros(1 << 10, np.int64), 0, 0, 0
    for sequence in sequences:
        letters = np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)
        num_letters += len(letters)
        text = _with_room(text, end + len(letters))
        starts = _with_room(starts, num_words + len(letters) // 2 + len(letters) // _LONGEST_PIECE + 3)
        end, num_words = _append_words(codes[letters], text, starts, end, num_words)
    text.resize(end, refcheck=False)
    starts.resize(num_words + 1, refcheck=False)
    starts[num_words] = end
    return text, starts, num_letters


def _with_room(array: _Array, size: int) -> _Array:
    """Make an array longer by half if it has less than ``size`` places; its memory grows where it lies if it can."""
    if len(array) < size:
        array.resize(max(size, len(array) + len(array) // 2), refcheck=False)
    return array


class _Pairs:
    """The text, the count of each pair, and the queue of pairs to be merged, each with the words that hold it.

    Keys are ``left << bits | right``. The counts are a hash table with open addresses (a key is stored plus one; 0 is a
    free place). An entry of the queue has a key, the count at its last look and a stretch of ``words``; ``heap`` holds
    the entries, the next one first.
    """

    def __init__(self, text: _Array, starts: _Array, first_id: int, vocab_size: int, max_length: int) -> None:
        self.text, self.starts, self.ends = text, starts[:-1], starts[1:].copy()
        self.bits, self.max_length = vocab_size.bit_length(), max_length
        key, count = (np.uint32 if self.bits <= 15 else np.uint64), (np.int32 if len(text) < 1 << 31 else np.int64)
        self.table_keys, self.table_counts, self.num_pairs = np.zeros(1 << 12, key), np.zeros(1 << 12, count), 0
        self.keys, self.counts = np.zeros(1 << 10, key), np.zeros(1 << 10, count)
        self.places, self.sizes = np.zeros(1 << 10, np.int64), np.zeros(1 << 10, np.int32)
        self.heap, self.num_entries, self.heap_size = np.zeros(1 << 10, np.int32), 0, 0
        self.words, self.words_end, self.words_live = np.zeros(1 << 12, np.int32), 0, 0
        self.lengths = np.ones(vocab_size, np.int64)
        # neighbours of a merged pair, left ones first: how often each was seen, its last word, its number of words
        self.seen, self.last, self.met = (np.zeros(2 * vocab_size, np.int64) for _ in range(3))
        self.touched = np.zeros(2 * vocab_size, np.int64)
        self.found_slots, self.found_words = np.zeros(1 << 12, np.uint32), np.zeros(1 << 12, np.int32)
        letters = [first_id + LETTERS.index(letter) for letter in "ACGT"]
        for left, right in itertools.product(letters, letters):
            holding, found, total = _words_with(self.text, self.starts, self.ends, left, right)
            if found:
                self._make_room(1, found)
                _add(self.table_keys, self.table_counts, left << self.bits | right, total)
                self.num_pairs += 1
                self.words[self.words_end : self.words_end + found] = holding[:found]
                self._push(left << self.bits | right, total, found)

    def _push(self, key: int, count: int, num_words: int) -> None:
        entry = self.num_entries
        self.keys[entry], self.counts[entry] = key, count
        self.places[entry], self.sizes[entry] = self.words_end, num_words
        self.words_end += num_words
        self.words_live += num_words
        self.heap_size = _into_heap(self.heap, self.heap_size, entry, self.keys, self.counts)
        self.num_entries += 1

    def _make_room(self, entries: int, words: int) -> None:
        """Make room for new entries with so many words, and for the pairs that they may bring."""
        if self.words_end + words > len(self.words) and self.words_live < 0.6 * self.words_end:
            self.words_end = _close_ranks(self.words, self.places, self.sizes, self.num_entries)
        self.words = _with_room(self.words, self.words_end + words)
        size = self.num_entries + entries
        self.keys, self.counts = _with_room(self.keys, size), _with_room(self.counts, size)
        self.places, self.sizes = _with_room(self.places, size), _with_room(self.sizes, size)
        self.heap = _with_room(self.heap, size)
        while self.num_pairs + 2 * entries > 0.6 * len(self.table_keys):
            keys, counts = np.zeros(2 * len(self.table_keys), self.table_keys.dtype), self.table_counts
            self.table_counts = np.zeros(len(keys), counts.dtype)
            _move_all(self.table_keys, counts, keys, self.table_counts)
            self.table_keys = keys

    def pop(self, min_frequency: int) -> int | None:
        """Take the most frequent pair out of the queue; None if none is frequent enough."""
        _refresh(self.heap, self.heap_size, self.keys, self.counts, self.table_keys, self.table_counts)
        if not self.heap_size or self.counts[self.heap[0]] < min_frequency:
            return None
        entry = int(self.heap[0])
        self.heap_size -= 1
        self.heap[0] = self.heap[self.heap_size]
        _sink(self.heap, self.heap_size, self.keys, self.counts)
        return entry

    def ids(self, entry: int) -> tuple[int, int]:
        """Give the two ids of an entry."""
        return int(self.keys[entry]) >> self.bits, int(self.keys[entry]) & (1 << self.bits) - 1

    def merge(self, entry: int, new: int, length: int) -> None:
        """Merge the pair of an entry in all its words, and enter the pairs that arise."""
        pair, done, found, touched = self.ids(entry), 0, 0, 0
        start, size = int(self.places[entry]), int(self.sizes[entry])
        holding = self.words[start : start + size]
        self.lengths[new] = length
        longest = self.max_length - length - 1  # the library counts a pair if it is shorter than the longest token
        while True:
            done, found, touched = _merge_words(
                self.text, self.starts, self.ends, holding, done, pair, new, self.lengths, longest, self.seen,
                self.last, self.met, self.touched, touched, self.found_slots, self.found_words, found,
            )  # fmt: skip
            if done == size:
                break
            self.found_slots = _with_room(self.found_slots, len(self.found_slots) + _LONGEST_PIECE)
            self.found_words = _with_room(self.found_words, len(self.found_slots))
        del holding
        self.sizes[entry] = 0
        self.words_live -= size
        self._make_room(touched, found)
        self.num_pairs, self.num_entries, self.heap_size, self.words_end = _enter(
            pair, new, self.bits, self.lengths, longest, self.seen, self.last, self.met, self.touched[:touched],
            self.found_slots[:found], self.found_words[:found], self.table_keys, self.table_counts, self.num_pairs,
            self.keys, self.counts, self.places, self.sizes, self.num_entries, self.heap, self.heap_size, self.words,
            self.words_end,
        )  # fmt: skip
        self.words_live += found


@compiled
def _append_words(codes: _Array, text: _Array, starts: _Array, end: int, num_words: int) -> tuple[int, int]:
    """Add the words of one sequence, those of one letter left out; give the new end and number of words."""
    starts[num_words] = end
    for i in range(len(codes)):
        code = codes[i]
        if code < _BREAK:
            text[end] = code
            end += 1
        if code == _BREAK or i % _LONGEST_PIECE == _LONGEST_PIECE - 1 or i == len(codes) - 1:
            if end - starts[num_words] > 1:
                num_words += 1
            else:
                end = starts[num_words]
            starts[num_words] = end
    return end, num_words


@compiled
def _words_with(text: _Array, starts: _Array, ends: _Array, left: int, right: int) -> tuple[_Array, int, int]:
    """Find the words that hold a pair; give them in an array, their number, and how often they hold it."""
    holding, found, total = np.empty(len(starts), np.int32), 0, 0
    for word in range(len(starts)):
        before = total
        for i in range(starts[word], ends[word] - 1):
            total += text[i] == left and text[i + 1] == right
        if total > before:
            holding[found] = word
            found += 1
    return holding, found, total


@compiled
def _place_of(keys: _Array, key: int) -> int:
    """Find the place of a key in the table, or the free place where it belongs."""
    mask = len(keys) - 1
    place = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask
    while keys[place] and np.int64(keys[place]) != key + 1:
        place = (place + 1) & mask
    return int(place)


@compiled
def _add(keys: _Array, counts: _Array, key: int, change: int) -> int:
    """Change the count of a pair; give 1 if it is a new one, else 0."""
    place = _place_of(keys, key)
    new = keys[place] == 0
    keys[place] = key + 1
    counts[place] += change
    return int(new)


@compiled
def _move_all(keys: _Array, counts: _Array, new_keys: _Array, new_counts: _Array) -> None:
    """Move a table into a larger one."""
    for i in range(len(keys)):
        if keys[i]:
            _add(new_keys, new_counts, int(keys[i]) - 1, counts[i])


@compiled
def _before(one: int, other: int, keys: _Array, counts: _Array) -> bool:
    """Say which of two entries comes first: the more frequent one, of equal ones the smaller key."""
    if counts[one] != counts[other]:
        return bool(counts[one] > counts[other])
    return bool(keys[one] < keys[other])


@compiled
def _sink(heap: _Array, size: int, keys: _Array, counts: _Array) -> None:
    """Let the entry at the top sink to its place."""
    place = 0
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _before(heap[child + 1], heap[child], keys, counts):
            child += 1
        if not _before(heap[child], heap[place], keys, counts):
            return
        heap[child], heap[place] = heap[place], heap[child]
        place = child


@compiled
def _into_heap(heap: _Array, size: int, entry: int, keys: _Array, counts: _Array) -> int:
    """Add an entry; give the new size."""
    place = size
    heap[place] = entry
    while place and _before(entry, heap[(place - 1) // 2], keys, counts):
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
        heap[place] = entry
    return size + 1


@compiled
def _refresh(heap: _Array, size: int, keys: _Array, counts: _Array, table_keys: _Array, table_counts: _Array) -> None:
    """Bring counts up to date until the one at the top is."""
    while size:
        count = table_counts[_place_of(table_keys, int(keys[heap[0]]))]
        if counts[heap[0]] == count:
            return
        counts[heap[0]] = count
        _sink(heap, size, keys, counts)


@compiled
def _close_ranks(words: _Array, places: _Array, sizes: _Array, num_entries: int) -> int:
    """Move the words of the entries that are left together; give their new end."""
    end = 0
    for entry in range(num_entries):
        for i in range(places[entry], places[entry] + sizes[entry]):
            words[end + i - places[entry]] = words[i]
        places[entry] = end
        end += sizes[entry]
    return end


@compiled
def _merge_words(
    text: _Array, starts: _Array, ends: _Array, holding: _Array, done: int, pair: tuple[int, int], new: int,
    lengths: _Array, longest: int, seen: _Array, last: _Array, met: _Array, touched: _Array, num_touched: int,
    found_slots: _Array, found_words: _Array, found: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Merge a pair in the words from the ``done``-th on, as long as there is room for what is found.

    Slot x is the left neighbour x, slot V + x the right one. Where ``new`` is its own right neighbour (the token was
    there before), its word is noted in the left slot, since the pair is the same.
    """
    vocab = len(lengths)
    for number in range(done, len(holding)):
        word = holding[number]
        if found + ends[word] - starts[word] > len(found_slots):
            return number, found, num_touched
        read, end = starts[word], ends[word]
        while read + 1 < end and (text[read] != pair[0] or text[read + 1] != pair[1]):
            read += 1
        write = read
        while read < end:
            if text[read] != pair[0] or read + 1 == end or text[read + 1] != pair[1]:
                text[write] = text[read]
                read, write = read + 1, write + 1
                continue
            for side in range(2):
                if (side == 0 and write == starts[word]) or (side == 1 and read + 2 == end):
                    continue
                neighbour = np.int64(text[write - 1] if side == 0 else text[read + 2])
                slot = side * vocab + neighbour
                if seen[slot] == 0:
                    touched[num_touched] = slot
                    num_touched += 1
                seen[slot] += 1
                slot = neighbour if neighbour == new else slot
                if lengths[neighbour] <= longest and last[slot] != word + 1:
                    last[slot] = word + 1
                    met[slot] += 1
                    found_slots[found], found_words[found] = slot, word
                    found += 1
            text[write] = new
            read, write = read + 2, write + 1
        ends[word] = write
    return len(holding), found, num_touched


@inlined
def _made(slot: int, new: int, bits: int, vocab: int) -> int:
    """Give the key of the pair that a neighbour makes with the new token."""
    return int(slot << bits | new) if slot < vocab else int(new << bits | slot - vocab)


@compiled
def _enter(
    pair: tuple[int, int], new: int, bits: int, lengths: _Array, longest: int, seen: _Array, last: _Array, met: _Array,
    touched: _Array, found_slots: _Array, found_words: _Array, table_keys: _Array, table_counts: _Array,
    num_pairs: int, keys: _Array, counts: _Array, places: _Array, sizes: _Array, num_entries: int, heap: _Array,
    heap_size: int, words: _Array, words_end: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Change the counts of the pairs around a merged one, and push those that arose, with their words."""
    vocab = len(lengths)
    for slot in touched:
        side, neighbour = slot // vocab, slot % vocab
        old = neighbour << bits | pair[0] if side == 0 else pair[1] << bits | neighbour
        num_pairs += _add(table_keys, table_counts, old, -seen[slot])
        if lengths[neighbour] <= longest:
            num_pairs += _add(table_keys, table_counts, _made(slot, new, bits, vocab), seen[slot])
    for number in range(len(touched) + 1):
        slot = touched[number] if number < len(touched) else new
        if met[slot]:
            key = _made(slot, new, bits, vocab)
            count = table_counts[_place_of(table_keys, key)]
            keys[num_entries], counts[num_entries] = key, count
            places[num_entries], sizes[num_entries] = words_end, met[slot] if count > 0 else 0
            last[slot] = words_end
            words_end += met[slot]
            if count > 0:
                heap_size = _into_heap(heap, heap_size, num_entries, keys, counts)
            num_entries += 1
            met[slot] = 0
    for i in range(len(found_slots)):
        words[last[found_slots[i]]] = found_words[i]
        last[found_slots[i]] += 1
    for slot in touched:
        seen[slot] = last[slot] = 0
    last[new] = 0
    return num_pairs, num_entries, heap_size, words_end
