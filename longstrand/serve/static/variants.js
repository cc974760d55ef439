// Variants: their scores, and predictions along both alleles.

import { numbers } from "./api.js";
import { ask, fail } from "./ask.js";
import { short } from "./files.js";
import { $, can, extent, genome, grid, list, make, model, now, terms } from "./page.js";
import { chosen, draw, letters, outputs, results, strand } from "./results.js";
import { COLOURS, boxes, overlay, signal } from "./viewer.js";

const WORDS = { max_delta: "largest change", max_at: "where", sum_delta: "sum of changes", delta: "change", delta_logit: "change of log odds", delta_probability: "change of probability",
  log_odds: "change of log odds", log_ratio: "log ratio of counts", llr: "log-likelihood ratio", flank: "change of the context" };

/** Write the name of a score in words: what it is, and of which output. */
function words(name) {
  const [stem] = Object.keys(WORDS).filter((each) => name === each || name.startsWith(`${each}_`)).sort((one, other) => other.length - one.length);
  return stem ? WORDS[stem] + (name === stem ? "" : `: ${name.slice(stem.length + 1)}`) : name.replaceAll("_", " ");
}

export async function variants(lines, abort) {
  const request = { model: model().name, genome: genome().name, variants: lines, ...strand() }, asked = [];
  const most = now.limits.variants || 100;
  for (const each of chosen()) {
    const parts = [];
    for (let i = 0; i < lines.length; i += most) parts.push(await ask("/v1/variants", { ...request, model: each.name, variants: lines.slice(i, i + most) }, abort));
    asked.push({ ...parts[0], rows: parts.flatMap((part) => part.rows) });
  }
  const [answer] = asked, head = ({ model: name }) => (asked.length > 1 ? `${name}: ` : "");
  const titles = asked.flatMap((each) => each.columns.map((column) => head(each) + words(column.name)));
  const names = asked.flatMap((each) => each.columns.map((column) => head(each) + column.name));
  const scores = (i) => asked.flatMap((each) => each.columns.map(({ name }) => [head(each) + name, each.rows[i].scores[name]]));
  const rows = answer.rows.map((row, i) => ({ ...row, scores: Object.fromEntries(scores(i)) }));
  const size = (row) => Math.abs(row.scores[names[0]] ?? -1);
  rows.sort((one, other) => size(other) - size(one));
  const cells = rows.map((row) => [row.variant, ...names.map((name) => row.scores[name]), [row.status, row.flag].filter((word) => word && word !== "ok").join(", ") || "ok"]);
  Object.assign(now, { views: [], calls: [], threshold: null, reference: { genome: genome() }, variants: { answer, rows, request, names, cells, path: "variants" } });
  results();
  const size_of = (row) => (one, other) => Math.abs(row.scores[names[other]]) - Math.abs(row.scores[names[one]]);
  const strongest = (row) => names.map((_, k) => k).filter((k) => row.scores[names[k]] != null && !/max_at|sum_delta/.test(names[k])).sort(size_of(row)).slice(0, 3);
  list("sentences", rows.slice(0, 3).map((row) => `${row.variant}: ${strongest(row).map((k) => `${titles[k]} ${short(row.scores[names[k]])}`).join(", ") || row.status}.`));
  const place = (row, value) => (value == null ? null : `${short(value)} (${row.chrom}:${(row.pos + value).toLocaleString("en")})`);
  const shown = rows.map((row, i) => cells[i].map((cell, k) => (names[k - 1]?.includes("max_at") ? place(row, cell) : cell)));
  $("variants").replaceChildren(grid(["variant", ...titles, "status"], shown, { caption: "Variants, the largest effect first", click: (i) => allele(rows[i], abort).catch((problem) => fail(problem, now.again)) }));
  terms("meanings", Object.fromEntries(asked.flatMap((each) => each.columns.map(({ name, description }) => [head(each) + words(name), description]))));
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
