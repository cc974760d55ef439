"""What each question gets for an answer: schemas in, plain values out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from longstrand.config import build
from longstrand.data.rows import Record
from longstrand.explain.attribution import Explainer
from longstrand.explain.options import AttributeOptions
from longstrand.genome.intervals import Interval
from longstrand.genome.variants import Variant
from longstrand.inference.predict import Prediction, num_lower_case, num_unknown
from longstrand.serve import tracks
from longstrand.serve.call import Call
from longstrand.serve.numbers import MANY, encode, to_json
from longstrand.serve.places import ServedGenome, one_of, place_of, record_of, too_many
from longstrand.serve.refusals import Refusal
from longstrand.serve.schemas import (
    AttributeRequest,
    EmbedRequest,
    Input,
    PredictRequest,
    TokenizeRequest,
    TracksRequest,
    VariantsRequest,
    asked,
)
from longstrand.serve.served import Asked, ServedModel, counts_of, items_of, prediction_of, read_rows
from longstrand.serve.server import Server
from longstrand.tracks.jobs import SEAM
from longstrand.variants.jobs import VariantJob
from longstrand.variants.options import VariantOptions
from longstrand.variants.page import on_reference

FORMATS = {"text/x-bedgraph": "bedgraph", "text/x-bed": "bed", "application/x-bigwig": "bw"}
"""Media types of tracks beside JSON, and the ending of the file."""
IN_THE_LOOP = 20_000
"""Bases up to which a request is tokenized in the event loop."""


def records_of(server: Server, inputs: Sequence[Input]) -> list[Record]:
    """Read the inputs of a request.

    Raises:
        Refusal: too many inputs or bases, or as `longstrand.serve.places.record_of`.
    """
    most = server.options.max_inputs
    if len(inputs) > most:
        raise Refusal(413, f"A request has at most {most} inputs; send more as a job to /v1/jobs.", "too_many_inputs")
    room, found = server.max_bases, []
    for number, one in enumerate(inputs):
        found.append(record_of(one, number, f"inputs[{number}]", server.genomes, room))
        room -= found[-1].num_bases
    return found


async def predictions(server: Server, call: Call, how: Asked, records: Sequence[Record]) -> list[Prediction]:
    """Tokenize, queue and wait.

    Raises:
        Refusal: as `longstrand.serve.server.Server.predict`; a sequence that the model cannot read.
    """
    started, bases = time.perf_counter(), sum(record.num_bases for record in records)
    call.facts["bases"] = bases
    rows = read_rows(how, records) if bases <= IN_THE_LOOP else await asyncio.to_thread(read_rows, how, records)
    call.timing["tokenize"] = 1e3 * (time.perf_counter() - started)
    items = items_of(how, rows, caller=call.caller, deadline=call.deadline)
    bulk = server.room_for_bulk(sum(item.tokens for item in items))
    for item in items:
        item.bulk = bulk
    found: list[Prediction] = await server.predict(call, items)
    return found


def about(call: Call, model: ServedModel) -> dict[str, Any]:
    """Begin an answer."""
    call.facts["model"] = model.name
    return {"request_id": call.request_id, "model": model.name, "fingerprint": model.fingerprint}


async def written(
    call: Call, answer: dict[str, Any], places: Sequence[tuple[dict[str, Any], str]], encoding: str
) -> bytes:
    """Encode the arrays at some places of an answer, and write it; off the event loop if there is much."""
    started = time.perf_counter()

    def write() -> bytes:
        for holder, key in places:
            holder[key] = encode(holder[key], encoding)
        call.timing["encode"] = 1e3 * (time.perf_counter() - started)
        answer["timing_ms"] = {name: round(ms, 2) for name, ms in call.timing.items()}
        return to_json(answer)

    size = sum(holder[key].size for holder, key in places)
    return write() if size <= MANY else await asyncio.to_thread(write)


async def predict(server: Server, call: Call, body: PredictRequest | EmbedRequest) -> bytes:
    """Answer /v1/predict and /v1/embed."""
    model = server.model(body.model)
    if isinstance(body, EmbedRequest):
        given = {"output": "embeddings", **asked(body, "pooling", "layer", "strand", "truncate")}
        given |= {"layers": body.layers} if body.layers else {}
    else:
        need_head(model)
        given = asked(body, "output", "strand", "truncate")
        given |= {"pooling": {"base": "bases", "token": "tokens", "sequence": "mean"}[body.per]} if body.per else {}
    how = model.wanted(**given)
    found = await predictions(server, call, how, records_of(server, body.inputs))
    answer = about(call, model) | {
        "output": how.options.output, "unit": how.unit, "columns": how.columns, "strand": how.options.strand,
        "per": how.per, "bin_size": how.engine.bin_bases, "warnings": list(how.notes),
    }  # fmt: skip
    answers, places = [], []
    for one in found:
        entry = {"name": one.name, **place_of(one.interval), "values": one.values, "truncated": one.truncated,
                 "counts": counts_of(one)}  # fmt: skip
        if (named := prediction_of(model, how, one.values)) is not None and not isinstance(body, EmbedRequest):
            entry["prediction"] = named
        if one.offsets is not None:
            entry["offsets"] = one.offsets.tolist()
        answers.append(entry)
        places.append((entry, "values"))
    return await written(call, answer | {"answers": answers}, places, body.encoding)


def need_head(model: ServedModel) -> None:
    """Refuse a model that predicts no labels.

    Raises:
        Refusal: as said.
    """
    if model.head is None:
        raise Refusal(422, "The model predicts no labels; it can embed, and others of /v1/models can predict.",
                      "capability", "model")  # fmt: skip


async def tokenize(server: Server, call: Call, body: TokenizeRequest) -> bytes:
    """Answer /v1/tokenize."""
    model = server.model(body.model)
    records = records_of(server, body.inputs)
    how = model.wanted(output="embeddings", strand="+")
    bases = sum(record.num_bases for record in records)
    call.facts["bases"] = bases

    def write() -> bytes:
        answers = []
        for record, row in zip(records, read_rows(how, records)):
            encoding = row.readings[0].encoding
            counts = {"bases": record.num_bases, "tokens": len(encoding), "lower_case": row.num_lower_case,
                      "unknown": row.num_unknown}  # fmt: skip
            ids = encoding.input_ids.tolist()
            answers.append({"name": record.name, **place_of(record.interval), "ids": ids,
                            "tokens": [model.tokenizer.token_strings[number] for number in ids],
                            "offsets": encoding.offsets.tolist(), "counts": counts})  # fmt: skip
        return to_json(about(call, model) | {"answers": answers})

    return write() if bases <= IN_THE_LOOP else await asyncio.to_thread(write)


async def along(
    server: Server, call: Call, body: TracksRequest
) -> tuple[tracks.Along, dict[str, Any], np.ndarray, dict[str, int]]:
    """Compute tracks.

    Returns:
        The windows, the answer without values, the values (bins, tracks), and the contigs of the genome.
    """
    model = server.model(body.model)
    need_head(model)
    record = record_of(body.input, 0, "input", server.genomes, server.max_bases)
    name = body.input.name or "sequence"
    region, genome = record.interval, None
    if region is not None:
        genome = server.genomes[str(body.input.genome)].genome
    if not record.num_bases:
        raise Refusal(422, "input has no bases.", "input", "input.sequence")
    for number, output in enumerate(body.outputs):
        one_of(dict.fromkeys(model.outputs), output, "output", f"outputs[{number}]")
    source = genome or tracks.Pasted(name, record.sequence)
    whole = region or Interval(name, 0, record.num_bases)
    windows = await asyncio.to_thread(tracks.Along, model, body, whole, source, server.max_bases)
    found = []
    for way in windows.ways():
        rows = await predictions(server, call, model.wanted(**way), windows.records)
        found.append([row.values for row in rows])
    values, seam = await asyncio.to_thread(windows.bins, found)
    warnings, grid, options = list(windows.notes), windows.job.grid, windows.job.options
    if seam is not None and seam > SEAM:
        warnings.append(
            f"Neighbouring windows say different things about the same bases (seam {seam:.2f} of the spread)."
        )
    letters = record.sequence
    counts = {"bases": len(letters), "unknown": num_unknown(letters.upper()), "lower_case": num_lower_case(letters)}
    answer = about(call, model) | {
        "name": record.name, **place_of(windows.region), "unit": model.wanted(output=options.output).unit,
        "bin_size": windows.job.bin_size, "reduce": options.reduce, "strand": options.strand,
        "windows": {"length": grid.window, "step": grid.step, "blend": grid.blend, "count": len(windows.records),
                    "seam": None if seam is None else round(seam, 4)},
        "counts": counts, "warnings": warnings,
    }  # fmt: skip
    return windows, answer, values, dict(source.contigs)


async def answer_tracks(server: Server, call: Call, body: TracksRequest) -> bytes:
    """Answer /v1/tracks: JSON, or what the client accepts."""
    windows, answer, values, contigs = await along(server, call, body)
    accepted = call.headers.get(b"accept", "")
    media = next((media for media in FORMATS if media in accepted), None)
    if media is not None:
        call.media = media
        return await asyncio.to_thread(tracks.as_file, FORMATS[media], windows, values, contigs, body.threshold)
    shown = {"both": ".", "+": "+", "-": "-"}.get(windows.job.options.strand, ".")
    answer["tracks"] = [{"name": name, "strand": strand or shown, "values": np.ascontiguousarray(values[:, place])}
                        for place, (name, strand) in enumerate(windows.job.tracks)]  # fmt: skip
    return await written(call, answer, [(one, "values") for one in answer["tracks"]], body.encoding)


async def attribute(server: Server, call: Call, body: AttributeRequest) -> bytes:
    """Answer /v1/attribute: what it costs is known before it runs."""
    model = server.model(body.model)
    if model.kind == "encoder":
        raise Refusal(422, "The model has no head whose output could be explained.", "capability", "model")
    record = record_of(body.input, 0, "input", server.genomes, server.max_bases)
    call.facts["bases"] = record.num_bases
    if isinstance(body.target, str) and model.head is not None and not body.target.isdigit():
        one_of(dict.fromkeys(model.outputs, 1), body.target, "output", "target")
    given = asked(body, "method", "target", "against", "baseline", "region", "strand")
    options = build(AttributeOptions, {**given, "batch_tokens": server.options.batch_tokens}, "options")
    explainer = Explainer(model.network, options)
    how = model.wanted(output="embeddings", strand="+")
    (row,) = read_rows(how, [record])
    length = row.readings[0].length
    forwards = math.ceil(explainer.passes(record.num_bases, length))
    rate = server.fast.tokens_a_second
    cost = {"forwards": forwards, "estimated": True, "seconds": round(forwards * length / rate, 1) if rate else None}
    if forwards > server.options.max_forwards or (cost["seconds"] or 0) > server.options.timeout:
        raise Refusal(422, f"This takes about {forwards:,} forward passes of {length:,} tokens; a request may take "
                      f"{server.options.max_forwards:,} and {server.options.timeout:g} s. Choose the method ig or "
                      "gradient, a shorter sequence, or send it as a job to /v1/jobs.", "too_expensive")  # fmt: skip
    answer = about(call, model) | {"name": record.name, **place_of(record.interval), "cost": cost,
                                   "target": explainer.target.name, "method": options.method}  # fmt: skip
    if body.dry_run:
        return to_json(answer)
    (found,) = await server.alone(call, forwards * length, lambda: list(explainer.explain([record])))
    numbers = {name: getattr(found, name) for name in ("output", "baseline", "gap", "special")}
    numbers = {name: value if np.isfinite(value) else None for name, value in numbers.items()}
    answer |= {"unit": "logit" if model.head else "nats", "values": found.values, "status": found.status,
               "steps": found.steps, "tokens": found.tokens.tolist(), "warnings": [], **numbers}  # fmt: skip
    return await written(call, answer, [(answer, "values")], body.encoding)


async def variants(server: Server, call: Call, body: VariantsRequest) -> bytes:
    """Answer /v1/variants."""
    model = server.model(body.model)
    served: ServedGenome = one_of(server.genomes, body.genome, "genome", "genome")
    if len(body.variants) > server.options.max_variants:
        raise Refusal(413, f"A request has at most {server.options.max_variants} variants; send more to /v1/jobs.",
                      "too_many_variants")  # fmt: skip
    found = [served.variant(text, f"variants[{number}]") for number, text in enumerate(body.variants)]
    given = asked(body, "scores", "outputs", "window", "strand")
    texts = [str(variant) for variant in found]

    def score() -> tuple[Any, Any]:
        options = build(VariantOptions, {**given, "batch_tokens": server.options.batch_tokens}, "options")
        job = VariantJob.open(model.network, texts, served.genome, options)
        return job.fields, job.score(list(job.source.vcf))[0]

    size = body.window or model.card["window"] or model.card["max_bases"] or 1000
    call.facts["bases"] = 2 * size * len(found)
    fields, scored = await server.alone(call, call.facts["bases"], score)
    rows, places = [], []
    for number, variant in enumerate(found):
        values = [None if value != value else float(f"{value:.6g}") for value in scored.values[number].tolist()]
        rows.append({"variant": texts[number], "chrom": variant.chrom, "pos": variant.start + 1, "ref": variant.ref,
                     "alt": variant.alt, "status": scored.statuses[number], "flag": scored.flags[number] or None,
                     "scores": dict(zip((field.name for field in fields), values))})  # fmt: skip
    answer = about(call, model) | {
        "genome": served.name,
        "rows": rows,
        "warnings": [],
        "columns": [{"name": one.name, "description": one.description} for one in fields],
    }
    if body.tracks is not None:
        answer["tracks"], places = await both_alleles(server, call, model, served, body, found)
    return await written(call, answer, places, body.encoding)


async def both_alleles(
    server: Server,
    call: Call,
    model: ServedModel,
    served: ServedGenome,
    body: VariantsRequest,
    found: Sequence[Variant],
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], str]]]:
    """Predict along the window of each variant with either allele.

    Returns:
        An entry a variant, and where the arrays in them are. The difference is on the reference: NaN at bases that the
        allele deletes. ``alt_positions`` maps bases of the other allele to the reference, None for inserted ones.
    """
    if model.kind != "token" or body.tracks is None:
        raise Refusal(422, "Only models with an answer for each base have tracks of both alleles; leave tracks out.",
                      "capability", "tracks")  # fmt: skip
    flank, length = body.tracks.flank, served.genome.contigs
    spans = [(max(0, v.start - flank), min(v.end + flank, length[v.chrom])) for v in found]
    too_many(2 * sum(end - start for start, end in spans), server.max_bases)
    records, maps = [], []
    for number, (variant, (start, end)) in enumerate(zip(found, spans)):
        before, after = (
            served.genome.fetch(variant.chrom, start, variant.start),
            served.genome.fetch(variant.chrom, variant.end, end),
        )
        for allele in (variant.ref, variant.alt):
            records.append(Record(len(records), str(variant), before + allele + after, where=f"variants[{number}]"))
        shared = min(len(variant.ref), len(variant.alt))
        middle = [*range(variant.start, variant.start + shared), *[None] * (len(variant.alt) - shared)]
        maps.append([*range(start, variant.start), *middle, *range(variant.end, end)])
    how = model.wanted(**asked(body, "strand"))
    rows = await predictions(server, call, how, records)
    entries, places = [], []
    for number, (variant, (start, end)) in enumerate(zip(found, spans)):
        ref, alt = rows[2 * number].values, rows[2 * number + 1].values
        moved = on_reference(variant, start, alt, len(ref))
        outputs = []
        for column, name in enumerate(model.outputs):
            entry = {"name": name, "ref": ref[:, column], "alt": alt[:, column], "difference": (moved - ref)[:, column]}
            outputs.append(entry)
            places += [(entry, key) for key in ("ref", "alt", "difference")]
        entries.append({"variant": str(variant), **place_of(Interval(variant.chrom, start, end)), "outputs": outputs,
                        "alt_positions": maps[number]})  # fmt: skip
    return entries, places


ANSWERS: dict[str, Any] = {"tokenize": tokenize, "predict": predict, "embed": predict, "tracks": answer_tracks,
                           "attribute": attribute, "variants": variants}  # fmt: skip
