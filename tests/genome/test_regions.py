from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from longstrand.data.rows import read_intervals
from longstrand.errors import InputError
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval, IntervalTable
from longstrand.genome.regions import matched_negatives, on_genome, window_around, windows_around
from longstrand.genome.sequence import gc_fraction


@pytest.fixture
def genome(tmp_path: Path, cache: Path) -> Genome:
    letters = random.Random(4)
    rich = "".join(letters.choices("ACGT", weights=[1, 3, 3, 1], k=3000))
    poor = "".join(letters.choices("ACGT", weights=[3, 1, 1, 3], k=4000))
    path = tmp_path / "g.fa"
    path.write_text(f">chr1\n{rich}{'N' * 500}{poor}\n>chr2\n{poor[:1500]}\n>chr3\nACGTACGT\n")
    return Genome(path)


@pytest.mark.parametrize(
    ("interval", "num_bases", "window"),
    [
        (Interval("c", 100, 101), 7, (97, 104)),
        (Interval("c", 100, 101, "-"), 7, (97, 104)),
        (Interval("c", 100, 101), 6, (97, 103)),
        (Interval("c", 100, 101, "-"), 6, (98, 104)),
        (Interval("c", 100, 104), 4, (100, 104)),
        (Interval("c", 100, 104, "-"), 4, (100, 104)),
        (Interval("c", 100, 103), 3, (100, 103)),
        (Interval("c", 1, 2), 6, (-2, 4)),
    ],
)
def test_where_a_window_lies(interval: Interval, num_bases: int, window: tuple[int, int]) -> None:
    assert window_around(interval, num_bases) == window


@pytest.mark.parametrize("num_bases", [1, 2, 9, 10])
def test_the_centre_has_one_place_on_both_strands(genome: Genome, num_bases: int) -> None:
    for strand in "+-":
        site = Interval("chr1", 700, 701, strand)
        ((window,), _) = windows_around(IntervalTable([site]), genome, num_bases)
        assert window.length == num_bases
        assert genome.fetch_interval(window)[num_bases // 2] == genome.fetch_interval(site)


def test_windows_past_the_end_are_dropped_and_reported(genome: Genome, caplog: pytest.LogCaptureFixture) -> None:
    table = IntervalTable([Interval("chr3", 0, 8), Interval("chr2", 5, 6), Interval("chr2", 50, 51, "-")])
    with caplog.at_level(logging.WARNING):
        windows, kept = windows_around(table, genome, 20)
    assert kept.intervals == table.intervals[2:]
    assert windows == [Interval("chr2", 41, 61, "-")]
    assert "2 of 3 rows dropped, their window of 20 bases leaves the chromosome" in caplog.text


def test_misuse_of_windows(genome: Genome) -> None:
    table = IntervalTable([Interval("chr2", 5, 6)])
    with pytest.raises(ValueError, match="a window has at least one base, got 0"):
        windows_around(table, genome, 0)
    with pytest.raises(InputError, match="table: no window of 1600 bases fits on its chromosome"):
        windows_around(table, genome, 1600)


def test_intervals_off_the_genome(tmp_path: Path, genome: Genome) -> None:
    path = tmp_path / "peaks.bed"
    path.write_text("chr2\t0\t5\nchr2\t1490\t1501\n")
    with pytest.raises(InputError, match=r"peaks\.bed:2: chr2:1491-1501 is out of range, chr2 has 1500 bases in g\.fa"):
        on_genome(read_intervals(path), genome)
    path.write_text("chr2\t0\t5\n1\t1\t2\n")  # two ways of naming in one file
    with pytest.raises(InputError, match=r"peaks\.bed:2: no record '1' in g\.fa, which calls it 'chr1'"):
        windows_around(read_intervals(path), genome, 4)


def test_intervals_get_the_names_of_the_genome(
    tmp_path: Path, genome: Genome, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "peaks.bed"
    path.write_text("1\t1\t2\tx\t0\t+\n2\t0\t5\tx\t0\t-\n")
    for _ in range(2):
        table = on_genome(read_intervals(path), genome)
    assert table.intervals == [Interval("chr1", 1, 2), Interval("chr2", 0, 5, "-")]
    assert [record.message for record in caplog.records] == [
        f"{path}: contigs are called otherwise in the genome ('1' is 'chr1'); 2 contigs were matched."
    ]
    path.write_text("1\t1\t2\n7\t0\t5\n")
    with pytest.raises(InputError, match=r"peaks\.bed:2: no record '7' in g\.fa; its records are chr1, chr2"):
        on_genome(read_intervals(path), genome)
    path.write_text("1\t1\t2\nChr1\t0\t5\n")
    with pytest.raises(InputError, match=r"contigs '1' and 'Chr1' would both be 'chr1' of the genome; rename one"):
        on_genome(read_intervals(path), genome)


def positives() -> list[Interval]:
    return [
        Interval("chr1", 100, 180, "-"),
        Interval("chr1", 4000, 4050),
        Interval("chr2", 10, 90),
        Interval("chr1", 900, 930),
    ]


def test_negatives_match_and_avoid(genome: Genome) -> None:
    exclude = [Interval("chr1", 200, 1200)]
    found = matched_negatives(positives(), genome, ratio=3, seed=7, exclude=exclude, gc_tolerance=0.12)
    assert len(found) == 12
    for number, item in enumerate(found):
        positive = positives()[number // 3]
        assert (item.chrom, item.length, item.strand) == (positive.chrom, positive.length, positive.strand)
        sequence = genome.fetch(item.chrom, item.start, item.end)
        assert "N" not in sequence
        assert abs(gc_fraction(sequence) - gc_fraction(genome.fetch(item.chrom, positive.start, positive.end))) <= 0.12
        assert not any(item.overlaps(other) for other in [*positives(), *exclude, *found[:number]])


def test_negatives_are_seeded(genome: Genome) -> None:
    first = matched_negatives(positives(), genome, seed=7)
    assert first == matched_negatives(positives(), genome, seed=7)
    assert first != matched_negatives(positives(), genome, seed=8)


def test_every_possible_place_is_drawn_alike(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_text(">a\nACGTANACGNACTTTT\n")
    small = Genome(path)
    places = {
        matched_negatives([Interval("a", 14, 16)], small, seed=seed, gc_tolerance=1.0)[0].start for seed in range(200)
    }
    assert places == {0, 1, 2, 3, 6, 7, 10, 11, 12}


def test_distant_negatives_are_reported(genome: Genome, caplog: pytest.LogCaptureFixture) -> None:
    poorest = Interval("chr2", 0, 8)
    with caplog.at_level(logging.WARNING):
        matched_negatives([poorest], genome, gc_tolerance=-1.0)
    assert "1 of 1 negatives differ by more than -1 in GC" in caplog.text


def test_no_room_for_negatives(genome: Genome, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"g\.fa: no free place of 8 bases on chr3 for a negative to match chr3:1-8"):
        matched_negatives([Interval("chr3", 0, 8)], genome)
    with caplog.at_level(logging.WARNING):
        found = matched_negatives([Interval("chr3", 0, 8), Interval("chr2", 0, 8)], genome, skip=True)
    assert [item.chrom for item in found] == ["chr2"] and "1 negatives were left out" in caplog.text
    with pytest.raises(ValueError, match="an empty interval has no matched negatives"):
        matched_negatives([Interval("chr3", 2, 2)], genome)
    with pytest.raises(InputError, match="no record 'chr9'"):
        matched_negatives([Interval("chr9", 0, 8)], genome)
