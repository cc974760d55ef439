// The page: what the user asked, what came out, and words for every state in between.

import { Refused, authorization, call, follow, numbers, pause, setToken } from "./api.js";
import { describe, place, read, region, seconds } from "./box.js";
import { bed, bedGraph, calls, correlation, csv, save, sentence, short, table } from "./files.js";
import { COLOURS, Live, Viewer, boxes, genes, overlay, signal } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("viewer"));
const now = { models: [], genomes: [], limits: {}, views: [], calls: [], variants: null, control: null, speed: 0, at: -1 };
const model = () => now.models.find((each) => each.name === $("model").value);
const genome = () => now.genomes.find((each) => each.name === $("genome").value);
const can = (what, which = model()) => Boolean(which?.capabilities.includes(what));

function make(tag, content = "", more = {}) {
  const { dataset, ...rest } = more, node = Object.assign(document.createElement(tag), rest);
  node.append(...[content].flat());
  Object.assign(node.dataset, dataset);
  return node;
}
/** Lowest and highest number; NaN is left out. */
const extent = (values) => values.reduce(([low, high], value) => [value < low ? value : low, value > high ? value : high], [Infinity, -Infinity]);
const button = (text, onclick, more = {}) => make("button", text, { type: "button", onclick, ...more });
const option = (text, value = text) => make("option", text, { value });

/** Say in which state the page is; the countdown is not read out every second. */
function tell(state, text, { problem = "", actions = [], left = "" } = {}) {
  document.body.dataset.state = state;
  if ($("state").dataset.text !== text) $("state").textContent = $("state").dataset.text = text;
  $("state").querySelector("span")?.remove();
  if (left) $("state").append(make("span", ` Again in ${left} s.`, { ariaHidden: "true" }));
  $("problem").replaceChildren(...(problem ? [make("span", problem)] : []), ...actions);
  const busy = ["running", "queued", "busy", "loading", "gone", "job"].includes(state);
  $("cancel").hidden = !busy;
  if (!["running", "queued", "job"].includes(state)) $("progress").hidden = true;
}

function grid(columns, rows, { caption, click, titles = [] } = {}) {
  const cell = (tag, value) => make(tag, typeof value === "number" ? short(value) : value ?? "–", { className: typeof value === "number" ? "n" : "" });
  const first = rows[0] || [];
  const head = make("tr", columns.map((name, i) => Object.assign(cell("th", name), { scope: "col", title: titles[i] || "", className: typeof first[i] === "number" ? "n" : "" })));
  const body = rows.map((row, i) => make("tr", row.map((value, k) =>
    k === 0 && click ? make("td", button(value, () => click(i))) : cell("td", value))));
  return make("table", [make("caption", caption || "", { className: "hidden" }), make("thead", head), make("tbody", body)]);
}

// ---- asking ----------------------------------------------------------------------------------------------------

/** Ask, and try again while the server is full, loading or gone; everything else is for `fail`. */
async function ask(path, body, abort) {
  for (;;) {
    const began = performance.now();
    const watch = setInterval(async () => {
      const { queue } = await call("/v1/status").catch(() => ({}));
      const spent = seconds((performance.now() - began) / 1000);
      if (abort.aborted || !["running", "queued"].includes(document.body.dataset.state)) return;
      if (queue?.items) tell("queued", `Waiting for ${spent}: ${queue.items} in the queue, about ${seconds(queue.seconds)} of work.`);
      else tell("running", `Running for ${spent}.`);
    }, 1000);
    try {
      return await call(path, { body, signal: abort });
    } catch (problem) {
      if (![0, 429, 503].includes(problem.status)) throw problem;
      clearInterval(watch);
      await wait(problem, abort);
      tell("running", "Running.");
    } finally {
      clearInterval(watch);
    }
  }
}

async function wait(problem, abort) {
  const words = { 0: ["gone", "The server is gone. What is shown stays; the page goes on when it is back."], 429: ["busy", problem.message], 503: ["loading", problem.message] };
  const [state, text] = words[problem.status];
  let skip;
  const skipped = new Promise((done) => { skip = done; });
  const actions = [button("Try now", () => skip("now"))];
  for (let left = Math.ceil(problem.retryAfter || 3); left > 0; left--) {
    tell(state, text, { left, actions });
    if (await Promise.race([pause(1000, abort), skipped]) === "now") return;
  }
}

function fail(problem, retry) {
  if (problem.name === "AbortError") return tell("cancelled", "Cancelled. What was shown before stays.");
  if (!(problem instanceof Refused)) { tell("failed", "The page failed; this is a fault of ours.", { problem: problem.message }); throw problem; }
  const text = problem.message + (problem.hint ? ` ${problem.hint}` : "");
  if (problem.status === 401) {
    const field = make("input", "", { type: "password", ariaLabel: "token" });
    return tell("token", "This server wants its token.", { problem: text, actions: [field, button("Go on", () => { if (field.value) setToken(field.value); start(); })] });
  }
  if (problem.status === 413) return tell("toolong", "Too long to answer at once.", { problem: text, actions: [button("Make it a job", job)] });
  const found = read($("box").value, genome());
  const record = found.records?.[$("record").selectedIndex] || found.records?.[0];
  if (problem.position != null && record) {
    const at = place(record, problem.position);
    $("box").focus();
    $("box").setSelectionRange(at, at + 1);
  }
  return tell("refused", problem.status >= 500 ? "The server failed." : "This cannot be answered.", { problem: text, actions: problem.status >= 500 ? [button("Try again", retry)] : [] });
}

async function run({ push = true, record = 0 } = {}) {
  now.control?.abort();
  const found = read($("box").value, genome());
  if (found.kind === "empty") return tell("empty", "Paste a sequence, or name a place. The examples work as they stand.");
  now.control = new AbortController();
  clearTimeout(now.moved);
  const { signal: abort } = now.control, began = performance.now();
  now.again = () => run({ push: false, record });
  tell("running", "Running.");
  $("progress").hidden = false;
  try {
    if (found.kind === "sequences") await sequences(found.records, record, abort);
    else await places(found.lines, abort);
    if (document.body.dataset.state === "which") return;
    if (push) remember("pushState");
    const spent = (performance.now() - began) / 1000;
    now.speed = now.views[0] ? (now.views[0].end - now.views[0].start) / spent : now.speed;
    if (!now.views.length) tell("done", `Done in ${seconds(spent)}.`);
    else if (now.calls.length || now.threshold === null) tell("done", `Done in ${seconds(spent)}${now.threshold === null ? "" : `: ${now.calls.length} call${now.calls.length === 1 ? "" : "s"}`}.`);
    else tell("nocalls", `Done in ${seconds(spent)}. No call at ${short(now.threshold)} or more.`);
  } catch (problem) {
    if (!abort.aborted || problem.name === "AbortError" && now.control?.signal === abort) fail(problem, now.again);
  }
}

async function sequences(records, number, abort) {
  const { name, sequence } = records[number];
  $("record").replaceChildren(...records.map((each, i) => option(each.name, i)));
  $("record").value = number;
  $("record-part").hidden = records.length < 2;
  await tracks({ input: { sequence, name }, bases: sequence.length, reference: { name, sequence }, abort });
}

async function places(lines, abort) {
  $("record-part").hidden = true;
  if (!genome()) throw new Refused(422, { message: "This server has no genome, so it reads sequences only; start it with --genome NAME=genome.fa." });
  if (lines.length > 1) return variants(lines, abort);
  const [text] = lines;
  const { hits } = await ask(`${at(genome().name)}/search?q=${encodeURIComponent(text)}`, undefined, abort);
  if (!hits.length && /[>:-][acgt]+$/i.test(text)) return variants(lines, abort);  // the server says what is wrong with it
  if (hits.length > 1 && hits[0].name.toLowerCase() !== text.toLowerCase()) {
    return tell("which", "Which one?", { actions: hits.map((each) => button(each.name, () => { $("box").value = each.name; run(); })) });
  }
  if (!hits.length && !text.includes(":")) throw new Refused(404, { message: `'${text}' is no region, gene or variant of ${genome().name}.` });
  const hit = hits[0] || { region: text, interval: { start: 0, end: 1 } };
  if (hit.kind === "variant") return variants([hit.name], abort);
  const { start, end } = hit.interval;
  await tracks({ input: { genome: genome().name, region: hit.region }, bases: end - start, reference: { genome: genome() }, abort });
}

const chosen = () => [model(), ...now.models.filter((each) => $("with").querySelector(`[value="${CSS.escape(each.name)}"]`)?.checked && each !== model())];

async function tracks({ input, bases, reference, abort }) {
  const models = chosen();
  const unable = models.find((each) => !can("tracks", each));
  if (unable) throw new Refused(422, { message: `${unable.name} gives no output along the sequence (it is a ${unable.kind.replace("_", " ")} model); choose another, or ask it for a variant.` });
  const coarse = 2 ** Math.max(0, Math.ceil(Math.log2(bases / 20000)));
  const bin = Math.max(...models.map((each) => each.bin_bases || Math.max(coarse, each.kind === "sequence" && bases > 2000 ? 10 : 1)));
  const views = [];
  for (const each of models) {
    const request = { model: each.name, ...strand(true), outputs: outputs(each) };
    const answer = await ask("/v1/tracks", { ...request, input, bin_size: bin }, abort);
    const { interval } = answer;
    const view = { model: each, answer, request, input, chrom: interval.chrom, start: interval.start, end: interval.end, bin: answer.bin_size };
    view.tracks = answer.tracks.map((track, i) => {
      const about = each.outputs.find((output) => output.name === track.name) || {};
      const side = "+-".includes(track.strand) ? ` (${track.strand})` : "";
      return { ...track, values: numbers(track.values), unit: about.unit || answer.unit, range: about.range,
        title: (models.length > 1 ? `${each.name}: ` : "") + track.name, label: (models.length > 1 ? `${each.name}: ` : "") + track.name + side, colour: COLOURS[(views.length + i * models.length) % COLOURS.length] };
    });
    views.push(view);
  }
  Object.assign(now, { views, variants: null, reference });
  await show(abort);
}

async function variants(lines, abort) {
  const request = { model: model().name, genome: genome().name, variants: lines, ...strand() }, asked = [];
  const most = now.limits.variants || 100;
  for (const each of chosen()) {
    const parts = [];
    for (let i = 0; i < lines.length; i += most) parts.push(await ask("/v1/variants", { ...request, model: each.name, variants: lines.slice(i, i + most) }, abort));
    asked.push({ ...parts[0], rows: parts.flatMap((part) => part.rows) });
  }
  const [answer] = asked, head = ({ model: name }) => (asked.length > 1 ? `${name}: ` : "");
  const names = asked.flatMap((each) => each.columns.map((column) => head(each) + column.name));
  const scores = (i) => asked.flatMap((each) => each.columns.map(({ name }) => [head(each) + name, each.rows[i].scores[name]]));
  const rows = answer.rows.map((row, i) => ({ ...row, scores: Object.fromEntries(scores(i)) }));
  const size = (row) => Math.abs(row.scores[names[0]] ?? -1);
  rows.sort((one, other) => size(other) - size(one));
  const cells = rows.map((row) => [row.variant, ...names.map((name) => row.scores[name]), [row.status, row.flag].filter((word) => word && word !== "ok").join(", ") || "ok"]);
  Object.assign(now, { views: [], calls: [], threshold: null, reference: { genome: genome() }, variants: { answer, rows, request, names, cells, path: "variants" } });
  results();
  list("sentences", rows.slice(0, 3).map((row) => `${row.variant}: ${names.filter((name) => row.scores[name] != null).slice(0, 3).map((name) => `${name} ${short(row.scores[name])}`).join(", ")}.`));
  $("variants").replaceChildren(grid(["variant", ...names, "status"], cells, { titles: ["", ...asked.flatMap((each) => each.columns.map((column) => column.description))], caption: "Variants, the largest effect first", click: (i) => allele(rows[i], abort).catch((problem) => fail(problem, now.again)) }));
  await allele(rows[0], abort);
}

/** Predict along both alleles of one variant, draw them over each other, and their difference. */
async function allele(row, abort) {
  [...$("variants").querySelectorAll("tbody tr")].forEach((line, i) => line.classList.toggle("on", now.variants.rows[i] === row));
  $("alt").replaceChildren();
  $("stage").hidden = !can("tracks");
  if ($("stage").hidden) return;
  const one = model(), bin = one.bin_bases || 1, flank = Math.min(1000, Math.max(200, 2 * (one.trained_bases || 0)));
  const from = row.pos - 1, contig = genome().contigs.find((each) => each.name === row.chrom);
  const view = { chrom: row.chrom, start: Math.floor(Math.max(0, from - flank) / bin) * bin, end: Math.min(contig.length, from + row.ref.length + flank), bin };
  const text = await letters(view, abort), cut = from - view.start;
  const answers = [];
  for (const sequence of [text, text.slice(0, cut) + row.alt + text.slice(cut + row.ref.length)]) answers.push(await ask("/v1/tracks", { model: one.name, input: { sequence }, bin_size: bin, ...strand(), outputs: outputs(one) }, abort));
  const common = Math.min(row.ref.length, row.alt.length), extra = row.alt.length - row.ref.length;
  const onto = (k) => (bin > 1 || k < cut + common ? k : k < cut + row.alt.length ? null : k - extra);
  const drawn = [boxes({ name: "variant", colour: "#d9822b", features: [{ chr: view.chrom, start: from, end: from + Math.max(1, row.ref.length), name: `${row.ref || "-"}>${row.alt || "-"}` }] })];
  answers[0].tracks.forEach((track, i) => {
    const colour = COLOURS[i % COLOURS.length], { range } = one.outputs.find((each) => each.name === track.name) || {};
    const before = numbers(track.values), after = numbers(answers[1].tracks[i].values), moved = before.map(() => NaN);
    after.forEach((value, k) => { if (onto(k) !== null) moved[onto(k)] = value; });
    const both = [["REF", before, "#8a9299"], ["ALT", moved, colour]].map(([name, values, shade]) => signal({ view, values, name, colour: shade, range }));
    drawn.push(overlay(`${track.name}: REF grey, ALT colour`, both, range));
    drawn.push(signal({ view, values: moved.map((value, k) => value - before[k]), name: `${track.name}: ALT − REF`, colour, height: 50 }));
    if (extra > 0 && bin === 1) $("alt").append(lane(track.name, after, onto));
  });
  await draw({ view, drawn });
}

const letters = async ({ chrom, start, end }, abort) => (await (await call(`${at(genome().name)}/sequence?region=${encodeURIComponent(`${chrom}:${start + 1}-${end}`)}`, { accept: "text/plain", signal: abort })).text()).split("\n").slice(1).join("");
/** The strand that was chosen; by default as the model was trained. */
const strand = (apart = false) => ($("strand").value && (apart || $("strand").value !== "separate") ? { strand: $("strand").value } : {});
const at = (name) => `/v1/genomes/${encodeURIComponent(name)}`;
/** Of two classes that add up to 1, the second says everything. */
const outputs = (one) => one.outputs.slice(one.problem === "single_label" && one.outputs.length === 2 ? 1 : 0).map((each) => each.name);

/** The ALT sequence on its own axis: inserted bases have no place on the reference. */
function lane(name, values, onto) {
  const [low, top] = extent([0, ...values]), space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${values.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${name} along the ALT sequence`);
  values.forEach((value, i) => {
    const bar = document.createElementNS(space, "rect"), height = (100 * (value - low)) / (top - low || 1);
    for (const [key, text] of Object.entries({ x: i, y: 100 - height, width: 1, height, fill: onto(i) === null ? "#D55E00" : "#8a9299" })) bar.setAttribute(key, text);
    svg.append(bar);
  });
  return make("figure", [make("figcaption", `${name} along the ALT sequence; orange: inserted bases, which the reference axis above cannot show`, { className: "small" }), svg]);
}

// ---- showing ---------------------------------------------------------------------------------------------------

function results() {
  const scored = Boolean(now.variants);
  for (const id of ["stage", "results"]) $(id).hidden = false;
  for (const id of ["calls", "threshold-part", "live-part", "track-part"]) $(id).hidden = scored;
  $("variants").hidden = !scored;
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

function terms(id, facts) {
  $(id).replaceChildren(...Object.entries(facts).filter(([, value]) => value != null && value !== "").flatMap(([key, value]) => [make("dt", key.replaceAll("_", " ")), make("dd", value instanceof Node ? value : typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : String(value))]));
}
const list = (id, lines) => $(id).replaceChildren(...lines.map((line) => make("li", line)));

async function show(abort) {
  const [first] = now.views;
  results();
  const all = now.views.flatMap((view) => view.tracks);
  $("track").replaceChildren(...all.map((track, i) => option(track.label, i)));
  $("track").value = all.length - 1;
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
function counted() {
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

async function draw({ view, drawn }) {
  $("locus").value = region(view);
  await viewer.show({ reference: now.reference, locus: `${view.chrom}:${view.start + 1}-${view.end}`, tracks: drawn, moved: () => {
    $("locus").value = region(viewer.frame());
    clearTimeout(now.moved);
    now.moved = setTimeout(() => remember("replaceState"), 400);
  } });
}

function moving(what, problem) {
  const words = { asked: "Predicting what came into view.", came: "", wide: `Zoom in: up to ${(now.limits.bases || 200000).toLocaleString("en")} bases are predicted while you move.` };
  $("live-state").textContent = words[what] ?? `What came into view could not be predicted: ${problem.message}`;
}

async function explain(abort) {
  const frame = viewer.frame(), [view] = now.views, all = now.views.flatMap((each) => each.tracks);
  const track = all[$("track").value], owner = now.views.find((each) => each.tracks.includes(track)) || view;
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

function visit(i) {
  if (!now.calls.length) return;
  now.at = (i + now.calls.length) % now.calls.length;
  const call = now.calls[now.at], pad = Math.max(50, call.end - call.start);
  [...$("calls").querySelectorAll("tbody tr")].forEach((line, k) => line.classList.toggle("on", k === now.at));
  viewer.go({ chrom: call.chrom, start: Math.max(0, call.start - pad), end: call.end + pad });
}

function values() {
  const frame = viewer.frame();
  $("numbers").hidden = !$("numbers").hidden || !now.views.length;
  if ($("numbers").hidden) return;
  const [view] = now.views, first = Math.max(0, Math.floor((frame.start - view.start) / view.bin));
  const last = Math.min(view.tracks[0].values.length, Math.ceil((frame.end - view.start) / view.bin), first + 500);
  const rows = Array.from({ length: Math.max(0, last - first) }, (_, i) => [region({ chrom: view.chrom, start: view.start + (first + i) * view.bin, end: Math.min(view.end, view.start + (first + i + 1) * view.bin) }), ...view.tracks.map((track) => track.values[first + i])]);
  $("numbers").replaceChildren(grid(["place", ...view.tracks.map((track) => track.label)], rows, { caption: "Values in view (500 at most)" }));
}

// ---- jobs ------------------------------------------------------------------------------------------------------

async function job() {
  now.control = new AbortController();
  try {
    const found = read($("box").value, genome());
    const query = new URLSearchParams({ model: model().name });
    let body;
    if (found.kind === "sequences") {
      query.set("verb", "predict"); query.set("format", "fasta");
      body = found.records.map((each) => `>${each.name}\n${each.sequence}\n`).join("");
    } else {
      const { hits: [{ interval }] } = await call(`${at(genome().name)}/search?q=${encodeURIComponent(found.lines[0])}`);
      query.set("verb", "tracks"); query.set("format", "bed"); query.set("genome", genome().name);
      body = `${interval.chrom}\t${interval.start}\t${interval.end}\n`;
    }
    const made = await call(`/v1/jobs?${query}`, { body, type: "application/octet-stream" });
    remember("pushState", { job: made.id });
    await watch(made.id);
  } catch (problem) {
    fail(problem, job);
  }
}

async function watch(id) {
  now.control ||= new AbortController();
  now.job = id;
  const end = await follow(id, now.control.signal, (seen) => {
    const far = seen.total ? `${(seen.done || 0).toLocaleString("en")} of ${seen.total.toLocaleString("en")} ${seen.unit || ""}` : "started";
    const left = seen.eta_s ? `, about ${seconds(seen.eta_s)} left` : "";
    tell("job", seen.state === "waiting" ? `The job waits: place ${seen.position ?? 1} in the queue.` : `The job runs: ${far}${left}. You can close this page; its address leads back.`);
    Object.assign($("progress"), seen.total ? { hidden: false, max: seen.total, value: seen.done || 0 } : { hidden: false });
  });
  now.job = null;
  const links = (end.files || []).map((file) => make("a", ` ${file.name} (${Math.ceil(file.bytes / 1024).toLocaleString("en")} KB) `, { href: file.url, download: file.name }));
  if (end.state === "done") tell("jobdone", "The job is done.", { problem: "Its files:", actions: links });
  else if (end.state === "cancelled") tell("cancelled", "The job was cancelled.");
  else tell("jobfailed", "The job failed.", { problem: end.error?.message || (end.notes || []).at(-1) || "The log on the server says why.", actions: [button("Try again", job), ...links] });
}

// ---- address, start, keys --------------------------------------------------------------------------------------

/** Keep the question in the address: never a pasted sequence, never the token. */
function remember(how, more = {}) {
  const found = read($("box").value, genome()), frame = viewer.frame();
  const query = new URLSearchParams({ model: $("model").value, ...more });
  if (genome()) query.set("genome", genome().name);
  if (found.kind === "places") query.set("q", found.lines.join("\n"));
  if ($("strand").value) query.set("strand", $("strand").value);
  if (now.views.length && now.threshold != null) query.set("at", short(now.threshold));
  if (now.views.length > 1) query.set("with", now.views.slice(1).map((view) => view.model.name).join(","));
  if (found.kind === "places" && frame && how === "replaceState") query.set("view", `${frame.chrom}:${frame.start + 1}-${frame.end}`);
  history[how](null, "", `?${query}`);
}

async function restore() {
  const query = new URLSearchParams(location.search);
  for (const id of ["model", "genome", "strand"]) if (query.has(id) && [...$(id).options].some((each) => each.value === query.get(id))) $(id).value = query.get(id);
  about();
  for (const name of (query.get("with") || "").split(",")) { const box = name && $("with").querySelector(`[value="${CSS.escape(name)}"]`); if (box) box.checked = true; }
  if (query.has("at")) now.threshold = Number(query.get("at"));
  if (query.has("job")) { now.control = new AbortController(); return watch(query.get("job")).catch((problem) => fail(problem, restore)); }
  if (query.has("q")) {
    $("box").value = query.get("q");
    typed();
    await run({ push: false });
    const view = /^(.+):(\d+)-(\d+)$/.exec(query.get("view") || "");
    if (view && now.views.length) await viewer.go({ chrom: view[1], start: view[2] - 1, end: Number(view[3]) });
    return;
  }
  tell("empty", "Paste a sequence, or name a place. The examples work as they stand.");
}

function typed() {
  const found = read($("box").value, genome());
  $("reads").textContent = describe(found, model(), now.speed);
  if (!["running", "queued", "busy", "job"].includes(document.body.dataset.state)) tell(found.kind === "empty" ? "empty" : "typing", found.kind === "empty" ? "Paste a sequence, or name a place." : "");
}

/** Show what the chosen model is: the outputs and the report first, everything else folded. */
function about() {
  const { name, report, outputs: out, training, capabilities, tokenizer, kind, fingerprint, ...rest } = model();
  const flat = (value, head) => value && typeof value === "object" ? Object.entries(value).flatMap(([key, inner]) => flat(inner, Array.isArray(value) ? head : head ? `${head}, ${key}` : key)) : [[head, value]];
  const join = (pairs) => pairs.reduce((facts, [key, value]) => ({ ...facts, [key]: key in facts ? `${facts[key]}; ${value}` : value }), {});
  const pick = (pairs, first) => join(pairs.filter(([key]) => (/^(metrics|data|origin)/.test(key) && !/validation|command|commit/.test(key)) === first));
  terms("facts", { model: name, kind: kind.replace("_", " "), outputs: out.map((each) => `${each.name} (${each.unit})`).join(", "), report: report && make("a", "training data, test results and curves", { href: report }), ...pick(flat(training, ""), true) });
  terms("more", { fingerprint, capabilities: capabilities.join(", "), ...pick(flat(training, ""), false), ...join([...flat(tokenizer, "tokenizer"), ...flat(rest, "")]) });
  $("attribute-part").hidden = !can("attribute");
  $("with").replaceChildren(...now.models.filter((each) => each.name !== name && can("tracks", each)).map((each) => make("label", [make("input", "", { type: "checkbox", value: each.name }), ` ${each.name} `])));
  $("with-part").hidden = !$("with").children.length;
}

async function examples() {
  const here = genome(), one = model(), tries = [], size = Math.max(1000, Math.min(10000, 20 * (one.trained_bases || 500)));
  const put = (text, value) => tries.push(button(text, () => { $("box").value = value; typed(); run(); }));
  if (here) {
    const contig = here.contigs.reduce((one, other) => (other.length > one.length ? other : one));
    const start = Math.floor(contig.length / 2), view = { chrom: contig.name, start, end: Math.min(contig.length, start + size) };
    const text = await letters({ ...view, end: Math.min(view.end, start + 1000) });
    const { genes: near } = here.has_annotation ? await call(`${at(here.name)}/genes?region=${encodeURIComponent(region(view))}`) : { genes: [] };
    const base = text[100]?.toUpperCase(), other = { A: "G", G: "A", C: "T", T: "C" }[base];
    if (can("tracks")) put("a region", region(view));
    if (can("tracks") && near.length) put("a gene", near[0].gene || near[0].name);
    if (can("variants") && other) put("a variant", `${contig.name}-${start + 101}-${base}-${other}`);
    if (can("tracks")) put("a sequence", `>example\n${text}`);
  } else if (can("tracks")) {
    let state = 7;
    put("a made-up sequence", ">made_up\n" + Array.from({ length: size }, () => "ACGT"[(state = (state * 1103515245 + 12345) % 2147483648) >> 16 & 3]).join(""));
  }
  $("examples").replaceChildren(make("span", "Try"), ...tries);
}

async function start() {
  tell("starting", "Asking the server what it has.");
  now.control = new AbortController();
  try {
    const [status, { models }, { genomes }] = await Promise.all(["status", "models", "genomes"].map((path) => ask(`/v1/${path}`, undefined, now.control.signal)));
    Object.assign(now, { models, genomes, limits: status.limits || {}, version: `longstrand ${status.version}` });
    $("server").textContent = `${status.state} · ${status.device}, ${status.threads} thread${status.threads === 1 ? "" : "s"}`;
    $("model").replaceChildren(...models.map((each) => option(each.name)));
    $("genome").replaceChildren(...genomes.map((each) => option(each.name)));
    $("genome-part").hidden = !genomes.length;
    const { runs } = await call("/v1/runs").catch(() => ({ runs: [] }));
    $("runs").hidden = !runs.length;
    $("run-list").replaceChildren(...runs.map((each) => make("li", [each.report ? make("a", each.name, { href: each.report }) : each.name, ` (${each.kind})`])));
    $("about").hidden = !models.length;
    $("ask").hidden = !models.length;
    if (!models.length) return tell("nomodels", "");
    about();
    examples().catch(() => {});
    await restore();
  } catch (problem) {
    fail(problem, start);
  }
}

function cancel() {
  if (now.job) call(`/v1/jobs/${now.job}`, { method: "DELETE" }).catch(() => {});
  now.control?.abort();
}

const keys = { "/": () => $("locus").focus(), ArrowLeft: () => viewer.move(-0.5), ArrowRight: () => viewer.move(0.5), "+": () => viewer.move(0, 0.5), "-": () => viewer.move(0, 2),
  n: () => visit(now.at + 1), p: () => visit(now.at - 1), t: values, "?": () => $("help").showModal() };
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); return run(); }
  if (event.key === "Escape" && !$("cancel").hidden) return cancel();
  const editing = event.target.matches("input:not([type=checkbox]), textarea, select, [tabindex]:not(#viewer)") || $("help").open;
  if (editing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return undefined;
  event.preventDefault();
  return keys[event.key]();
});
/** Links cannot carry a token: fetch what they name. */
addEventListener("click", async (event) => {
  const link = event.target.closest?.('a[href^="/v1/"]');
  if (!link || !authorization().Authorization) return;
  event.preventDefault();
  const content = await (await call(link.getAttribute("href"), { accept: "*/*" })).blob();
  if (link.download) save(link.download, content);
  else open(URL.createObjectURL(content));
});
addEventListener("popstate", () => { clearTimeout(now.moved); restore(); });
$("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("cancel").onclick = cancel;
$("box").oninput = typed;
$("model").onchange = () => { about(); typed(); examples().catch(() => {}); };
$("genome").onchange = () => { typed(); examples().catch(() => {}); };
$("record").onchange = () => run({ push: false, record: Number($("record").value) });
$("threshold").oninput = () => { now.threshold = Number($("threshold").value); counted(); viewer.browser?.findTracks((each) => each.name === "calls").forEach((track) => track.trackView.updateViews(true)); };
$("threshold").onchange = () => remember("replaceState");
$("locus").onkeydown = (event) => {
  const found = /^(.+):([\d,]+)-([\d,]+)$/.exec($("locus").value.trim());
  if (event.key === "Enter" && found) viewer.go({ chrom: found[1], start: Number(found[2].replaceAll(",", "")) - 1, end: Number(found[3].replaceAll(",", "")) });
};
$("live").onchange = () => now.views.forEach((view) => { view.live.on = $("live").checked; });
$("explain").onclick = () => explain(now.control.signal).catch((problem) => fail(problem, $("explain").onclick));
$("as-table").onclick = values;
$("copy").onclick = () => navigator.clipboard.writeText($("reproduce").textContent);
$("help-open").onclick = keys["?"];
$("file").onchange = async () => { $("box").value = await $("file").files[0].text(); typed(); };
for (const each of document.querySelectorAll("[data-move]")) each.onclick = () => viewer.move(Number(each.dataset.move));
for (const each of document.querySelectorAll("[data-zoom]")) each.onclick = () => viewer.move(0, Number(each.dataset.zoom));
start();
