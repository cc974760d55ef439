"""The Python client and the command, over a real connection on the loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from typer.testing import CliRunner

import longstrand as ls
from longstrand.cli.serve import _listen
from longstrand.cli.serve import app as command
from longstrand.errors import InputError, ServerError, UsageError
from longstrand.serve.app import create_app
from longstrand.serve.client import Client
from longstrand.serve.runs import annotations_of, models_and_runs, named
from longstrand.serve.schemas import ServeOptions
from tests.serve.conftest import LETTERS

TEXTS = [LETTERS[start : start + 50] for start in range(0, 700, 10)]


@pytest.fixture(scope="module")
def client(folders: dict[str, Path], genome: Path) -> Iterator[Client]:
    options = ServeOptions(token="a secret", max_jobs=0, threads=1)
    config = uvicorn.Config(create_app(folders, options, genomes={"g": genome}), port=0, log_config=None)
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield ls.connect(f"http://127.0.0.1:{listening.getsockname()[1]}", token="a secret")
        server.should_exit = True
        thread.join(10)


def test_slow_and_endless_bodies_end_and_hold_nobody_up(client: Client) -> None:
    head = "POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-timeout: 0.4\r\n"
    head += "authorization: Bearer a secret\r\ncontent-length: "
    lengths, statuses = (100, 100_000, 10**15), []
    opened = [socket.create_connection(("127.0.0.1", client._url.port or 0), timeout=5) for _ in lengths]
    for one, length in zip(opened, lengths):
        one.sendall(f"{head}{length}\r\n\r\n{{".encode())
    began = time.monotonic()
    while time.monotonic() < began + 0.3:  # a byte now and then does not help
        opened[0].sendall(b" ")
        assert client.predict("promoters", TEXTS[:1]).shape == (1, 2)
        time.sleep(0.1)
    for one in opened:
        with one, one.makefile("rb") as stream:
            statuses.append(int(stream.read().split()[1]))  # to the end: the server closes
    assert statuses == [408, 408, 413] and time.monotonic() - began < 4


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    with _listen("127.0.0.1", 0) as listening:  # asyncio leaves Nagle's algorithm on (40 ms) for a socket of protocol 0
        assert listening.proto == socket.IPPROTO_TCP


def test_the_verbs_return_what_those_of_the_front_door_return(
    client: Client, folders: dict[str, Path], genome: Path
) -> None:
    promoters, bases = str(folders["promoters"]), str(folders["bases"])
    np.testing.assert_allclose(client.predict("promoters", TEXTS), ls.predict(promoters, TEXTS), atol=1e-5)
    same = ls.predict(promoters, TEXTS[:40], batch_tokens=8192, threads=1)  # one batch here and there: the same bits
    np.testing.assert_array_equal(client.predict("promoters", TEXTS[:40]), same)
    np.testing.assert_allclose(client.embed("bases", TEXTS[:3]), ls.embed(bases, TEXTS[:3]), atol=1e-5)
    for found, expected in zip(client.predict_bases("bases", TEXTS[:3]), ls.predict_bases(bases, TEXTS[:3])):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    (one,), (other,) = (
        client.attribute("promoters", TEXTS[0], method="ism"),
        ls.attribute(promoters, TEXTS[0], method="ism"),
    )
    np.testing.assert_allclose(one.values, other.values, atol=1e-5)
    assert (one.output, one.status) == (pytest.approx(other.output, abs=1e-4), other.status)
    variant = f"chr1:100:{LETTERS[99]}:{'A' if LETTERS[99] != 'A' else 'C'}"
    table = client.score_variants("bases", [variant], genome="g", window=100)
    expected = ls.score_variants(bases, [variant], genome=genome, window=100)
    assert table.columns == [name for name in expected.columns if name != "id"]
    np.testing.assert_allclose(
        table.to_numpy()[0, 6:].astype(float), expected.to_numpy()[0, 7:].astype(float), atol=1e-4
    )
    tracks = client.predict_tracks("bases", "chr1:101-200", "g", outputs=["exon"], window=100, bin_size=10)
    assert (tracks.values.shape, tracks.names, tracks.interval.start) == ((10, 1), ("exon",), 100)
    assert client.tokenize("bases", "ACGT")[0]["tokens"] == ["[CLS]", "AC", "GT", "[SEP]"]
    assert {one["name"] for one in client.models()} == {"bases", "promoters"}


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda client: client.predict("promoters", ["AC!T"]), InputError, "position 3"),
        (lambda client: client.predict("bases", ["ACGT"]), UsageError, "predict_bases"),
        (lambda client: client.predict("promoter", ["ACGT"]), InputError, "did you mean promoters"),
        (lambda client: ls.connect(client._url.geturl(), token="guess"), UsageError, "token"),
        (lambda client: ls.connect("127.0.0.1:9"), ServerError, "no server answers"),
        (lambda client: ls.connect("ftp://x"), UsageError, "no address"),
    ],
)
def test_errors_of_the_client(client: Client, call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(client)


def test_a_busy_server_is_asked_again_as_late_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, slept = [429, 503, 200, 429], list[float]()

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = answers.pop(0)
            body = json.dumps({"limits": {}} if status == 200 else {"error": {"message": "Busy."}}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("retry-after", "7")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(time, "sleep", slept.append)
        found = ls.connect(f"http://127.0.0.1:{server.server_port}", patience=20)
        assert slept == [7.0, 7.0]
        found._patience = 1
        with pytest.raises(ServerError, match="Busy"):
            found.status()
        server.shutdown()


def test_names_of_models_and_genomes(tmp_path: Path, folders: dict[str, Path]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.html").write_text("<p>")
    assert named([str(run), "b=x/y", "z.fa.gz"]) == {"run": str(run), "b": "x/y", "z": "z.fa.gz"}
    models, runs = models_and_runs({"run": str(run), "bases": str(folders["bases"])})
    assert (list(models), runs["run"].card("run")["report"]) == (["bases"], "/v1/runs/run/report.html")
    assert annotations_of(["x.gff"], {"g": run}) == {"g": Path("x.gff")}
    for wrong, says in ((lambda: named(["a/x", "b/x"]), "two things"), (lambda: named(["a b=x"]), "no name"),
                        (lambda: annotations_of(["x.gff"], {}), "GENOME="),
                        (lambda: annotations_of(["h=x"], {"g": run}), "genome"),
                        (lambda: annotations_of(["g=x", "g=y"], {"g": run}), "two annotations")):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            wrong()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="neither a model"):
        models_and_runs({"nothing": str(tmp_path / "nothing")})


def test_two_servers_on_one_port(folders: dict[str, Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        found = CliRunner().invoke(command, [str(folders["bases"]), "--port", port])
    assert isinstance(found.exception, UsageError)
    assert f"127.0.0.1:{port} cannot be used" in str(found.exception)
