// What all parts of the page share: its state, small pieces of HTML, words for where it is.

import { short } from "./files.js";

export const $ = (id) => document.getElementById(id);

export const now = { models: [], genomes: [], limits: {}, views: [], calls: [], variants: null, control: null, speed: 0, at: -1 };

export const model = () => now.models.find((each) => each.name === $("model").value);

export const genome = () => now.genomes.find((each) => each.name === $("genome").value);

export const can = (what, which = model()) => Boolean(which?.capabilities.includes(what));

export function make(tag, content = "", more = {}) {
  const { dataset, ...rest } = more, node = Object.assign(document.createElement(tag), rest);
  node.append(...[content].flat());
  Object.assign(node.dataset, dataset);
  return node;
}

/** Lowest and highest number; NaN is left out. */
export const extent = (values) => values.reduce(([low, high], value) => [value < low ? value : low, value > high ? value : high], [Infinity, -Infinity]);

export const button = (text, onclick, more = {}) => make("button", text, { type: "button", onclick, ...more });

export const option = (text, value = text) => make("option", text, { value });

/** Say in which state the page is; the countdown is not read out every second. */
export function tell(state, text, { problem = "", actions = [], left = "" } = {}) {
  document.body.dataset.state = state;
  if ($("state").dataset.text !== text) $("state").textContent = $("state").dataset.text = text;
  $("state").querySelector("span")?.remove();
  if (left) $("state").append(make("span", ` Again in ${left} s.`, { ariaHidden: "true" }));
  $("problem").replaceChildren(...(problem ? [make("span", problem)] : []), ...actions);
  const busy = ["running", "queued", "busy", "loading", "gone", "job"].includes(state);
  $("cancel").hidden = !busy;
  if (!["running", "queued", "job"].includes(state)) $("progress").hidden = true;
}

export function grid(columns, rows, { caption, click } = {}) {
  const cell = (tag, value) => make(tag, typeof value === "number" ? short(value) : value ?? "–", { className: typeof value === "number" ? "n" : "" });
  const first = rows[0] || [];
  const head = make("tr", columns.map((name, i) => Object.assign(cell("th", name), { scope: "col", className: typeof first[i] === "number" ? "n" : "" })));
  const body = rows.map((row, i) => make("tr", row.map((value, k) =>
    k === 0 && click ? make("td", button(value, () => click(i))) : cell("td", value))));
  return make("table", [make("caption", caption || "", { className: "hidden" }), make("thead", head), make("tbody", body)]);
}

export function terms(id, facts) {
  $(id).replaceChildren(...Object.entries(facts).filter(([, value]) => value != null && value !== "").flatMap(([key, value]) => [make("dt", key.replaceAll("_", " ")), make("dd", value instanceof Node ? value : typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : String(value))]));
}

export const list = (id, lines) => $(id).replaceChildren(...lines.map((line) => make("li", line)));
