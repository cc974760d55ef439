"""Downloads from a server on loopback: resumed with ranges, cached with a checksum, refused when changed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from longstrand.demo import materials
from longstrand.demo.materials import DemoConfig, gather, yeast_facts
from longstrand.errors import InputError, UsageError
from longstrand.genome.download import fetch

CONTENT = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves `CONTENT`; notes the ranges asked for; may cut an answer short or know no ranges."""

    asked: list[str | None]
    cut: int | None = None
    ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) if self.server.cut is None else self.server.cut
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as made:
        made.asked = []
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/genome.fa.gz"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut = 5000
    with pytest.raises(InputError, match=r"cannot be downloaded .*the same command goes on"):
        fetch(address(server), tmp_path)
    assert not (tmp_path / "genome.fa.gz").exists()
    server.cut, server.ranges = None, ranges
    path = fetch(address(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=5000-"]
    assert (tmp_path / "genome.fa.gz.sha256").read_text().split()[0] == hashlib.sha256(CONTENT).hexdigest()


def test_a_complete_part_is_kept_and_a_cached_file_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "genome.fa.gz.part").write_bytes(CONTENT)
    path = fetch(address(server), tmp_path)
    assert path.read_bytes() == CONTENT and server.asked == [f"bytes={len(CONTENT)}-"]
    assert fetch(address(server), tmp_path) == path and len(server.asked) == 1
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="differs from what was downloaded"):
        fetch(address(server), tmp_path)


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "genome.fa.gz.part").write_bytes(CONTENT + b"x")
    assert fetch(address(server), tmp_path).read_bytes() == CONTENT


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/genome.fa.gz", tmp_path)


def test_yeast_shows_address_and_terms_and_downloads_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = yeast_facts()
    assert facts["verified"] == "not verified" and not any("sha" in key or "sum" in key for key in facts)

    def refused(*_: object, **__: object) -> Path:
        raise AssertionError("downloaded without being asked")

    monkeypatch.setattr(materials, "fetch", refused)
    said: list[str] = []
    with pytest.raises(UsageError, match="--download"):
        gather(DemoConfig(output=tmp_path / "out", yeast=True), said.append)
    offer = said.pop()
    for words in (facts["genome"], facts["annotation"], facts["terms"], "not verified"):
        assert words in offer
    with pytest.raises(AssertionError, match="without being asked"):
        gather(DemoConfig(output=tmp_path / "out", yeast=True, download=True), said.append)
    assert facts["terms"] in said[0]
