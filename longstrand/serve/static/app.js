// The page: from what stands in the box to an answer; jobs, addresses, keys.

import { Refused, authorization, call, follow, numbers } from "./api.js";
import { ask, fail } from "./ask.js";
import { describe, read, region, seconds } from "./box.js";
import { save, short } from "./files.js";
import { $, button, can, genome, make, model, now, option, tell, terms } from "./page.js";
import { at, chosen, counted, explain, letters, outputs, show, strand, values, viewer, visit } from "./results.js";
import { variants } from "./variants.js";
import { COLOURS } from "./viewer.js";

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
  now.watched = id;
  const end = await follow(id, now.control.signal, (seen) => {
    const far = seen.total ? `${(seen.done || 0).toLocaleString("en")} of ${seen.total.toLocaleString("en")} ${seen.unit || ""}` : "started";
    const left = seen.eta_s ? `, about ${seconds(seen.eta_s)} left` : "";
    tell("job", seen.state === "waiting" ? `The job waits: place ${seen.position ?? 1} in the queue.` : `The job runs: ${far}${left}. You can close this page; its address leads back.`);
    Object.assign($("progress"), seen.total ? { hidden: false, max: seen.total, value: seen.done || 0 } : { hidden: false });
  });
  now.watched = null;
  const links = (end.files || []).map((file) => make("a", ` ${file.name} (${Math.ceil(file.bytes / 1024).toLocaleString("en")} KB) `, { href: file.url, download: file.name }));
  if (end.state === "done") tell("jobdone", "The job is done.", { problem: "Its files:", actions: links });
  else if (end.state === "cancelled") tell("cancelled", "The job was cancelled.");
  else tell("jobfailed", "The job failed.", { problem: end.error?.message || (end.notes || []).at(-1) || "The log on the server says why.", actions: [button("Try again", job), ...links] });
}

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
  if (now.watched) call(`/v1/jobs/${now.watched}`, { method: "DELETE" }).catch(() => {});
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
$("track").onchange = () => { now.picked = true; };
$("live").onchange = () => now.views.forEach((view) => { view.live.on = $("live").checked; });
$("explain").onclick = () => explain(now.control.signal).catch((problem) => fail(problem, $("explain").onclick));
$("as-table").onclick = values;
$("copy").onclick = () => navigator.clipboard.writeText($("reproduce").textContent);
$("help-open").onclick = keys["?"];
$("file").onchange = async () => { $("box").value = await $("file").files[0].text(); typed(); };
for (const each of document.querySelectorAll("[data-move]")) each.onclick = () => viewer.move(Number(each.dataset.move));
for (const each of document.querySelectorAll("[data-zoom]")) each.onclick = () => viewer.move(0, Number(each.dataset.zoom));
Object.assign(now, { job, start, moving: () => remember("replaceState") });
start();
