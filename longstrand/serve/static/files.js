// What a track says: calls above a threshold, sentences, and files to keep.

import { region } from "./box.js";

export const short = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "–");
const strand = (track) => (track.strand === "+" || track.strand === "-" ? track.strand : ".");
const places = (view, i) => [view.start + i * view.bin, Math.min(view.start + (i + 1) * view.bin, view.end)];

/** Join neighbouring bins at or above the threshold. */
export function calls(view, threshold) {
  const found = [];
  for (const track of view.tracks) {
    let open = null;
    track.values.forEach((value, i) => {
      if (!(value >= threshold)) { open = null; return; }
      const [start, end] = places(view, i);
      if (!open) found.push(open = { chrom: view.chrom, start, end, strand: strand(track), name: track.name, title: track.title, score: value });
      open.end = end;
      open.score = Math.max(open.score, value);
    });
  }
  return found.sort((one, other) => other.score - one.score);
}

/** Say in a sentence where a track is highest, and how often it calls. */
export function sentence(view, track, found, threshold) {
  let best = -1;
  track.values.forEach((value, i) => { if (value > (track.values[best] ?? -Infinity)) best = i; });
  if (best < 0) return `${track.label}: no value here.`;
  const [start, end] = places(view, best);
  const number = found.filter((call) => call.name === track.name && call.strand === strand(track)).length;
  const count = threshold === null ? "" : ` ${number || "No"} call${number === 1 ? "" : "s"} at ${short(threshold)} or more.`;
  return `${track.label}: highest ${short(track.values[best])} at ${region({ chrom: view.chrom, start, end })}.${count}`;
}

/** Pearson's correlation of two tracks over the bins that both have. */
export function correlation(one, other) {
  const pairs = [...one].map((value, i) => [value, other[i]]).filter((pair) => pair.every(Number.isFinite));
  const mean = (k) => pairs.reduce((sum, pair) => sum + pair[k], 0) / pairs.length;
  const [a, b] = [mean(0), mean(1)];
  const sum = (f) => pairs.reduce((total, [x, y]) => total + f(x - a, y - b), 0);
  return sum((x, y) => x * y) / Math.sqrt(sum((x) => x * x) * sum((x, y) => y * y));
}

export const bed = (found) => found.map((c) =>
  [c.chrom, c.start, c.end, c.name, Math.round(1000 * Math.max(0, Math.min(1, c.score))), c.strand, short(c.score)].join("\t")).join("\n") + "\n";

export const bedGraph = (view, track) => [...track.values].map((value, i) =>
  Number.isFinite(value) ? [view.chrom, ...places(view, i), Number(value.toPrecision(7))].join("\t") + "\n" : "").join("");

export const table = (view) => ["chrom\tstart\tend\t" + view.tracks.map((track) => track.label).join("\t"),
  ...Array.from(view.tracks[0].values, (_, i) =>
    [view.chrom, ...places(view, i), ...view.tracks.map((track) => short(track.values[i]).replace("–", ""))].join("\t"))].join("\n") + "\n";

export const csv = (rows) => rows.map((row) => row.map((cell) => {
  const text = String(cell ?? "");
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}).join(",")).join("\n") + "\n";

/** Give the user a file. */
export function save(name, content, type = "text/plain") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
