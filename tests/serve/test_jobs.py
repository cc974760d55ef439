"""Jobs: the files of the commands, progress as events, kill and restart, refusals."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import longstrand as ls
from longstrand.runtime import read_json, write_json
from longstrand.serve.jobs import read_events
from longstrand.serve.worker import Events, main
from tests.serve.conftest import LETTERS, Served

FASTA = "".join(f">s{number}\n{LETTERS[number : number + 60]}\n" for number in range(30)).encode()


VCF = b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t9\t.\tA\tC\t.\t.\t.\n"


def post(served: Served, content: bytes = FASTA, **parameters: Any) -> Any:
    given = {"verb": "predict", "model": "promoters", "format": "fasta", **parameters}
    return served.client.post("/v1/jobs", params={k: v for k, v in given.items() if v is not None}, content=content)


def test_a_job_gives_the_file_of_the_command(served: Served, tmp_path: Path) -> None:
    posted = post(served, gzip.compress(FASTA), options=json.dumps({"strand": "both"}))
    assert posted.status_code == 202, posted.text
    job = posted.headers["location"]
    with served.client.stream("GET", f"{job}/events") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        events = "".join(stream.iter_text())
    assert events.count("event: end\n") == 1 and '"state":"done"' in events
    card = served.client.get(job).json()
    assert (card["state"], card["done"], card["total"], card["unit"]) == ("done", 30, 30, "sequences")
    (file,) = card["files"]
    source = tmp_path / "in.fa"
    source.write_bytes(FASTA)
    ls.predict_file(str(served.folders["promoters"]), source, tmp_path / "out.tsv", strand="both")
    content = served.client.get(file["url"])
    assert content.content == (tmp_path / "out.tsv").read_bytes()
    part = served.client.get(file["url"], headers={"Range": "bytes=0-4"})
    assert (part.status_code, part.content, part.headers["etag"]) == (206, b"index", content.headers["etag"])
    last = served.client.get(f"{job}/events", headers={"Last-Event-ID": "99"}).text
    assert last.count("event: ") == 2 and "event: end" in last
    assert served.client.delete(job).json()["state"] == "removed"
    assert served.client.get(job).json()["error"]["code"] == "unknown_job"


@pytest.mark.parametrize(
    ("content", "parameters", "where"),
    [
        (FASTA, {"format": "vcf", "verb": "variants", "genome": "g"}, "format"),
        (FASTA, {"format": None}, "format"),
        (FASTA, {"options": '{"strnd": "both"}'}, "options"),
        (FASTA, {"options": '{"device": "cpu"}'}, "options.device"),
        (FASTA, {"options": "["}, "options"),
        (b"chr1\t1\t20\n", {"format": "bed"}, "genome"),
        (b"", {}, "body"),
        (FASTA, {"verb": "train"}, "verb"),
    ],
)
def test_jobs_that_are_refused(served: Served, content: bytes, parameters: dict[str, Any], where: str) -> None:
    found = post(served, content, **parameters)
    assert (found.status_code, found.json()["error"]["where"]) == (422, where), found.text
    assert "/tmp" not in found.text


def test_a_bomb_is_refused(served: Served) -> None:
    options = served.app.server.options
    served.app.server.options = options.model_copy(update={"max_upload": 10_000})
    try:
        found = post(served, gzip.compress(b">a\n" + b"A" * 100_000))
    finally:
        served.app.server.options = options
    assert (found.status_code, found.json()["error"]["code"]) == (413, "body_too_long")


def test_a_waiting_job_is_cancelled(served: Served) -> None:
    server = served.app.server
    body_of, server.check_ready = server.check_ready, lambda: None  # type: ignore[method-assign]
    server.state = "stopping"
    try:
        job = post(served).headers["location"]
        assert served.client.get(job).json()["position"] == 1
        assert served.client.delete(job).json()["state"] == "cancelled"
    finally:
        server.state, server.check_ready = "ready", body_of  # type: ignore[method-assign]
    card = next(one for one in served.client.get("/v1/jobs").json()["jobs"] if job.endswith(one["id"]))
    assert (card["state"], card["position"], card["files"]) == ("cancelled", None, [])


def folder_of_job(served: Served, folder: Path, verb: str, **more: Any) -> Path:
    """Write the request of a job as the server does."""
    (folder / "out").mkdir(parents=True)
    (folder / "input").write_bytes(FASTA)
    request = {"verb": verb, "model": "m", "folder": str(served.folders["bases"]), "genome": "g", "format": "fasta",
               "genome_path": str(served.genome), "options": {}, "created": 0.0, "threads": 1, **more}  # fmt: skip
    write_json(folder / "request.json", request)
    return folder


@pytest.mark.parametrize(
    ("verb", "more", "content", "file"),
    [
        ("embed", {"genome_path": None}, FASTA, "embeddings.parquet"),
        ("tracks", {"format": "bed", "options": {"window": 100}}, b"chr1\t100\t300\n", "tracks/tracks.json"),
        ("variants", {"format": "vcf", "options": {"window": 100, "mismatch": "skip"}},
         VCF, "variants.vcf.gz"),
        ("attribute", {"genome_path": None, "options": {"target": "exon", "check": 0, "method": "gradient"}}, FASTA,
         "attributions/sequences.tsv"),
    ],
)  # fmt: skip
def test_every_verb_has_its_file(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, more: Any, content: bytes, file: str
) -> None:
    monkeypatch.setattr("os.nice", lambda number: None)
    folder = folder_of_job(served, tmp_path / "job", verb, **more)
    (folder / "input").write_bytes(content)
    assert main(folder) == 0, (folder / "error.json").read_text()
    assert (folder / "out" / file).is_file()
    assert read_events(folder)[-1][0] == "progress"


def test_a_job_that_fails_says_why(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda number: None)
    folder = folder_of_job(served, tmp_path / "job", "predict", genome_path=None)
    (folder / "input").write_bytes(FASTA + b">long\nAC!T\n")
    assert main(folder) == 1
    message = read_json(folder / "error.json")["error"]["message"]
    assert message.startswith("input") and "position 3" in message and str(tmp_path) not in message


def test_torn_lines_of_events_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('["progress", {"done": 1}]\n["progr')
    assert read_events(tmp_path) == [("progress", {"done": 1})]
    Events(file, "bases").tell(1.0)
    assert [kind for kind, _ in read_events(tmp_path)] == ["progress", "start", "progress"]


@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_gives_the_same_bytes(served: Served, tmp_path: Path) -> None:
    import subprocess
    import sys

    fasta = "".join(f">s{number}\n{LETTERS[number % 900 :][:200]}\n" for number in range(3_000)).encode()
    outputs = []
    for name, kills in (("calm", 0), ("killed", int(os.environ.get("LONGSTRAND_KILLS", "20")))):
        folder = folder_of_job(served, tmp_path / name, "predict", genome_path=None, options={"part_rows": 50})
        (folder / "input").write_bytes(fasta)
        while not (folder / "result.json").exists():
            child = subprocess.Popen([sys.executable, "-m", "longstrand.serve.worker", str(folder)])
            parts = len(list(folder.glob("out/*.parts/part-*.json")))
            while kills and child.poll() is None and len(list(folder.glob("out/*.parts/part-*.json"))) < parts + 2:
                time.sleep(0.02)
            if kills and child.poll() is None:
                child.send_signal(signal.SIGKILL)
                kills -= 1
            child.wait()
            assert not (folder / "error.json").exists(), (folder / "error.json").read_text()
        outputs.append((folder / "out" / "predictions.tsv").read_bytes())
        assert read_json(folder / "result.json")["counts"]["sequences"] == 3_000
    assert kills == 0
    assert outputs[0] == outputs[1]
