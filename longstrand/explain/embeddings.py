"""Whether vectors tell groups apart: elements of a genome, species; measured in the full space, never in two axes.

Everything is beside its trivial explanation: the same windows with the element's place moved, and 6-mers of the same
bases. Rows that belong together (one chromosome, overlapping windows) never stand on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from longstrand.baselines.kmer import kmer_counts
from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError, one_of
from longstrand.explain.elements import Elements, in_element, place_of
from longstrand.models.network import Network
from longstrand.questions.tokens import read_text, states
from longstrand.runtime import generator

Floats = npt.NDArray[np.float64]
FOLDS = 5
FEW_POINTS, MOST_POINTS = 20, 2000
NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class ElementVectors:
    """A vector for each window and kind of element in it.

    Attributes:
        labels: kind of element.
        groups: chromosome.
        features: float64 ``(n, d)`` of ``model`` (mean over the element's tokens), ``moved`` (of tokens elsewhere in
            the window, as many bases) and ``6-mers`` (frequencies in the element's bases, both strands).
    """

    labels: list[str]
    groups: list[str]
    features: dict[str, Floats]


def element_vectors(
    model: Network, records: Sequence[Record], elements: Elements, *, layer: int = -1, seed: int = 0
) -> ElementVectors:
    """Average the states of tokens inside each element of each window; a control moves the element round the window.

    Raises:
        InputError: a row has no place, or no window holds an element.
    """
    labels: list[str] = []
    groups: list[str] = []
    parts: dict[str, list[Floats]] = {"model": [], "moved": []}
    pieces: list[str] = []
    encodings = [read_text(model, record.sequence, record.where or record.name) for record in records]
    for record, encoding, hidden in zip(records, encodings, states(model, encodings, layer)):
        place, offsets = place_of(record), encoding.offsets
        for kind in elements.kinds:
            marks = elements.marks(kind, place)
            if not marks.any() or marks.all():  # an element that fills its window has no other place
                continue
            inside = in_element(offsets, marks)
            moves = generator(seed, record.index, f"moved {kind}").integers(marks.sum(), len(marks), 20)
            moved = (in_element(offsets, np.roll(marks, int(move))) & ~inside for move in moves)
            elsewhere = next((tokens for tokens in moved if tokens.any()), None)
            if not inside.any() or elsewhere is None:
                continue
            labels.append(kind)
            groups.append(place.chrom)
            parts["model"].append(hidden[inside].mean(0, dtype=np.float64))
            parts["moved"].append(hidden[elsewhere].mean(0, dtype=np.float64))
            pieces.append("".join(letter if mark else "N" for letter, mark in zip(record.sequence.upper(), marks)))
    if not labels:
        raise InputError("no window holds an element beside other bases; use wider windows or other elements.")
    features = {name: np.stack(vectors) for name, vectors in parts.items()} | {"6-mers": kmer_frequencies(pieces)}
    return ElementVectors(labels, groups, features)


def kmer_frequencies(texts: Sequence[str], k: int = 6, *, both_strands: bool = True) -> Floats:
    """Give the share of each k-mer: float64 ``(n, 4**k)``, 0 where there is none."""
    counts = kmer_counts(texts, k, both_strands=both_strands).toarray().astype(np.float64)
    frequencies: Floats = counts / counts.sum(1, keepdims=True).clip(min=1)
    return frequencies


def separation(features: dict[str, Floats], labels: Sequence[str], groups: Sequence[str]) -> pl.DataFrame:
    """Measure in the full space how far labels are apart.

    Returns:
        A row a kind of features: dimensions, silhouette (cosine), knn_accuracy and knn_balanced (`NEIGHBOURS` nearest
        by cosine among rows of other groups, or of other folds where there is one group), chance (share of the
        commonest label).

    Raises:
        InputError: there is one label only.
    """
    from sklearn.metrics import balanced_accuracy_score, silhouette_score
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    names = np.array(labels)
    if len(set(labels)) < 2:
        raise InputError(f"all {len(labels)} vectors have one label, '{labels[0]}'; two are needed to tell apart.")
    sides = _folds(names, np.array(groups))
    if len(names) <= len(set(labels)) or len(set(sides.tolist())) < 2:
        raise InputError(f"{len(names)} vectors of {len(set(labels))} labels are too few to tell apart; use more rows.")
    chance = max(float((names == name).mean()) for name in set(labels))
    near = KNeighborsClassifier(min(NEIGHBOURS, len(names) - int(np.bincount(sides).max())))
    size, rows = min(2000, len(names)), []
    for kind, vectors in features.items():
        unit = vectors - vectors.mean(0)
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True).clip(min=1e-12)  # Euclidean then ranks as the cosine
        called = cross_val_predict(near, unit, names, groups=sides, cv=LeaveOneGroupOut())
        width = float(silhouette_score(unit[:size], names[:size])) if len(set(names[:size])) > 1 else None
        accuracy, balanced = float((called == names).mean()), float(balanced_accuracy_score(names, called))
        rows.append((kind, vectors.shape[1], width, accuracy, balanced, chance))
    columns = ["features", "dimensions", "silhouette", "knn_accuracy", "knn_balanced", "chance"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def check_map(method: str) -> None:
    """Check that there is such a map to look at, before vectors are computed.

    Raises:
        UsageError: there is none, or its package is missing.
    """
    one_of(method, ("pca", "tsne", "umap"), "map")
    if method == "umap" and find_spec("umap") is None:
        raise UsageError("umap needs the package umap-learn: pip install 'longstrand[umap]'; or use pca, tsne.")


def coordinates(vectors: Floats, method: str = "pca", *, seed: int = 0) -> Floats:
    """Give two dimensions to look at: ``(n, 2)``; nothing is measured there.

    Args:
        vectors: ``(n, d)``.
        method: ``pca`` (the largest value of each component is positive), ``tsne`` (scikit-learn's, at most
            `MOST_POINTS` rows) or ``umap`` (the package umap-learn). The last two start from the principal components
            and run on one thread, so they repeat on one machine.
        seed: of t-SNE and UMAP.

    Raises:
        UsageError: another method, too many or too few rows for it, or its package is missing.
    """
    check_map(method)
    centred = vectors - vectors.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    found: Floats = left[:, :2] * size[:2]
    signs = np.sign(found[np.abs(found).argmax(0), range(found.shape[1])])
    found = found * np.where(signs == 0, 1, signs)
    if method == "pca":
        return found
    if len(vectors) < FEW_POINTS:
        raise UsageError(f"{len(vectors)} vectors are too few for {method}, which needs {FEW_POINTS}; use pca.")
    start = found / found.std(0).clip(min=1e-12)
    if method == "tsne":
        if len(vectors) > MOST_POINTS:
            raise UsageError(f"t-SNE of {len(vectors):,} vectors takes minutes; use umap, or at most {MOST_POINTS:,}.")
        from sklearn.manifold import TSNE

        near = min(30.0, (len(vectors) - 1) / 3)
        made: Floats = TSNE(init=1e-4 * start, perplexity=near, random_state=seed, n_jobs=1).fit_transform(centred)
        return made
    from umap import UMAP

    made = UMAP(n_neighbors=min(15, len(vectors) - 1), init=10 * start, random_state=seed, n_jobs=1).fit_transform(
        centred
    )
    return made.astype(np.float64)


def _folds(labels: npt.NDArray[np.str_], groups: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Number the side of each row: its group, or a random fold where there is but one group."""
    names, numbers = np.unique(groups, return_inverse=True)
    if len(names) > 1:
        return numbers.astype(np.int64)
    return generator(0, len(labels), "folds of vectors").permutation(len(labels)) % FOLDS


def pairs(
    features: dict[str, Floats], labels: Sequence[str], groups: Sequence[str] | None = None, *, seed: int = 0
) -> pl.DataFrame:
    """Tell every pair of labels apart by gradient boosting (scikit-learn's defaults), as GENA-LM did for species.

    Args:
        features: kinds of features ``(n, d)``: embeddings of layers, 6-mers.
        labels: species of each row.
        groups: rows of one group stay in one fold (places of a genome); None: folds are stratified only.
        seed: of folds and boosting.

    Returns:
        A row a kind of features and pair: a, b, rows, f1_macro (of all folds together), fold_sd (of the folds' F1),
        accuracy.

    Raises:
        InputError: a label has fewer rows (or groups) than folds.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    names = np.array(labels)
    units = np.arange(len(names)) if groups is None else np.array(groups)
    for name in np.unique(names):
        if len(set(units[names == name].tolist())) < FOLDS:
            raise InputError(f"'{name}' has fewer than {FOLDS} rows or groups, too few for {FOLDS} folds.")
    rows: list[tuple[Any, ...]] = []
    settings: dict[str, Any] = {"n_splits": FOLDS, "shuffle": True, "random_state": seed}
    split = StratifiedKFold(**settings) if groups is None else StratifiedGroupKFold(**settings)
    model = HistGradientBoostingClassifier(random_state=seed)
    for (kind, vectors), (a, b) in product(features.items(), combinations(np.unique(names).tolist(), 2)):
        chosen = (names == a) | (names == b)
        table, truth, own = vectors[chosen], names[chosen] == b, None if groups is None else units[chosen]
        folds = list(split.split(table, truth, own))
        with threadpool_limits(limits=1):
            called = cross_val_predict(model, table, truth, cv=folds)
        each = [f1_score(truth[test], called[test], average="macro") for _, test in folds]
        f1 = float(f1_score(truth, called, average="macro"))
        rows.append((kind, a, b, len(truth), f1, float(np.std(each)), float((called == truth).mean())))
    heads = ["features", "a", "b", "rows", "f1_macro", "fold_sd", "accuracy"]
    return pl.DataFrame(rows, schema=heads, orient="row")
