"""Attribution jobs: what the folder holds, coordinates on both strands, continuing, and the trust page."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr

from longstrand.cli.main import main
from longstrand.errors import InputError, ResumeError, UsageError
from longstrand.explain import cost, trust
from longstrand.explain.attribution import Explainer
from longstrand.explain.jobs import attribute, attribute_file
from longstrand.explain.maps import Place, bins_of, seqlets
from longstrand.explain.options import AttributeOptions
from longstrand.genome.sequence import reverse_complement
from longstrand.inference.sequences import as_records
from longstrand.models.adapters import AdapterFolder, add_adapter, base_facts
from longstrand.models.checkpoint import load_model, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForSequenceClassification
from longstrand.models.reading import Reading
from longstrand.tokenization.kmer import make_kmer
from tests.explain.test_attribution import HEADS, WEIGHTS, Additive, model_of
from tests.questions.test_questions import MEMORY

SEQUENCE = "ACGTTGCAACGTACCGTTAGCATTGACCAGTACGGATCACGTTGCA"


@pytest.fixture(scope="module")
def model():
    return model_of("sequence")


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "g.fa").write_text(f">c1\n{SEQUENCE}\n>c2\n{SEQUENCE[::-1]}\n")
    (tmp_path / "peaks.bed").write_text("c1\t4\t24\ta\t0\t+\nc1\t14\t34\tb\t0\t-\nc2\t2\t12\tc\t0\t+\n")
    return tmp_path


OPTIONS = {"target": 1, "baseline": "mask", "most_steps": 20, "tolerance": 0.5}


def test_folder_of_intervals(model, genome):
    """Rows of the minus strand go back to the genome; bases of two rows get the mean."""
    out = genome / "maps"
    result = attribute_file(
        model, genome / "peaks.bed", out, genome=genome / "g.fa", track="bedgraph", check=0, part_rows=2, **OPTIONS
    )
    assert (result.num_rows, result.counts["bases"]) == (3, 50)
    assert sorted(path.name for path in out.iterdir()) == [
        "attribution.bedgraph", "attributions.zarr", "seqlets.bed", "sequences.tsv",
    ]  # fmt: skip
    texts = [SEQUENCE[4:24], reverse_complement(SEQUENCE[14:34]), SEQUENCE[::-1][2:12]]
    right = [one.values for one in attribute(model, texts, **OPTIONS)]
    group = zarr.open_group(str(out / "attributions.zarr"), mode="r")
    np.testing.assert_allclose(group["values"][:, 0], np.concatenate(right), atol=1e-6)
    assert group["offsets"][:].tolist() == [0, 20, 40, 50]
    track = {}
    for line in (out / "attribution.bedgraph").read_text().splitlines():
        chrom, start, end, value = line.split()
        track |= {(chrom, base): float(value) for base in range(int(start), int(end))}
    assert len(track) == 40
    for base, value in [(4, right[0][0]), (13, right[0][9]), (33, right[1][0]), (24, right[1][9])]:
        assert track["c1", base] == pytest.approx(value, rel=1e-5)
    assert track["c1", 20] == pytest.approx((right[0][16] + right[1][13]) / 2, rel=1e-5)
    assert track["c2", 2] == pytest.approx(right[2][0], rel=1e-5)
    lines = (out / "sequences.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:7] == ["index", "name", "chrom", "start", "end", "strand", "status"]
    assert lines[2].split("\t")[1:6] == ["b", "c1", "14", "34", "-"]
    again = attribute_file(
        model, genome / "peaks.bed", out, genome=genome / "g.fa", track="bedgraph", check=0, part_rows=2, **OPTIONS
    )
    assert again.already_finished
    with pytest.raises(ResumeError, match="made with other settings"):
        attribute_file(model, genome / "peaks.bed", out, genome=genome / "g.fa", check=0, **{**OPTIONS, "target": 2})


def test_windows_beyond_the_contig_and_continuing(model, genome, monkeypatch):
    """Killed after the first part, the job goes on and gives the same bytes; N beyond the ends is in no track."""
    whole, cut = genome / "whole", genome / "cut"
    options = {**OPTIONS, "genome": genome / "g.fa", "window": 30, "part_rows": 1, "check": 0, "track": "bedgraph"}
    attribute_file(model, genome / "peaks.bed", whole, **options)
    real, seen = Explainer.explain, []

    def dies(self, records):
        seen.append(len(records))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(self, records)

    monkeypatch.setattr(Explainer, "explain", dies)
    with pytest.raises(KeyboardInterrupt):
        attribute_file(model, genome / "peaks.bed", cut, **options)
    assert not cut.exists()
    result = attribute_file(model, genome / "peaks.bed", cut, **options)
    assert result.computed == 2
    for name in ("attribution.bedgraph", "sequences.tsv", "seqlets.bed"):
        assert (cut / name).read_text() == (whole / name).read_text()
    assert min(int(line.split()[1]) for line in (cut / "attribution.bedgraph").read_text().splitlines()) == 0
    assert (cut / "sequences.tsv").read_text().splitlines()[3].split("\t")[3] == "-8"


def test_rows_without_letters_are_not_tested(model, tmp_path):
    (tmp_path / "s.fa").write_text(f">none\n\n>unknown\n{'N' * 12}\n>dna\n{SEQUENCE}\n")
    attribute_file(
        model, tmp_path / "s.fa", tmp_path / "out", check=1, track="bedgraph", **{**OPTIONS, "most_steps": 5}
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["per_sequence"]["method: gradient"][0] == pytest.approx(1, abs=1)
    assert next(section["title"] for section in report["sections"] if section["kind"] == "locus") == "Row 3: dna"


def test_two_ranks_give_what_one_gives(model, genome, monkeypatch):
    options = {**OPTIONS, "genome": genome / "g.fa", "part_rows": 1, "check": 0, "track": "bedgraph"}
    attribute_file(model, genome / "peaks.bed", genome / "one", **options)
    for rank, rows in (("1", None), ("0", 3)):  # the last one joins the parts
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        result = attribute_file(model, genome / "peaks.bed", genome / "two", **options)
        assert (result.num_rows, result.computed) == (rows, {"1": 1, "0": 2}[rank])
    for name in ("attribution.bedgraph", "sequences.tsv", "seqlets.bed"):
        assert (genome / "one" / name).read_text() == (genome / "two" / name).read_text()


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(genome, tmp_path):
    config = preset("tiny", vocab_size=make_kmer(2).vocab_size, heads={"main": HEADS["sequence"]})
    save_checkpoint(LongstrandForSequenceClassification(config), make_kmer(2), tmp_path / "model")
    tail = ["explain", "attribute", str(tmp_path / "model"), str(genome / "peaks.bed"), "--genome",
            str(genome / "g.fa"), "--target", "1", "--part-rows", "1", "--check", "0", "--track", "bedgraph",
            "-q"]  # fmt: skip
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start, name in (([sys.executable], "one"), (launch, "two")):
        command = [*start, "-m", "longstrand", *tail, "-o", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    for name in ("attribution.bedgraph", "sequences.tsv", "seqlets.bed"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


@pytest.mark.parametrize(("method", "settings", "changes"), [("lora", {"r": 2}, {}), ("ia3", {}, MEMORY)])
def test_an_adapter_is_explained_merged(method, settings, changes, tmp_path):
    """Beside its trained head and memory, which IA3 of PEFT cannot merge."""
    pytest.importorskip("peft")
    base, tokenizer = tmp_path / "base", make_kmer(2)
    torch.manual_seed(0)
    config = preset("tiny", vocab_size=tokenizer.vocab_size, heads={"main": HEADS["sequence"]}, **changes)
    save_checkpoint(LongstrandForSequenceClassification(config), tokenizer, base)
    wrapped = add_adapter(load_model(base), method, settings, base=base).eval()
    for name, weights in wrapped.named_parameters():
        if weights.requires_grad and "lora_A" not in name:
            torch.nn.init.normal_(weights)
    facts = {"base": base_facts(base)}
    save_checkpoint(AdapterFolder(wrapped), tokenizer, tmp_path / "adapter", provenance=facts)
    options = {"target": 1, "steps": 5, "most_steps": 5}
    (found,), (plain,) = (attribute(str(path), [SEQUENCE], **options) for path in (tmp_path / "adapter", base))
    (right,) = attribute(wrapped, [SEQUENCE], **options)
    np.testing.assert_allclose(found.values, right.values, atol=1e-5)
    assert np.abs(found.values - plain.values).max() > 1e-3


def test_what_it_takes_is_said_and_limited(model, genome, monkeypatch, capsys):
    """Passes by hand; a measured batch gives seconds; a run beyond the limit is refused with what is shorter."""
    options = AttributeOptions.model_validate({"target": 1, "check": 0})
    explainer = Explainer(model, options)
    for method, passes in (
        ("ig", 1 + 3 * 61), ("gradient", 4), ("occlusion", 1 + 9), ("ism", 1 + 3 * 20), ("deletion", 21), ("block", 81),
    ):  # fmt: skip
        assert explainer.passes(20, 9, options.of_method(method)) == passes
    assert explainer.passes(20, 9, options.changed(baseline=("shuffled",))) == 8 * (1 + 3 * 61)
    assert options.points(1025) == 80 and options.points(1024) == 320
    assert options.changed(most_steps=100).points(1025) == 100
    rows = list(as_records([SEQUENCE, SEQUENCE[:20]]))
    assert cost.estimate(explainer, rows) is None
    monkeypatch.setattr(cost, "SMALL_WORK", 0)
    monkeypatch.setattr(cost, "_seconds", lambda explainer, encoding: 2.0)
    found = cost.estimate(explainer, rows)
    tokens = [len(explainer.target.read(SEQUENCE)), 20 / 46 * len(explainer.target.read(SEQUENCE))]
    assert (found.rows, found.longest, found.passes) == (2, 46, 2 * 184)
    assert found.seconds == pytest.approx(184 * 2 * (1 + np.ceil(tokens[1]) / tokens[0]))
    with pytest.raises(
        UsageError,
        match=r"ig takes about 368 passes .* 9 min.* --most-minutes 5\. .*--method gradient: 12 s.*minutes 11",
    ):
        attribute(model, [SEQUENCE, SEQUENCE[:20]], target=1, most_minutes=5)
    with pytest.raises(UsageError, match=r"--check 0: .*--method gradient --check 0: .*--span 20 --check 0"):
        monkeypatch.setattr(cost, "SPAN", 20)
        attribute_file(model, genome / "peaks.bed", genome / "x", genome=genome / "g.fa", window=30, target=1,
                       method="ism", most_minutes=1)  # fmt: skip
    begun, ticks = [], []
    attribute_file(model, genome / "peaks.bed", genome / "y", genome=genome / "g.fa", check=0, begin=begun.append,
                   tick=ticks.append, most_minutes=1000, **OPTIONS)  # fmt: skip
    assert begun[0].rows == 3 and 0.3 < sum(ticks) / begun[0].work < 1.5


def test_seqlets_by_hand():
    values = np.array([0, 3, 3, 0, 3, 3, 0, 0, 3, 0, -2, -2, -2, -2, np.nan])
    assert seqlets(values, 1.0) == [(1, 6, 12.0), (10, 14, -8.0)]
    assert seqlets(values, 2.0) == [(1, 6, 12.0)]
    assert seqlets(values, np.nan) == []


def test_report_marks_maps_that_fail(genome, tmp_path, capsys):
    """The page of the command line: known sites, another model, pictures; an untrained model does not pass."""
    names = []
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = preset("tiny", vocab_size=make_kmer(2).vocab_size, heads={"main": HEADS["sequence"]})
        save_checkpoint(LongstrandForSequenceClassification(config), make_kmer(2), tmp_path / name)
        names.append(str(tmp_path / name))
    (tmp_path / "sites.bed").write_text("c1\t6\t12\nc1\t20\t24\nc2\t4\t8\n")
    command = ["explain", "attribute", names[0], str(genome / "peaks.bed"), "--genome", str(genome / "g.fa"),
               "-o", str(tmp_path / "maps"), "--target", "1", "--other", names[1], "--strand", "both",
               "--tolerance", "0.5", "--sites", str(tmp_path / "sites.bed"), "--check", "2", "--steps", "5",
               "--most-steps", "5", "-q"]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        main(command)
    assert done.value.code == 0
    report = json.loads((tmp_path / "maps" / "report.json").read_text())
    table = next(section for section in report["sections"] if section["title"] == "Can these maps be trusted?")
    tests = {row[0]: row for row in table["rows"]}
    assert {"method: ism", "baseline: shuffled", "model: second", "strands", "weights mixed up: all",
            "trivial: distance from the centre", "sites (AUROC): the map"} <= set(tests)  # fmt: skip
    assert report["failed"] and all(any(name in line for line in report["warnings"]) for name in report["failed"])
    assert sum(section["kind"] == "locus" for section in report["sections"]) == 3
    group = zarr.open_group(str(tmp_path / "maps" / "attributions.zarr"), mode="r")
    assert list(group.attrs["value_names"]) == ["attribution", "+", "-"]
    with pytest.raises(SystemExit) as refused:
        main([*command[:6], "-o", str(tmp_path / "y"), "--target", "promoter"])
    assert refused.value.code == 2 and "no output 'promoter'" in capsys.readouterr().err
    brief = LongstrandForSequenceClassification(config)
    save_checkpoint(brief, make_kmer(2), tmp_path / "brief", reading=Reading(max_tokens=8))
    with pytest.raises(InputError, match=r"20 bases are 12 tokens.*8 at most"):  # before the first forward
        attribute_file(
            names[0],
            genome / "peaks.bed",
            tmp_path / "short",
            others=[tmp_path / "brief"],
            genome=genome / "g.fa",
            **OPTIONS,
        )
    assert not (tmp_path / "short").exists()
    with pytest.raises(UsageError, match="leave out --check 0"):
        attribute_file(names[0], genome / "peaks.bed", tmp_path / "x", others=[names[1]], check=0, target=1)


def test_long_sequences_are_said_and_not_changed_token_by_token(monkeypatch):
    """Occlusion and substitutions need a pass a token: beyond a limit they are left out, and the page says so."""
    monkeypatch.setattr(trust, "LONG_TOKENS", 9)
    model = Additive(make_kmer(2), **WEIGHTS)
    model.reading = Reading(longest_bases=4)
    explainer = Explainer(model, AttributeOptions(baseline=("mask", "pad"), target=0))
    for text, shown in (("ACGTTTACACGTTTGTAC", True), ("ACGTTTACACGTTTGTACAC", False)):  # 9 and 10 tokens
        values = {
            check.name: check for check in trust.examine(explainer, list(explainer.explain(as_records([text])))).checks
        }
        for name in ("method: ism", "method: occlusion"):
            assert (values[name].value is not None) == shown and (values[name].passed is not None) == shown
        assert values["method: gradient"].value is not None
    with pytest.warns(UserWarning, match="20 bases, but the model was trained on at most 4"):
        attribute(model, text, target=0)


def test_trust_of_a_known_model():
    """Token weights: methods and baselines agree, the most important token falls first."""
    text = "ACGTTTACACGTTTGTACAC"
    model = Additive(make_kmer(2), **WEIGHTS)
    explainer = Explainer(model, AttributeOptions(baseline=("mask", "pad"), target=0))
    found = trust.examine(explainer, list(explainer.explain(as_records([text, "GTACTTTTACGTACAC"]))))
    values = {check.name: check for check in found.checks}
    for name in ("method: gradient", "method: occlusion", "baseline: pad"):
        assert values[name].value == pytest.approx(1.0)
    assert values["deletion: random minus most important"].passed
    curve = found.curves["most important first"]
    assert curve[0] > curve[3] and curve[-1] == pytest.approx(0.25 * 9)
    failed = trust.Trust([trust._check("masking", [-1.0], "deletion", np.False_)], 1).failed
    assert [check.name for check in failed] == ["masking"] and "lowers the output no more" in failed[0].meaning
    assert trust.auroc(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])) == 1
    assert np.isnan(trust.spearman(np.array([1.0, 2, 3]), np.ones(3)))
    np.testing.assert_allclose(trust.gc_around("GGAA")[[0, 3]], [0.5, 0.5])
    assert trust.centre_distance(3).tolist() == [-1, 0, -1]


def test_overlapping_rows_are_averaged_and_gaps_are_missing():
    class Rows:
        data = (np.array([1.0, 2, 3]), np.array([5.0, 7, np.nan]), np.array([9.0]))

        def __len__(self):
            return 3

        def row(self, number):
            return self.data[number]

    places = [Place("c", -1, 2, "+"), Place("c", 1, 4, "-"), Place("c", 6, 7, "+")]
    chunks = list(bins_of(Rows(), places, {"c": 7}))
    values = np.concatenate([values[:, 0] for _, _, values in chunks])
    np.testing.assert_allclose(values, [2, 3, 7, 5, np.nan, np.nan, 9])
    assert [start for _, start, _ in chunks] == np.cumsum([0, *(len(v) for _, _, v in chunks[:-1])]).tolist()
