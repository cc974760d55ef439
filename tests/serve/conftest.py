"""One tiny model that labels bases, one that labels sequences, a genome with genes, and a server of all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from longstrand.serve.app import create_app
from longstrand.serve.gate import Gate
from longstrand.serve.schemas import ServeOptions
from tests.serve.toys import wait_until_ready

LETTERS = "".join(random.Random(0).choices("ACGT", k=1200))
ANNOTATION = """##gff-version 3
chr1\tx\tgene\t101\t300\t.\t+\t.\tID=gene:G1;Name=ABC1
chr1\tx\tmRNA\t101\t300\t.\t+\t.\tID=transcript:T1;Parent=gene:G1
chr1\tx\texon\t101\t150\t.\t+\t.\tParent=transcript:T1
chr1\tx\texon\t201\t300\t.\t+\t.\tParent=transcript:T1
chr1\tx\tgene\t701\t800\t.\t-\t.\tID=gene:G2;Name=ABCD
"""


@dataclass
class Served:
    """A running server and what it serves."""

    app: Gate
    client: TestClient
    folders: dict[str, Path]
    genome: Path

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self.client.post(path, json=body, headers=headers)


def save_with_head(folder: Path, kind: str, names: list[str], **head: Any) -> Path:
    """Save a random model of one layer with a head."""
    from longstrand.models.checkpoint import save_checkpoint
    from longstrand.models.config import preset
    from longstrand.models.pretrained import MODELS
    from longstrand.models.reading import Reading
    from longstrand.runtime import seed_everything
    from longstrand.tokenization.kmer import make_kmer

    tokenizer = make_kmer(2, overlapping=False)
    seed_everything(len(names))
    heads = {kind: {"kind": kind, "num_outputs": len(names), "class_names": names, **head}}
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = preset("tiny", **size, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_token_id, heads=heads)
    reading = Reading(longest_bases=100, class_names=tuple(names))
    return save_checkpoint(MODELS[kind](config), tokenizer, folder, reading=reading)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    return {
        "bases": save_with_head(root / "bases", "token", ["exon", "intron", "else"], problem="single_label"),
        "promoters": save_with_head(root / "promoters", "sequence", ["no", "yes"], problem="single_label"),
    }


@pytest.fixture(scope="session")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    lines = "\n".join(LETTERS[start : start + 60] for start in range(0, 1200, 60))
    path.write_text(f">chr1\n{lines}\n>chr2\nACGTNNacgtACGT\n")
    path.with_name("genes.gff3").write_text(ANNOTATION)
    return path


@pytest.fixture(scope="session")
def served(folders: dict[str, Path], genome: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = ServeOptions(jobs=tmp_path_factory.mktemp("jobs"), max_bases=20_000, max_forwards=200, threads=1)
    annotations = {"g": genome.with_name("genes.gff3")}
    app = create_app(folders, options, genomes={"g": genome}, annotations=annotations)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield Served(app, client, folders, genome)
