"""Tracks as targets: transforms by hand and undone, looks, folds, metrics by hand, fine-tuning and prediction."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import longstrand as ls
from longstrand.cli.main import main
from longstrand.config import build
from longstrand.data.signals import TrackTransform, find_tracks, look, open_tracks, read_targets, standard_transform
from longstrand.errors import ConfigError, InputError, UsageError
from longstrand.evaluation.tracks import across_tracks, gene_metrics, pearson, track_metrics
from longstrand.genome.annotation import Transcript
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.models.config import Head
from longstrand.models.heads import head_loss
from longstrand.training.settings import DataSettings
from longstrand.training.signals import chromosome_folds, load_signals
from tests.toys import tiny_checkpoint

BINS = np.array([0.0, 3.0, 16.0, 81.0, 2000.0], dtype=np.float32)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ({}, [0, 3, 16, 81, 2000]),
        ({"statistic": "sum_sqrt", "scale": 0.3}, [0, 0.3 * 3**0.75, 0.3 * 8, 0.3 * 27, 0.3 * 2000**0.75]),
        ({"clip_soft": 32.0, "clip": 60.0, "scale": 2.0}, [0, 6, 32, 2 * (32 + 7), 120]),
        ({"version": "current", "scale": 2.0}, [0, 6, 32, 162, 4000]),
        ({"version": "current", "statistic": "sum_sqrt"}, [0, 1, 17**0.5 - 1, 82**0.5 - 1, 2001**0.5 - 1]),
        ({"version": "current", "statistic": "sum_exp75"}, [*((BINS + 1.0) ** 0.75 - 1)]),
        ({"version": "current", "clip_soft": 32.0, "clip": 50.0}, [0, 3, 16, 31 + math.sqrt(50), 50]),
    ],
)  # fmt: skip
def test_transforms_by_hand_and_back(made: dict[str, Any], wanted: list[float]) -> None:
    """Borzoi's two forms; what was not clipped comes back."""
    transform = TrackTransform(**made)
    found = transform.apply(BINS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    back = transform.undo(found)
    kept = slice(None) if transform.clip is None else slice(4)
    np.testing.assert_allclose(back[kept], BINS[kept], rtol=1e-4, atol=1e-5)


def test_looks_and_the_standard_transform_by_hand() -> None:
    values = np.concatenate([np.zeros(500), np.ones(400), np.full(100, 5.0), [np.nan]])
    seen = look("a", values)
    assert (seen.kind, seen.zero, seen.low, seen.high, seen.whole) == ("counts", 0.5, 0, 5, True)
    assert seen.nonzero_mean == pytest.approx(1.8) and seen.covered == pytest.approx(1000 / 1001)
    made = standard_transform(seen, "mean")
    assert made.clip == pytest.approx(np.quantile(values[:-1], 0.999)) and made.scale == pytest.approx(1 / 1.8)
    assert look("x", values - 1).kind == "signed"
    assert look("H3K4me3.fc.signal", values + 0.25).kind == "fold change"
    assert look("x.pval", values).kind == "-log10 p"
    assert look("x", np.linspace(0.8, 1.3, 50)).kind == "fold change" and look("x", values / 3).kind == "coverage"
    with pytest.raises(InputError, match="x: the track holds infinite values"):
        look("x", np.array([1, np.inf]))
    with pytest.raises(InputError, match="x: the track has no value in any window"):
        look("x", np.array([np.nan]))


def test_strands_are_found_by_name_and_targets_are_read(tmp_path: Path) -> None:
    names = ["a.plus.bw", "atac.bw", "A.minus.bigWig", "x_fwd.bedgraph.gz", "x_rev.bedgraph.gz"]
    assert [one.partner for one in find_tracks([Path(name) for name in names], "standard")] == [2, 1, 0, 4, 3]
    with pytest.raises(UsageError, match="the same name before the ending"):
        find_tracks([Path("a.bw"), Path("b/a.bedgraph")], "standard")
    text = "\tidentifier\tfile\tclip\tclip_soft\tscale\tsum_stat\tstrand_pair\tdescription\n"
    text += "0\tp\tp.bw\t768\t384\t0.3\tsum_sqrt\t1\tx\n1\tm\tm.bw\t768\t384\t0.3\tsum_sqrt\t0\ty\n"
    (tmp_path / "targets.txt").write_text(text)
    first, second = read_targets(tmp_path / "targets.txt", "published")
    assert (first.name, first.path, first.partner, second.partner) == ("p", tmp_path / "p.bw", 1, 0)
    assert first.transform == TrackTransform(statistic="sum_sqrt", clip=768, clip_soft=384, scale=0.3)
    (tmp_path / "targets.txt").write_text(text.replace("p.bw", "p.w5"))
    with pytest.raises(InputError, match=r"row 1: p.w5 is HDF5 coverage; give the BigWig"):
        read_targets(tmp_path / "targets.txt", "current")
    (tmp_path / "targets.txt").write_text(text.replace("768\t384\t0.3", "nan\t\tNA"))
    assert read_targets(tmp_path / "targets.txt", "current")[1].transform == TrackTransform(
        version="current", statistic="sum_sqrt"
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("identifier\tdescription\na\tb\n", "no column file; is it a targets.txt of baskerville"),
        ("identifier\tfile\n", "targets.txt"),
        ("identifier\tfile\tclip\n\ta.bw\t3\n", "row 1: identifier is empty"),
        ("identifier\tfile\tclip\nx\ta.bw\tmany\n", "row 1: 'clip': Input should be a valid number"),
        ("identifier\tfile\tclip\nx\ta.bw\tinf\n", "row 1: 'clip': Input should be a finite number"),
        ("identifier\tfile\tscale\nx\ta.bw\t-1\n", "row 1: 'scale': Input should be greater than 0"),
        ("identifier\tfile\tsum_stat\nx\ta.bw\tmedian\n", "row 1: 'statistic': Input should be 'mean'"),
        ("identifier\tfile\tstrand_pair\nx\ta.bw\t0.5\n", "row 1: strand_pair '0.5' is no row"),
        ("identifier\tfile\nx\ta.bw\nx\tb.bw\n", "two tracks are called 'x'; rename one"),
    ],
)
def test_wrong_targets_are_named(table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "targets.txt").write_text(table)
    with pytest.raises((ConfigError, InputError), match=message):
        read_targets(tmp_path / "targets.txt", "current")


def test_chromosome_folds_by_hand() -> None:
    counts = {"a": 9, "b": 5, "c": 4, "d": 3, "e": 2, "f": 2}
    assert chromosome_folds(counts) == [["a"], ["b"], ["c"], ["d"], ["e", "f"]]


def test_poisson_multinomial_by_hand() -> None:
    """Where and how much apart, summed over tracks and divided by the targets that are there."""
    head = Head(kind="bin", problem="counts", num_outputs=2, bin_token_id=3, bin_bases=4, total_weight=0.2)
    rates = np.array([[[1.0, 2.0], [3.0, 5.0], [7.0, 4.0]]])
    truth = np.array([[[2.0, 0.0], [1.0, 6.0], [np.nan, 1.0]]])
    logits = torch.tensor(np.log(np.expm1(rates)), dtype=torch.float32)
    wanted = 0.0
    for track in range(2):
        known = ~np.isnan(truth[0, :, track])
        rate, count = rates[0, known, track], truth[0, known, track]
        wanted -= (count * np.log(rate / rate.sum())).sum()
        wanted += 0.2 * (rate.sum() - count.sum() * np.log(rate.sum()))
    found = head_loss(logits, torch.tensor(truth, dtype=torch.float32), head)
    assert float(found) == pytest.approx(wanted / 5, rel=1e-5)


def test_metrics_by_hand() -> None:
    rng = np.random.default_rng(0)
    truth = [rng.random((6, 3)), rng.random((6, 3))]
    shifted = [part + 5.0 * (number + 1) for number, part in enumerate(truth)]
    found = track_metrics(truth, shifted)
    assert found["bins"] == pytest.approx(1) and found["regions x bins"] < 0.5 and found["tracks"] is None
    assert track_metrics(truth, truth)["profile JSD"] == pytest.approx(0, abs=1e-9)
    apart = track_metrics([np.array([[1.0], [0.0]])], [np.array([[0.0], [1.0]])])
    assert apart["profile JSD"] == pytest.approx(1) and math.isnan(apart["totals pearson"])
    wide = rng.random((200, 25))
    mean_only = np.repeat(wide.mean(axis=1, keepdims=True), 25, axis=1) + 1e-6 * rng.random((200, 25))
    assert across_tracks(wide, wide) == pytest.approx(1) and abs(across_tracks(wide, mean_only)) < 0.2
    assert track_metrics([wide], [mean_only])["regions x bins"] > 0.1
    column = np.array([[1.0, 2], [2, np.nan], [4, 1]])
    other = np.array([[3.0, 1], [1, 5], [2, 2]])
    assert pearson(column, other)[0] == pytest.approx(np.corrcoef(column[:, 0], other[:, 0])[0, 1])
    assert pearson(column, other)[1] == pytest.approx(-1)


def test_genes_by_hand() -> None:
    """Exons of 10-30 and 50-60 in bins of 20: half of bins 0, 1, 2 (on the other strand from the end)."""
    genes = [Transcript("t", "g", "c", "+", ((10, 30), (50, 60))), Transcript("u", "h", "c", "+", ((100, 120),)),
             Transcript("v", "out", "c", "+", ((0, 500),))]  # fmt: skip
    places = [Interval("c", 0, 80), Interval("c", 80, 160, "-")]
    bins = [np.array([[1.0], [2], [3], [100]]), np.array([[5.0], [6], [7], [8]])]
    found = gene_metrics(bins, [part * 2 for part in bins], places, genes, 20)
    sums = [np.log2([1 + scale * 3, 1 + scale * 7]) for scale in (1, 2)]
    assert found["genes"] == 2 and np.isfinite(sums).all() and found["genes pearson"] == pytest.approx(1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six contigs, peaks on a motif, two strands of one signal and one that is signed."""
    pybigtools = pytest.importorskip("pybigtools")
    folder, draw = tmp_path_factory.mktemp("lab"), random.Random(4)
    contigs = {f"chr{n}": "".join(draw.choices("ACGT", k=1200)) for n in range(1, 7)}
    (folder / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in contigs.items()))
    (folder / "p.bed").write_text("".join(f"{name}\t{at}\t{at + 40}\n" for name in contigs for at in (200, 700)))
    sizes = {name: len(text) for name, text in contigs.items()}
    for track, low in (("x.plus", 0), ("x.minus", 1), ("ratio", -2)):
        lines = [(name, at, at + 20, float(draw.randint(0, 9) + low)) for name in contigs for at in range(0, 1200, 20)]
        pybigtools.open(str(folder / f"{track}.bw"), "w").write(sizes, iter(lines))
    return folder


def settings(lab: Path, tracks: list[str], **more: Any) -> DataSettings:
    data = {
        "train": lab / "p.bed",
        "tracks": [lab / f"{name}.bw" for name in tracks],
        "fasta": lab / "g.fa",
        "bin_bases": 20,
    }
    return DataSettings(**{**data, "window": 160, **more})


def test_windows_targets_negatives_and_folds(lab: Path) -> None:
    splits = load_signals(settings(lab, ["x.plus", "x.minus"], fold=0))
    tables, signals = dict(splits.items()), splits.signals
    assert signals is not None and signals.partners == [1, 0] and signals.loss == "counts" and signals.jitter == 20
    assert [len(tables[name]) for name in ("train", "valid", "test")] == [12, 4, 8]
    assert not set(tables["train"].raw.chroms or ()) & set(tables["test"].raw.chroms or ())
    assert "12 intervals and 12 GC-matched negatives" in splits.origin and splits.origin.startswith("fold 0 of 5")
    place = tables["train"].raw.places[0]
    raw = signals.opened[0].bins(place, 20)
    np.testing.assert_allclose(tables["train"].targets[0][:, 0], signals.transforms()[0].apply(raw))
    text, moved = signals.read(place, 20)
    assert text[:-20] == tables["train"].sequences[0][20:]
    np.testing.assert_allclose(moved[:-1], tables["train"].targets[0][1:])
    turned = Interval(place.chrom, place.start, place.end, "-")
    np.testing.assert_allclose(signals.read(turned)[1][:, 0], tables["train"].targets[0][::-1, 1])


def test_signed_tracks_are_refused_by_poisson(lab: Path) -> None:
    assert load_signals(settings(lab, ["ratio"])).signals.loss == "squared"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"'ratio' has negative values \(down to -2\), and a Poisson loss"):
        load_signals(settings(lab, ["ratio"], bin_loss="counts"))
    with pytest.raises(UsageError, match="5 folds need windows on 5 chromosomes, there are 1"):
        (lab / "one.bed").write_text("chr1\t200\t240\nchr1\t700\t740\n")
        load_signals(settings(lab, ["ratio"], train=lab / "one.bed", fold=1))


def test_tracks_of_another_assembly_and_of_no_kind(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "other.fa").write_text("".join(f">{n}\n{'ACGT' * 300}\n" for n in range(1, 7)))
    files = find_tracks([lab / "ratio.bw"], "standard")
    assert open_tracks(files, Genome(tmp_path / "other.fa"))[0].names["1"] == "chr1"
    (tmp_path / "none.fa").write_text(">z\nACGT\n")
    with pytest.raises(InputError, match="no chromosome of the genome is in this track; it has chr1"):
        open_tracks(files, Genome(tmp_path / "none.fa"))
    (tmp_path / "short.fa").write_text("".join(f">chr{n}\n{'ACGT' * 200}\n" for n in range(1, 7)))
    with pytest.raises(
        InputError, match="1,200 bases in the track and 800 in the genome; they are of different assembl"
    ):
        open_tracks(files, Genome(tmp_path / "short.fa"))
    (tmp_path / "text.bw").write_text("hello\nworld\n")
    with pytest.raises(InputError, match=r"text.bw: no signal track but"):
        open_tracks(find_tracks([tmp_path / "text.bw"], "standard"), Genome(lab / "g.fa"))


def test_finetune_and_predict(lab: Path, tmp_path: Path) -> None:
    """The command's own path: notices, transforms in the model, natural numbers out, strands swapped."""
    said: list[str] = []
    result = ls.finetune(
        tiny_checkpoint(tmp_path / "m"), tracks=[lab / "x.plus.bw", lab / "x.minus.bw"], regions=lab / "p.bed",
        genome=lab / "g.fa", bin_bases=20, window=160, output=tmp_path / "run", epochs=1, learning_rate=1e-3,
        resamples=0, bin_loss="multinomial", threads=1, notice=said.append,
    )  # fmt: skip
    assert any(line.startswith("track x.plus: coverage, 0 to 9") and "clip at " in line for line in said)
    metrics = result.report["signals"]["metrics"]
    assert list(metrics) == ["this model", "majority", "place", "kmer-bins"] and metrics["this model"]["tracks"] is None
    assert (tmp_path / "run" / "tracks.html").exists() and len(result.report["signals"]["examples"]) == 3
    assert "Observed and predicted: chr" in (tmp_path / "run" / "report.html").read_text()
    model = ls.load_model(result.model)
    head = model.head_settings
    assert head.strand_pairs == [1, 0] and head.total_weight == 0.2 and head.transforms[0] == head.transforms[1]
    text = Genome(lab / "g.fa").fetch("chr1", 0, 160)
    natural, trained = (ls.predict_bases(model, [text], scale=scale, strand="+")[0] for scale in ("natural", "trained"))
    np.testing.assert_allclose(natural[:, 0] * head.transforms[0].scale, trained[:, 0], rtol=1e-5)
    other = ls.predict_bases(model, [text], strand="-")[0]
    flip = str.maketrans("ACGT", "TGCA")
    np.testing.assert_allclose(
        other, ls.predict_bases(model, [text.translate(flip)[::-1]], strand="+")[0][::-1, ::-1], rtol=1e-5
    )
    done = ls.predict_tracks(model, lab / "g.fa", tmp_path / "tracks", chroms="chr2")
    facts = json.loads((tmp_path / "tracks" / "tracks.json").read_text())
    assert done.num_rows == 1 and facts["bin_size"] == 20 and facts["tracks"][0]["unit"] == "predicted signal"


def test_several_tracks_follow_one_option(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stop(config: Any, **_: Any) -> None:
        seen.append(config)
        raise UsageError("seen")

    monkeypatch.setattr("longstrand.training.finetune.finetune", stop)
    names = [str(lab / f"{name}.bw") for name in ("x.plus", "x.minus", "ratio")]
    words = ["finetune", "--model", "m", "--tracks", *names, "--regions", "p.bed", "--genome", "g.fa", "--fold", "2"]
    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path), "training.epochs=3"])
    data = seen[0].data
    assert [str(path) for path in data.tracks] == names and data.fold == 2 and seen[0].training.epochs == 3
    assert str(data.train) == "p.bed" and data.jitter is None
    with pytest.raises(UsageError, match="leave out valid_fraction"):
        load_signals(settings(lab, ["ratio"], valid_fraction=0.2))
    with pytest.raises(UsageError, match=r"tracks need fasta"):
        build(DataSettings, {"train": "p.bed", "tracks": ["a.bw"]}, "settings")
    with pytest.raises(UsageError, match=r"fold.*these are for signal tracks"):
        build(DataSettings, {"train": "p.bed", "fold": 1}, "settings")
