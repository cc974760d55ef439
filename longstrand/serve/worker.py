"""The process of one job: ``python -m longstrand.serve.worker FOLDER``. Repeated after a kill, it goes on."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longstrand.errors import LongstrandError
from longstrand.runtime import prepare_to_serve, read_json, silence_libraries, take_lock, write_json

OUTPUTS = {"predict": "predictions.tsv", "embed": "embeddings.parquet", "variants": "variants.tsv",
           "attribute": "attributions", "tracks": "tracks"}  # fmt: skip
UNITS = {"variants": "alleles", "tracks": "bases"}
EVERY = 1.0


class Events:
    """Lines about progress, appended to a file; a torn last line is dropped first."""

    def __init__(self, path: Path, unit: str) -> None:
        self.path, self.unit, self.total = path, unit, None
        self.done, self._first, self._last = 0, (0, 0.0), 0.0
        whole = path.read_bytes() if path.exists() else b""
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])
        self.write("start", {"started": time.time()})

    def write(self, kind: str, data: dict[str, Any]) -> None:
        """Append a line."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, data]) + "\n")

    def advance(self, number: int) -> None:
        """Count what is done; a line at most every second."""
        self.done += number
        now = time.monotonic()
        self._first = self._first if self._last else (self.done, now)
        if now - self._last < EVERY:
            return
        self.tell(now)

    def tell(self, now: float) -> None:
        """Write how far it is."""
        self._last = now
        done, began = self._first
        rate = (self.done - done) / (now - began) if now > began and self.done > done else None
        self.write(
            "progress", {"done": self.done, "total": self.total, "unit": self.unit, "rate": rate and round(rate, 2)}
        )


def main(folder: Path) -> int:
    """Do a job, or what is left of it, and write how it ended."""
    silence_libraries()
    prepare_to_serve()
    os.nice(19)  # behind the server's model, which is behind what answers
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _lock = take_lock(folder / ".lock", None)  # an older process of this job may still be dying
    request = read_json(folder / "request.json")
    events = Events(folder / "events.jsonl", UNITS.get(request["verb"], "sequences"))
    try:
        result = run(request, folder, events)
    except LongstrandError as error:
        message = str(error).replace(f"{folder}/", "")
        write_json(folder / "error.json", {"error": {"code": "input", "message": message}, "ended": time.time()})
        return 1
    except Exception as error:
        logging.exception("the job failed")
        message = f"The job failed ({type(error).__name__}); log.txt in its folder has the traceback."
        write_json(folder / "error.json", {"error": {"code": "internal", "message": message}, "ended": time.time()})
        return 1
    events.tell(time.monotonic())
    notes = [note.removeprefix("note: ") for note in result.notes]
    write_json(folder / "result.json", {"notes": notes, "counts": result.counts, "ended": time.time()})
    return 0


def run(request: dict[str, Any], folder: Path, events: Events) -> Any:
    """Make the library call of the job's verb.

    Raises:
        LongstrandError: as the command of the verb.
    """
    import torch

    torch.set_num_threads(request["threads"])
    verb, options, genome = (
        request["verb"],
        {**request["options"], "threads": request["threads"]},
        request["genome_path"],
    )
    if options.get("output") is None:
        options.pop("output", None)
    source, target, model = folder / "input", folder / "out" / OUTPUTS[verb], request["folder"]
    if verb in ("predict", "embed"):
        from longstrand.data.rows import count_rows
        from longstrand.inference.jobs import embed_file, predict_file

        events.total = count_rows(source)
        call: Callable[..., Any] = predict_file if verb == "predict" else embed_file
        return call(model, source, target, genome=genome, advance=events.advance, **options)
    if verb == "variants":
        return _variants(request, source, target, events, options)
    if verb == "attribute":
        from longstrand.explain.jobs import attribute_file

        return attribute_file(model, source, target, genome=genome, advance=events.advance, **options)
    from longstrand.genome.fasta import Genome
    from longstrand.tracks.jobs import predict_tracks

    opened = Genome(genome)
    if request["format"] == "bed":
        options["regions"] = str(source)
    else:
        chosen = options.get("contigs") or list(opened.contigs)
        events.total = sum(length for name, length in opened.contigs.items() if name in chosen)
    return predict_tracks(model, opened, target, advance=events.advance, **options)


def _variants(request: dict[str, Any], source: Path, target: Path, events: Events, options: dict[str, Any]) -> Any:
    from contextlib import nullcontext

    from longstrand.variants.jobs import score_variants_file

    def progress(total: int) -> Any:
        events.total = total
        return nullcontext(events.advance)

    target = target.with_name("variants.vcf.gz") if request["format"] == "vcf" else target
    return score_variants_file(
        request["folder"], source, target, genome=request["genome_path"], progress=progress, **options
    )


def _end_with(parent: int) -> None:
    """End this process when the server that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
