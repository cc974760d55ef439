"""A server that answers as ``longstrand serve`` does, from a few lines of made-up numbers, and fails when told to.

The page is tested against it: every state (slow, full, loading, gone) is there at will, in milliseconds.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

import longstrand
from longstrand.genome.intervals import parse_region
from longstrand.serve.gate import CSP

STATIC = Path(longstrand.__file__).parent / "serve" / "static"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LENGTH = 40_000
SEQUENCE = "".join(np.random.default_rng(5).choice(list("ACGT"), LENGTH))
SITE = 12_000
"""Where every made-up output is highest."""


def model(name: str, outputs: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """Describe a model as ``GET /v1/models`` does."""
    return {
        "name": name, "fingerprint": "sha256:0123", "family": "longstrand", "kind": "sequence", "bin_bases": None,
        "outputs": [{"name": each, "unit": "probability", "range": [0, 1], "strand": "both"} for each in outputs],
        "max_tokens": 512, "max_bases": 2000, "trained_bases": 300, "problem": "multi_label",
        "memory": False, "strand": "both",
        "tokenizer": {"kind": "bpe", "vocab_size": 1024, "bases_per_token": 4.1, "fingerprint": "sha256:45"},
        "training": {"metrics on test rows": {"roc auc": 0.91}, "origin": {"steps": 18}},
        "capabilities": ["tokenize", "predict", "tracks", "attribute", "variants"],
        "report": f"/v1/runs/{name}/report.html", **more,
    }  # fmt: skip


MODELS = [model("promoters", ("promoter",)), model("second", ("promoter", "exon"))]
GENE = {"name": "g1.t1", "gene": "abcA", "chrom": "chr1", "start": 11_000, "end": 16_000, "strand": "+",
        "exons": [[11_000, 11_800], [13_000, 13_400], [15_200, 16_000]]}  # fmt: skip


def f32(values: np.ndarray) -> dict[str, Any]:
    return {"base64": base64.b64encode(values.astype("<f4")).decode(), "shape": list(values.shape), "dtype": "<f4"}


class Fake(ThreadingHTTPServer):
    """The server; a test changes its attributes.

    Attributes:
        models, genome, runs: what the server has.
        faults: path to errors (status, body, headers), given one after the other before the true answer.
        seconds: path to how long an answer takes.
        height: of the highest value.
        jobs: what ``GET /v1/jobs/ID`` says, one after the other; the last one stays.
        asked: path and body of every request to /v1.
        tokens: path to the header Authorization that came with the last request for it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.reset()

    def reset(self) -> None:
        self.models, self.genome, self.height = MODELS, True, 0.93
        self.runs = [{"name": "promoters", "kind": "finetuning", "report": "/v1/runs/promoters/report.html"}]
        self.faults: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        self.seconds: dict[str, float] = defaultdict(float)
        self.queue = {"items": 0, "tokens": 0, "seconds": 0}
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []
        self.cancelled: list[str] = []
        self.tokens: dict[str, str | None] = {}

    def values(self, start: int, end: int, size: int, shift: int = 0) -> np.ndarray:
        """Make a peak of 200 bases at `SITE` on a low wave."""
        middle = np.arange(start, end, size) + size / 2 - SITE - shift
        return self.height * np.exp(-((middle / 200) ** 2)) + 0.03 * (1 + np.sin(middle / 90))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that closes a connection is no fault."""


class Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer(None)

    def do_DELETE(self) -> None:
        self.server.cancelled.append(self.path)
        self.send(200, {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(json.loads(text) if "json" in self.headers.get("Content-Type", "") else text.decode())

    def send(self, status: int, content: Any, kind: str = "application/json", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers |= {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": CSP}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, body: Any) -> None:
        server, address = self.server, urlsplit(self.path)
        path, query = unquote(address.path), {key: found[0] for key, found in parse_qs(address.query).items()}
        if not path.startswith("/v1/"):
            file = STATIC / (path.removeprefix("/static/") if path != "/" else "index.html")
            return self.send(200, file.read_bytes(), TYPES[file.suffix]) if file.exists() else self.send(404, {})
        server.asked.append((path, body))
        server.tokens[path] = self.headers.get("Authorization")
        time.sleep(server.seconds[path])
        if server.faults[path]:
            status, error = server.faults[path].pop(0)
            return self.send(status, {"error": error})
        if path.endswith("/g.fa"):
            return self.fasta()
        if path.endswith("/g.fa.fai"):
            return self.send(200, f"chr1\t{LENGTH}\t6\t{LENGTH}\t{LENGTH + 1}\n".encode(), "text/plain")
        if path.endswith("/sequence"):
            place = parse_region(query["region"])
            text = f">{query['region']}\n{SEQUENCE[place.start : place.end]}\n"
            return self.send(200, text.encode(), "text/plain")
        if path.endswith("report.html"):
            return self.send(200, b"<h1>report</h1>", "text/html")
        if path == "/v1/jobs":
            return self.send(202, {"id": "a" * 32, "state": "waiting"}, Location="/v1/jobs/" + "a" * 32)
        if path.startswith("/v1/jobs/"):
            return self.send(200, server.jobs.pop(0) if len(server.jobs) > 1 else server.jobs[0])
        if self.headers.get("Accept") == "application/x-bigwig":
            return self.send(200, b"bigwig", "application/x-bigwig")
        found: Callable[[Any, dict[str, str]], Any] = ANSWERS[path.removeprefix("/v1/")]
        try:
            return self.send(200, found(server, {**query, **(body if isinstance(body, dict) else {})}))
        except KeyError as error:
            return self.send(422, {"error": {"message": f"There is no {error.args[0]}; did you mean chr1?"}})

    def fasta(self) -> None:
        """Give a range of bytes, as igv.js asks for it."""
        text = f">chr1\n{SEQUENCE}\n".encode()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = text[first : last + 1]
        self.send(206, part, "text/plain", **{"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(text)}"})


def place_of(given: dict[str, Any]) -> tuple[str, int, int]:
    if "sequence" in given:
        return given.get("name", "sequence"), 0, len(given["sequence"])
    found = parse_region(given["region"])
    if found.chrom != "chr1":
        raise KeyError(found.chrom)
    return found.chrom, found.start, found.end


def tracks(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    """Give the same wave for a pasted piece of the genome as for its region; anything else is weaker."""
    chrom, start, end = place_of(asked["input"])
    size, letters = asked["bin_size"], asked["input"].get("sequence", "")
    first = max(0, SEQUENCE.find(letters[:100])) if letters else start
    weaker = 0.6 if letters and letters not in SEQUENCE else 1.0
    one = next(each for each in server.models if each["name"] == asked["model"])
    strands = "+-" if asked.get("strand") == "separate" else "."
    found = []
    for number, name in enumerate(asked["outputs"]):
        for place, strand in enumerate(strands):
            values = weaker * server.values(first, first + end - start, size, 700 * number + 90 * place)
            found.append({"name": name, "strand": strand, "values": f32(values)})
    return {
        "request_id": "r1", "model": one["name"], "fingerprint": one["fingerprint"], "unit": "probability",
        "interval": {"chrom": chrom, "start": start, "end": end}, "region": f"{chrom}:{start + 1:,}-{end:,}",
        "bin_size": size, "strand": asked.get("strand", "both"), "tracks": found, "warnings": [], "counts": {},
        "windows": {"length": 300, "step": 50, "blend": "crop", "count": 9, "seam": 0.01}, "timing_ms": {},
    }  # fmt: skip


def search(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    text = asked["q"]
    if text == GENE["gene"]:
        text, kind = "chr1:11,001-16,000", "gene"
    elif "-" in text and text.count("-") == 3:
        interval = {"chrom": "chr1", "start": 12_000, "end": 12_001}
        return {"hits": [{"name": text, "kind": "variant", "region": "chr1:12,001-12,001", "interval": interval}]}
    else:
        kind = "locus"
    try:
        found = parse_region(text)
    except Exception:
        return {"hits": []}
    if found.chrom != "chr1":
        return {"hits": []}
    interval = {"chrom": found.chrom, "start": found.start, "end": found.end}
    return {"hits": [{"name": text, "kind": kind, "region": text, "interval": interval, "strand": "+"}]}


def variants(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for number, name in enumerate(asked["variants"]):
        _, position, ref, alt = name.split("-")
        scores = {"log_ratio": 0.4 + number, "difference": -0.1 * number}
        rows.append({"variant": name, "chrom": "chr1", "pos": int(position), "ref": ref, "alt": alt, "status": "ok",
                     "flag": None, "scores": scores})  # fmt: skip
    columns = [{"name": name, "description": ""} for name in ("log_ratio", "difference")]
    return {"request_id": "r2", "model": asked["model"], "fingerprint": "sha256:0123", "columns": columns, "rows": rows}


def attribute(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    chrom, start, end = place_of(asked["input"])
    values = np.sin(np.arange(end - start) / 3)
    return {"values": f32(values), "target": asked["target"], "gap": 0.004, "status": "ok",
            "interval": {"chrom": chrom, "start": start, "end": end}}  # fmt: skip


def tokenize(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    answers = []
    for each in asked["inputs"]:
        _, start, end = place_of(each)
        edges = [*range(0, end - start, 5), end - start]
        answers.append({"offsets": list(pairwise(edges)), "tokens": ["ACGTA"] * (len(edges) - 1)})
    return {"answers": answers}


def genomes(server: Fake, asked: dict[str, Any]) -> dict[str, Any]:
    one = {"name": "species_a", "fingerprint": "sha256:67", "contigs": [{"name": "chr1", "length": LENGTH}],
           "bases": LENGTH, "fasta": "/v1/genomes/species_a/g.fa", "index": "/v1/genomes/species_a/g.fa.fai",
           "has_annotation": True}  # fmt: skip
    return {"genomes": [one] if server.genome else []}


ANSWERS: dict[str, Callable[[Fake, dict[str, Any]], Any]] = {
    "status": lambda server, _: {
        "state": "ready", "version": "0.1.0", "device": "cpu", "threads": 2, "queue": server.queue,
        "limits": {"bases": 200_000, "inputs": 64}, "token_required": False},
    "models": lambda server, _: {"models": server.models},
    "genomes": genomes,
    "genomes/species_a/search": search,
    "genomes/species_a/genes": lambda server, asked: {"genes": [GENE]},
    "runs": lambda server, _: {"runs": server.runs},
    "tokenize": tokenize, "tracks": tracks, "variants": variants, "attribute": attribute,
}  # fmt: skip


def start() -> Fake:
    """Start a server on a free port of this machine."""
    server = Fake()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
