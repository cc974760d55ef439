// What stands in the box: nothing, sequences, or a place (region, gene, variant), which only the server can read.

const LETTERS = /^[ACGTUNRYSWKMBDHV]+$/i;
const SHORT = 10;  // so few letters can also be the name of a gene (CAT, TTN)

/** Read the text. Gives {kind: "empty" | "sequences" | "places", ...}; records keep where their letters stand. */
export function read(text, genome) {
  const trimmed = text.trim();
  if (!trimmed) return { kind: "empty" };
  const joined = trimmed.replace(/\s+/g, "");
  const word = /^[a-z*-]+$/i.test(joined) && joined.length > 30;  // a sequence with a wrong letter is one, too
  if (trimmed.startsWith(">") || word || (LETTERS.test(joined) && (joined.length >= SHORT || !genome))) {
    return { kind: "sequences", records: records(text) };
  }
  return { kind: "places", lines: trimmed.split(/\n+/).map((line) => line.trim()).filter(Boolean) };
}

function records(text) {
  const found = [];
  let start = 0;
  for (const line of text.split("\n")) {
    if (line.startsWith(">")) {
      const name = line.slice(1).trim().split(/\s+/)[0].replace(/[^\w.-]/g, "_");
      found.push({ name: name || `sequence_${found.length + 1}`, parts: [] });
    } else if (line.trim()) {
      if (!found.length) found.push({ name: "sequence", parts: [] });
      found.at(-1).parts.push([start, line]);
    }
    start += line.length + 1;
  }
  return found.map(({ name, parts }) => {
    const sequence = parts.map(([, line]) => line.replace(/\s+/g, "")).join("");
    return { name, sequence, parts };
  });
}

/** Where in the box letter `position` of a record stands. */
export function place(record, position) {
  for (const [start, line] of record.parts) {
    for (let i = 0; i < line.length; i++) if (!/\s/.test(line[i]) && position-- === 0) return start + i;
  }
  return 0;
}

/** Say what the box holds, in one line. */
export function describe(found, model, speed) {
  if (found.kind === "empty") return "";
  if (found.kind === "places") return found.lines.length > 1 ? `${found.lines.length} variants` : "a region, a gene or a variant";
  const bases = found.records.reduce((sum, record) => sum + record.sequence.length, 0);
  const all = found.records.map((record) => record.sequence).join("");
  const unknown = all.length - (all.match(/[ACGTU]/gi) || []).length;
  const lower = (all.match(/[a-z]/g) || []).length;
  const parts = [`${bases.toLocaleString("en")} bases`];
  if (found.records.length > 1) parts.push(`${found.records.length} records`);
  if (unknown) parts.push(`${unknown.toLocaleString("en")} unknown letters`);
  if (lower) parts.push(`${lower.toLocaleString("en")} in lower case`);
  const per = model?.tokenizer?.bases_per_token;
  if (per) parts.push(`about ${Math.ceil(bases / per).toLocaleString("en")} tokens`);
  if (speed) parts.push(`about ${seconds(bases / speed)}`);
  return parts.join(" · ");
}

export const seconds = (value) => (value < 90 ? `${Math.max(1, Math.round(value))} s` : `${Math.round(value / 60)} min`);

/** Write a place as people do: counted from 1, both ends included. */
export const region = ({ chrom, start, end }) => `${chrom}:${(start + 1).toLocaleString("en")}-${end.toLocaleString("en")}`;
