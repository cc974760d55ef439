"""Ten thousand damaged files through the ordinary readers: an answer or one sentence, never a traceback or a hang.

Input *i* of a reader is a pure function of its name and *i* (the seed), so a failure is repeated with
``pytest tests/fuzz -m slow -k NAME`` and ``LONGSTRAND_FUZZ=i``. Harmless changes (line ends, order of columns, letter
case, compression) must change no value. The counts of the last run stand in ``docs/LOG.md``.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import zstandard

from longstrand.config import from_command_line
from longstrand.data.labelled import label
from longstrand.data.labelled_files import GenomeWindows, LabelColumns, read_labelled
from longstrand.data.rows import Columns, has_intervals, read_intervals, read_records
from longstrand.data.tables import read_table
from longstrand.data.targets import infer_task
from longstrand.errors import LongstrandError
from longstrand.genome.annotation import read_annotation, transcripts
from longstrand.genome.coverage import open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.sequence import normalise
from longstrand.models.checkpoint import load_network, save_checkpoint
from longstrand.models.config import preset
from longstrand.models.pretrained import LongstrandForMaskedLM
from longstrand.tokenization.hub import load_tokenizer
from longstrand.tokenization.kmer import make_kmer
from longstrand.training.settings import FinetuneConfig

pytestmark = pytest.mark.slow
LONGEST_SECONDS = 20
NASTY = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"\n\n", b"\t", b",", b";", b'"', b"'", b"#",
    b"NaN", b"inf", b"-1", b"1e999", b"1_0", b"99999999999999999999", b"\xc3\xa9", "😀".encode(), b"\xe2\x80\xa8",
    b"null", b"[", b"{", b"}", b"]", b"track ", b"sep=;", b"0,5", b"0" * 40, b" ", b"\x1f\x8b", b"\x28\xb5\x2f\xfd",
    b"PK\x03\x04", b"PAR1", b"NA", b"@", b"+\n", b"--", b"true", b"&a", b"*a", b"!!python/object:os.system", b"\x0b",
    b"\x1a", b">",
]  # fmt: skip


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Damage a file in one to four places: bytes, words, lines, slices, its end."""
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data) + 1)
        length = chance.choice([1, 1, 2, 8, 40])
        kind = chance.randrange(8)
        if kind == 0:
            data = data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]
        elif kind in (1, 2):
            data = data[:place] + chance.choice(NASTY) + data[place + (kind == 2) * length :]
        elif kind == 3:
            data = data[:place] + data[place + length :]
        elif kind == 4:
            data = data[:place]
        elif kind == 5:
            data = data[:place] + data[place : place + length] * chance.choice([2, 3, 50]) + data[place + length :]
        elif kind == 6:
            lines = data.splitlines(keepends=True)
            chance.shuffle(lines)
            data = b"".join(lines)
        else:
            lines = data.splitlines(keepends=True)
            data = b"".join(lines[: place % (len(lines) + 1)]) + b"".join(lines[(place + 1) % (len(lines) + 1) :])
    return chance.choice([bytes, bytes, bytes, gzip.compress])(data)


def letters(chance: random.Random, length: int) -> str:
    return "".join(chance.choices("ACGTacgtN", k=length))


def table_text(chance: random.Random) -> bytes:
    kind = chance.choice(["classes", "numbers", "bases", "vectors", "places", "json"])
    rows = []
    for number in range(chance.randint(1, 12)):
        text = letters(chance, chance.randint(4, 12))
        value = {
            "classes": chance.choice(["yes", "no", "maybe"]), "numbers": f"{chance.random():.3f}",
            "bases": "".join(chance.choices("EI", k=len(text))), "vectors": ";".join(chance.choices("01", k=3)),
        }.get(kind, "x")  # fmt: skip
        start = chance.randrange(60)
        rows.append(
            ["chr1", str(start), str(start + 9), "+", value] if kind == "places" else [f"r{number}", text, value]
        )
    header = ["chrom", "start", "end", "strand", "label"] if kind == "places" else ["name", "sequence", "label"]
    if kind == "json":
        return json.dumps([dict(zip(header, row)) for row in rows]).encode()
    separator = chance.choice(",\t" if kind == "vectors" else ",\t;")
    return "".join(separator.join(cells) + "\n" for cells in [header, *rows]).encode()


def fasta_text(chance: random.Random) -> bytes:
    width = chance.choice([3, 10, 60])
    parts = []
    for number in range(chance.randint(1, 4)):
        text = letters(chance, chance.randint(1, 90))
        lines = [text[start : start + width] + "\n" for start in range(0, len(text), width)]
        parts.append(f">s{number} title\n" + "".join(lines))
    return "".join(parts).encode()


def interval_text(chance: random.Random, kind: str) -> bytes:
    lines = [] if chance.random() < 0.5 else [{"gff": "##gff-version 3"}.get(kind, "track name=x")]
    for number in range(chance.randint(1, 9)):
        start = 12 * number + chance.randrange(3)
        cells = {
            "bed": ["chr1", start, start + 9, f"n{number}", 0, chance.choice("+-.")],
            "bedgraph": ["chr1", start, start + 9, round(chance.random(), 3)],
            "gff": [
                "chr1",
                "x",
                chance.choice(["gene", "exon", "CDS"]),
                start + 1,
                start + 9,
                ".",
                "+",
                "0",
                "ID=a;Parent=b",
            ],
        }[kind]
        lines.append("\t".join(map(str, cells)))
    return ("\n".join(lines) + "\n").encode()


YAML = b"""model: {path: m, init: pretrained}
data: {train: t.csv, columns: {labels: [a, b], sequence: seq}, valid_fraction: 0.1}
training: {epochs: 3, learning_rate: 1e-4, batch_size: 8, seed: 1}
output: run
"""


class Readers:
    """The reader of each kind of file, on files of one folder."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        (folder / "g.fa").write_text(">chr1\n" + "ACGTTGCAAC" * 12 + "\n")
        self.genome = Genome(folder / "g.fa")

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def table(self, data: bytes) -> object:
        path = self.write("t", data)
        frame = None if has_intervals(path) else read_table(path)
        genome = self.genome if has_intervals(path) else None
        records = list(read_records(path, genome=genome))
        if frame is not None:
            assert len(records) == frame.height, "two readers, two numbers of rows"
        raw = read_labelled(path, windows=None if genome is None else GenomeWindows(genome))
        assert len(raw) == len(records), "two readers, two numbers of rows"
        task = infer_task(raw)
        return label(raw, task).targets

    def fasta(self, data: bytes) -> object:
        path = self.write("f", data)
        records = [(record.name, record.sequence) for record in read_records(path)]
        genome = Genome(path)
        fetched = [(name, genome.fetch(name, 0, length)) for name, length in genome.contigs.items()]
        assert fetched == records, "two readers, two sequences"
        return [normalise(text) for _, text in records]

    def bed(self, data: bytes) -> object:
        path = self.write("b.bed", data)
        return read_intervals(path), list(read_records(path, genome=self.genome, window=7))

    def bedgraph(self, data: bytes) -> object:
        return open_signal(self.write("b.bedgraph", data)).values("chr1", 0, 99)

    def gff(self, data: bytes) -> object:
        return transcripts(read_annotation(self.write("a.gff", data)))

    def yaml(self, data: bytes) -> object:
        return from_command_line(FinetuneConfig, self.write("c.yaml", data), [], {})

    def _loaded(self, name: str, data: bytes, load: Callable[[Path], object]) -> object:
        copy = self.folder / "model"
        shutil.copytree(self.model, copy, dirs_exist_ok=True)
        (copy / name).write_bytes(data)
        return load(copy)

    def config(self, data: bytes) -> object:
        return self._loaded("config.json", data, lambda folder: load_network(folder, "masked_lm"))

    def tokenizer(self, data: bytes) -> object:
        return self._loaded("tokenizer.json", data, lambda folder: load_tokenizer(folder).encode("ACGTNACG"))

    def weights(self, data: bytes) -> object:
        return self._loaded("model.safetensors", data, lambda folder: load_network(folder, "masked_lm"))


COUNTS = {
    "table": 3000, "fasta": 1500, "bed": 1200, "bedgraph": 800, "gff": 1000, "yaml": 1000, "config": 500,
    "tokenizer": 600, "weights": 400,
}  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    folder = tmp_path_factory.mktemp("fuzz")
    os.environ["LONGSTRAND_CACHE"] = str(folder / "cache")
    torch.manual_seed(0)
    tokenizer = make_kmer(1)
    model = LongstrandForMaskedLM(preset("tiny", vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2))
    save_checkpoint(model, tokenizer, folder / "saved")
    (folder / "saved" / "longstrand.json").unlink(missing_ok=True)
    return Readers(folder, folder / "saved")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer within {LONGEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def original(name: str, readers: Readers, chance: random.Random) -> bytes:
    """Make a valid file of a kind."""
    if name in ("bed", "bedgraph", "gff"):
        return interval_text(chance, name)
    if name in ("table", "fasta"):
        return {"table": table_text, "fasta": fasta_text}[name](chance)
    if name == "yaml":
        return YAML
    files = {"config": "config.json", "tokenizer": "tokenizer.json", "weights": "model.safetensors"}
    return (readers.model / files[name]).read_bytes()


@pytest.mark.parametrize("name", COUNTS)
def test_damaged_files(name: str, readers: Readers, record_property: Callable[[str, object], None]) -> None:
    only = os.environ.get("LONGSTRAND_FUZZ")
    counts: Counter[str] = Counter()
    failures = []
    for seed in range(COUNTS[name]) if only is None else [int(only)]:
        chance = random.Random(f"{name}:{seed}")
        data = mutate(original(name, readers, chance), chance)
        signal.alarm(LONGEST_SECONDS)
        try:
            getattr(readers, name)(data)
            counts["read"] += 1
        except LongstrandError as error:
            counts["refused"] += 1
            if "\n" in str(error).strip() or len(str(error)) > 4000:
                failures.append(f"seed {seed}: not one sentence: {str(error)[:300]}")
        except Exception:  # whatever it is, it is the fault that is looked for
            counts["failed"] += 1
            failures.append(f"seed {seed}: {traceback.format_exc(limit=-3)}")
        signal.alarm(0)
    print(f"fuzz {name}: {dict(counts)}")
    assert not failures, f"{len(failures)} of {sum(counts.values())}: " + "\n".join(failures[:8])


def test_harmless_changes_change_no_value(readers: Readers) -> None:
    """Line ends, order of columns, letter case of sequences and compression of 300 valid tables and FASTA files."""

    def values(path: Path) -> list[tuple[str, str, str | None]]:
        records = list(read_records(path, columns=Columns(name="name")))
        cells = read_labelled(path, LabelColumns(labels="label")).labels["label"]
        return [(record.name, record.sequence.upper(), cell) for record, cell in zip(records, cells, strict=True)]

    for seed in range(300):
        chance = random.Random(f"harmless:{seed}")
        data = table_text(chance)
        while b"sequence" not in data or data.startswith(b"["):
            data = table_text(chance)
        right = values(readers.write("t", data))
        separator = next(mark for mark in (b"\t", b";", b",") if mark in data.split(b"\n")[0])
        turned = b"\n".join(separator.join(reversed(line.split(separator))) for line in data.splitlines()) + b"\n"
        lower = b"\n".join(
            separator.join(
                cell.lower() if place == 1 and row else cell for place, cell in enumerate(line.split(separator))
            )
            for row, line in enumerate(data.splitlines())
        )
        ends = [data.replace(b"\n", end) for end in (b"\r\n", b"\r")]
        for changed in (
            turned,
            lower,
            *ends,
            gzip.compress(data),
            b"\xef\xbb\xbf" + data,
            data.decode().encode("utf-16"),
        ):
            assert values(readers.write("t", changed)) == right, seed
        fasta = fasta_text(chance)
        fingerprint = Genome(readers.write("f", fasta)).fingerprint
        for changed in (
            fasta.replace(b"\n", b"\r\n"),
            fasta.replace(b"\n", b"\r"),
            gzip.compress(fasta),
            fasta + b"\n",
        ):
            assert Genome(readers.write("f", changed)).fingerprint == fingerprint, seed


@pytest.mark.parametrize("name", ["bed", "bedgraph", "gff"])
def test_harmless_changes_change_no_interval(name: str, readers: Readers) -> None:
    """Line ends, marks, encodings and compressions of 100 valid files."""

    def values(data: bytes) -> object:
        found = getattr(readers, name)(data)
        if name == "bed":
            return [(record.name, record.sequence, record.interval) for record in found[1]]
        return found.tolist() if name == "bedgraph" else found

    for seed in range(100):
        data = interval_text(random.Random(f"harmless:{seed}"), name)
        right = values(data)
        texts = [data.replace(b"\n", end) for end in (b"\r\n", b"\r", b"\n\n")] + [data + b"\n", b"\xef\xbb\xbf" + data]
        packed = [gzip.compress(data), zstandard.ZstdCompressor().compress(data), data.decode().encode("utf-16")]
        for changed in texts + packed:
            assert repr(values(changed)) == repr(right), (seed, changed[:20])
