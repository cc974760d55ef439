// What came out: sentences, calls, the genome browser, attributions, tables, files.

import { call, numbers } from "./api.js";
import { ask, fail } from "./ask.js";
import { region } from "./box.js";
import { bed, bedGraph, calls, correlation, csv, save, sentence, short, table } from "./files.js";
import { $, button, can, extent, genome, grid, list, make, model, now, option, terms } from "./page.js";
import { COLOURS, Live, Viewer, boxes, genes, inside, signal } from "./viewer.js";

export const viewer = new Viewer($("viewer"));

export const at = (name) => `/v1/genomes/${encodeURIComponent(name)}`;

export const letters = async ({ chrom, start, end }, abort) => (await (await call(`${at(genome().name)}/sequence?region=${encodeURIComponent(`${chrom}:${start + 1}-${end}`)}`, { accept: "text/plain", signal: abort })).text()).split("\n").slice(1).join("");

/** The strand that was chosen; by default as the model was trained. */
export const strand = (apart = false) => ($("strand").value && (apart || $("strand").value !== "separate") ? { strand: $("strand").value } : {});

/** Of two classes that add up to 1, the second says everything. */
export const outputs = (one) => one.outputs.slice(one.problem === "single_label" && one.outputs.length === 2 ? 1 : 0).map((each) => each.name);

export const chosen = () => [model(), ...now.models.filter((each) => $("with").querySelector(`[value="${CSS.escape(each.name)}"]`)?.checked && each !== model())];

export function results() {
  const scored = Boolean(now.variants);
  for (const id of ["stage", "results"]) $(id).hidden = false;
  for (const id of ["calls", "threshold-part", "live-part", "track-part"]) $(id).hidden = scored;
  for (const id of ["variants", "columns"]) $(id).hidden = !scored;
  $("numbers").hidden = true;
  $("explain").hidden = scored || !can("attribute");
  $("alt").replaceChildren();
  const kinds = scored ? ["CSV", "JSON", "SVG"] : ["BED", "bedGraph", "BigWig", "TSV", "JSON", "SVG", "FASTA"];
  $("downloads").replaceChildren(...kinds.map((kind) => button(kind, () => download(kind).catch((problem) => fail(problem, now.again)))));
  const [view] = now.views;
  const { request, answer, path } = now.variants || { path: "tracks", answer: view.answer, request: { ...view.request, input: view.input, bin_size: view.bin } };
  now.json = { request, answer };
  $("reproduce").textContent = `curl ${location.origin}/v1/${path} -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify({ ...request, encoding: "json" })}'`;
  const { model: name, fingerprint, request_id: id, windows, warnings } = answer;
  terms("origin", { model: name, fingerprint, request: id, server: now.version, date: `${new Date().toISOString().slice(0, 16)} UTC`, ...windows, warnings: (warnings || []).join(" ") });
}

export async function show(abort) {
  const [first] = now.views;
  results();
  const all = now.views.flatMap((view) => view.tracks);
  $("track").replaceChildren(...all.map((track, i) => option(track.label, i)));
  $("track").value = all.length - 1;
  now.picked = false;
  const ranged = all.every((track) => track.range), values = all.flatMap((track) => [...track.values]).filter(Number.isFinite);
  const [low, high] = ranged ? all[0].range : extent(values);
  Object.assign($("threshold"), { min: low, max: high, step: (high - low) / 100 || 0.01 });
  if (!values.length) now.threshold = null;
  else if (now.threshold == null || now.threshold < low || now.threshold > high) now.threshold = ranged ? (low + high) / 2 : low + 0.8 * (high - low);
  $("threshold").value = now.threshold;
  counted();
  const drawn = [];
  if (now.reference.genome?.has_annotation) drawn.push(genes(now.reference.genome.name, first.chrom));
  drawn.push(boxes({ name: "calls", colour: "#d9822b", height: 44, features: (start, end) => now.calls.filter((call) => call.end > start && call.start < end).map((call) => ({ ...call, chr: call.chrom })) }));
  const contig = now.reference.genome?.contigs.find((each) => each.name === first.chrom);
  for (const view of now.views) {
    view.live = new Live({ view, request: view.request, genome: now.reference.genome?.name, length: contig?.length, limit: now.limits.bases || 200000, report: moving });
    view.live.on = $("live").checked;
    view.tracks.forEach((track, i) => drawn.push(signal({ view, name: `${track.label} · ${track.unit || "value"}`, range: track.range, colour: track.colour, source: ({ start, end, bpPerPixel }) => view.live.features(i, start, end, bpPerPixel) })));
  }
  $("live-part").hidden = !now.reference.genome;
  await draw({ view: first, drawn });
  if (can("tokenize") && first.end - first.start <= 20000) {
    const { answers: [{ offsets, tokens }] } = await ask("/v1/tokenize", { model: first.model.name, inputs: [first.input] }, abort);
    const features = offsets.map(([start, end], i) => ({ chr: first.chrom, start: first.start + start, end: first.start + end, name: tokens?.[i] || "", color: COLOURS[(i % 2) * 5] })).filter((each) => each.end > each.start);
    await viewer.load({ ...boxes({ name: "tokens", features, display: "COLLAPSED" }), order: 1 });
  }
  if ($("attribute").checked && can("attribute")) await explain(abort);
}

/** Read the calls anew after the threshold moved. */
export function counted() {
  now.calls = now.views.flatMap((view) => calls(view, now.threshold));
  now.at = -1;
  $("threshold-value").textContent = short(now.threshold);
  const lines = now.views.flatMap((view) => view.tracks.map((track) => [make("span", "", { className: "dot", style: `background:${track.colour}` }), sentence(view, track, calls(view, now.threshold), now.threshold)]));
  const [one, ...others] = now.views;
  for (const other of others) for (const track of other.tracks) {
    const twin = one.tracks.find((each) => each.name === track.name && each.strand === track.strand);
    if (twin && one.bin === other.bin) lines.push(`${twin.name}${twin.strand === "." ? "" : ` (${twin.strand})`}: ${one.model.name} and ${other.model.name} correlate with r = ${short(correlation(twin.values, track.values))} over ${twin.values.length} bins.`);
  }
  list("sentences", [...lines, ...now.views.flatMap((view) => view.answer.warnings || [])]);
  const shown = now.calls.slice(0, 200);
  $("calls").replaceChildren(...(shown.length ? [grid(["place", "strand", "output", "score"], shown.map((call) => [region(call), call.strand, call.title, call.score]), { caption: "Calls, the highest first", click: (i) => visit(i) })] : []));
  if (now.calls.length > 200) $("calls").append(make("p", `The highest 200 of ${now.calls.length}; the download has all.`));
}

export async function draw({ view, drawn }) {
  $("locus").value = region(view);
  await viewer.show({ reference: now.reference, locus: `${view.chrom}:${view.start + 1}-${view.end}`, tracks: drawn, moved: () => {
    $("locus").value = region(viewer.frame());
    clearTimeout(now.moved);
    now.moved = setTimeout(() => now.moving(), 400);
  } });
}

function moving(what, problem) {
  const words = { asked: "Predicting what came into view.", came: "", wide: `Zoom in: up to ${(now.limits.bases || 200000).toLocaleString("en")} bases are predicted while you move.` };
  $("live-state").textContent = words[what] ?? `What came into view could not be predicted: ${problem.message}`;
}

export async function explain(abort) {
  const frame = viewer.frame(), [view] = now.views, all = now.views.flatMap((each) => each.tracks);
  const peak = (track) => extent(inside(now.views.find((each) => each.tracks.includes(track)), track.values, frame.start, frame.end).map((item) => item.value))[1];
  const track = now.picked ? all[$("track").value] : all.reduce((one, other) => (peak(other) > peak(one) ? other : one)), owner = now.views.find((each) => each.tracks.includes(track)) || view;
  const width = Math.min(owner.model.trained_bases || 512, view.end - view.start);
  const best = track.values.indexOf(extent(track.values)[1]);
  const middle = frame.end - frame.start < 4 * width ? (frame.start + frame.end) / 2 : view.start + (best + 0.5) * view.bin;
  const start = Math.round(Math.max(view.start, Math.min(middle - width / 2, view.end - width))), end = start + width;
  const input = view.input.sequence ? { sequence: view.input.sequence.slice(start - view.start, end - view.start) } : { genome: view.input.genome, region: `${view.chrom}:${start + 1}-${end}` };
  const answer = await ask("/v1/attribute", { model: owner.model.name, input, target: track.name, encoding: "f32" }, abort);
  const values = numbers(answer.values), part = { chrom: view.chrom, start, end, bin: 1 };
  await viewer.load({ ...signal({ view: part, values, name: `attribution to ${track.name}`, colour: "#0b6e75", graph: "dynseq", height: 90 }), order: 2 });
  await viewer.go({ chrom: view.chrom, start: Math.max(0, start - 5), end: end + 5 });
  $("live-state").textContent = `Attribution of ${region(part)}: letters above 0 push ${track.name} up, letters below push it down.${answer.gap == null ? "" : ` Completeness gap ${short(answer.gap)}.`} Below 2 bases a pixel they are letters, above they are bars.`;
}

async function download(kind) {
  const view = now.views[0], all = now.views.flatMap((each) => each.tracks.map((track) => [each, track]));
  const name = (view ? region(view) : "variants").replace(/[^\w.-]+/g, "_").replaceAll("_000", "000");
  if (kind === "CSV") return save("variants.csv", csv([["variant", ...now.variants.names, "status"], ...now.variants.cells]), "text/csv");
  if (kind === "JSON") return save(`${name}.json`, JSON.stringify(now.json, null, 1), "application/json");
  if (kind === "SVG") return save(`${name}.svg`, viewer.svg(), "image/svg+xml");
  if (kind === "BED") return save(`${name}.bed`, bed(now.calls));
  if (kind === "TSV") return now.views.forEach((each) => save(`${name}.${each.model.name}.tsv`, table(each)));
  const [owner, track] = all[$("track").value];
  if (kind === "bedGraph") return save(`${name}.${track.name}.bedgraph`, bedGraph(owner, track));
  if (kind === "FASTA") return save(`${name}.fa`, `>${name}\n${owner.input.sequence || await letters(owner)}\n`);
  const body = { ...owner.request, input: owner.input, bin_size: owner.bin, outputs: [track.name], ...("+-".includes(track.strand) ? { strand: track.strand } : {}) };
  return save(`${name}.${track.name}.bw`, await (await call("/v1/tracks", { body, accept: "application/x-bigwig" })).blob());
}

export function visit(i) {
  if (!now.calls.length) return;
  now.at = (i + now.calls.length) % now.calls.length;
  const call = now.calls[now.at], pad = Math.max(50, call.end - call.start);
  [...$("calls").querySelectorAll("tbody tr")].forEach((line, k) => line.classList.toggle("on", k === now.at));
  viewer.go({ chrom: call.chrom, start: Math.max(0, call.start - pad), end: call.end + pad });
}

export function values() {
  const frame = viewer.frame();
  $("numbers").hidden = !$("numbers").hidden || !now.views.length;
  if ($("numbers").hidden) return;
  const [view] = now.views, first = Math.max(0, Math.floor((frame.start - view.start) / view.bin));
  const last = Math.min(view.tracks[0].values.length, Math.ceil((frame.end - view.start) / view.bin), first + 500);
  const rows = Array.from({ length: Math.max(0, last - first) }, (_, i) => [region({ chrom: view.chrom, start: view.start + (first + i) * view.bin, end: Math.min(view.end, view.start + (first + i + 1) * view.bin) }), ...view.tracks.map((track) => track.values[first + i])]);
  $("numbers").replaceChildren(grid(["place", ...view.tracks.map((track) => track.label)], rows, { caption: "Values in view (500 at most)" }));
}
