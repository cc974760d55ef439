"""Find motifs without being told: words that some sequences have and others have not, grown into matrices.

Short words, with or without a gap, are counted in sequences (both strands) and tested by Fisher's exact test against
control sequences; the best word is grown by rounds of aligning its best site in each sequence and counting again. The
threshold of a site is the one that tells the sequences from the controls best. What a motif is worth is said by every
tenth sequence, which the search has not seen, as STREME does. Its sites are then erased, and the search begins anew.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from longstrand.baselines.kmer import kmer_counts
from longstrand.baselines.onehot import UNKNOWN, digits_of
from longstrand.errors import InputError, UsageError
from longstrand.explain.motifs import FloatArray, Motif, read_motifs
from longstrand.genome.features import write_fasta
from longstrand.runtime import generator

WORDS = [(4, 0), (5, 0), (6, 0), (7, 0), (8, 0), *((6, gap) for gap in range(1, 9))]
"""Word lengths, and letters between the halves of a word that are not looked at."""
HELD_OUT = 10
MODISCO_BASES = 100
ROUNDS = 8
NEUTRAL = 0.2
"""Bits of information below which a column at the end of a motif is cut off."""
Digits = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Discovered:
    """A motif that was found.

    Attributes:
        motif: its matrix; the name is the consensus.
        sites: training sequences with a site.
        word: the word that it grew from; dots are the gap.
        p_training: Fisher's p on the sequences of the search; far too small, as it was searched for.
        p: Fisher's p (one-sided) on the held-out sequences; NaN where none were kept.
        held_out: held-out sequences with a site, of how many; and controls, of how many.
        threshold: bits from which a place is a site.
    """

    motif: Motif
    sites: int
    word: str
    p_training: float
    p: float
    held_out: tuple[int, int, int, int]
    threshold: float


def discover(
    sequences: Sequence[str], controls: Sequence[str], *, count: int = 5, width: int = 15, level: float = 0.05
) -> list[Discovered]:
    """Find motifs that sequences have more often than controls.

    Args:
        sequences: at least 20; letters other than A, C, G, T are never part of a site.
        controls: likewise, of like lengths and composition.
        count: motifs at most; the search ends earlier at one whose held-out p is above ``level``, which is left out.
        width: columns that a motif grows to; ends without information are cut off.
        level: of p after Bonferroni over the motifs tried so far.

    Raises:
        InputError: there are fewer than 20 sequences or controls.
    """
    if min(len(sequences), len(controls)) < 2 * HELD_OUT:
        raise InputError(
            f"motifs are discovered in at least {2 * HELD_OUT} sequences and as many controls; "
            f"got {len(sequences)} and {len(controls)}."
        )
    primary, control = [digits_of(text).copy() for text in sequences], [digits_of(text).copy() for text in controls]
    found: list[Discovered] = []
    for tried in range(1, count + 1):
        one = _one(primary, control, width)
        if one is None or not one.p * tried <= level:
            break
        found.append(one)
        weights = _log_odds(one.motif.frequencies)
        for text in (*primary, *control):
            _erase(text, weights, one.threshold)
    return found


def _one(primary: list[Digits], control: list[Digits], width: int) -> Discovered | None:
    sides, kept = [], []
    for texts in (primary, control):
        order = generator(0, len(texts), "held-out sequences").permutation(len(texts)).tolist()
        kept.append([texts[i] for i in order[: len(texts) // HELD_OUT]])
        sides.append([texts[i] for i in sorted(order[len(texts) // HELD_OUT :])])
    word = _best_word(*sides)
    if word is None:
        return None
    padded = [_padded(side, width) for side in sides]
    frequencies = _seed(word, width)
    for _ in range(ROUNDS):
        weights = _log_odds(frequencies)
        best, windows = _best_sites(padded[0], weights)
        threshold, _ = _best_threshold(best, _best_sites(padded[1], weights)[0])
        windows = windows[best >= threshold]
        if len(windows) < 2:
            return None
        counts = np.stack([(windows == letter).sum(0) for letter in range(4)], axis=1)
        frequencies = (counts + 0.25) / (counts + 0.25).sum(1, keepdims=True)
    frequencies = _trimmed(frequencies)
    weights = _log_odds(frequencies)
    (best, _), (other, _) = (_best_sites(_padded(side, width), weights) for side in sides)
    threshold, p_training = _best_threshold(best, other)
    held = [_best_sites(_padded(side, width), weights)[0] >= threshold for side in kept]
    table = (int(held[0].sum()), len(held[0]), int(held[1].sum()), len(held[1]))
    sites = int((best >= threshold).sum())
    motif = Motif(_consensus(frequencies), frequencies, float(sites))
    return Discovered(motif, sites, word, p_training, _fisher(*table), table, float(threshold))


def _fisher(ours: int, of_ours: int, theirs: int, of_theirs: int) -> float:
    """Compute the one-sided p of having more."""
    return float(stats.hypergeom.sf(ours - 1, of_ours + of_theirs, ours + theirs, of_ours))


def _log_fisher(ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.int64], of_ours: int, of_theirs: int) -> FloatArray:
    """Compute the logarithm of Fisher's one-sided p for many tables; equal ones once."""
    pairs, where = np.unique(ours.astype(np.int64) * (of_theirs + 1) + theirs.astype(np.int64), return_inverse=True)
    ours, theirs = np.divmod(pairs, of_theirs + 1)
    result: FloatArray = stats.hypergeom.logsf(ours - 1, of_ours + of_theirs, ours + theirs, of_ours)[where]
    return result


def _text(digits: Digits) -> str:
    return np.frombuffer(b"ACGTN", dtype=np.uint8)[digits].tobytes().decode()


def _best_word(primary: list[Digits], control: list[Digits]) -> str | None:
    """Find the word with the smallest Fisher's p; a long one wins only if it is better than its parts."""
    texts = [[_text(digits) for digits in side] for side in (primary, control)]
    best: tuple[float, str] = (0.0, "")
    for size, gap in WORDS:
        ours, theirs = (
            np.asarray((kmer_counts(side, size, both_strands=True, gap=gap) > 0).sum(0)).reshape(-1) for side in texts
        )
        possible = np.flatnonzero(ours * len(texts[1]) > theirs * len(texts[0]))
        logs = _log_fisher(ours[possible], theirs[possible], len(texts[0]), len(texts[1]))
        if len(possible) and logs.min() < best[0]:
            code = int(possible[logs.argmin()])
            letters = "".join("ACGT"[code >> 2 * (size - 1 - i) & 3] for i in range(size))
            best = float(logs.min()), letters[: size // 2] + "." * gap + letters[size // 2 :]
    return best[1] or None


def _seed(word: str, width: int) -> FloatArray:
    """Put a word in the middle of a matrix that says nothing elsewhere."""
    frequencies = np.full((max(width, len(word)), 4), 0.25)
    start = (len(frequencies) - len(word)) // 2
    for place, letter in enumerate(word):
        if letter != ".":
            frequencies[start + place] = [0.91 if letter == base else 0.03 for base in "ACGT"]
    return frequencies


def _log_odds(frequencies: FloatArray) -> FloatArray:
    """Make weights (width, 5) against equal frequencies; a letter that is no base is forbidden where it matters."""
    weights = np.log2(frequencies.clip(min=1e-3) / 0.25)
    matters = weights.max(1) > 0.3
    return np.concatenate([weights, np.where(matters, -100.0, 0.0)[:, None]], axis=1)


def _padded(texts: list[Digits], margin: int) -> Digits:
    """Put texts into one array with unknown letters around them, so that a site may overlap an end."""
    half = margin // 2
    longest = max(map(len, texts), default=0)
    result = np.full((len(texts), longest + 2 * half), UNKNOWN, dtype=np.uint8)
    for line, text in zip(result, texts):
        line[half : half + len(text)] = text
    return result


def _scores(texts: Digits, weights: FloatArray) -> FloatArray:
    size = texts.shape[1] - len(weights) + 1
    if size < 1:
        return np.full((len(texts), 1), -np.inf)
    return np.sum([row[texts[:, place : place + size]] for place, row in enumerate(weights)], axis=0)


def _flipped(weights: FloatArray) -> FloatArray:
    return weights[::-1, [3, 2, 1, 0, 4]]


def _best_sites(texts: Digits, weights: FloatArray) -> tuple[FloatArray, Digits]:
    """Give the best score of each text on either strand, and its window as read on the strand of the motif."""
    width = len(weights)
    both = [_scores(texts, view) for view in (weights, _flipped(weights))]
    windows = np.full((len(texts), width), UNKNOWN, dtype=np.uint8)
    best = np.maximum(both[0].max(1), both[1].max(1))
    for row in np.flatnonzero(best > -50).tolist():
        side = int(both[1][row].max() > both[0][row].max())
        place = int(both[side][row].argmax())
        window = texts[row, place : place + width]
        windows[row] = np.array([3, 2, 1, 0, 4], dtype=np.uint8)[window[::-1]] if side else window
    return best, windows


def _best_threshold(ours: FloatArray, theirs: FloatArray) -> tuple[float, float]:
    """Find the score that tells the two apart best by Fisher's p, and that p."""
    cuts = np.unique(ours[ours > -50])
    if not len(cuts):
        return np.inf, 1.0
    above, others = (len(x) - np.searchsorted(np.sort(x), cuts) for x in (ours, theirs))
    logs = _log_fisher(above, others, len(ours), len(theirs))
    return float(cuts[logs.argmin()]), float(np.exp(logs.min()))


def _trimmed(frequencies: FloatArray) -> FloatArray:
    bits = 2 + (frequencies * np.log2(frequencies)).sum(1)
    useful = np.flatnonzero(bits >= NEUTRAL)
    return frequencies[useful[0] : useful[-1] + 1] if len(useful) else frequencies


def _consensus(frequencies: FloatArray) -> str:
    return "".join("ACGT"[row.argmax()] if row.max() >= 0.5 else "N" for row in frequencies)


def _erase(text: Digits, weights: FloatArray, threshold: float) -> None:
    """Make the letters of every site unknown, in place."""
    half = len(weights) // 2
    padded = np.concatenate([np.full(half, UNKNOWN, np.uint8), text, np.full(half, UNKNOWN, np.uint8)])[None]
    for view in (weights, _flipped(weights)):
        for place in np.flatnonzero(_scores(padded, view)[0] >= threshold).tolist():
            text[max(0, place - half) : place - half + len(weights)] = UNKNOWN


def discover_with_modisco(sequences: Sequence[str], scores: Sequence[npt.NDArray[np.float32]]) -> list[Motif]:
    """Cluster the important stretches of maps with TF-MoDISco (package modisco); those that lower the output come last.

    Args:
        sequences: of one length, at least `MODISCO_BASES`.
        scores: hypothetical scores ``(num_bases, 4)`` of each; NaN counts as 0.

    Raises:
        UsageError: the package is missing.
        InputError: lengths differ, or the sequences are too short.
    """
    lengths = {len(text) for text in sequences}
    if len(lengths) != 1 or min(lengths) < MODISCO_BASES:
        raise InputError(
            f"modisco reads sequences of one length, at least {MODISCO_BASES} bases; these have "
            f"{min(lengths, default=0)} to {max(lengths, default=0)}."
        )
    try:
        from modiscolite.tfmodisco import TFMoDISco
    except ImportError:
        raise UsageError("modisco needs a package: pip install 'longstrand[modisco]' (it brings GPL code).") from None
    letters = np.stack([digits_of(text) for text in sequences])[:, :, None] == np.arange(4)
    found = TFMoDISco(letters.astype(float), np.nan_to_num(np.stack(scores).astype(float)))
    motifs = []
    for sign, patterns in zip(("pos", "neg"), found):
        for number, pattern in enumerate(patterns or ()):
            shares = pattern.sequence + 1e-3
            frequencies = _trimmed(shares / shares.sum(1, keepdims=True))
            name = f"{sign}{number + 1}_{_consensus(frequencies)}"
            motifs.append(Motif(name, frequencies, float(len(pattern.seqlets))))
    return motifs


def discover_with_streme(sequences: Sequence[str], controls: Sequence[str], *, count: int = 5) -> list[Motif] | None:
    """Run the user's own ``streme`` (MEME suite; free for research only); None where it is not installed.

    Raises:
        InputError: the program failed; its words are quoted.
    """
    program = shutil.which("streme")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, texts in (("p.fa", sequences), ("n.fa", controls)):
            write_fasta(folder / file, {f"s{i}": text for i, text in enumerate(texts) if text})
        command = [program, "--p", "p.fa", "--n", "n.fa", "--dna", "--nmotifs", str(count), "--text"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{program} failed: {done.stderr.strip()[-300:]}")
        (folder / "out.meme").write_text(done.stdout)
        return read_motifs(folder / "out.meme")
