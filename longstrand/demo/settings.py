"""The settings of the demo; they are the options of its command."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from longstrand.config import StrictModel


class DemoConfig(StrictModel):
    """What the demo does and where."""

    output: Path = Field(Path("demo_output"), description="folder for everything that is made")
    seed: int = Field(0, ge=0, description="seed of training; the simulated genome is always the same")
    genome: tuple[Path, ...] = Field((), description="FASTA files instead of the simulated genome")
    labels: Path | None = Field(None, description="folder with train.csv, dev.csv, test.csv (sequence,label)")
    quick: bool = Field(False, description="a short run that only shows that everything works")
    yeast: bool = Field(False, description="the real yeast genome with the shipped model, 300 and 2,000 labels")
    annotation: Path | None = Field(None, description="with --yeast and --genome: its GTF or GFF3 file")
    download: bool = Field(False, description="with --yeast: get genome and annotation (about 4 MB), once")

    @model_validator(mode="after")
    def _check(self) -> DemoConfig:
        if self.labels is not None and not self.genome:
            raise ValueError("labels belong to real genomes; give genome too")
        if not self.yeast and (self.annotation is not None or self.download):
            raise ValueError("annotation and download belong to yeast")
        if self.yeast and (self.labels is not None or self.quick):
            raise ValueError("yeast has labels and a size of its own; leave out labels and quick")
        if self.yeast and (self.annotation is None) != (not self.genome):
            raise ValueError("yeast needs both genome and annotation, or neither")
        if self.yeast and self.download and self.genome:
            raise ValueError("give download, or genome and annotation")
        return self
