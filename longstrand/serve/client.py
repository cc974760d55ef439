"""A server from Python: ``ls.connect(url)`` has the verbs of the front door, and they return what those return."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from longstrand.errors import InputError, ServerError, UsageError
from longstrand.serve.numbers import decode

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from longstrand.data.rows import Record
    from longstrand.explain.attribution import Attribution
    from longstrand.genome.intervals import Interval
    from longstrand.inference.sequences import Sequences


@dataclass(frozen=True, eq=False)
class RegionTracks:
    """Predictions along a region.

    Attributes:
        interval: the region, whole bins.
        bin_size: bases of a bin.
        names: of the tracks, with their strand where strands are apart.
        values: float32 (bins, tracks), NaN where there is nothing to say.
        unit: of the values.
        seam: how much neighbouring windows differ where they overlap, by the spread; None without overlap.
    """

    interval: Interval
    bin_size: int
    names: tuple[str, ...]
    values: np.ndarray
    unit: str
    seam: float | None


def connect(url: str, *, token: str | None = None, patience: float = 60.0, timeout: float = 150.0) -> Client:
    """Connect to a server that `longstrand serve` has started.

    Args:
        url: such as ``http://localhost:8000``.
        token: if the server wants one.
        patience: seconds in all for which a busy or loading server is asked again, each time as late as it says.
        timeout: seconds to wait for one answer.

    Raises:
        ServerError: nobody answers there.
        UsageError: the address is none, or the token is wrong.
    """
    client = Client(url, token=token, patience=patience, timeout=timeout)
    client.status()
    return client


class Client:
    """A connection; made by `connect`. Threads may share it."""

    def __init__(self, url: str, *, token: str | None, patience: float, timeout: float) -> None:
        self._url = urlsplit(url if "://" in url else f"http://{url}")
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise UsageError(f"'{url}' is no address of a server; write http://localhost:8000.")
        self._token, self._patience, self._timeout = token, patience, timeout
        self._local = threading.local()
        self._limits: dict[str, Any] = {}

    def status(self) -> dict[str, Any]:
        """Say how busy the server is, and what it takes."""
        found: dict[str, Any] = self.ask("GET", "/v1/status")
        self._limits = found["limits"]
        return found

    def models(self) -> list[dict[str, Any]]:
        """List the models and what each can do."""
        return list(self.ask("GET", "/v1/models")["models"])

    def genomes(self) -> list[dict[str, Any]]:
        """List the genomes."""
        return list(self.ask("GET", "/v1/genomes")["genomes"])

    def predict(self, model: str, sequences: Sequences, output: str | None = None, **options: Any) -> np.ndarray:
        """Predict sequences, as `longstrand.predict`: float32 (n, outputs)."""
        return self._stacked("/v1/predict", model, sequences, {"output": output, **options})

    def predict_bases(
        self, model: str, sequences: Sequences, output: str | None = None, **options: Any
    ) -> list[np.ndarray]:
        """Predict every base or bin, as `longstrand.predict_bases`."""
        return [
            decode(one["values"])
            for one in self._answers("/v1/predict", model, sequences, {"output": output, **options})
        ]

    def embed(
        self, model: str, sequences: Sequences, pooling: str = "mean", layer: int = -1, **options: Any
    ) -> np.ndarray:
        """Turn sequences into vectors, as `longstrand.embed`: float32 (n, hidden size)."""
        if pooling in ("tokens", "bases"):
            raise UsageError(f"pooling '{pooling}' gives many vectors a sequence; ask the address /v1/embed.")
        return self._stacked("/v1/embed", model, sequences, {"pooling": pooling, "layer": layer, **options})

    def tokenize(self, model: str, sequences: Sequences) -> list[dict[str, Any]]:
        """Cut sequences into tokens: for each ids, tokens, offsets and counts."""
        return list(self._answers("/v1/tokenize", model, sequences, {}, encoding=None))

    def predict_tracks(self, model: str, region: str, genome: str, **options: Any) -> RegionTracks:
        """Predict along a region of a genome that the server has, such as ``chr1:1,001-2,000``."""
        import numpy as np

        from longstrand.genome.intervals import Interval

        body = {"model": model, "input": {"genome": genome, "region": region}, "encoding": "f32", **options}
        found = self.ask("POST", "/v1/tracks", body)
        names = tuple(one["name"] + one["strand"] * (found["strand"] == "separate") for one in found["tracks"])
        values = np.stack([decode(one["values"]) for one in found["tracks"]], axis=1)
        interval = Interval(**found["interval"])
        return RegionTracks(interval, found["bin_size"], names, values, found["unit"], found["windows"]["seam"])

    def attribute(self, model: str, sequences: Sequences, **options: Any) -> list[Attribution]:
        """Explain sequences, as `longstrand.attribute`; one request for each."""
        import numpy as np

        from longstrand.explain.attribution import Attribution

        found = []
        for record in _records(sequences):
            body = {"model": model, "input": {"sequence": record.sequence}, "encoding": "f32", **options}
            one = self.ask("POST", "/v1/attribute", body)
            numbers = {name: np.nan if one[name] is None else one[name] for name in ("output", "baseline", "special")}
            tokens = np.array(one["tokens"], dtype=np.int32).reshape(-1, 2)
            more = {"tokens": tokens, "steps": one["steps"], "status": one["status"], **numbers}
            found.append(Attribution(record, record.sequence.upper(), decode(one["values"]), **more))
        return found

    def score_variants(self, model: str, variants: Sequence[str], *, genome: str, **options: Any) -> pl.DataFrame:
        """Score written variants, as `longstrand.score_variants`: a row for each."""
        import polars as pl

        rows, most = [], self._limits["variants"]
        names: list[str] = []
        for start in range(0, len(variants), most):
            body = {"model": model, "genome": genome, "variants": list(variants[start : start + most]), **options}
            found = self.ask("POST", "/v1/variants", body)
            names = [column["name"] for column in found["columns"]]
            rows += [{**{name: row[name] for name in ("chrom", "pos", "ref", "alt", "status", "flag")}, **row["scores"]}
                     for row in found["rows"]]  # fmt: skip
        kinds = {"chrom": pl.String, "pos": pl.Int64, "ref": pl.String, "alt": pl.String, "status": pl.String,
                 "flag": pl.String, **dict.fromkeys(names, pl.Float32)}  # fmt: skip
        return pl.DataFrame(rows, schema=kinds)

    def _stacked(self, path: str, model: str, sequences: Sequences, options: dict[str, Any]) -> np.ndarray:
        import numpy as np

        rows = [decode(one["values"]) for one in self._answers(path, model, sequences, options)]
        if not rows:
            raise InputError("there is no sequence.")
        if rows[0].ndim != 1:
            raise UsageError("this model answers for every base or bin; use predict_bases(model, sequences).")
        return np.stack(rows)

    def _answers(
        self, path: str, model: str, sequences: Sequences, options: dict[str, Any], encoding: str | None = "f32"
    ) -> Iterator[dict[str, Any]]:
        """Ask in requests as large as the server takes."""
        given = {name: value for name, value in options.items() if value is not None}
        given |= {"encoding": encoding} if encoding else {}
        for group in self._groups(_records(sequences)):
            body = {"model": model, "inputs": [{"sequence": record.sequence} for record in group], **given}
            yield from self.ask("POST", path, body)["answers"]

    def _groups(self, records: Iterator[Record]) -> Iterator[list[Record]]:
        group: list[Record] = []
        bases = 0
        for record in records:
            if group and (len(group) == self._limits["inputs"] or bases + record.num_bases > self._limits["bases"]):
                yield group
                group, bases = [], 0
            group.append(record)
            bases += record.num_bases
        if group:
            yield group

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return the JSON of the answer; wait and try again while the server is busy.

        Raises:
            InputError: the server does not take this (422, 413, 404).
            UsageError: the token is missing or wrong, or the server does not answer under this name.
            ServerError: nobody answers, or not in time.
        """
        end = time.monotonic() + self._patience
        while True:
            status, wait, answer = self._send(method, path, body)
            if status < 300:
                return answer
            error = answer.get("error", {}) if isinstance(answer, dict) else {}
            message = error.get("message") or f"the server answered with status {status}."
            if (where := error.get("where")) and where not in message:
                message = f"{where}: {message}"
            if status in (429, 503) and time.monotonic() + wait <= end:
                time.sleep(wait)
                continue
            if status in (401, 403):
                raise UsageError(message)
            raise InputError(message) if status in (404, 413, 422) else ServerError(f"{self._url.netloc}: {message}")

    def _send(self, method: str, path: str, body: Any) -> tuple[int, float, Any]:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        for attempt in range(2):
            connection = self._connection()
            try:
                connection.request(method, self._url.path.rstrip("/") + path, body=content, headers=headers)
                response = connection.getresponse()
                text = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                if attempt or isinstance(error, TimeoutError | ConnectionRefusedError):
                    reason = "no answer in time" if isinstance(error, TimeoutError) else str(error)
                    raise ServerError(f"{self._url.netloc}: no server answers there ({reason}).") from None
        try:
            answer = json.loads(text)
        except ValueError:
            raise ServerError(f"{self._url.netloc}: the answer is no JSON (status {response.status}).") from None
        return response.status, float(response.headers.get("retry-after") or 1), answer

    def _connection(self) -> http.client.HTTPConnection:
        """Return the connection of this thread, which is kept open."""
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = str(self._url.hostname), self._url.port
            if self._url.scheme == "https":
                context = ssl.create_default_context()
                found = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
            else:
                found = http.client.HTTPConnection(host, port, timeout=self._timeout)
            self._local.connection = found
        return found


def _records(sequences: Sequences) -> Iterator[Record]:
    from longstrand.inference.sequences import as_records

    return as_records(sequences)
