from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longstrand.errors import InputError
from longstrand.genome.intervals import (
    Interval,
    IntervalTable,
    merge_intervals,
    parse_region,
    parse_regions,
    subtract_intervals,
)

spans = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 40), st.integers(0, 9)).map(
        lambda x: Interval(x[0], x[1], x[1] + x[2])
    ),
    max_size=12,
)


def bases(intervals: list[Interval]) -> set[tuple[str, int]]:
    return {(x.chrom, place) for x in intervals for place in range(x.start, x.end)}


def test_an_interval_knows_its_measures() -> None:
    item = Interval("chr1", 10, 14, "-")
    assert item.length == 4
    assert str(item) == "chr1:11-14(-)"
    assert item.expand(12) == Interval("chr1", 0, 26, "-")
    assert Interval("chr1", 10, 14).centre == 12
    assert item.centre == 11
    assert Interval("chr1", 5, 6).centre == Interval("chr1", 5, 6, "-").centre == 5


def test_overlap_is_half_open() -> None:
    item = Interval("chr1", 10, 14)
    assert item.overlaps(Interval("chr1", 13, 20, "-"))
    assert not item.overlaps(Interval("chr1", 14, 20))
    assert not item.overlaps(Interval("chr2", 10, 14))
    assert not item.overlaps(Interval("chr1", 12, 12))


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (4, 3)])
def test_bounds_are_checked(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"an interval needs 0 <= start <= end, got c:{start}-{end}"):
        Interval("c", start, end)


def test_strand_is_checked() -> None:
    with pytest.raises(ValueError, match=r"strand is '\+' or '-', got '\*' at c:1-2"):
        Interval("c", 1, 2, "*")


def test_merge_by_hand() -> None:
    items = [Interval("b", 5, 9), Interval("a", 0, 3, "-"), Interval("a", 3, 4), Interval("a", 6, 8)]
    assert merge_intervals(items) == [Interval("a", 0, 4), Interval("a", 6, 8), Interval("b", 5, 9)]
    assert merge_intervals(items, gap=2)[0] == Interval("a", 0, 8)


@given(spans, spans)
def test_merge_and_subtract_agree_with_sets_of_bases(items: list[Interval], holes: list[Interval]) -> None:
    merged = merge_intervals(items)
    left = subtract_intervals(items, holes)
    assert bases(merged) == bases(items)
    assert bases(left) == bases(items) - bases(holes)
    for result in (merged, left):
        assert sum(x.length for x in result) == len(bases(result))
        assert result == sorted(result)
        assert all(x.length for x in result)


def table() -> IntervalTable:
    chroms = ["chr1", "chr2", "chr1", "chr3", "chr2"]
    return IntervalTable(
        [Interval(chrom, place, place + 3) for place, chrom in enumerate(chroms)], {"label": list("abcde")}
    )


def test_take_and_where() -> None:
    part = table().take([4, 0])
    assert part.labels == {"label": ["e", "a"]}
    assert part.where(1) == "row 2"


def test_a_region_is_written_with_positions_from_one() -> None:
    assert parse_region("chr1:1,001-2,000") == Interval("chr1", 1000, 2000)
    assert parse_region("HLA:a:1-1(-)") == Interval("HLA:a", 0, 1, "-")
    for wrong in ("chr1", "chr1:0-5", "chr1:9-5", "chr1:,-5"):
        with pytest.raises(InputError, match="is no region"):
            parse_region(wrong)


def test_several_regions_have_commas_between_them() -> None:
    """Also beside commas of thousands, and contigs whose names are numbers."""
    assert parse_regions("chr1:1-5") == [Interval("chr1", 0, 5)]
    assert parse_regions("2:1,001-2,000, 3:5-10(-),HLA:a:7-7") == [
        Interval("2", 1000, 2000), Interval("3", 4, 10, "-"), Interval("HLA:a", 6, 7),
    ]  # fmt: skip
    with pytest.raises(InputError, match="'chr2:9' is no region"):
        parse_regions("chr1:1-5,chr2:9")
