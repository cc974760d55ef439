"""Forward passes that many scores share: each is made once, whoever needs it, and only sums are kept.

A score of a masked LM is a sum of weighted log-probabilities. `Passes` collects, for every distinct masked input, which
terms of which sums it answers; `run` makes the passes and adds the terms up. A masked token says the same about the
reference and all alternates in it, and two alleles that differ in the masked tokens alone are one input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from longstrand.models.network import Network
from longstrand.questions.tokens import MaskedText, iter_log_probabilities
from longstrand.tokenization.base import Encoding, IntArray
from longstrand.variants.windows import Pair

NO_ROWS: IntArray = np.empty(0, dtype=np.int32)
APART = 8
"""Fewest tokens from mask to mask of variants that share a pass; in training they are about 7 apart."""
SHARE = 0.15
"""Largest share of masked tokens in a shared pass, that of training."""
Slot = tuple[int, int]
Ids = int | IntArray


@dataclass
class Pass:
    """One masked input and what is asked of it.

    Attributes:
        encoding: the text.
        masked: rows that are masked together.
        terms: for each row the sums (``slot``) that get its log-probability of an id, or of a set of ids, and a weight.
    """

    encoding: Encoding
    masked: IntArray
    terms: dict[int, list[tuple[Slot, Ids, float]]] = field(default_factory=dict)

    def add(self, slot: Slot, row: int, ids: Ids, weight: float) -> None:
        """Add ``weight * log p(ids at row)`` to a sum; of a set of ids, the log of the sum of their probabilities."""
        self.terms.setdefault(int(row), []).append((slot, ids, weight))


class Passes:
    """The passes of a block of variants."""

    def __init__(self, mask_id: int | None) -> None:
        self._mask_id = mask_id
        self._found: dict[bytes, Pass] = {}

    def of(self, encoding: Encoding, masked: IntArray = NO_ROWS) -> Pass:
        """Give the pass of a text with some rows masked, the same one for the same input."""
        ids = encoding.input_ids
        if len(masked) and self._mask_id is not None:
            ids = ids.copy()
            ids[masked] = self._mask_id
        key = ids.tobytes()
        if key not in self._found:
            self._found[key] = Pass(encoding, masked)
        return self._found[key]

    def run(self, model: Network, values: npt.NDArray[np.float64], *, batch_tokens: int, share: bool = False) -> int:
        """Make all passes and add their terms to ``values[slot]``; give the number of forward passes.

        Args:
            model: a masked LM.
            values: ``(n, fields)``, changed in place.
            batch_tokens: most tokens of a batch.
            share: put masks of one text that lie far apart into one pass.
        """
        passes = sorted(self._found.values(), key=lambda one: (len(one.encoding), len(one.terms)))
        passes = list(_shared(passes)) if share else passes
        rows = [np.array(list(one.terms), dtype=np.int32) for one in passes]
        asked = (MaskedText(one.encoding, one.masked, wanted) for one, wanted in zip(passes, rows))
        for one, answer in zip(passes, iter_log_probabilities(model, asked, batch_tokens=batch_tokens)):
            for logs, terms in zip(answer, one.terms.values()):
                for slot, ids, weight in terms:
                    found = logs[ids]
                    values[slot] += weight * float(found if isinstance(ids, int) else np.logaddexp.reduce(found))
        return len(passes)


def _shared(passes: list[Pass]) -> Iterator[Pass]:
    """Join passes of the same text whose masks lie apart."""
    texts: dict[bytes, list[Pass]] = {}
    for one in passes:
        texts.setdefault(one.encoding.input_ids.tobytes(), []).append(one)
    for group in texts.values():
        joined: list[Pass] = []
        for one in sorted(group, key=lambda one: one.masked[:1].tolist()):
            found = next((other for other in joined if _fit(other, one)), None)
            if found is None:
                joined.append(replace(one, terms=dict(one.terms)))
            else:
                found.masked = np.concatenate((found.masked, one.masked))
                found.terms |= one.terms
        yield from joined


def _fit(first: Pass, second: Pass) -> bool:
    """Say whether the masks of the second lie behind those of the first, far enough, and are not too many with them."""
    if not len(first.masked) or not len(second.masked):
        return False
    few = len(first.masked) + len(second.masked) <= SHARE * len(first.encoding)
    return few and bool(first.masked.max() + APART <= second.masked.min())


def compared(
    pairs: Sequence[Pair], answers: Callable[[Iterator[str]], Iterator[npt.NDArray[np.float32]]]
) -> Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Ask about each reference text once, then about its alternates; one reference is held.

    Args:
        pairs: texts of two alleles each.
        answers: from texts to one array a text, in order.

    Yields:
        Number of a pair, and the answers about its reference and its alternate text.
    """
    groups: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        groups.setdefault(pair.ref_text, []).append(number)
    stream = answers(text for ref, own in groups.items() for text in (ref, *(pairs[one].alt_text for one in own)))
    for own in groups.values():
        ref = next(stream)
        for number in own:
            yield number, ref, next(stream)
