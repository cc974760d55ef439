"""Pictures of a region: positions, heights and rows of what is drawn, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import PatchCollection, PathCollection

from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval
from longstrand.report.locus import MAX_BINS, Arcs, Genes, Logo, Marks, Ruler, Tokens, Track, pack_rows, plot

REGION = Interval("chr1", 100, 110)


def boxes(collection: PatchCollection | PathCollection) -> list[tuple[float, float, float, float]]:
    """List left, bottom, right, top of every path, rounded to 3 places."""
    found = [path.get_extents() for path in collection.get_paths()]
    return [tuple(round(float(end), 3) for end in (box.x0, box.y0, box.x1, box.y1)) for box in found]


def letters(axes) -> dict[str, list[tuple[float, float, float, float]]]:
    return {item.get_label(): boxes(item) for item in axes.collections if isinstance(item, PathCollection)}


def test_the_ruler_prints_positions_from_one() -> None:
    (axes,) = plot([Ruler("ACGTACGTNA")], REGION).axes
    shown = {label.get_text(): tick for tick, label in zip(axes.get_xticks(), axes.get_xticklabels())}
    assert shown["102"] == 101.5  # base 101 counted from 0 covers 101 to 102; its middle is 101.5
    assert axes.get_xlim() == (100, 110)
    assert letters(axes)["C"] == [(101.03, 0.0, 101.97, 0.8), (105.03, 0.0, 105.97, 0.8)]
    assert sum(map(len, letters(axes).values())) == 9  # no letter for N
    with pytest.raises(ValueError, match="3 letters, the region 10 bases"):
        plot([Ruler("ACG")], REGION)


def test_a_ruler_is_added() -> None:
    assert len(plot([Track(np.zeros(10))], REGION).axes) == 2


def test_information_of_a_logo_by_hand() -> None:
    rows = [[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]
    assert Logo(rows).heights().tolist() == [[2, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]]  # 2, 1 and 0 bits
    axes = plot([Logo(rows, start=102)], REGION).axes[1]
    assert letters(axes)["A"] == [(102.03, 0.0, 102.97, 2.0), (103.03, 0.0, 103.97, 0.5)]
    assert letters(axes)["C"] == [(103.03, 0.5, 103.97, 1.0)]
    with pytest.raises(ValueError, match="are probabilities"):
        Logo([[0.5, 0.5, 0.5, 0.5]]).heights()


def test_negative_letters_hang_below_zero() -> None:
    heights = [[1.0, 2.0, -0.5, -3.0]]
    axes = plot([Logo(heights, kind="height")], Interval("s", 0, 1)).axes[1]
    assert {base: (box[0][1], box[0][3]) for base, box in letters(axes).items()} == {
        "A": (0.0, 1.0), "C": (1.0, 3.0), "G": (-0.5, 0.0), "T": (-3.5, -0.5),
    }  # fmt: skip


def test_a_logo_of_scores_and_letters() -> None:
    logo = Logo([1.0, -2.0, 3.0], sequence="AtN", kind="height")
    assert logo.heights().tolist() == [[1, 0, 0, 0], [0, 0, 0, -2], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        Logo([1.0, 2.0, 3.0], sequence="AC").heights()


def test_a_logo_is_cut_to_the_region() -> None:
    axes = plot([Logo(np.eye(4), start=98)], REGION).axes[1]
    assert letters(axes) == {"G": [(100.03, 0.0, 100.97, 2.0)], "T": [(101.03, 0.0, 101.97, 2.0)]}


def test_a_line_stands_at_the_middle_of_its_bins() -> None:
    axes = plot([Track([[1.0, 5.0], [2.0, np.nan], [3.0, 7.0]], bin_size=4, labels=("a", "b"))], REGION).axes[1]
    first, second = axes.lines
    assert first.get_xdata().tolist() == [102, 106, 110]  # the last bin reaches past the region and is clipped
    assert first.get_ydata().tolist() == [1, 2, 3]
    assert np.isnan(second.get_ydata()[1])
    assert axes.get_xlim() == (100, 110)
    with pytest.raises(ValueError, match="1 signals but 2 labels"):
        plot([Track([1.0], labels=("a", "b"))], REGION)


def test_long_values_are_drawn_by_bins() -> None:
    values = np.arange(3 * MAX_BINS - 1, dtype=float)
    values[0] = np.nan
    axes = plot([Track(values)], Interval("c", 0, len(values))).axes[1]
    (line,) = axes.lines
    assert line.get_ydata()[:2].tolist() == [1.5, 4.0]  # mean of (gap, 1, 2) and of (3, 4, 5)
    assert line.get_ydata()[-1] == len(values) - 1.5  # the last bin has two values
    (band,) = axes.patches
    assert (band.get_data().values[1], band.get_data().baseline[1]) == (5.0, 3.0)


def test_a_long_logo_has_no_letters() -> None:
    rows = np.tile([0.0, 1.0, 0.0, 0.0], (3000, 1))
    axes = plot([Logo(rows)], Interval("c", 0, 3000)).axes[1]
    assert letters(axes) == {}
    assert set(axes.patches[0].get_data().values) == {2.0}


def test_heat_has_a_row_a_signal() -> None:
    axes = plot([Track(np.ones((10, 3)), kind="heat", labels=list("xyz"))], REGION).axes[1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y", "z"]
    assert axes.collections[0].get_array().shape == (3, 10)


def test_tokens_stand_at_their_borders() -> None:
    axes = plot([Tokens([(0, 0), (0, 6), (6, 10), (10, 12)])], REGION).axes[1]
    spans = [(left, right) for left, _, right, _ in boxes(axes.collections[0])]
    assert spans == [(100, 106), (106, 110)]  # no box for [CLS], none past the region
    overlapping = plot([Tokens([(i, i + 3) for i in range(5)])], REGION).axes[1]
    assert len({top for _, _, _, top in boxes(overlapping.collections[0])}) == 3


def test_many_tokens_are_drawn_as_their_length() -> None:
    axes = plot([Tokens([(i, i + 6) for i in range(0, 6000, 6)])], Interval("c", 0, 6000)).axes[1]
    assert set(np.round(axes.patches[0].get_data().values, 6)) == {6.0}


def genes() -> list[Feature]:
    return [
        Feature("chr1", 101, 109, "+", "gene", "G"),
        Feature("chr1", 101, 109, "+", "mRNA", "t", "G"),
        Feature("chr1", 101, 104, "+", "exon", "", "t"),
        Feature("chr1", 107, 109, "+", "exon", "", "t"),
        Feature("chr1", 102, 104, "+", "CDS", "", "t"),
        Feature("chr1", 103, 108, "-", "gene", "other"),
        Feature("chr1", 500, 600, "-", "gene", "far"),
        Feature("chr2", 101, 109, "-", "gene", "elsewhere"),
    ]


def test_genes_by_hand() -> None:
    axes = plot([Genes(genes())], REGION).axes[1]
    first, second = axes.collections
    assert [(left, right) for left, _, right, _ in boxes(first)] == [(101, 104), (107, 109), (102, 104)]
    thick = [round(top - bottom, 3) for _, bottom, _, top in boxes(first)]
    assert thick == [0.2, 0.2, 0.4]
    assert [(left, right) for left, _, right, _ in boxes(second)] == [(103, 108)]
    assert boxes(second)[0][3] < boxes(first)[0][1]  # it overlaps the first: one row below
    assert [text.get_text() for text in axes.texts] == ["G", "other"]
    assert {line.get_marker() for line in axes.lines} == {"None", ">", "<"}


def test_too_many_rows_become_one_a_strand() -> None:
    many = [Feature("chr1", 100, 110, "+-"[i % 2], "gene", f"g{i}") for i in range(20)]
    assert {(item.strand, row) for item, row, _ in Genes(many).layout(REGION)} == {("+", 0), ("-", 1)}
    axes = plot([Genes([])], REGION).axes[1]
    assert axes.texts[0].get_text() == "no gene here"


def test_rows_are_packed_from_the_top() -> None:
    assert pack_rows([(0, 5), (3, 8), (5, 9), (6, 7)]) == [0, 1, 0, 2]


def test_marks_shade_every_other_row() -> None:
    marks = Marks([Interval("chr1", 104, 108), Interval("chr1", 300, 310)], ["site", "far"])
    ruler, track, own = plot([Track(np.zeros(10)), marks], REGION).axes
    for axes in (ruler, track):
        (shade,) = axes.patches
        assert (shade.get_x(), shade.get_width()) == (104, 4)
    assert [text.get_text() for text in own.texts] == ["site"]
    with pytest.raises(ValueError, match="1 marks have 2 labels"):
        plot([Marks([REGION], ["a", "b"])], REGION)


def test_arcs_join_places_inside_the_region() -> None:
    pairs, weights = np.array([[101.0, 107.0], [109.0, 108.0], [104.0, 130.0]]), np.array([0.5, 1.0, 9.0])
    _, own = plot([Arcs(pairs, weights, "attention")], REGION).axes
    assert [(arc.center[0], arc.width, arc.get_alpha()) for arc in own.patches] == [(104, 6, 0.5), (108.5, 1, 1.0)]
    assert plot([Arcs(np.empty((0, 2)), np.empty(0))], REGION).axes[1].patches[:] == []


def test_an_empty_region_is_refused() -> None:
    with pytest.raises(ValueError, match="has no base"):
        plot([], Interval("c", 5, 5))


def test_notebooks_show_the_figure() -> None:
    assert plot([], REGION)._repr_png_().startswith(b"\x89PNG")
