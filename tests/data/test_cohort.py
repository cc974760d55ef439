"""People's haplotypes as training windows."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections import Counter

import numpy as np
import pytest

from longstrand.config import build
from longstrand.data.cohort import Cohort
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_files import RawTable
from longstrand.data.targets import Task
from longstrand.data.windows import HoldOut, TrainingWindows
from longstrand.errors import ConfigError, InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import open_haplotypes
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.examples import TrainingExamples, open_cohort, tokenize
from longstrand.training.settings import DataConfig, DataSettings
from tests.genome.test_haplotypes import write


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Ten people; a fifth of the records are indels, and only ``s0`` carries the first record."""
    folder, draw = tmp_path_factory.mktemp("people"), random.Random(6)
    text = "".join(draw.choices("ACGT", k=4000))
    (folder / "g.fa").write_text(f">c\n{text}\n>d\n{text[::-1]}\n")
    rows = []
    for place in range(20, 3980, 40):
        alt = draw.choice([base for base in "ACGT" if base != text[place]])
        ref, alt = draw.choice([(text[place], alt)] * 4 + [(text[place : place + 4], text[place])])
        calls = [f"{draw.randint(0, 1)}|{draw.randint(0, 1)}" for _ in range(10)] if rows else ["0|1", *["0|0"] * 9]
        rows.append(("c", place + 1, ".", ref, alt, ".", ".", ".", "GT", *calls))
    return open_haplotypes(write(folder / "in.vcf", rows, [f"s{n}" for n in range(10)]), Genome(folder / "g.fa"))


def windows(people, **options):
    settings = {"num_bases": 200, "num_samples": 60, "seed": 3, **options}
    return TrainingWindows([people.genome], cohort=Cohort(people), **settings)


@pytest.mark.parametrize("order", ["random", "epoch"])
def test_windows_are_haplotypes_and_depend_on_seed_and_number(people, order):
    made, again = windows(people, order=order), windows(people, order=order)
    plain = TrainingWindows([people.genome], num_bases=200, num_samples=60, seed=3, order=order)
    names = [(name, number) for name in people.samples for number in (1, 2)]
    differ = 0
    for index in reversed(range(60)):
        window, reference = made[index], plain[index]
        assert window.sequence == again[index].sequence and window.interval == reference.interval
        place = window.interval
        every = [people.window(place.chrom, place.start, place.end, *name).sequence for name in names]
        shown = reverse_complement(window.sequence) if window.strand == "-" else window.sequence
        assert shown in every
        differ += window.sequence != reference.sequence
        positions = window.reference_positions
        assert len(positions) == len(window.sequence)
        raw = people.genome.fetch(place.chrom, 0, 4000)
        same = [raw[p] == base for p, base in zip(positions[:: 1 if window.strand == "+" else -1], shown) if p >= 0]
        assert np.mean(same) > 0.95
        assert place.chrom == "c" or window.sequence == reference.sequence
    assert 15 < differ < 45


def test_what_is_held_out_is_held_out_in_all_people(people):
    made = windows(people, holdout=HoldOut(contigs=("d",), intervals=(Interval("c", 1000, 2000),)), num_samples=300)
    for window in made:
        assert window.interval.chrom == "c"
        assert not ((window.reference_positions >= 1000) & (window.reference_positions < 2000)).any()


def test_weighting_by_distinct_sequence_and_rare_alleles(people):
    same, other = (people.window("c", 0, 30, "s0", number).sequence for number in (1, 2))
    assert people.distinct("c", 0, 30) == [("s0", 1), ("s0", 2)] and people.distinct("d", 0, 30) == []
    shares = {}
    for weighting in ("individuals", "distinct"):
        cohort = Cohort(people, weighting=weighting)
        counts = Counter(cohort.read("c", 0, 30, seed=1, index=index).sequence for index in range(400))
        assert set(counts) == {same, other}
        shares[weighting] = counts[other] / 400
    assert shares["individuals"] == pytest.approx(1 / 20, abs=0.03) and shares["distinct"] == pytest.approx(
        1 / 2, abs=0.08
    )
    rare = Cohort(people, min_frequency=0.1)
    assert {rare.read("c", 0, 30, seed=1, index=index).sequence for index in range(100)} == {same}
    draws = {tuple(people.distinct("c", start, start + 200)) for start in (0, 300, 777)}
    for start in (0, 300, 777):
        every = [people.window("c", start, start + 200, f"s{n}", h).sequence for n in range(10) for h in (1, 2)]
        found = [
            people.window("c", start, start + 200, *name).sequence for name in people.distinct("c", start, start + 200)
        ]
        assert set(found) == set(every)
    assert len(draws) > 1


def test_settings(tmp_path, people):
    data = build(DataConfig, {"genomes": "g.fa", "variants": "cohort.vcf.gz"})
    assert str(data.variants.path) == "cohort.vcf.gz" and data.variants.weighting == "individuals"
    with pytest.raises(ConfigError, match=r"data\.variants belongs to one genome"):
        build(DataConfig, {"genomes": ["g.fa", "h.fa"], "variants": "cohort.vcf.gz"})
    rows = [("c", 21, ".", people.genome.fetch("c", 20, 21), "AACC", ".", ".", ".", "GT", "0/1", "0|1")]
    loose = open_haplotypes(write(tmp_path / "in.vcf", rows, ["S", "T"]), people.genome)
    with pytest.raises(InputError, match="1 of 1 heterozygous calls of 'S' are not phased"):
        Cohort(loose)
    assert Cohort(loose, unphased="random").read("c", 0, 30, seed=0, index=0)


def labelled(folder, problem: str):
    """One row a strand over an insertion and a deletion: a person with both on one haplotype, labels ``0123...``."""
    text = "ACGTTGCATCAGGATC" * 2
    (folder / "g.fa").write_text(f">c\n{text}\n")
    genome = Genome(folder / "g.fa")
    rows = [("c", 11, ".", text[10], text[10] + "TT", ".", ".", ".", "GT", "0|1"),
            ("c", 15, ".", text[14:18], text[14], ".", ".", ".", "GT", "0|1")]  # fmt: skip
    people = open_haplotypes(write(folder / "in.vcf", rows, ["S"]), genome)
    places = [Interval("c", 8, 24), Interval("c", 8, 24, "-")]
    texts = [genome.fetch_interval(place) for place in places]
    raw = RawTable("t.bed", [1, 2], texts, {}, places=places)
    if problem == "token":
        task = Task("token", tuple("abcdefghijklmnop"), ("l",))
        return people, text, LabelledTable(raw, task, [np.arange(16, dtype=np.int16)] * 2)
    task = Task("regression", ("x", "y"), ("x", "y"), "columns", ("x", "y"), "", 4)
    values = [np.array([[1, 5], [2, np.nan], [3, 7], [4, 8]], np.float32)] * 2
    return people, text, LabelledTable(raw, task, values)


@pytest.mark.parametrize("problem", ["token", "bins"])
def test_labels_go_with_their_bases(tmp_path, problem):
    """By hand: bases 8-10, two inserted, 11-14, three deleted, 18-23; on the other strand the same, reversed."""
    people, text, table = labelled(tmp_path, problem)
    tokenizer = make_kmer(1)
    tokens = tokenize(table, tokenizer, None)
    made = TrainingExamples(table, tokens, tokenizer, batch_size=1, epochs=40, seed=1, cohort=Cohort(people),
                            alphabet=tokenizer.alphabet)  # fmt: skip
    again = pickle.loads(pickle.dumps(made))
    own = text[8:11] + "TT" + text[11:15] + text[18:24]
    at = [0, 1, 2, -1, -1, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15]
    kept = {"+": [-100 if i < 0 else i for i in at], "-": [-100 if i < 0 else 15 - i for i in at[::-1]]}
    # + bins of 4 bases: 0 1 2 - | - 3 4 5 | 6 10 11 12, rest dropped; row bins 0000 1111 2222 3333
    bins = {"+": [[1, 5], [5 / 3, np.nan], [(2 + 3 + 3 + 4) / 4, (7 + 7 + 8) / 3]]}
    # - bins of 4 bases: row bases 0 1 2 3 | 4 5 9 10 | 11 12 - - , the rest dropped
    bins["-"] = [[1, 5], [2.5, 7], [3.5, 7.5]]
    seen = set()
    for number in reversed(range(len(made))):
        example, same = made[number], again[number]
        np.testing.assert_array_equal(example["labels"], same["labels"])
        np.testing.assert_array_equal(example["input_ids"], same["input_ids"])
        row = int(made._order(number // (made.num_batches * made.batch_size))[number % made.num_batches])
        strand = table.raw.places[row].strand
        letters = "".join(word for i in example["input_ids"] if len(word := tokenizer.token_strings[i]) == 1)
        shown = own if strand == "+" else reverse_complement(own)
        is_own = letters[:12] == shown[:12]
        seen.add((strand, is_own))
        if problem == "token":
            labels = example["labels"][1:-1].tolist()
            assert labels == (kept[strand] if is_own else list(range(16)))
        else:
            right = np.array(bins[strand]) if is_own else table.targets[row]
            np.testing.assert_allclose(example["labels"], right, rtol=1e-6)
    assert len(seen) == 4


def test_where_a_haplotype_cannot_be_read_the_row_stands(tmp_path):
    people, text, table = labelled(tmp_path, "bins")
    rows = [("c", 8, ".", text[7:24], text[7], ".", ".", ".", "GT", "1|1")]
    gone = open_haplotypes(write(tmp_path / "gone.vcf", rows, ["S"]), people.genome)
    tokenizer = make_kmer(1)
    tokens = tokenize(table, tokenizer, None)
    made = TrainingExamples(table, tokens, tokenizer, batch_size=2, epochs=3, seed=1, cohort=Cohort(gone))
    for number in range(len(made)):
        np.testing.assert_array_equal(made[number]["labels"], table.targets[0])
    with pytest.raises(UsageError, match=r"t\.csv: data\.variants is for rows that are intervals on a genome"):
        settings = build(DataSettings, {"train": "t.csv", "fasta": str(tmp_path / "g.fa"), "variants": "in.vcf"})
        open_cohort(settings, dataclasses.replace(table, raw=RawTable("t.csv", [1, 2], table.sequences, {})))
