"""When a map may be trusted: the tests that every report prints, on some of its sequences.

Completeness; agreement with other methods, baselines, strands and models; the deletion curve; weights that were mixed
up (Adebayo et al. 2018); and two baselines that know nothing of the model, distance from the centre and GC. A map that
fails one of them is marked. Agreement is Spearman's rank correlation over the bases of a sequence; the median over
sequences counts. The thresholds are conventions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from longstrand.baselines.onehot import digits_of
from longstrand.data.rows import Record
from longstrand.explain.attribution import NO_CONTENT, Attribution, Explainer
from longstrand.explain.gradient import LONG_TOKENS, POINTS, baseline_ids, with_ids
from longstrand.explain.options import PATHS, AttributeOptions
from longstrand.inference.strands import flip_back, read_on
from longstrand.models.network import Network
from longstrand.questions.tokens import FloatArray
from longstrand.runtime import generator
from longstrand.tokenization.base import Encoding

AGREES = 0.5
"""Rank correlation below which two maps are said to disagree, and above which a trivial one explains a map."""
CONTROL = 0.3
"""Rank correlation above which a map of mixed-up weights is too much like the map."""
SHARE_POSITIVE = 2 / 3
ISM_BASES = 60
MOST_SEQUENCES, ROUGH_STEPS = 3, 10
"""Methods with a pass for each change are compared on so many sequences, and not at all if one is long; points on the
paths of maps that are only compared by ranks."""
GC_WINDOW = 19
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
NUM_RANDOM = 3
FloatRow = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Check:
    """One test of the maps.

    Attributes:
        name: what was compared.
        value: median over the sequences, or None where nothing could be computed.
        low, high: quartiles.
        expected: what a map that can be trusted gives, in words.
        passed: None: for information.
        meaning: what it says if it fails.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    expected: str
    passed: bool | None
    meaning: str = ""


@dataclass(frozen=True)
class Trust:
    """What the tests found.

    Attributes:
        checks: one row a test.
        num_sequences: on which they were made.
        curves: name to the mean output with a share (`SHARES`) of the tokens masked.
        per_sequence: name of a test to its values.
    """

    checks: Sequence[Check]
    num_sequences: int
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    per_sequence: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        """The tests that the maps did not pass."""
        return [check for check in self.checks if check.passed is False]


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Correlate the ranks of two rows; NaN where one is constant or fewer than three bases are known to both."""
    known = ~(np.isnan(first) | np.isnan(second))
    if known.sum() < 3 or not np.ptp(first[known]) or not np.ptp(second[known]):
        return float("nan")
    return float(spearmanr(first[known], second[known]).statistic)


def auroc(values: FloatArray, inside: npt.NDArray[np.bool_]) -> float:
    """Give the chance that a base inside has a higher value than one outside; NaN without either."""
    known = ~np.isnan(values)
    hits = inside[known]
    return float("nan") if hits.all() or not hits.any() else float(roc_auc_score(hits, values[known]))


def centre_distance(num_bases: int) -> FloatRow:
    """Give minus the distance of each base from the middle: highest in the centre."""
    found: FloatRow = -np.abs(np.arange(num_bases) - (num_bases - 1) / 2)
    return found


def gc_around(sequence: str) -> FloatRow:
    """Give the share of G and C in `GC_WINDOW` bases around each base; less of them at the ends."""
    sums, sizes = (
        np.convolve(each, np.ones(GC_WINDOW))[GC_WINDOW // 2 :][: len(sequence)]
        for each in (np.isin(digits_of(sequence), (1, 2)), np.ones(len(sequence)))
    )
    found: FloatRow = sums / sizes
    return found


def mixed_up(model: Network, stage: str, seed: int = 0) -> Network:
    """Copy a model with the numbers of its weight matrices shuffled, from the head down.

    Args:
        model: stays as it is.
        stage: ``head``; ``upper half`` of the layers and the head; ``all``, word vectors too.
        seed: of the shuffling.
    """
    tokenizer = model.require_tokenizer()
    made = copy.deepcopy(model, {id(tokenizer): tokenizer})
    layers = made.config.num_hidden_layers
    random = generator(seed, 0, "explain mixed-up weights")
    for name, parameter in made.named_parameters():
        number = next((int(part) for part in name.split(".") if part.isdigit()), None)
        body = name.startswith("encoder.")
        wanted = stage == "all" or not body or (stage == "upper half" and number is not None and 2 * number >= layers)
        if wanted and parameter.dim() > 1:
            flat = parameter.detach().flatten()
            order = torch.from_numpy(random.permutation(flat.numel())).to(flat.device)
            parameter.data.copy_(flat[order].view_as(parameter))
    return made


def examine(
    explainer: Explainer, maps: Sequence[Attribution], *, others: Mapping[str, Network] | None = None,
    inside: Callable[[Record], npt.NDArray[np.bool_]] | None = None,
) -> Trust:  # fmt: skip
    """Test the maps of some sequences.

    Args:
        explainer: has made the maps.
        maps: of the sequences.
        others: further models of the same task (other seeds) by name.
        inside: gives the bases ``(num_bases,)`` of a row in which known sites lie.
    """
    maps = [one for one in maps if one.status != NO_CONTENT and len(one.values) > 2]
    if not maps:
        return Trust((), 0)
    rows, own = [one.record for one in maps], [one.values for one in maps]
    found: dict[str, list[float]] = {}
    checks: list[Check] = []

    def add(kind: str, name: str, values: Sequence[float], passed: bool | None = None) -> None:
        title = f"{kind}: {name}" if name else kind
        found[title] = list(values)
        checks.append(_check(title, values, kind, passed))

    if explainer.options.method == "ig":
        gaps = [one.relative_gap for one in maps]
        add("completeness gap", "", gaps, max(gaps) <= explainer.options.tolerance)
    longest = max(len(one.tokens) for one in maps)
    model, tick = explainer.target.model, explainer.target.tick
    has_mask = model.require_tokenizer().mask_token_id is not None
    for name, network in (others or {}).items():
        add("model", name, _agree(own, Explainer(network, explainer.options, tick).explain(rows)))
    wanted = comparisons(explainer.options, explainer.baselines, has_mask=has_mask, longest=longest)
    for kind, name, options, number in wanted:
        if kind == "strands":
            add(kind, name, _strands(explainer, options, maps, rows))
            continue
        network = mixed_up(model, name, explainer.options.seed) if kind == "weights mixed up" else model
        add(kind, name, _agree(own, Explainer(network, options, tick).explain(rows[:number])))
    sizes = [np.abs(values) for values in own]
    for name, trivial in (
        ("distance from the centre", [centre_distance(len(values)) for values in own]),
        (f"GC in {GC_WINDOW} bases", [gc_around(one.sequence) for one in maps]),
    ):
        add("trivial", name, [spearman(a, b) for a, b in zip(sizes, trivial)])
    curves, areas = deletion(explainer, maps)
    add("deletion", "random minus most important", areas, np.mean([area > 0 for area in areas]) >= SHARE_POSITIVE)
    if inside is not None:
        areas_of = located(maps, [inside(row) for row in rows])
        middles = [float(np.nanmedian(each)) if not np.isnan(each).all() else np.nan for each in areas_of.values()]
        better = None if np.isnan(middles[0]) else middles[0] > max(middles[1:])
        for name, each in areas_of.items():
            add("sites (AUROC)", name, each, better if name == "the map" else None)
    return Trust(checks, len(maps), curves, found)


def _agrees(middle: float) -> bool:
    return middle > AGREES


MEANINGS: dict[str, tuple[str, str, Callable[[float], bool] | None]] = {
    "completeness gap": ("within the tolerance", "the path is not integrated: the model is very steep", None),
    "method": (f"> {AGREES}", "another method sees other bases", _agrees),
    "baseline": (f"> {AGREES}", "the map depends on the baseline", _agrees),
    "model": (f"> {AGREES}", "models of the same task look at other bases", _agrees),
    "strands": (f"> {AGREES}", "the two strands are explained by other bases", _agrees),
    "weights mixed up": (f"within {CONTROL} of 0", "the map shows the input, not what the model learned",
                         lambda middle: abs(middle) < CONTROL),
    "trivial": (f"< {AGREES}", "the size of the values follows what needs no model", lambda middle: middle < AGREES),
    "deletion": ("> 0 in two thirds",
                 "masking what the map calls important lowers the output no more than masking any tokens", None),
    "sites (AUROC)": ("the map: above both others", "what needs no model finds the sites as well", None),
}  # fmt: skip
"""For each kind of test what a map that can be trusted gives, what a failure says, and how the median is judged."""


def comparisons(
    options: AttributeOptions, baselines: Sequence[str], *, has_mask: bool, longest: int
) -> Iterator[tuple[str, str, AttributeOptions, int | None]]:
    """List what a map is compared with: kind, name, options, and on how many sequences (None: all).

    Args:
        options: of the maps.
        baselines: of the maps; the first one makes them.
        has_mask: there is a mask token.
        longest: tokens of the longest sequence.
    """
    few = MOST_SEQUENCES if longest <= LONG_TOKENS else 0
    for name in ("ig", "gradient", "ism", *(("occlusion",) * has_mask)):
        if name != options.method:
            changes: dict[str, Any] = {"span": ISM_BASES} if name == "ism" else {}
            number = few if name in ("ism", "occlusion") else None
            yield "method", name, rough(options.of_method(name).changed(**changes)), number
    for name in baselines[1:] if options.method in PATHS else ():
        several = name == "shuffled"  # a mean over several paths
        points, number = (POINTS, None if few else 0) if several else (ROUGH_STEPS, None)
        yield "baseline", name, rough(options.changed(baseline=(name,)), points), number
    yield "strands", "", rough(options), None
    for stage in ("all",) if longest > LONG_TOKENS else ("head", "upper half", "all"):
        yield "weights mixed up", stage, rough(options), None


def passes_of_tests(explainer: Explainer, others: int, number: int, num_bases: int, num_tokens: int) -> float:
    """Count the passes that `examine` makes for sequences of one size; see `cost.passes_of`."""
    total = number * (others * explainer.passes(num_bases, num_tokens) + len(SHARES) * (2 + NUM_RANDOM))
    for _, _, options, few in comparisons(explainer.options, explainer.baselines, has_mask=True, longest=num_tokens):
        total += explainer.passes(num_bases, num_tokens, options) * (number if few is None else min(few, number))
    return total


def rough(options: AttributeOptions, points: int = ROUGH_STEPS) -> AttributeOptions:
    """Give options for a map that is only compared by ranks, which need no exact sum."""
    if options.method != "ig":
        return options
    points = min(points, options.steps)
    return options.changed(steps=points, most_steps=points)


def _check(title: str, values: Sequence[float], kind: str, passed: bool | None) -> Check:
    expected, meaning, judge = MEANINGS[kind]
    known = [value for value in values if value == value]
    if not known:
        return Check(title, None, None, None, expected, None, "could not be computed")
    low, middle, high = np.percentile(known, (25, 50, 75)).tolist()
    if kind == "weights mixed up" and title != "weights mixed up: all":
        return Check(title, middle, low, high, "", None)
    passed = passed if judge is None else judge(middle)
    return Check(title, middle, low, high, expected, None if passed is None else bool(passed), meaning)


def _agree(own: Sequence[FloatArray], others: object) -> list[float]:
    return [spearman(values, other.values) for values, other in zip(own, others)]  # type: ignore[call-overload, attr-defined]


def _strands(
    explainer: Explainer, options: AttributeOptions, maps: Sequence[Attribution], rows: Sequence[Record]
) -> list[float]:
    if len(explainer.strands) == 2:
        return [spearman(*one.strands.values()) for one in maps]
    reading = explainer.target.model.reading
    if (reading is not None and reading.directed) or explainer.target.token is not None:
        return []
    other = {"+": "-", "-": "+"}[explainer.strands[0]]
    turned = Explainer(explainer.target.model, options.changed(strand=other), explainer.target.tick)
    return _agree([one.values for one in maps], turned.explain(rows))


def deletion(explainer: Explainer, maps: Sequence[Attribution]) -> tuple[dict[str, list[float]], list[float]]:
    """Mask tokens in the order of their importance and see how the output falls.

    Returns:
        The mean output by share of masked tokens, for the most supporting tokens first, the least supporting ones first
        and a random order (mean of some); and for each sequence the area between random and most supporting.
    """
    target, name, seed = explainer.target.on(explainer.strands[0]), _mask_name(explainer), explainer.options.seed
    orders = ["most important first", *["random"] * NUM_RANDOM, "least important first"]
    asked: list[Encoding] = []
    plain: list[Encoding] = []
    for one in maps:
        values = next(iter(one.strands.values()))
        encoding = target.read(read_on(target.strand, one.sequence))
        along = flip_back(target.strand, values)
        rows = np.setdiff1d(encoding.content_rows, target.masked_rows(encoding))
        known = np.nan_to_num(along)
        sums = np.array([known[start:end].sum() for start, end in encoding.offsets[rows]])
        random, ids = generator(seed, one.record.index, "explain deletion"), baseline_ids(name, target, encoding)
        best = rows[np.argsort(-sums, kind="stable")]
        for order in orders:
            chosen = random.permutation(rows) if order == "random" else best if order.startswith("most") else best[::-1]
            for share in SHARES:
                asked.append(with_ids(encoding, ids, chosen[: round(share * len(rows))]))
                plain.append(encoding)
    outputs = np.array(target.measure(asked, plain)).reshape(len(maps), len(orders), len(SHARES))
    random_mean = outputs[:, 1:-1].mean(1)
    areas = np.trapezoid(random_mean - outputs[:, 0], SHARES, axis=1)
    curves = {"most important first": outputs[:, 0], "random": random_mean, "least important first": outputs[:, -1]}
    return {key: value.mean(0).tolist() for key, value in curves.items()}, areas.tolist()


def _mask_name(explainer: Explainer) -> str:
    return "mask" if explainer.target.model.require_tokenizer().mask_token_id is not None else "n"


def located(maps: Sequence[Attribution], inside: Sequence[npt.NDArray[np.bool_]]) -> dict[str, list[float]]:
    """Measure how well the maps find known places, beside what needs no model.

    Args:
        maps: of sequences.
        inside: bool ``(num_bases,)`` of each, True where a known site lies.

    Returns:
        For the map, the distance from the centre and GC the AUROC of the bases of each sequence; NaN without a site.
    """
    rows: dict[str, list[Any]] = {
        "the map": [one.values for one in maps],
        "distance from the centre": [centre_distance(len(one.values)) for one in maps],
        f"GC in {GC_WINDOW} bases": [gc_around(one.sequence) for one in maps],
    }
    return {name: [auroc(values, hits) for values, hits in zip(each, inside)] for name, each in rows.items()}
