import pickle

import numpy as np
import pytest

from longstrand.data.genomes import GenomeSource
from longstrand.data.regions import HoldOut
from longstrand.data.windows import EvaluationWindows, TrainingWindows, Window
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from tests.data.window_toys import random_dna, write_fasta

CONTIGS = {
    "a": random_dna(500, seed=1),
    "b": random_dna(230, seed=2) + "N" * 120 + random_dna(150, seed=3),
    "c": random_dna(40, seed=4).lower(),
}
KNOWN = {"a": [(0, 500)], "b": [(0, 230), (350, 500)], "c": [(0, 40)]}


@pytest.fixture
def path(tmp_path):
    return write_fasta(tmp_path / "toy.fa", CONTIGS)


def coverage(windows, *, count=None):
    covered = {name: np.zeros(len(sequence), dtype=int) for name, sequence in CONTIGS.items()}
    for index in range(len(windows) if count is None else count):
        place = windows[index].interval
        covered[place.chrom][place.start : place.end] += 1
    return covered


def known_mask():
    mask = {name: np.zeros(len(sequence), dtype=bool) for name, sequence in CONTIGS.items()}
    for name, runs in KNOWN.items():
        for start, end in runs:
            mask[name][start:end] = True
    return mask


def test_window_by_hand():
    window = Window(Interval("x", 10, 15, "-"), "ACGTT", "toy", breaks=(2, 5))
    assert window.strand == "-"
    assert window.pieces == ["AC", "GTT"]
    assert window.reference_positions.tolist() == [14, 13, 12, 11, 10]
    plain = Window(Interval("x", 3, 6), "ACG")
    assert plain.pieces == ["ACG"]
    assert plain.reference_positions.tolist() == [3, 4, 5]


@pytest.mark.parametrize("order", ["random", "epoch"])
def test_windows_are_what_the_genome_says(path, order):
    windows = TrainingWindows([path], num_bases=64, num_samples=300, seed=5, order=order, stride=50)
    strands = set()
    for window in windows:
        place = window.interval
        text = CONTIGS[place.chrom][place.start : place.end].upper()
        assert window.sequence == (text if window.strand == "+" else reverse_complement(text))
        assert any(start <= place.start and place.end <= end for start, end in KNOWN[place.chrom])
        complement = {"A": "T", "C": "G", "G": "C", "T": "A"}
        for letter, position in zip(window.sequence, window.reference_positions):
            found = CONTIGS[place.chrom][position].upper()
            assert letter == (found if window.strand == "+" else complement[found])
        strands.add(window.strand)
    assert strands == {"+", "-"}


@pytest.mark.parametrize("order", ["random", "epoch"])
def test_samples_depend_on_seed_and_index_only(path, order):
    settings = {"num_bases": 64, "order": order, "sentences": (10, 20)}
    windows = TrainingWindows([path], num_samples=200, seed=5, **settings)
    longer = TrainingWindows([path], num_samples=900, seed=5, **settings)
    forward = [windows[index] for index in range(200)]
    assert [longer[index] for index in reversed(range(200))][::-1] == forward
    assert [pickle.loads(pickle.dumps(windows))[index] for index in (0, 77, 199)] == [forward[i] for i in (0, 77, 199)]
    assert windows[-1] == forward[199] and len(windows) == 200
    other = TrainingWindows([path], num_samples=200, seed=6, **settings)
    assert sum(first == second for first, second in zip(forward, other)) < 20


def test_an_augmentation_does_not_reshuffle_the_others(path):
    plain = TrainingWindows([path], num_bases=64, num_samples=100, seed=5, strand="+")
    both = TrainingWindows([path], num_bases=64, num_samples=100, seed=5, sentences=(10, 20))
    assert [window.interval.start for window in plain] == [window.interval.start for window in both]
    minus = TrainingWindows([path], num_bases=64, num_samples=100, seed=5, strand="-")
    assert all(second.sequence == reverse_complement(first.sequence) for first, second in zip(plain, minus))


def test_random_windows_cover_bases_evenly_and_are_full(path):
    windows = TrainingWindows([path], num_bases=60, num_samples=20_000, seed=1)
    covered, mask = coverage(windows), known_mask()
    counts = np.concatenate([covered[name][mask[name]] for name in CONTIGS])
    assert all(covered[name][~mask[name]].sum() == 0 for name in CONTIGS)
    inner = np.concatenate([covered["a"][60:440], covered["b"][60:170], covered["b"][410:440]])
    expected = 20_000 * 60 / 920
    assert abs(inner.mean() / expected - 1) < 0.02
    assert inner.min() > 0.85 * expected and inner.max() < 1.15 * expected
    assert counts.min() > 0.45 * expected  # the outermost base has half the chance of others, never none
    assert abs(covered["a"][:60].mean() / expected - 1) < 0.05  # and the ends as a whole their full share
    lengths = np.array([window.interval.length for window in windows])
    assert set(lengths) == {40, 60}
    assert abs((lengths == 40).mean() - 40 / 920) < 0.005
    assert windows.short_share == pytest.approx(40 / 920 * (1 - 40 / 60))


def test_genome_weights(path, tmp_path):
    other = write_fasta(tmp_path / "other.fa", {"a": random_dna(460, seed=9)})
    sources = [GenomeSource(path), GenomeSource(other, weight=4.0, name="second")]
    windows = TrainingWindows(sources, num_bases=50, num_samples=6000, seed=1)
    share = np.mean([window.genome == "second" for window in windows])
    assert abs(share - 4 * 460 / (4 * 460 + 920)) < 0.02
    assert windows.genomes.names == ["toy", "second"]


@pytest.mark.parametrize("stride", [16, 33, 50, 64, 230, 1000])
def test_each_epoch_covers_every_base_once(path, stride):
    windows = TrainingWindows([path], num_bases=stride, num_samples=10_000, seed=2, order="epoch")
    length = windows.epoch_length
    borders = []
    for epoch in range(3):
        covered = {name: np.zeros(len(sequence), dtype=int) for name, sequence in CONTIGS.items()}
        starts = []
        for index in range(epoch * length, (epoch + 1) * length):
            place = windows[index].interval
            assert 0 < place.length <= stride
            covered[place.chrom][place.start : place.end] += 1
            starts.append((place.chrom, place.start))
        for name, mask in known_mask().items():
            assert np.array_equal(covered[name], mask.astype(int))
        borders.append(starts)
    if stride < 230:
        assert set(borders[0]) != set(borders[1]) != set(borders[2])
        assert sorted(borders[0]) != borders[0]


def test_epoch_windows_read_on_in_the_direction_of_reading(path):
    exact = TrainingWindows([path], num_bases=50, num_samples=60, seed=2, order="epoch")
    longer = TrainingWindows([path], num_bases=65, stride=50, num_samples=60, seed=2, order="epoch")
    for first, second in zip(exact, longer):
        a, b = first.interval, second.interval
        run = next(run for run in KNOWN[a.chrom] if run[0] <= a.start and a.end <= run[1])
        if a.strand == "+":
            assert (b.start, b.end) == (a.start, min(run[1], a.end + 15))
        else:
            assert (b.start, b.end) == (max(run[0], a.start - 15), a.end)
        assert second.sequence.startswith(first.sequence)


def test_chunks_overlap_and_windows_start_anywhere_in_their_beginning(path):
    """As of Nucleotide Transformer, ten times smaller: chunks of 61 share 5 bases, windows of 51 start at 0 to 10."""
    chunks = TrainingWindows([path], num_bases=61, stride=56, num_samples=400, seed=5, order="epoch")
    windows = TrainingWindows([path], num_bases=51, start=10, stride=56, num_samples=400, seed=5, order="epoch")
    left_out = set()
    for chunk, window in zip(chunks, windows):
        outer, inner = chunk.interval, window.interval
        assert (inner.chrom, inner.strand) == (outer.chrom, outer.strand)
        assert inner.length == min(51, outer.length) and outer.start <= inner.start and inner.end <= outer.end
        if outer.length == 61:
            left_out.add(inner.start - outer.start if inner.strand == "+" else outer.end - inner.end)
    assert left_out == set(range(11))


@pytest.mark.parametrize("order", ["random", "epoch"])
def test_training_never_reaches_the_holdout_or_its_margin(path, order):
    holdout = HoldOut(contigs=("c",), intervals=(Interval("a", 200, 250),))
    settings = {"num_bases": 40, "stride": 30, "num_samples": 3000, "seed": 4, "order": order}
    settings["start"] = 20 if order == "epoch" else 0
    windows = TrainingWindows([path], holdout=holdout, **settings)
    covered = coverage(windows)
    assert covered["c"].sum() == 0
    assert np.flatnonzero(covered["a"] == 0).tolist() == list(range(160, 290))
    evaluation = EvaluationWindows([path], num_bases=40, holdout=holdout)
    assert [str(window.interval) for window in evaluation] == ["a:201-225", "a:226-250", "c:1-40"]


def test_sentences_tile_the_window(path):
    windows = TrainingWindows([path], num_bases=200, num_samples=200, seed=4, sentences=(30, 60))
    lengths = []
    for window in windows:
        assert "".join(window.pieces) == window.sequence
        sizes = [len(piece) for piece in window.pieces]
        assert all(30 <= size <= 60 for size in sizes[:-1]) and 1 <= sizes[-1] <= 60
        lengths += sizes[:-1]
    assert set(lengths) == set(range(30, 61))


def test_evaluation_tiles_everything_in_order(path):
    windows = EvaluationWindows([path], num_bases=64)
    covered, mask = coverage(windows), known_mask()
    assert all(np.array_equal(covered[name], mask[name].astype(int)) for name in CONTIGS)
    assert [window.interval for window in windows] == sorted(window.interval for window in windows)
    assert list(windows) == [pickle.loads(pickle.dumps(windows))[i] for i in range(len(windows))]
    reserve = EvaluationWindows([path], num_bases=80, stride=64)
    assert len(reserve) == len(windows)
    for first, second in zip(windows, reserve):
        run = next(run for run in KNOWN[first.interval.chrom] if run[0] <= first.interval.start < run[1])
        assert second.interval.start == first.interval.start
        assert second.interval.end == min(first.interval.end + 16, run[1])
    few = EvaluationWindows([path], num_bases=64, max_windows=5)
    assert [few[index] for index in range(5)] == [windows[index * len(windows) // 5] for index in range(5)]
    assert {window.strand for window in EvaluationWindows([path], num_bases=64, strand="both")} == {"+", "-"}


def test_letters_outside_the_alphabet(tmp_path):
    path = write_fasta(tmp_path / "codes.fa", {"x": "ACGTRYacnngt" * 5})
    plain = EvaluationWindows([path], num_bases=64)[0]
    assert plain.sequence == "ACGTNNACNNGT" * 5
    assert EvaluationWindows([path], num_bases=64, alphabet="ACGTNRY")[0].sequence == "ACGTRYACNNGT" * 5


@pytest.mark.slow
@pytest.mark.parametrize("num_workers, context", [(1, "fork"), (2, "fork")])
def test_workers_give_the_same_samples(path, num_workers, context):
    import torch

    windows = TrainingWindows([path], num_bases=64, num_samples=24, seed=5, order="epoch", sentences=(20, 30))
    loader = torch.utils.data.DataLoader(
        windows, batch_size=5, num_workers=num_workers, multiprocessing_context=context, collate_fn=list
    )
    assert [window for batch in loader for window in batch] == [windows[index] for index in range(24)]


def test_windows_need_no_torch(path):
    import subprocess
    import sys

    code = (
        "import sys; from longstrand.data.windows import TrainingWindows; import longstrand.data.examples;"
        f"TrainingWindows([{str(path)!r}], num_bases=64, num_samples=2, seed=1)[1]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors(path):
    good = {"num_bases": 64, "num_samples": 3, "seed": 1}
    for change, message in [
        ({"num_bases": 15}, "at least 16 bases, got 15"),
        ({"start": 9}, "the random order has none"),
        ({"sentences": (9, 5)}, r"shortest <= longest, got \(9, 5\)"),
        ({"stride": 65}, "stride must be 16 to 64 bases, got 65"),
    ]:
        with pytest.raises(ValueError, match=message):
            TrainingWindows([path], **(good | change))
    with pytest.raises(ValueError, match="all genomes need the same weight"):
        TrainingWindows([GenomeSource(path), GenomeSource(path, weight=2.0)], **good, order="epoch")
    windows = TrainingWindows([path], **good)
    with pytest.raises(IndexError, match="window 3 is outside the 3 windows"):
        windows[3]
    with pytest.raises(IndexError, match="window -4 is outside the 3 windows"):
        windows[-4]
