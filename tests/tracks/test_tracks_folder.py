"""Folders of tracks: one pass for all outputs and strands, regions as the contig, blending by hand, other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import longstrand as ls
from longstrand.errors import InputError, UsageError
from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.inference import contigs
from longstrand.inference.contigs import Blend, ContigJob, Piece
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import predict
from longstrand.inference.writers import TrackLayout
from longstrand.tracks.folder import Run, join_runs, write_gff
from tests.inference.test_contigs import K2, dna, network

pytest.importorskip("pybigtools")
TEXTS = {"one": dna(333), "two": "N" * 40 + dna(211) + "N" * 60 + dna(150), "three": dna(80)}
OPTIONS: dict[str, Any] = {"window": 24, "step": 12, "gap": 30, "batch_tokens": 64}


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("tracks") / "g.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in TEXTS.items()))
    return Genome(path)


@pytest.fixture(scope="module")
def model() -> Any:
    found = network()
    found.tokenizer = K2
    return found


def values(path: Path, contig: str) -> np.ndarray:
    return open_signal(path).values(contig, 0, len(TEXTS[contig]))


@pytest.fixture(scope="module")
def folder(genome: Genome, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "tracks"
    done = ls.predict_tracks(model, genome, path, strand="separate", threshold=0.6, **OPTIONS)
    assert done.num_rows == 3 and done.counts["bases"] == 333 + 361 + 80 and "100 bases in long runs" in done.notes[0]
    return path


def test_one_run_of_all_outputs_and_strands_is_that_of_each_alone(genome: Genome, model: Any, folder: Path,
                                                                  tmp_path: Path) -> None:  # fmt: skip
    """Bit for bit; the strands apart are those of one strand, and both its own average of logits."""
    facts = json.loads((folder / "tracks.json").read_text())
    names = [f"probability_{n}.{strand}" for strand in ("plus", "minus") for n in range(3)]
    assert [track["name"] for track in facts["tracks"]] == names
    for strand, word in (("+", "plus"), ("-", "minus")):
        alone = tmp_path / f"{word}.bw"
        ls.predict_tracks(model, genome, alone, strand=strand, outputs="probability_1", **OPTIONS)
        assert alone.read_bytes() == (folder / f"probability_1.{word}.bw").read_bytes()
    ls.predict_tracks(
        model, genome, tmp_path / "two", outputs=["probability_2", "probability_0"], chroms="two", **OPTIONS
    )
    found = values(tmp_path / "two" / "probability_2.bw", "two")
    np.testing.assert_array_equal(found, values(folder / "probability_2.plus.bw", "two"))
    assert np.isnan(found[:40]).all() and not np.isnan(found[40:251]).any()
    assert np.isnan(values(tmp_path / "two" / "probability_2.bw", "one")).all()


def test_what_lies_beside_the_tracks(folder: Path) -> None:
    facts = json.loads((folder / "tracks.json").read_text())
    first = facts["tracks"][0]
    found = np.concatenate([values(folder / first["file"], name) for name in TEXTS])
    known = found[~np.isnan(found)]
    assert first["bins"] == len(known) and first["unit"] == "probability"
    np.testing.assert_allclose([first["mean"], first["deviation"]], [known.mean(), known.std()], rtol=1e-6)
    assert (
        values(folder / first["file"], first["best"]["chrom"])[first["best"]["start"]] == known.max() == first["high"]
    )
    assert facts["windows"] == {"window": 24, "step": 12, "blend": "crop"} and facts["averaged"] == "logits"
    stanzas = (folder / "trackDb.txt").read_text().split("\n\n")
    assert len(stanzas) == 6 and "bigDataUrl probability_0.plus.bw" in stanzas[0] and "negateValues on" in stanzas[5]
    session = ElementTree.parse(folder / "igv_session.xml").getroot()
    assert [item.get("path") for item in session.iter("Resource")] == [track["file"] for track in facts["tracks"]]
    assert json.loads((folder / "igv.json").read_text())["tracks"][0]["url"] == first["file"]
    lines = [line.split("\t") for line in (folder / "probability_0.plus.calls.bed").read_text().splitlines()]
    assert len(lines) == first["num_calls"] > 0
    for line in lines:
        inside = values(folder / first["file"], line[0])[int(line[1]) : int(line[2])]
        assert inside.min() >= 0.6 and float(line[6]) == pytest.approx(inside.max(), rel=1e-6)
    page = (folder / "report.html").read_text()
    assert "Around the highest bin of probability_0.plus" in page and "<svg" in page


def test_regions_get_the_numbers_of_the_contig(genome: Genome, model: Any, tmp_path: Path) -> None:
    (tmp_path / "r.bed").write_text("one\t100\t150\none\t140\t161\ntwo\t30\t60\n")
    for blend in ("crop", "hann"):
        options = {**OPTIONS, "outputs": "probability_1", "blend": blend}
        ls.predict_tracks(model, genome, tmp_path / f"r-{blend}.bw", regions=tmp_path / "r.bed", **options)
        ls.predict_tracks(model, genome, tmp_path / f"all-{blend}.bw", **options)
        for contig, keep in (("one", [(100, 161)]), ("two", [(40, 60)]), ("three", [])):
            wanted = np.full(len(TEXTS[contig]), np.nan)
            for start, end in keep:
                wanted[start:end] = values(tmp_path / f"all-{blend}.bw", contig)[start:end]
            np.testing.assert_allclose(values(tmp_path / f"r-{blend}.bw", contig), wanted, rtol=1e-5)
    (tmp_path / "off.bed").write_text("one\t300\t400\n")
    with pytest.raises(InputError, match=r"off.bed:1: .* out of range"):
        ls.predict_tracks(model, genome, tmp_path / "off", regions=tmp_path / "off.bed", **OPTIONS)


@pytest.mark.parametrize("blend", ["average", "hann"])
def test_blending_is_a_weighted_mean_of_all_windows(blend: str, genome: Genome, model: Any, tmp_path: Path) -> None:
    """Against all windows written out; logits are averaged, then probabilities taken; the seam by hand, too."""
    ls.predict_tracks(model, genome, tmp_path / "x", chroms="three", blend=blend, **OPTIONS)
    starts = [0, 6, 18, 30, 42, 54, 56]
    found = list(predict(model, [TEXTS["three"][at : at + 24] for at in starts], tokenizer=K2, output="logits"))
    weight = np.ones(24) if blend == "average" else np.sin(np.pi * (np.arange(24) + 0.5) / 24) ** 2
    total, weights = np.zeros((80, 3)), np.zeros((80, 1))
    for at, item in zip(starts, found):
        total[at : at + 24] += item.values * weight[:, None]
        weights[at : at + 24] += weight[:, None]
    wanted = 1 / (1 + np.exp(-total / weights))
    for number in range(3):
        np.testing.assert_allclose(
            values(tmp_path / "x" / f"probability_{number}.bw", "three"), wanted[:, number], rtol=1e-4
        )
    rates = [1 / (1 + np.exp(-item.values)) for item in found]
    gaps = [abs(a[y - x :] - b[: 24 - y + x]) for a, b, x, y in zip(rates, rates[1:], starts, starts[1:])]
    seam = np.concatenate(gaps).mean(axis=0) / wanted.std(axis=0)
    tracks = json.loads((tmp_path / "x" / "tracks.json").read_text())["tracks"]
    np.testing.assert_allclose([track["seam"] for track in tracks], seam, rtol=1e-3)


@pytest.mark.parametrize("held", [0, 90])
def test_a_small_buffer(genome: Genome, model: Any, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the bins come out as windows pass; a window and a step of it are held beside what is allowed."""
    monkeypatch.setattr(contigs, "HELD", held)
    job = ContigJob(model, K2, genome, options=TrackOptions(**OPTIONS, blend="average"), names=["a", "b", "c"])
    blend = Blend(job, Piece("one", 0, 333, (genome.whole("one"),)))
    for start in range(0, 309, 12):
        blend.add(start, np.full((24, 3), start, dtype=np.float32), np.ones(24))
        assert len(blend.sums) + sum(len(values) for _, values, _ in blend.waiting) <= 48 + held // 3
    np.testing.assert_allclose(blend.bins()[[0, 12, 24, 300], 0], [0, 6, 18, 294])


@pytest.mark.parametrize("bin_size", [1, 7])
def test_windows_counted_together_or_one_by_one(
    genome: Genome, model: Any, bin_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits; what is missing, or infinite without a weight, says nothing."""
    options = {**OPTIONS, "bin_size": bin_size}
    job = ContigJob(model, K2, genome, options=TrackOptions(**options, blend="hann"), names=["a", "b", "c"])
    random, found = np.random.default_rng(0), []
    windows = random.normal(size=(26, 24, 3)).astype(np.float32)
    windows[3, 5, 1], windows[4, 0] = np.nan, np.inf
    weights = np.arange(24) / 24
    for held in (0, 90, 1 << 17):
        monkeypatch.setattr(contigs, "HELD", held)
        blend = Blend(job, Piece("one", 5, 320, (genome.whole("one"),)))
        for start, window in zip(range(0, 309, 12), windows):
            blend.add(start, window, weights)
        found.append((blend.bins(), blend.seams))
    assert not np.isnan(found[0][0]).any()
    for bins, seams in found[1:]:
        np.testing.assert_array_equal(bins, found[0][0])
        np.testing.assert_allclose(seams, found[0][1])


def test_parts_do_not_change_a_bin(genome: Genome, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contigs, "PART_BASES", 96)
    ls.predict_tracks(
        model, genome, tmp_path / "small.bw", outputs="probability_0", blend="hann", bin_size=7, **OPTIONS
    )
    monkeypatch.undo()
    ls.predict_tracks(
        model, genome, tmp_path / "whole.bw", outputs="probability_0", blend="hann", bin_size=7, **OPTIONS
    )
    for name in TEXTS:
        np.testing.assert_allclose(values(tmp_path / "small.bw", name), values(tmp_path / "whole.bw", name), rtol=1e-5)


def test_runs_and_gff_by_hand(tmp_path: Path) -> None:
    stretches = [
        ("c", 0, 5, "x", 1.0, False),
        ("c", 5, 6, "x", 4.0, False),
        ("c", 6, 8, "x", 2.0, True),
        ("d", 8, 9, "x", 1.0, False),
    ]
    assert list(join_runs(stretches)) == [
        Run("c", 0, 6, "x", 4.0, 9.0), Run("c", 6, 8, "x", 2.0, 4.0), Run("d", 8, 9, "x", 1.0, 1.0)
    ]  # fmt: skip
    table = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [np.nan, np.nan], [0.3, 0.7]], dtype=np.float32)
    layout = TrackLayout({"c": 19}, 2, ("a", "b"), {})
    write_gff(
        [("c", 0, table[:2]), ("c", 2, table[2:]), ("c", 9, table[1:2])], layout, ("none", "exon"), tmp_path / "x.gff3"
    )
    assert (tmp_path / "x.gff3").read_text() == (
        "##gff-version 3\nc\tlongstrand\texon\t3\t6\t0.7\t.\t.\tID=exon_1\n"
        "c\tlongstrand\texon\t9\t10\t0.7\t.\t.\tID=exon_2\n"
        "c\tlongstrand\texon\t19\t19\t0.8\t.\t.\tID=exon_3\n"
    )


def test_classes_of_bases_are_features(genome: Genome, tmp_path: Path) -> None:
    model = network(problem="single_label", names=["exon", "none", "intron"])
    model.tokenizer = K2
    ls.predict_tracks(model, genome, tmp_path / "x", chroms="three", **OPTIONS)
    lines = [line.split("\t") for line in (tmp_path / "x" / "classes.gff3").read_text().splitlines()[1:]]
    shown = np.stack([values(tmp_path / "x" / f"probability_{n}.bw", "three") for n in ("exon", "none", "intron")])
    kinds = np.array(["exon", "none", "intron"])[shown.argmax(axis=0)]
    assert sum(int(line[4]) - int(line[3]) + 1 for line in lines) == (kinds != "none").sum() > 0
    assert all((kinds[int(line[3]) - 1 : int(line[4])] == line[2]).all() for line in lines)


def test_refusals(genome: Genome, model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threshold makes a file beside the tracks; give a folder"):
        ls.predict_tracks(model, genome, tmp_path / "x.bw", outputs="probability_0", threshold=1, **OPTIONS)
    with pytest.raises(UsageError, match="blend is for windows; this model reads from end to end"):
        ContigJob(
            network(num_tokens=2, segment_length=20), K2, genome, options=TrackOptions(blend="hann"), names=list("abc")
        )
    (tmp_path / "r.bed").write_text("1\t10\t20\n")
    with pytest.raises(InputError, match="no record '1'"):
        ls.predict_tracks(model, genome, tmp_path / "y", regions=tmp_path / "r.bed", **OPTIONS)
    (tmp_path / "r.bed").write_text("one\t10\t20\n")
    with pytest.raises(InputError, match="no region lies on two"):
        ls.predict_tracks(model, genome, tmp_path / "y", regions=tmp_path / "r.bed", chroms="two", **OPTIONS)
    assert not (tmp_path / "y").exists()
    for text, message in (("one\t10\t10\n", "no region has a base"), ("two\t0\t40\n", "there is no value to write")):
        (tmp_path / "r.bed").write_text(text)
        with pytest.raises(InputError, match=message):
            ls.predict_tracks(model, genome, tmp_path / "z", regions=tmp_path / "r.bed", **OPTIONS)
    assert not (tmp_path / "z").exists() and not (tmp_path / ".tmp-z").exists()
