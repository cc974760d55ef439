"""Which tokens matter to a model: motif classes, enriched tokens, and importance by position (GENA-LM, figure 3).

Every test of tokens has the test of sequences beside it: the tokens of one sequence are not independent, so their p
values are far too small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from longstrand.errors import InputError
from longstrand.evaluation.compare import holm
from longstrand.explain.circular_shift import ShiftSum, circular_counts
from longstrand.explain.scan import Hits, Ints, q_values

Floats = npt.NDArray[np.float64]

PERCENTILE = 95.0
"""Tokens above this percentile of the pooled importance are highly important."""
STRONG, WEAK = 0.01, 0.05
"""q values of the best overlapping hit that make the classes strong, weak and none."""
MIN_OCCURRENCES = 5


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Tokens of many sequences with their importance, in order of sequence and place.

    Attributes:
        sequence: number of the sequence.
        start, end: bases of the token.
        text: its letters.
        importance: one number a token; positive = pushes the output up.
        lengths: bases of each sequence.
    """

    sequence: Ints
    start: Ints
    end: Ints
    text: list[str]
    importance: Floats
    lengths: Ints

    @property
    def important(self) -> npt.NDArray[np.bool_]:
        """Tokens strictly above the `PERCENTILE` of all."""
        return self.importance > np.percentile(self.importance, PERCENTILE)

    def rows_of(self, sequence: int) -> slice:
        """Give the tokens of one sequence."""
        first, last = np.searchsorted(self.sequence, [sequence, sequence + 1])
        return slice(int(first), int(last))


def token_table(
    texts: Sequence[str], offsets: Sequence[npt.NDArray[np.int32]], values: Sequence[npt.NDArray[np.float32]]
) -> TokenTable:
    """Give each token the sum of the values of its bases; a base under k tokens gives each a k-th.

    Args:
        texts: sequences.
        offsets: ``(n, 2)`` for each; special tokens (of no base) are left out.
        values: ``(num_bases,)`` for each, NaN counts as 0.

    Raises:
        InputError: values do not fit the sequences, or there is no token.
    """
    columns: list[list[npt.NDArray[np.float64]]] = [[], [], [], []]
    words: list[str] = []
    if len(texts) != len(values):
        raise InputError(
            f"attributions of {len(values):,} sequences, but {len(texts):,} sequences; give the same file."
        )
    for number, (text, own, value) in enumerate(zip(texts, offsets, values)):
        if len(value) != len(text):
            raise InputError(
                f"sequence {number + 1} has {len(text):,} bases but {len(value):,} attributions; give the same file."
            )
        own = own[own[:, 1] > own[:, 0]].astype(np.int64)
        covered = np.zeros(len(text) + 1)
        np.add.at(covered, own[:, 0], 1)
        np.add.at(covered, own[:, 1], -1)
        share = np.nan_to_num(value.astype(np.float64)) / np.cumsum(covered)[:-1].clip(min=1)
        total = np.concatenate([[0.0], np.cumsum(share)])
        for column, part in zip(
            columns, (np.full(len(own), number), own[:, 0], own[:, 1], total[own[:, 1]] - total[own[:, 0]])
        ):
            column.append(part)
        words += [text[start:end].upper() for start, end in own.tolist()]
    if not words:
        raise InputError("the sequences have no token.")
    sequence, start, end, importance = (np.concatenate(column) for column in columns)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return TokenTable(*(x.astype(np.int64) for x in (sequence, start, end)), words, importance, lengths)


def hit_classes(tokens: TokenTable, hits: Hits) -> tuple[list[str], Floats]:
    """Class each token by the q value of its best overlapping hit (a shared base): ``strong``, ``weak``, ``none``.

    Returns:
        Classes and q values, one a token; 1 where nothing overlaps.
    """
    best = np.ones(len(tokens.text))
    order = np.argsort(-hits.q, kind="stable")
    for row in order.tolist():
        own = tokens.rows_of(int(hits.sequence[row]))
        touched = (tokens.start[own] < hits.end[row]) & (tokens.end[own] > hits.start[row])
        best[own][touched] = np.minimum(best[own][touched], hits.q[row])
    return ["strong" if q < STRONG else "weak" if q < WEAK else "none" for q in best.tolist()], best


def compare_classes(tokens: TokenTable, classes: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Test whether tokens under motif hits matter more than others, by token and by sequence.

    Returns:
        Rows ``strong``, ``weak``, ``none`` (of what occurs): tokens, percentiles 5, 25, 50, 75, 95; for the first two
        Mann-Whitney's U and one-sided p against ``none``, p after Holm, and the effect U/(n1 n2) (AUROC). And one row
        of the honest unit: sequences that have both, the mean of (inside minus outside), Wilcoxon's statistic and p.
    """
    names = np.array(classes)
    by_class = {name: tokens.importance[names == name] for name in ("strong", "weak", "none")}
    by_class = {name: values for name, values in by_class.items() if len(values)}
    tests: dict[str, Any] = {
        name: stats.mannwhitneyu(by_class[name], by_class["none"], alternative="greater", method="asymptotic")
        for name in ("strong", "weak")
        if name in by_class and "none" in by_class
    }
    adjusted = dict(zip(tests, holm([float(test.pvalue) for test in tests.values()])))
    rows = []
    for name, values in by_class.items():
        spread = dict(zip(("p5", "p25", "median", "p75", "p95"), np.percentile(values, [5, 25, 50, 75, 95]).tolist()))
        test, u, p, auroc = tests.get(name), None, None, None
        if test is not None:
            u, p = float(test.statistic), float(test.pvalue)
            auroc = u / len(values) / len(by_class["none"])
        row = {"u": u, "p": p, "p_holm": adjusted.get(name), "auroc": auroc}
        rows.append({"class": name, "tokens": len(values), **spread, **row})
    differences = sequence_differences(tokens, names != "none")
    p = statistic = None
    if differences.any():
        test = stats.wilcoxon(differences, alternative="greater", method="approx")
        p, statistic = float(test.pvalue), float(test.statistic)
    mean = float(differences.mean()) if len(differences) else None
    unit = {"sequences": len(differences), "mean_difference": mean, "statistic": statistic, "p": p}
    kinds = {"mean_difference": pl.Float64, "statistic": pl.Float64, "p": pl.Float64}
    return pl.DataFrame(rows, infer_schema_length=None), pl.DataFrame([unit], schema_overrides=kinds)


def sequence_differences(tokens: TokenTable, inside: npt.NDArray[np.bool_]) -> Floats:
    """Subtract the mean importance outside from that inside, for each sequence that has both."""
    size = len(tokens.lengths)
    sums = [np.bincount(tokens.sequence, tokens.importance * part, minlength=size) for part in (inside, ~inside)]
    counts = [np.bincount(tokens.sequence, part, minlength=size) for part in (inside, ~inside)]
    both = (counts[0] > 0) & (counts[1] > 0)
    result: Floats = sums[0][both] / counts[0][both] - sums[1][both] / counts[1][both]
    return result


def enriched_tokens(tokens: TokenTable) -> pl.DataFrame:
    """Test which tokens are highly important more often than others.

    Returns:
        One row for each token that occurs at least `MIN_OCCURRENCES` times, by p: ``occurrences`` n, ``important`` k,
        ``share`` k/n, ``expected`` (the share among all), ``p`` (hypergeometric, upper tail) and ``q`` (Benjamini and
        Hochberg); ``sequences`` behind k, and ``p_within``, the probability of k when importance is moved round within
        each sequence (exact), which allows for tokens of one sequence that depend on each other.
    """
    important, words = tokens.important, np.array(tokens.text)
    rows = pl.DataFrame({"token": words, "important": important, "sequence": tokens.sequence})
    total, chosen = len(rows), int(important.sum())
    counts = (pl.len(), pl.col("important").sum(), pl.col("sequence").filter("important").n_unique())
    table = rows.group_by("token").agg(*(one.cast(pl.Int64).alias(name) for one, name in zip(counts, "nks")))
    table = table.filter(pl.col("n") >= MIN_OCCURRENCES).sort("token")
    n, k = table["n"].to_numpy(), table["k"].to_numpy()
    p = stats.hypergeom.sf(k - 1, total, chosen, n)
    within = _within_sequences(tokens, words, important, set(table["token"]))
    return table.select(
        "token", occurrences="n", important="k", share=k / n, expected=pl.lit(chosen / total if total else 0.0), p=p,
        q=q_values(p), sequences="s", p_within=pl.Series([within[word] for word in table["token"]], dtype=pl.Float64),
    ).sort("p", "token")  # fmt: skip


def _within_sequences(
    tokens: TokenTable, words: npt.NDArray[np.str_], important: npt.NDArray[np.bool_], wanted: set[str]
) -> dict[str, float]:
    """Give p of each word under circular shifts of importance."""
    shifts: dict[str, list[Ints]] = {word: [] for word in wanted}
    for number in range(len(tokens.lengths)):
        rows = tokens.rows_of(number)
        for word in wanted.intersection(words[rows].tolist()):
            shifts[word].append(circular_counts(important[rows].astype(np.int64), words[rows] == word))
    return {word: ShiftSum(values).p(sum(int(own[0]) for own in values)) for word, values in shifts.items()}


def position_profile(values: Sequence[npt.NDArray[np.float32]]) -> pl.DataFrame:
    """Average values by base, over sequences aligned at their first base.

    Returns:
        Columns position (0-based), mean, low, high (95 %, normal), sequences. NaN is no value.
    """
    length = max(map(len, values), default=0)
    sums, squares, counts = np.zeros(length), np.zeros(length), np.zeros(length)
    for own in values:
        known = ~np.isnan(own)
        sums[: len(own)] += np.where(known, own, 0)
        squares[: len(own)] += np.where(known, own.astype(np.float64) ** 2, 0)
        counts[: len(own)] += known
    mean = sums / counts.clip(min=1)
    half = 1.96 * np.sqrt((squares / counts.clip(min=1) - mean**2).clip(min=0) / counts.clip(min=1))
    return pl.DataFrame({
        "position": np.arange(length), "mean": mean, "low": mean - half, "high": mean + half,
        "sequences": counts.astype(np.int64),
    })  # fmt: skip
