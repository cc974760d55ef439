"""What requests look like. Unknown fields are refused; what a model can answer is checked where it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from longstrand.config import StrictModel

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Text = Annotated[str, StringConstraints(max_length=200)]
Strand = Literal["+", "-", "both"]
Encoding = Literal["json", "f32"]
MOST = 1_000_000_000
"""Largest number of bases in a request."""
VERBS = ("predict", "embed", "tracks", "variants", "attribute")


class ServeOptions(StrictModel):
    """How a server behaves; the fields are the options of ``longstrand serve``."""

    host: str = Field("127.0.0.1", description="address to listen on; any other than the loopback needs a token")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: a free one")
    token: str | None = Field(None, min_length=8, description="what clients send as 'Authorization: Bearer'")
    allow_host: tuple[str, ...] = Field((), description="further names under which the server may be called")
    cors: tuple[str, ...] = Field((), description="origins of other pages that may call")
    device: str | None = Field(None, description="auto (a GPU if there is one), cpu, cuda, cuda:1, mps")
    threads: int | None = Field(None, ge=1, description="processor threads of the model; by default all that are free")
    batch_tokens: int = Field(8192, ge=1, description="most tokens in a batch")
    max_bases: int | None = Field(None, ge=1, description="bases a request; by default 200000 (CPU) or 2000000 (GPU)")
    max_inputs: int = Field(64, ge=1, description="sequences a request")
    max_body: int = Field(8 << 20, ge=1024, description="bytes of a request")
    max_upload: int = Field(1 << 30, ge=1024, description="bytes of a job's file, and what it unpacks to")
    max_forwards: int = Field(4000, ge=1, description="forward passes that one request for attributions may cost")
    max_variants: int = Field(200, ge=1, description="variants a request")
    max_wait: float = Field(
        30.0, gt=0, description="seconds that a request may wait; more is refused from half of it on"
    )
    timeout: float = Field(120.0, gt=0, description="longest time of a request in seconds")
    max_jobs: int = Field(100, ge=0, description="jobs that may wait; 0: no jobs")
    jobs: Path | None = Field(None, description="folder of jobs; by default a new temporary one, gone with the server")
    keep_days: float = Field(7.0, ge=0, description="days after which the folder of a finished job is removed")


class Input(StrictModel):
    """A sequence, or a region of a genome."""

    sequence: str | None = None
    name: Name | None = None
    genome: Name | None = None
    region: Text | None = None
    strand: Literal["+", "-"] | None = None


class TokenizeRequest(StrictModel):
    """Sequences to cut into tokens."""

    model: Name
    inputs: list[Input] = Field(min_length=1)


class PredictRequest(StrictModel):
    """Sequences to predict."""

    model: Name
    inputs: list[Input] = Field(min_length=1)
    output: Literal["probabilities", "logits"] | None = None
    strand: Strand | None = None
    per: Literal["sequence", "base", "token"] | None = None
    truncate: bool = False
    encoding: Encoding = "json"


class EmbedRequest(StrictModel):
    """Sequences to turn into vectors."""

    model: Name
    inputs: list[Input] = Field(min_length=1)
    pooling: Literal["mean", "mean_all", "max", "cls", "tokens", "bases"] = "mean"
    layer: int = -1
    layers: list[int] = Field([], max_length=100)
    strand: Strand | None = None
    truncate: bool = False
    encoding: Encoding = "f32"


class TracksRequest(StrictModel):
    """A sequence or region to predict along."""

    model: Name
    input: Input
    outputs: list[Name] = Field([], max_length=10_000)
    output: Literal["probabilities", "logits"] | None = None
    bin_size: int | None = Field(None, ge=1, le=MOST)
    reduce: Literal["mean", "sum"] = "mean"
    strand: Literal["+", "-", "both", "separate"] | None = None
    window: int | None = Field(None, ge=1, le=MOST)
    step: int | None = Field(None, ge=1, le=MOST)
    blend: Literal["crop", "average", "hann"] = "crop"
    threshold: float | None = None
    encoding: Encoding = "f32"


class AttributeRequest(StrictModel):
    """A sequence of which is asked which bases matter."""

    model: Name
    input: Input
    target: Name | int | None = None
    against: Name | int | None = None
    method: Literal["ig", "gradient", "occlusion", "ism", "deletion", "insertion", "block"] = "ig"
    baseline: list[Name] = Field([], max_length=1)
    region: Text | None = None
    strand: Strand | None = None
    encoding: Encoding = "json"
    dry_run: bool = False


class VariantTracks(StrictModel):
    """Ask for predictions along both alleles."""

    flank: int = Field(200, ge=1, le=MOST)


class VariantsRequest(StrictModel):
    """Variants to score."""

    model: Name
    genome: Name
    variants: list[Text] = Field(min_length=1)
    scores: list[Name] = Field([], max_length=20)
    outputs: list[Name] = Field([], max_length=1000)
    window: int | None = Field(None, ge=1, le=MOST)
    strand: Strand | None = None
    tracks: VariantTracks | None = None
    encoding: Encoding = "json"


FIELDS = sorted({name for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, StrictModel)
                 and kind is not ServeOptions for name in kind.model_fields})  # fmt: skip
"""Names of all fields, for hints."""


def asked(request: StrictModel, *names: str) -> dict[str, Any]:
    """Give the fields of a request that were sent and are not null."""
    return {name: value for name in names if name in request.model_fields_set
            and (value := getattr(request, name)) is not None}  # fmt: skip
