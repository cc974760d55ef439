"""Kill -9 at random moments, a full disk, a folder that cannot be written: nothing is lost, one sentence is said.

``LONGSTRAND_CHAOS_MOMENTS`` (default 2) is the number of kills for each command. Only the processes that a test started
are ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.window_toys import random_dna, write_fasta
from tests.toys import tiny_checkpoint
from tests.training.test_processes import plain

pytestmark = pytest.mark.slow
MOMENTS = int(os.environ.get("LONGSTRAND_CHAOS_MOMENTS", "2"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a genome, an annotation, a labelled table, a masked LM, a classifier and a published checkpoint."""
    from longstrand.models.checkpoint import load_model, save_checkpoint
    from tests.cli.test_convert import write_published

    folder = tmp_path_factory.mktemp("toys")
    write_fasta(folder / "genome.fa", {name: random_dna(6000, seed=seed) for seed, name in enumerate("abc")})
    genes = []
    for chrom in "abc":
        for number, start in enumerate(range(700, 5200, 900)):
            name = f'gene_id "{chrom}{number}"; transcript_id "{chrom}{number}.1";'
            for kind, first, last in (("transcript", 0, 400), ("exon", 0, 150), ("exon", 250, 400)):
                genes.append(f"{chrom}\tx\t{kind}\t{start + first + 1}\t{start + last}\t.\t+\t.\t{name}")
    (folder / "genes.gtf").write_text("\n".join(genes) + "\n")
    draw, rows = random.Random(0), ["sequence,label"]
    for number in range(240):
        text = "".join(draw.choice("ACGT") for _ in range(60))
        rows.append(f"{text[:28]}{'GATA' if number % 2 else 'CTTC'}{text[32:]},{number % 2}")
    (folder / "own").mkdir()
    for path in (folder / "rows.csv", folder / "own" / "rows.csv"):
        path.write_text("\n".join(rows) + "\n")
    tiny_checkpoint(folder / "lm", k=3)
    head = {"problem": "single_label", "num_outputs": 2}
    model = load_model(folder / "lm", "sequence", new_head=head)
    save_checkpoint(model, model.require_tokenizer(), folder / "classifier")
    write_published("bert", folder / "published")
    return folder


KILLED: dict[str, tuple[str, str]] = {
    "predict": ("calls.csv", "predict {toys}/classifier {toys}/rows.csv -o {out} --part-rows 16"),
    "embed": ("vectors.parquet", "embed {toys}/lm {toys}/rows.csv -o {out} --part-rows 16"),
    "contigs": ("bases.zarr", "embed {toys}/lm {toys}/genome.fa -o {out} --contigs all --pooling bases --window 200"),
    "pretrain": (
        "run",
        "pretrain output={out} data.genomes=[{toys}/genome.fa] tokenizer.kind=kmer tokenizer.k=3 model.preset=tiny "
        "training.steps=12 training.max_tokens=32 training.batch_size=4 training.save_every=3 training.eval_every=6 "
        "training.references=false",
    ),
    "finetune": (
        "run",
        "finetune --model {toys}/lm --train {toys}/rows.csv -o {out} --epochs 2 --lr 1e-3 training.strand=+",
    ),
    "probe": ("run", "probe --model {toys}/lm --train {toys}/rows.csv --output {out} --trials 3"),
    "benchmark": (
        "run",
        "benchmark run --data {toys}/own --model {toys}/lm --output {out} --method full --method probe "
        "--baselines majority,kmer protocol.epochs=2 protocol.resamples=20 protocol.kmer=2 protocol.probe.trials=2",
    ),
}
WRITERS = KILLED | {
    "predict_parquet": ("calls.parquet", "predict {toys}/classifier {toys}/rows.csv -o {out}"),
    "predict_packed": ("calls.tsv.gz", "predict {toys}/classifier {toys}/rows.csv -o {out}"),
    "embed_zarr": ("vectors.zarr", "embed {toys}/lm {toys}/rows.csv -o {out}"),
    "evaluate": ("measured", "evaluate {toys}/classifier {toys}/rows.csv -o {out} --resamples 0"),
    "convert": ("ours", "convert {toys}/published --to longstrand -o {out}"),
    "tokenizer": ("tok", "tokenizer train {toys}/genome.fa --output {out} --vocab-size 40"),
    "inspect": ("tokens.png", "tokenizer inspect {toys}/lm {toys}/genome.fa --plot {out}"),
    "tasks": ("tasks", "benchmark build own --source {toys}/own --output {out}"),
    "from_gtf": (
        "labels",
        "data from-gtf {toys}/genes.gtf {toys}/genome.fa -o {out} --task promoters --valid-chroms b --test-chroms c",
    ),
}


class Zygote:
    """The process that starts the others."""

    def __init__(self, said: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip
        self.said = said
        assert self.answer() == "ready"

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, name: str, toys: Path, folder: Path, limit: int | None = None) -> int:
        """Start a command and give the id of its process."""
        assert self.process.stdin is not None
        words = WRITERS[name][1].format(toys=toys, out=folder / WRITERS[name][0]).split()
        self.process.stdin.write(json.dumps({"words": words, "said": str(self.said), "limit": limit}) + "\n")
        self.process.stdin.flush()
        return int(self.answer())

    def run(self, name: str, toys: Path, folder: Path, limit: int | None = None) -> tuple[int, str]:
        """Run a command to its end; give its exit status and what it printed."""
        self.start(name, toys, folder, limit)
        return int(self.answer()), self.said.read_text()

    def finish(self, name: str, toys: Path, folder: Path) -> Any:
        """Run a command, which must end well; give what must not depend on interruptions."""
        status, said = self.run(name, toys, folder)
        assert status == 0, said
        return result(name, folder / WRITERS[name][0])


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    started = Zygote(tmp_path_factory.mktemp("said") / "said.txt")
    yield started
    started.process.kill()
    started.process.wait()


def result(name: str, output: Path) -> Any:
    if name in ("probe", "benchmark"):
        return plain(json.loads((output / "results.json").read_text()))
    output = output / "model/model.safetensors" if name in ("pretrain", "finetune") else output
    files = [output] if output.is_file() else sorted(path for path in output.rglob("*") if path.is_file())
    assert files
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


@pytest.mark.parametrize("name", KILLED)
def test_kill_at_random_moments(toys: Path, tmp_path: Path, zygote: Zygote, name: str) -> None:
    """Moments are drawn from the time between the first file and the end."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()

    def wait_for_a_file(folder: Path) -> None:
        end = time.monotonic() + 60
        while not any(folder.iterdir()) and time.monotonic() < end:
            time.sleep(0.002)

    zygote.start(name, toys, whole)
    wait_for_a_file(whole)
    begin = time.monotonic()
    assert zygote.answer() == "0", zygote.said.read_text()
    seconds = time.monotonic() - begin
    right = result(name, whole / KILLED[name][0])
    draw, ends = random.Random(name), []
    for _ in range(MOMENTS):
        process = zygote.start(name, toys, cut)
        wait_for_a_file(cut)
        time.sleep(seconds * draw.uniform(0, 0.9))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        ends.append(int(zygote.answer()))
        assert ends[-1] in (0, -signal.SIGKILL), zygote.said.read_text()
    print(f"chaos {name}: {ends.count(-signal.SIGKILL)} killed, {ends.count(0)} ended before")
    assert zygote.finish(name, toys, cut) == right
    assert {path.name for path in cut.iterdir()} == {path.name for path in whole.iterdir()}, "left behind"


@pytest.mark.parametrize("limit", [600, 30_000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence(toys: Path, tmp_path: Path, zygote: Zygote, name: str, limit: int) -> None:
    """A file that grows over the limit cannot be written; afterwards the same command ends well."""
    status, said = zygote.run(name, toys, tmp_path, limit)
    if status == 0 and limit > 600:
        return  # all its files are smaller
    assert status == 1 and "Traceback" not in said, said[-2000:]
    assert "File too large" in said or "disk may be full" in said, said[-2000:]
    zygote.finish(name, toys, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").is_dir(), reason="root writes everywhere")
@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_cannot_be_written_is_one_sentence(toys: Path, tmp_path: Path, zygote: Zygote, name: str) -> None:
    place = Path("/proc") if os.geteuid() == 0 else tmp_path / "locked"
    if os.geteuid() != 0:
        place.mkdir(mode=0o555)
    status, said = zygote.run(name, toys, place / "inside")
    assert status in (1, 2) and "Traceback" not in said, said[-2000:]
    assert said.strip().splitlines()[-1].startswith("longstrand: ")
