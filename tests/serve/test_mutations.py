"""Ten thousand broken requests: no answer but refusals and 200, none repeats its input (S9 of issue 15)."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import Any

import pytest

from tests.serve.conftest import LETTERS, Served

SECRET = "TTGACCAGTCAGGATCCAAGT"
INPUT = {"sequence": SECRET + LETTERS[:30], "name": "row"}
REGION = {"genome": "g", "region": "chr1:101-160"}
BODIES: dict[str, Any] = {
    "predict": {"model": "promoters", "inputs": [INPUT, REGION], "output": "logits", "strand": "both"},
    "embed": {"model": "bases", "inputs": [INPUT], "pooling": "mean", "layers": [0, 1]},
    "tokenize": {"model": "bases", "inputs": [INPUT]},
    "tracks": {"model": "bases", "input": REGION, "window": 40, "step": 20, "blend": "hann", "bin_size": 10},
    "attribute": {"model": "promoters", "input": INPUT, "method": "gradient", "target": "yes", "dry_run": True},
    "variants": {"model": "bases", "genome": "g", "variants": [f"chr1-9-{LETTERS[8]}-N"], "window": 60},
}
JUNK: list[Any] = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), "", SECRET, "é" * 30, "\x00", "../../etc/passwd", [], {}, [[]],
    [SECRET], {SECRET: SECRET}, "chr1:0-0", "chr1:9-1", "-", "chr1:1-99999999999999999999", "A" * 3000, ["ACGT"] * 70,
    "<script>",
]  # fmt: skip
PATHS = ["/v1/%2e%2e/x", "/v1/genomes/%00/search?q=a", "/v1/genomes/g/sequence?region=", "/v1/genomes/g/..%2fg.fa",
         "/v1/jobs/" + "0" * 32, "/v1/jobs/..", "/v1/jobs?verb=x", "/v1/runs/x/report.html", "/static/../app.py",
         f"/v1/genomes/g/search?q={SECRET}!", "/v1/genomes/g/genes?region=chr1:1-2-3", "/v1/" + "x" * 4000]  # fmt: skip
HEADERS = [{}, {"x-timeout": "nan"}, {"x-timeout": "-5"}, {"accept": "application/x-bigwig"}, {"accept": "\x7f"},
           {"content-type": "text/plain"}, {"range": "bytes=9-1"}, {"authorization": "Bearer " + SECRET},
           {"host": "localhost:99999"}, {"origin": "null"}, {"last-event-id": "-1"}]  # fmt: skip


def mutated(draw: random.Random, value: Any) -> Any:
    """Replace, remove or add one node of a body."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        how = draw.random()
        if how < 0.1:
            value.pop(key)
        elif how < 0.2:
            value[draw.choice([SECRET, "sequense", "", "model"])] = draw.choice(JUNK)
        else:
            value[key] = mutated(draw, value[key])
        return value
    if isinstance(value, list) and value and draw.random() < 0.7:
        value[draw.randrange(len(value))] = mutated(draw, value[-1])
        return value
    return copy.deepcopy(draw.choice(JUNK))


def ask(served: Served, draw: random.Random) -> Any:
    """Send one broken request."""
    headers = {"content-type": "application/json", **draw.choice(HEADERS)}
    if draw.random() < 0.15:
        return served.client.request(draw.choice(["GET", "DELETE", "PUT"]), draw.choice(PATHS), headers=headers)
    path = draw.choice(list(BODIES))
    body = copy.deepcopy(BODIES[path])
    for _ in range(draw.randint(1, 3)):
        body = mutated(draw, body)
    content = bytearray(json.dumps(body).encode())
    if draw.random() < 0.2:
        for _ in range(draw.randint(1, 5)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    if draw.random() < 0.1:
        content = content[: draw.randrange(len(content))]
    return served.client.post(f"/v1/{path}", content=bytes(content), headers=headers)


@pytest.mark.slow
def test_broken_requests_are_refused(served: Served) -> None:
    draw, number = random.Random(0), int(os.environ.get("LONGSTRAND_MUTATIONS", "10000"))
    statuses: dict[int, int] = {}
    for turn in range(number):
        found = ask(served, draw)
        statuses[found.status_code] = statuses.get(found.status_code, 0) + 1
        assert found.status_code < 500 or found.status_code == 503, (turn, found.status_code, found.text)
        assert "Traceback" not in found.text
        if found.status_code >= 400 and found.content:
            assert set(found.json()["error"]) >= {"code", "message", "request_id"}, (turn, found.text)
            assert SECRET[:12] not in found.text, (turn, found.text)
    assert statuses[422] > number / 3
    assert served.post("/v1/predict", BODIES["predict"]).status_code == 200
