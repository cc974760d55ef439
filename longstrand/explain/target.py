"""What is explained: one number that a model says about a text, the same for all methods.

Logits, never probabilities, which saturate. A head that gives one row for each token, base or bin: the mean over a
region. A masked LM: the log-probability of what stands at a masked place, or of all tokens in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from longstrand.errors import InputError, UsageError, nearest
from longstrand.genome.sequence import reverse_complement
from longstrand.models.network import Network
from longstrand.questions.scores import Outputs, outputs_of
from longstrand.questions.tokens import BATCH_TOKENS, FloatArray, measure, read_within, reading_of
from longstrand.tokenization.base import Encoding, IntArray

Answer = TypeVar("Answer")
UNMASKED = "unmasked"
MASKED = "masked:"
NO_ROWS: IntArray = np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class Target:
    """A number that a model says about a text. Make it with `target_of`.

    Attributes:
        model: with a head.
        output: number of the output that is explained.
        against: number of an output that is subtracted, or None.
        region: bases (0-based, half-open) that a head per token, base or bin is averaged over; None: all.
        place: base (0-based) whose tokens are masked, for a masked LM; None: nothing is masked.
        token: text of the token at that place whose log-probability is meant; None: the one that is there.
        name: for people.
        batch_tokens: most tokens of a batch.
        strand: ``-``: texts are the reverse complement of what ``region`` and ``place`` count on.
        tick: called with passes times tokens of what is computed; a gradient counts three passes.
    """

    model: Network
    output: int = 0
    against: int | None = None
    region: tuple[int, int] | None = None
    place: int | None = None
    token: str | None = None
    name: str = ""
    batch_tokens: int = BATCH_TOKENS
    strand: str = "+"
    tick: Callable[[float], None] = field(default=lambda work: None, compare=False, repr=False)

    def ticking(self, answers: Iterable[Answer], encodings: Iterable[Encoding], passes: int = 1) -> Iterator[Answer]:
        """Pass answers on, and count the work of each."""
        for answer, encoding in zip(answers, encodings):
            self.tick(passes * len(encoding))
            yield answer

    def on(self, strand: str) -> Self:
        """Give the same question about the reverse complement (``-``) of a text."""
        return replace(self, strand=strand)

    def read(self, text: str, where: str = "") -> Encoding:
        """Tokenize a text, as it is read on this strand.

        Raises:
            InputError: a letter is no nucleotide, the text is longer than the model reads, or the region or the masked
                place do not lie in it.
        """
        encoding = read_within(self.model, text, where)
        for end in (self.region or (0, 0))[1], (self.place or 0) + 1:
            if len(text) and end > len(text):
                raise InputError(f"{where or 'text'}: has {len(text):,} bases, so base {end:,} does not exist.")
        return encoding

    def tries(self, text: str) -> Encoding | None:
        """Tokenize a text with edits, as `read`; None where they make more tokens than the model reads."""
        try:
            return self.read(reverse_complement(text) if self.strand == "-" else text)
        except InputError:
            return None

    def masked_rows(self, encoding: Encoding) -> IntArray:
        """Number the tokens that are masked together."""
        if self.place is None:
            return NO_ROWS
        place = self.place if self.strand == "+" else encoding.num_bases - 1 - self.place
        return encoding.rows_over(place, place + 1)

    def function(self, encoding: Encoding) -> Callable[[Tensor], Tensor]:
        """Give the function from the logits of one text to the number."""
        if self.model.kind == "masked_lm":
            return self._log_probability(encoding)
        plus, minus = self.output, self.against
        weights = self._weights(encoding)

        def number(logits: Tensor) -> Tensor:
            each = logits[..., plus] if minus is None else logits[..., plus] - logits[..., minus]
            return each if weights is None else (each * torch.from_numpy(weights).to(each)).sum()

        return number

    def _log_probability(self, encoding: Encoding) -> Callable[[Tensor], Tensor]:
        rows = self.masked_rows(encoding)
        content = rows if self.place is not None else np.flatnonzero(~encoding.special_tokens_mask)
        ids = torch.from_numpy(encoding.input_ids[content].astype(np.int64))
        if self.token is not None:
            ids = torch.full_like(ids, self.model.require_tokenizer().vocab[self.token])

        def number(logits: Tensor) -> Tensor:
            kept = logits if self.place is not None else logits[torch.from_numpy(content).to(logits.device)]
            each = kept.log_softmax(-1).gather(1, ids.to(kept.device)[:, None])
            return each.mean() if self.place is not None else each.sum()

        return number

    def _weights(self, encoding: Encoding) -> FloatArray | None:
        """Weigh the rows of a token or bin head, so that bases of the region count the same; None: one row a text."""
        kind, size = self.model.kind, encoding.num_bases
        if kind == "sequence":
            return None
        start, end = self.region or (0, size)
        if self.strand == "-":
            start, end = size - end, size - start
        if kind == "bin":
            bases = self.model.head_settings.bin_bases or 1  # type: ignore[union-attr]
            rows = np.zeros(size // bases, dtype=np.float32)
            rows[start // bases : -(-end // bases)] = 1
            return rows / max(1.0, float(rows.sum()))
        cover = encoding.to_bases(np.ones(len(encoding)), reduce="sum")
        asked = np.zeros(size)
        asked[start:end] = 1
        share = np.divide(asked, cover, out=np.zeros(size), where=cover > 0)
        sums = np.concatenate([[0.0], np.cumsum(share / max(1.0, float((share > 0).sum())))])
        found: FloatArray = (sums[encoding.offsets[:, 1]] - sums[encoding.offsets[:, 0]]).astype(np.float32)
        return found

    def measure(self, encodings: Iterable[Encoding], of: Iterable[Encoding] | None = None) -> list[float]:
        """Compute the number of texts. ``of``: the texts as they were before tokens were exchanged by hand."""
        asked = list(encodings)
        meant = asked if of is None else list(of)
        functions, masks = (self.function(one) for one in meant), (self.masked_rows(one) for one in meant)
        found = measure(self.model, asked, functions, masks=masks, batch_tokens=self.batch_tokens)
        return list(self.ticking(found, asked))

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Compute the number of texts, float32 ``(n, 1)``; texts of the same tokens are computed once.

        On the strand ``-`` the texts are those of ``+`` all the same: they are turned here. NaN where edits have made
        more tokens than the model reads.
        """
        read = [self.tries(text) for text in texts]
        unique = {one.input_ids.tobytes(): one for one in read if one is not None}
        keys = sorted(unique, key=lambda key: len(unique[key]))
        known = dict(zip(keys, self.measure([unique[key] for key in keys])))
        rows = [np.nan if one is None else known[one.input_ids.tobytes()] for one in read]
        return np.array(rows, dtype=np.float32)[:, None]


def target_of(
    model: Network,
    output: int | str | None = None,
    *,
    against: int | str | None = None,
    region: tuple[int, int] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Target:
    """Choose what is explained.

    Args:
        model: with any head.
        output: number or class name; for a masked LM ``masked:POSITION`` or ``masked:POSITION:TOKEN`` (position counts
            from 1) or ``unmasked``, the sum of the log-probabilities of all tokens in one pass. None: the only output;
            of two classes the second minus the first; of a masked LM ``unmasked``.
        against: number or class name that is subtracted.
        region: bases (0-based, half-open) of a head per token, base or bin; None: all.
        batch_tokens: most tokens of a batch.

    Raises:
        UsageError: there is no such output, no choice without ``output``, or a region has no meaning.
    """
    if model.kind == "encoder":
        raise UsageError("the model has no head whose output could be explained; fine-tune it first.")
    if region is not None and (model.kind in ("sequence", "masked_lm") or not 0 <= region[0] < region[1]):
        raise UsageError("a region START-END is for heads per token, base or bin; this asks for none or an empty one.")
    if model.kind == "masked_lm":
        if against is not None:
            raise UsageError("against is for models with labels, not for a masked LM.")
        return replace(_masked(model, str(output or UNMASKED)), batch_tokens=batch_tokens)
    names, total = list(reading_of(model).class_names or ()), len(outputs_of(model, None))
    problem = model.head_settings.problem if model.head_settings else None
    if output is None and total > 1 and (total > 2 or problem != "single_label"):
        known = ", ".join(names) if names else f"0 to {total - 1}"
        raise UsageError(f"the model has {total} outputs; say which one to explain with --target (target=): {known}.")
    if output is None and against is None and total == 2:
        plus, minus = 1, 0
    else:
        plus, minus = _number(model, output or 0), None if against is None else _number(model, against)
    if plus == minus:
        raise UsageError(f"output {output!r} against itself is always 0.")
    shown = [names[i] if names else f"output {i}" for i in (plus, minus) if i is not None]
    name = f"logit of {' minus '.join(shown)}"
    return Target(model, plus, minus, region, name=name, batch_tokens=batch_tokens)


def _number(model: Network, output: Outputs) -> int:
    names = reading_of(model).class_names or ()
    plain = isinstance(output, str) and output not in names and output.isdigit()
    return outputs_of(model, int(output) if plain else output)[0]  # type: ignore[arg-type]


def _masked(model: Network, output: str) -> Target:
    if output == UNMASKED:
        return Target(model, name="log-probability of all tokens (nats, unmasked)")
    _, place, *more = output.split(":", 2) if output.startswith(MASKED) else ("", "", "")
    if not place.isdigit() or int(place) < 1:
        raise UsageError(
            f"no output {output!r}{nearest(output, [UNMASKED, MASKED])}: a masked LM has 'unmasked', 'masked:POSITION' "
            "and 'masked:POSITION:TOKEN' (position from 1)."
        )
    tokenizer = model.require_tokenizer()
    token = more[0] if more else None
    if token is not None and token not in tokenizer.vocab:
        raise UsageError(f"the vocabulary has no token {token!r}{nearest(token, tokenizer.vocab)}.")
    if tokenizer.mask_token_id is None:
        raise UsageError("the tokenizer has no mask token, so nothing can be masked; use unmasked.")
    name = f"log-probability of {token or 'the token'} at base {place} (nats, masked)"
    return Target(model, place=int(place) - 1, token=token, name=name)
