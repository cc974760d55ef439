"""What a tokenizer does to a text: bases per token, longest tokens, strand symmetry, unknown share; with a plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.errors import InputError
from longstrand.tokenization.base import AnyArray, Tokenizer

_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """Statistics of one tokenizer, on its own and on a text.

    Attributes:
        kind: ``bpe`` or ``kmer``.
        overlapping: True for k-mers that slide by one base.
        fingerprint: of the tokenizer.
        vocab_size: number of ids.
        num_dna_tokens: ids that are spelled with A, C, G, T only.
        reverse_complement_share: share of those whose reverse complement is in the vocabulary too.
        num_texts, num_bases, num_tokens: size of the text; special tokens around it are not counted.
        bases_per_token: bases divided by tokens (for overlapping k-mers about 1, whatever k).
        token_lengths: mean, median, 5th and 95th percentile and maximum of bases covered by a DNA token of the text.
        length_counts: tokens of the text by number of bases covered, from 0.
        unknown_share: share of tokens that are the unknown token.
        gap_share: share of bases that gap tokens (GENA's ``-``) cover.
        used_share: share of the DNA tokens that occur in the text.
        entropy_bits: entropy of the frequencies of tokens, bits per token.
        frequent_tokens: the most frequent tokens of the text and their counts.
        longest_used_tokens: the longest tokens of the text and their counts.
        rank_counts: (rank of frequency from 1, occurrences), at most 500 points of the curve.
    """

    kind: str
    overlapping: bool
    fingerprint: str
    vocab_size: int
    num_dna_tokens: int
    reverse_complement_share: float
    num_texts: int
    num_bases: int
    num_tokens: int
    bases_per_token: float
    token_lengths: dict[str, float]
    length_counts: list[int]
    unknown_share: float
    gap_share: float
    used_share: float
    entropy_bits: float
    frequent_tokens: list[tuple[str, int]]
    longest_used_tokens: list[tuple[str, int]]
    rank_counts: list[tuple[int, int]]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values for JSON."""
        return dataclasses.asdict(self)


def reverse_complement_share(tokenizer: Tokenizer) -> float:
    """Give the share of DNA tokens whose reverse complement is a token as well; 0 if there are no DNA tokens."""
    tokens = [tokenizer.token_strings[i] for i in tokenizer.dna_token_ids]
    found = sum(token.translate(_COMPLEMENT)[::-1] in tokenizer.vocab for token in tokens)
    return found / len(tokens) if tokens else 0.0


def inspect_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenizerReport:
    """Encode texts (already in the letters of the tokenizer) and count.

    Raises:
        InputError: no text gives any token.
    """
    by_id = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    by_length = np.zeros(int(tokenizer.bases_per_id.max(initial=0)) + 1, dtype=np.int64)
    num_texts = num_bases = gap_bases = 0
    for text in texts:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        num_texts, num_bases = num_texts + 1, num_bases + len(text)
        by_id += np.bincount(encoding.input_ids, minlength=len(by_id))
        lengths = encoding.offsets[:, 1] - encoding.offsets[:, 0]
        gap_bases += int(lengths[encoding.special_tokens_mask & (encoding.input_ids != tokenizer.unk_token_id)].sum())
        by_length += np.bincount(lengths[~encoding.special_tokens_mask], minlength=len(by_length))
    num_tokens = int(by_id.sum())
    if not num_tokens:
        raise InputError("the text gives no tokens: it is empty, or shorter than a k-mer.")
    by_length = by_length[: int(np.flatnonzero(by_length).max(initial=0)) + 1]
    dna = tokenizer.dna_token_ids
    names = tokenizer.token_strings
    used = dna[by_id[dna] > 0]
    longest = used[np.argsort(-tokenizer.bases_per_id[used], kind="stable")][:_SHOWN]
    frequent = np.argsort(-by_id, kind="stable")[:_SHOWN]
    shares = by_id[by_id > 0] / num_tokens
    unknown = int(by_id[tokenizer.unk_token_id]) if tokenizer.unk_token_id is not None else 0
    return TokenizerReport(
        kind=tokenizer.kind,
        overlapping=tokenizer.overlapping,
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        num_dna_tokens=len(dna),
        reverse_complement_share=reverse_complement_share(tokenizer),
        num_texts=num_texts,
        num_bases=num_bases,
        num_tokens=num_tokens,
        bases_per_token=num_bases / num_tokens,
        token_lengths=_summary(by_length),
        length_counts=by_length.tolist(),
        unknown_share=unknown / num_tokens,
        gap_share=gap_bases / num_bases,
        used_share=len(used) / len(dna) if len(dna) else 0.0,
        entropy_bits=float(-(shares * np.log2(shares)).sum()),
        frequent_tokens=[(names[i], int(by_id[i])) for i in frequent if by_id[i]],
        longest_used_tokens=[(names[i], int(by_id[i])) for i in longest],
        rank_counts=_thin(np.sort(by_id[by_id > 0])[::-1]),
    )


def _thin(counts: AnyArray, limit: int = 500) -> list[tuple[int, int]]:
    """Keep the ranks that a curve on a logarithmic axis needs."""
    ranks = np.unique(np.geomspace(1, len(counts), limit).round().astype(np.int64))
    return [(int(rank), int(counts[rank - 1])) for rank in ranks]


def _summary(by_length: AnyArray) -> dict[str, float]:
    """Summarise a histogram of lengths; all zero if it is empty."""
    total = int(by_length.sum())
    if not total:
        return dict.fromkeys(("mean", "median", "p5", "p95", "max"), 0.0)
    below = np.cumsum(by_length) / total
    shares = {"median": 0.5, "p5": 0.05, "p95": 0.95}
    found = {name: float(np.searchsorted(below, share)) for name, share in shares.items()}
    mean = float((np.arange(len(by_length)) * by_length).sum() / total)
    return {"mean": mean, **found, "max": float(np.flatnonzero(by_length)[-1])}


def plot_report(report: TokenizerReport, path: Path, vocabulary_lengths: AnyArray | None = None) -> None:
    """Draw token lengths and token frequencies into an image file (PNG, PDF or SVG by its ending).

    Args:
        report: what `inspect_tokenizer` found.
        path: file to write.
        vocabulary_lengths: bases of every DNA token of the vocabulary, drawn beside those of the text.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    lengths, ranks = figure.subplots(1, 2)
    counts = np.array(report.length_counts, dtype=float)
    width = max(12, int(report.token_lengths["p95"]) * 2)
    lengths.bar(np.arange(len(counts)), counts / max(1.0, counts.sum()), label="tokens of the text", color="#1f5a99")
    if vocabulary_lengths is not None and len(vocabulary_lengths):
        shares = np.bincount(vocabulary_lengths) / len(vocabulary_lengths)
        lengths.step(np.arange(len(shares)), shares, where="mid", label="tokens of the vocabulary", color="#d1660f")
    lengths.set(xlim=(0.5, width + 0.5), xlabel="bases per token", ylabel="share of tokens")
    lengths.set_title(f"{report.bases_per_token:.2f} bases per token, {100 * report.unknown_share:.2g} % unknown")
    lengths.legend(frameon=False)
    curve = np.array(report.rank_counts)
    ranks.loglog(curve[:, 0], curve[:, 1] / report.num_tokens, color="#1f5a99", marker="." if len(curve) < 20 else "")
    ranks.set(xlabel="rank of the token", ylabel="share of tokens")
    ranks.set_title(f"{100 * report.used_share:.0f} % of {report.num_dna_tokens:,} DNA tokens occur")
    for axes in (lengths, ranks):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
