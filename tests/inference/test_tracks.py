"""Track files by hand: spans, bedGraph, BigWig, Zarr."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.errors import InputError, UsageError
from longstrand.inference.writers import Bins, TrackLayout, spans, track_ending, track_file

NAN = float("nan")
LAYOUT = TrackLayout({"c2": 17, "c10": 5}, 3, ("p",), {"reduce": "mean"})


def bins(contig: str, first: int, *values: float) -> Bins:
    return contig, first, np.array(values, dtype=np.float32)[:, None]


CHUNKS = [bins("c2", 0, 1, 1, NAN), bins("c2", 3, 0.5, 0.5), bins("c2", 5, 0.5), bins("c10", 0, 0.5, 2)]
SPANS = [("c2", 0, 6, 1.0), ("c2", 9, 17, 0.5), ("c10", 0, 3, 0.5), ("c10", 3, 5, 2.0)]


def test_spans_join_equal_neighbours_across_chunks_and_end_with_the_contig() -> None:
    assert list(spans(CHUNKS, LAYOUT)) == SPANS
    assert list(spans([bins("c2", 0, NAN, NAN)], LAYOUT)) == []


@pytest.mark.parametrize("ending", [".bedgraph", ".bedGraph.gz", ".bw", ".bigWig"])
def test_one_column_formats(ending: str, tmp_path: Path) -> None:
    target = tmp_path / f"x{ending}"
    track_file(target).write(iter(CHUNKS), LAYOUT, target)
    if "bed" in ending:
        text = gzip.decompress(target.read_bytes()).decode() if ending.endswith("gz") else target.read_text()
        assert text == "c2\t0\t6\t1\nc2\t9\t17\t0.5\nc10\t0\t3\t0.5\nc10\t3\t5\t2\n"
        return
    pybigtools = pytest.importorskip("pybigtools")
    read = pybigtools.open(str(target))
    assert dict(read.chroms()) == {"c2": 17, "c10": 5}
    assert [(name, *line) for name in ("c2", "c10") for line in read.records(name)] == SPANS
    with pytest.raises(InputError, match="a BigWig cannot be empty"):
        track_file(target).write([bins("c2", 0, NAN)], LAYOUT, target)


def broken() -> Iterator[Bins]:
    yield CHUNKS[0]
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("ending", [".bedgraph", ".bedgraph.gz", ".bw", ".zarr"])
@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (broken, "No space left"),
        (lambda: [CHUNKS[0], bins("c2", 3, 1, float("inf"))], "c2, base 13: the value is infinite"),
        (lambda: [CHUNKS[1], CHUNKS[0]], "c2: bins from 0 on are out of order"),
        (lambda: [bins("c10", 0, 1, 1, 1)], "c10: bins from 0 on are out of order or beyond the end"),
    ],
)
def test_a_failed_track_leaves_nothing_behind(ending: str, chunks: Any, message: str, tmp_path: Path) -> None:
    """The old file stays; a writer that swallows the error of what it reads (BigWig) says it all the same."""
    target = tmp_path / f"x{ending}"
    track_file(target).write(iter(CHUNKS), LAYOUT, target)
    before = sorted(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises((InputError, OSError), match=message):
        track_file(target).write(iter(chunks()), LAYOUT, target)
    assert sorted(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_bigwig_that_lost_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with one span less stands in for a writer that lost it."""
    pybigtools = pytest.importorskip("pybigtools")
    opened = pybigtools.open

    class Forgetful:
        def __init__(self, path: str) -> None:
            self.path = path

        def write(self, contigs: dict[str, int], lines: Any) -> None:
            opened(self.path, "w").write(contigs, iter(list(lines)[:-1]))

    monkeypatch.setattr(pybigtools, "open", lambda path, mode="r": Forgetful(path) if mode == "w" else opened(path))
    with pytest.raises(InputError, match="the BigWig that was written holds 17 bases of 19"):
        track_file(tmp_path / "x.bw").write(iter(CHUNKS), LAYOUT, tmp_path / "x.bw")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk", [8, 16, 1 << 20])
def test_zarr(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zarr

    monkeypatch.setattr("longstrand.inference.writers.CHUNK_BYTES", chunk)
    layout = TrackLayout({"a": 7, "b": 2}, 1, ("p", "q"), {"reduce": "sum"})
    values = np.arange(18, dtype=np.float32).reshape(9, 2)
    parts = [("a", 0, values[:3]), ("a", 3, values[3:4]), ("a", 4, values[4:7])]
    track_file(tmp_path / "x.zarr").write([*parts, ("b", 0, values[7:])], layout, tmp_path / "x.zarr")
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")
    np.testing.assert_array_equal(group["a"][:], values[:7])
    np.testing.assert_array_equal(group["b"][:], values[7:])
    assert group.attrs["columns"] == ["p", "q"] and group.attrs["bin_size"] == 1 and group.attrs["reduce"] == "sum"


def test_bins_may_be_left_out(tmp_path: Path) -> None:
    """Bins of regions alone, the bin at the end shorter; a BigWig names all contigs all the same."""
    pybigtools = pytest.importorskip("pybigtools")
    layout = TrackLayout({"c1": 7, "c2": 17, "c3": 9}, 3, ("p",), {})
    for ending in (".bw", ".bedgraph"):
        target = tmp_path / f"x{ending}"
        track_file(target).write([bins("c2", 1, 4), bins("c2", 5, 2)], layout, target)
    read = pybigtools.open(str(tmp_path / "x.bw"))
    assert dict(read.chroms()) == layout.contigs and list(read.records("c2")) == [(3, 6, 4.0), (15, 17, 2.0)]
    assert list(read.records("c3")) == [] and np.isnan(read.values("c1", 0, 7, fillna=None)).all()
    assert (tmp_path / "x.bedgraph").read_text() == "c2\t3\t6\t4\nc2\t15\t17\t2\n"


@pytest.mark.parametrize("number", [256, 257, 70_000])
def test_a_bigwig_names_any_number_of_contigs(number: int, tmp_path: Path) -> None:
    """One leaf, two leaves, and more than a node can count; also what comes in another order than by name."""
    pybigtools = pytest.importorskip("pybigtools")
    layout = TrackLayout({f"s{place}": 100 + place for place in range(number)}, 3, ("p",), {})
    used = ["s9", "s10", f"s{number - 1}"]
    track_file(tmp_path / "x.bw").write([bins(name, 1, len(name)) for name in used], layout, tmp_path / "x.bw")
    read = pybigtools.open(str(tmp_path / "x.bw"))
    assert dict(read.chroms()) == layout.contigs and list(read.records("s0")) == []
    assert [list(read.records(name)) for name in used] == [[(3, 6, float(len(name)))] for name in used]


def test_endings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert track_ending(Path("x.BW")) == ".bw" and track_ending(Path("x.csv")) is None
    with pytest.raises(UsageError, match=r"no track format; end the name with \.bedgraph"):
        track_file(Path("x.wig"))
    monkeypatch.setitem(__import__("sys").modules, "pybigtools", None)
    with pytest.raises(UsageError, match="BigWig needs the package pybigtools"):
        track_file(Path("x.bw"))
