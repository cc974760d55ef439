"""Jobs: work that is too long for a request.

A job is a run folder, made by a process of its own, so that a kill, a lack of memory and a restart cost one job at
most, and the server goes on with it when it starts again.

What a job is lies in its folder: ``request.json``, the uploaded ``input``, ``events.jsonl``, what comes out in
``out/``, and at its end one of ``result.json``, ``error.json`` and ``cancelled.json``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, Response, StreamingResponse

from longstrand.config import StrictModel, build
from longstrand.errors import LongstrandError
from longstrand.runtime import read_json, write_json
from longstrand.serve.numbers import to_json
from longstrand.serve.refusals import Refusal, refusal_of
from longstrand.serve.schemas import VERBS
from longstrand.serve.server import Server

logger = logging.getLogger("longstrand.serve")

Verb = Literal["predict", "embed", "tracks", "variants", "attribute"]
Format = Literal["fasta", "bed", "csv", "tsv", "vcf"]
KINDS: dict[str, tuple[str, ...]] = {
    "fasta": ("fasta", "lines"),
    "bed": ("bed",),
    "csv": ("table",),
    "tsv": ("table",),
    "vcf": ("vcf",),
}
"""What a file of each format may be by its content."""
NOT_FOR_CLIENTS = ("device", "threads", "background", "part_rows", "batch_tokens", "output", "track", "regions")
ENDS = {"result": "done", "error": "failed", "cancelled": "cancelled"}
ID = re.compile(r"[0-9a-f]{32}")
POLL = 0.3
HEARTBEAT = 15.0
MOST_LISTENERS = 100
DAY = 86_400.0
assert Verb.__args__ == VERBS  # type: ignore[attr-defined]


def options_of_verb(verb: str) -> type[StrictModel]:
    """Give the options that the command of a verb takes."""
    from longstrand.explain.options import AttributeOptions
    from longstrand.inference.options import FileOptions, TrackOptions
    from longstrand.variants.options import VariantOptions

    kinds: dict[str, type[StrictModel]] = {
        "tracks": TrackOptions,
        "variants": VariantOptions,
        "attribute": AttributeOptions,
    }
    return kinds.get(verb, FileOptions)


class Jobs:
    """The jobs of a server: one runs, the others wait in the order in which they came."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.folder = Path()
        self.running: str | None = None
        self.listeners = 0
        self._child: asyncio.subprocess.Process | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the folder of jobs again, and go on."""
        chosen = self.server.options.jobs
        if chosen is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="longstrand-jobs-")
        self.folder = Path(self._temporary.name if self._temporary else chosen).expanduser().absolute()  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run_all())
        for state in ("waiting", "running", *ENDS.values()):
            gauge = self.server.metrics.jobs.labels(state)
            gauge.set_function(lambda state=state: sum(self.state(job) == state for job in self.ids()))

    async def stop(self) -> None:
        """End the running job; it goes on when a server starts with the same folder."""
        if self._task is not None:
            self._task.cancel()
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()
            await self._child.wait()
        if self._temporary is not None:
            self._temporary.cleanup()

    def ids(self) -> list[str]:
        """List the jobs, the oldest first."""
        found = [
            (folder / "request.json", folder.name) for folder in self.folder.glob("*") if ID.fullmatch(folder.name)
        ]
        aged = []
        for file, name in found:
            with contextlib.suppress(OSError):
                aged.append((file.stat().st_mtime_ns, name))
        return [name for _, name in sorted(aged)]

    def state(self, job: str) -> str:
        """Say how far a job is."""
        for file, state in ENDS.items():
            if (self.folder / job / f"{file}.json").exists():
                return state
        return "running" if job == self.running else "waiting"

    def card(self, job: str) -> dict[str, Any]:
        """Say everything about a job.

        Raises:
            Refusal: there is none (404).
        """
        folder = self.folder / job
        if not ID.fullmatch(job) or not (folder / "request.json").exists():
            raise Refusal(404, "There is no such job.", "unknown_job")
        request, state = read_json(folder / "request.json"), self.state(job)
        events = read_events(folder)
        last = next((data for kind, data in reversed(events) if kind == "progress"), {})
        began = [data["started"] for kind, data in events if kind == "start"]
        done, total, rate = last.get("done", 0), last.get("total"), last.get("rate")
        end = next((file for file in ENDS if (folder / f"{file}.json").exists()), None)
        result = read_json(folder / f"{end}.json") if end else {}
        files = [{"name": path.relative_to(folder / "out").as_posix(), "bytes": path.stat().st_size,
                  "url": f"/v1/jobs/{job}/files/{path.relative_to(folder / 'out').as_posix()}"}
                 for path in _files(folder)] if state == "done" else []  # fmt: skip
        waiting = [other for other in self.ids() if self.state(other) == "waiting"]
        return {
            "id": job, **{name: request[name] for name in ("verb", "model", "genome", "created")}, "state": state,
            "started": began[0] if began else None, "ended": result.get("ended"),
            "position": waiting.index(job) + 1 if job in waiting else None, "done": done, "total": total,
            "unit": last.get("unit"), "rate": rate if state == "running" else None,
            "eta_s": round((total - done) / rate) if total and rate and state == "running" else None,
            "files": files, "notes": result.get("notes", []), "error": result.get("error"),
        }  # fmt: skip

    async def create(self, request: dict[str, Any], body: AsyncIterator[bytes]) -> str:
        """Take the upload of a new job.

        Raises:
            Refusal: too many jobs wait; the file is not what its format says, or unpacks to too much.
        """
        if not self.server.options.max_jobs:
            raise Refusal(422, "This server takes no jobs.", "no_jobs")
        if sum(self.state(job) == "waiting" for job in self.ids()) >= self.server.options.max_jobs:
            raise Refusal(429, "No more jobs can wait; try again later.", "jobs_full", retry_after=60)
        job = uuid.uuid4().hex
        folder = self.folder / job
        (folder / "out").mkdir(parents=True)
        try:
            path, size = folder / "input", 0
            with open(path, "wb") as file:
                async for chunk in body:
                    size += len(chunk)
                    file.write(chunk)
            if request["format"] is not None:
                await asyncio.to_thread(_check_upload, path, request["format"], self.server.options.max_upload)
            elif size:
                raise Refusal(422, "A file needs a format.", "option", "format")
            write_json(folder / "request.json", request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._more.set()
        return job

    async def delete(self, job: str) -> None:
        """End a job that waits or runs; remove the folder of one that has ended."""
        state = self.card(job)["state"]
        if state in ENDS.values():
            await asyncio.to_thread(shutil.rmtree, self.folder / job, True)
            return
        write_json(self.folder / job / "cancelled.json", {"ended": time.time()})
        if job == self.running and self._child is not None and self._child.returncode is None:
            self._child.terminate()

    async def _run_all(self) -> None:
        while True:
            self._sweep()
            job = next((job for job in self.ids() if self.state(job) == "waiting"), None)
            if job is None or self.server.state != "ready":
                self._more.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), POLL if job else 3600)
                continue
            self.running = job
            try:
                await self._run(self.folder / job)
            except OSError:
                logger.exception("job %s could not be run", job)
                await asyncio.sleep(POLL)
            finally:
                self.running = self._child = None

    async def _run(self, folder: Path) -> None:
        command = (sys.executable, "-m", "longstrand.serve.worker", str(folder))
        with open(folder / "log.txt", "ab") as log:
            none = asyncio.subprocess.DEVNULL
            self._child = await asyncio.create_subprocess_exec(*command, stdin=none, stdout=log, stderr=log)
            code = await self._child.wait()
        if (folder / "request.json").exists() and self.state(folder.name) == "running":
            text = f"The process of the job ended with code {code} (out of memory?); post the job again."
            write_json(folder / "error.json", {"error": {"code": "died", "message": text}, "ended": time.time()})

    def _sweep(self) -> None:
        """Remove jobs that ended long ago."""
        limit = time.time() - DAY * self.server.options.keep_days
        for job in self.ids():
            for file in ENDS:
                path = self.folder / job / f"{file}.json"
                if path.exists() and path.stat().st_mtime < limit:
                    shutil.rmtree(self.folder / job, ignore_errors=True)

    async def events(self, job: str, after: int) -> AsyncIterator[bytes]:
        """Tell what happens to a job, from an event on, until it ends."""
        self.listeners += 1
        try:
            quiet, yielded = time.monotonic(), False
            while True:
                try:
                    card = self.card(job)
                except Refusal:
                    return
                if self.server.state == "stopping":
                    return
                events = read_events(self.folder / job)
                for number, (kind, data) in enumerate(events[after:], after + 1):
                    if kind == "progress":
                        yield _event(kind, number, {"state": card["state"], "eta_s": card["eta_s"], **data})
                        quiet, yielded = time.monotonic(), True
                after = max(after, len(events))
                if card["state"] in ENDS.values():
                    for note in card["notes"]:
                        yield _event("warning", after, {"message": note})
                    yield _event("end", after, {"state": card["state"], "error": card["error"]})
                    return
                if not yielded:
                    names = ("state", "position", "done", "total", "unit", "rate", "eta_s")
                    yield _event("progress", after, {name: card[name] for name in names})
                    yielded = True
                if time.monotonic() - quiet > HEARTBEAT:
                    yield b": still here\n\n"
                    quiet = time.monotonic()
                await asyncio.sleep(POLL)
        finally:
            self.listeners -= 1


def _event(kind: str, number: int, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\nid: {number}\ndata: ".encode() + to_json(data) + b"\n\n"


def read_events(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read what the process of a job has told; a line that is not complete is left out."""
    try:
        lines = (folder / "events.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            kind, data = json.loads(line)
            found.append((kind, data))
    return found


def _files(folder: Path) -> list[Path]:
    """List what a job gave: files, not the arrays of a Zarr folder and not what resuming needs."""
    found = (path for path in sorted((folder / "out").rglob("*")) if path.is_file())
    return [path for path in found if not path.name.endswith(".run.json")
            and not any(part.endswith((".zarr", ".parts")) for part in path.relative_to(folder).parts)]  # fmt: skip


def _check_upload(path: Path, kind: str, most: int) -> None:
    from longstrand.genome.text import detect_file, open_bytes

    try:
        found = detect_file(path)
        if found not in KINDS[kind]:
            raise Refusal(422, f"The file is no {kind.upper()}.", "format", "format")
        size = 0
        with open_bytes(path) as stream:
            while block := stream.read(1 << 20):
                size += len(block)
                if size > most:
                    raise Refusal(413, f"The file unpacks to more than {most:,} bytes.", "body_too_long")
    except LongstrandError as error:
        message = str(error).replace(str(path), "the file")
        raise refusal_of(type(error)(message), "body") from None


def add_job_routes(app: FastAPI, jobs: Jobs) -> None:
    """Add the addresses of jobs."""

    @app.post("/v1/jobs", status_code=202)
    async def create(
        request: Request, verb: Verb, model: Annotated[str, Query(max_length=100)],
        genome: Annotated[str | None, Query(max_length=100)] = None, format: Format | None = None,
        options: Annotated[str, Query(max_length=10_000)] = "{}",
    ) -> Response:  # fmt: skip
        """Start a job: the body is a file (or nothing, for tracks along a genome)."""
        from longstrand.serve.places import one_of

        server = jobs.server
        known = server.model(model)
        path = str(server.genome_paths[genome]) if genome in server.genomes else None
        if genome is not None and path is None:
            one_of(server.genomes, genome, "genome", "genome")
        if format not in ((None, "bed") if verb == "tracks" else KINDS):
            raise Refusal(422, "Give the format of the file; tracks take a BED of regions, or no file for a genome.",
                          "option", "format")  # fmt: skip
        if path is None and (verb in ("tracks", "variants") or format == "bed"):
            raise Refusal(422, "Name the genome; see /v1/genomes.", "option", "genome")
        asked = {"verb": verb, "model": known.name, "folder": str(known.folder), "genome": genome, "genome_path": path,
                 "format": format, "options": _read_options(verb, options), "created": time.time(),
                 "threads": max(1, server.threads // 2)}  # fmt: skip
        job = await jobs.create(asked, request.stream())
        return Response(to_json(jobs.card(job)), 202, {"location": f"/v1/jobs/{job}"}, "application/json")

    @app.get("/v1/jobs")
    async def listed() -> dict[str, Any]:
        """List the jobs."""
        return {"jobs": [jobs.card(job) for job in jobs.ids()]}

    @app.get("/v1/jobs/{job}")
    async def one(job: str) -> dict[str, Any]:
        """Say how far a job is."""
        return jobs.card(job)

    @app.delete("/v1/jobs/{job}")
    async def delete(job: str) -> dict[str, Any]:
        """End a job that waits or runs; remove one that has ended."""
        card = jobs.card(job)
        await jobs.delete(job)
        return {**card, "state": "cancelled" if card["state"] in ("waiting", "running") else "removed", "files": []}

    @app.get("/v1/jobs/{job}/events")
    async def events(request: Request, job: str) -> Response:
        """Tell what happens, as server-sent events."""
        jobs.card(job)
        if jobs.listeners >= MOST_LISTENERS:
            raise Refusal(429, "Too many clients listen; ask for the job itself from time to time.", retry_after=5)
        last = request.headers.get("last-event-id", "0")
        stream = jobs.events(job, int(last) if last.isdigit() and len(last) < 10 else 0)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @app.get("/v1/jobs/{job}/files/{name:path}")
    async def file(job: str, name: str) -> Response:
        """Give a file of a job, or a range of it."""
        known = {entry["name"] for entry in jobs.card(job)["files"]}
        if name not in known:
            raise Refusal(404, "The job has no such file.", "unknown_file")
        return FileResponse(jobs.folder / job / "out" / name, filename=name.rsplit("/", 1)[-1])


def _read_options(verb: str, text: str) -> dict[str, Any]:
    """Check the options of a job, which are those of its command.

    Raises:
        Refusal: they are no JSON object, or one is unknown or wrong.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refusal(422, "options is no JSON object.", "json", "options")
    if taken := [name for name in NOT_FOR_CLIENTS if name in given and not (name == "output" and verb == "predict")]:
        raise Refusal(422, f"The option {taken[0]} is not for clients.", "option", f"options.{taken[0]}")
    try:
        build(options_of_verb(verb), given, "options")
    except LongstrandError as error:
        raise refusal_of(error, "options") from None
    return given
