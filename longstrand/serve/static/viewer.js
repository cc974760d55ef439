// The genome browser: igv.js with a reference of our own, tracks in memory, and predictions for what comes into view.

import { authorization, call, numbers } from "./api.js";

export const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#2B8CBE"];  // after Okabe and Ito
const DEBOUNCE = 150, BINS = 256, SMALLEST = 2048;

/** Predictions around what was asked for, by tiles on the grid of the contig, each asked for once. */
export class Live {
  constructor({ view, request, genome, length, limit, report }) {
    Object.assign(this, { view, request, genome, length, limit, report, tiles: new Map(), range: "", on: true });
  }

  /** Give the features of track `number` in a range; an overtaken question gets what is already there. */
  async features(number, start, end, perPixel) {
    const { view } = this;
    const found = inside(view, view.tracks[number].values, start, end);
    if (!this.on || !this.genome) return found;
    const range = `${start}-${end}`;
    if (range !== this.range) {
      this.range = range;
      await new Promise((done) => setTimeout(done, DEBOUNCE));
    }
    const bin = view.bin * 2 ** Math.max(0, Math.ceil(Math.log2(perPixel / view.bin)));
    const size = Math.ceil(Math.min(Math.max(BINS * bin, SMALLEST), this.limit) / bin) * bin;
    if (end - start > 4 * this.limit) { this.report("wide"); return found; }
    const missing = [];
    for (let at = Math.max(0, Math.floor(start / size)) * size; at < Math.min(end, this.length); at += size) {
      const stop = Math.min(at + size, this.length);
      if (at < view.start || stop > view.end) missing.push([at, stop]);
    }
    for (const [at, stop] of missing) {
      if (range !== this.range) break;
      const tile = await this.tile(at, stop, bin);
      if (!tile) break;
      const kept = inside(tile, tile.tracks[number], start, end);
      found.push(...kept.filter((item) => item.end <= view.start || item.start >= view.end));
    }
    return found.sort((one, other) => one.start - other.start);
  }

  tile(start, end, bin) {
    const key = `${start}-${end}-${bin}`;
    if (!this.tiles.has(key)) this.tiles.set(key, this.fetch(start, end, bin).catch((problem) => {
      this.tiles.delete(key);
      this.report("failed", problem);
      return null;
    }));
    return this.tiles.get(key);
  }

  async fetch(start, end, bin) {
    this.report("asked");
    const input = { genome: this.genome, region: `${this.view.chrom}:${start + 1}-${end}` };
    const answer = await call("/v1/tracks", { body: { ...this.request, input, bin_size: bin } });
    this.report("came");
    return { chrom: this.view.chrom, start, end, bin, tracks: answer.tracks.map((track) => numbers(track.values)) };
  }
}

/** Cut values to a range, as features of igv. */
export function inside(view, values, start, end) {
  const found = [];
  const first = Math.max(0, Math.floor((start - view.start) / view.bin));
  for (let i = first; i < values.length && view.start + i * view.bin < end; i++) {
    const left = view.start + i * view.bin;
    if (Number.isFinite(values[i])) found.push({ chr: view.chrom, start: left, end: Math.min(left + view.bin, view.end), value: values[i] });
  }
  return found;
}

/** A track of numbers; `source` gives features for a range, or the values are all there. */
export function signal({ view, values, source, name, range, colour, height = 64, graph = "bar" }) {
  const get = source || (({ start, end }) => inside(view, values, start, end));
  const scale = range ? { min: range[0], max: range[1] } : { autoscale: true };
  return { type: "wig", name, color: colour, altColor: "#7a5195", height, graphType: graph, ...scale,
    windowFunction: range ? "max" : "mean", featureSource: { getFeatures: async (asked) => get(asked) } };
}

/** Boxes with names. */
export const boxes = ({ name, features, colour, height = 40, display = "EXPANDED" }) => ({ type: "annotation", name, height, color: colour,
  displayMode: display, featureSource: { getFeatures: async ({ start, end }) =>
    (typeof features === "function" ? features(start, end) : features.filter((item) => item.end > start && item.start < end)) } });

/** REF in grey and ALT in colour, in one row. */
export const overlay = (name, tracks, range) => ({ type: "merged", name, height: 80, alpha: 0.55, ...(range ? { min: range[0], max: range[1] } : { autoscale: true }), tracks });

/** Genes of an annotation, exons as boxes. */
export function genes(genome, chrom) {
  return boxes({ name: "genes", colour: "#24343c", height: 50, features: async (start, end) => {
    if (end - start > 5e6) return [];
    const path = `/v1/genomes/${encodeURIComponent(genome)}/genes?region=${encodeURIComponent(`${chrom}:${Math.max(0, Math.floor(start)) + 1}-${Math.ceil(end)}`)}`;
    const { genes: found } = await call(path).catch(() => ({ genes: [] }));
    return found.map((gene) => ({ chr: chrom, start: gene.start, end: gene.end, strand: gene.strand, name: gene.gene || gene.name,
      exons: (gene.exons || []).map(([left, right]) => ({ start: left, end: right })) }));
  } });
}

export class Viewer {
  constructor(host) { this.host = host; }

  /** Draw from new; `reference` is {genome} or {name, sequence}. */
  async show({ reference, locus, tracks, moved }) {
    if (this.browser) window.igv.removeBrowser(this.browser);
    this.browser = null;
    const turn = this.turn = (this.turn || 0) + 1, room = document.createElement("div");
    this.host.replaceChildren(room);
    const source = reference.genome
      ? { id: reference.genome.name, fastaURL: location.origin + reference.genome.fasta, indexURL: location.origin + reference.genome.index, headers: authorization() }
      : { id: reference.name, indexed: false, fastaURL: "data:text/plain;base64," + btoa(`>${reference.name}\n${reference.sequence}\n`) };
    const browser = await window.igv.createBrowser(room, {
      reference: { ...source, wholeGenomeView: false }, locus, loadDefaultGenomes: false, search: false, showNavigation: false, showIdeogram: false,
      showCenterGuide: false, minimumBases: 20, tracks: [{ type: "sequence", name: "sequence", order: 0 }, ...tracks.map((track, i) => ({ order: i + 1, ...track }))],
    });
    if (turn !== this.turn) return window.igv.removeBrowser(browser);  // a newer question was faster
    this.browser = browser;
    browser.on("locuschange", (frames) => moved(frames[0] || frames));
    return browser;
  }

  frame() {
    const frame = this.browser?.referenceFrameList[0];
    return frame && { chrom: frame.chr, start: Math.max(0, Math.round(frame.start)), end: Math.round(frame.end) };
  }

  go({ chrom, start, end }) { return this.browser?.search(`${chrom}:${start + 1}-${end}`); }

  /** Move by a share of the width, or zoom around the middle. */
  move(share, zoom = 1) {
    const frame = this.frame();
    if (!frame) return;
    const width = frame.end - frame.start, half = Math.max(10, (width * zoom) / 2);
    const middle = (frame.start + frame.end) / 2 + share * width;
    this.go({ chrom: frame.chrom, start: Math.max(0, Math.round(middle - half)), end: Math.round(middle + half) });
  }

  load(track) { return this.browser?.loadTrack(track); }
  svg() { return this.browser.toSVG(); }
}
