// The time: series, allocations as stacked areas, lanes; zoom, pan, selection and cursor for all of them.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { scaleLinear } from "d3-scale";
import { Areas } from "./areas";
import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { clear, css, el, fit, tip, untip } from "./dom";
import { bytes, count, duration, foreign, moment, short, shortBytes } from "./format";
import { buckets } from "./sums";
import type { Range, Store } from "./state";

export const LEFT = 78;
const RIGHT = 14;
const CHART = 190;
const AREAS = 260;
const ROW = 17;
/** Distances between ticks of time: 1, 2 or 5 of some unit. */
const STEPS = Array.from({ length: 54 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));
const LINES: [string, string, string][] = [
  ["device", "Device layer", "--line-device"],
  ["framework", "Framework layer", "--line-framework"],
  ["reserved", "Reserved by allocators", "--line-reserved"],
  ["host", "Page-locked host memory", "--line-host"],
  ["smi", "nvidia-smi, this process", "--line-smi"],
  ["limit", "Device's memory", "--line-limit"],
];

interface Slice { row: number; start: number; end: number; lines: (string | [string, string])[]; label: string; thread?: string; kind: "range" | "mark" | "oom" }

export class TimeView {
  readonly node = el("section", { "aria-labelledby": "time-title", class: "card" });
  private plots = el("div", {
    class: "plots", tabindex: "0", role: "group",
    "aria-label": "Timeline. Arrow keys move, plus and minus zoom, shift with arrows moves the cursor, S selects what is shown, Escape takes the selection away, Home shows all.",
  });
  private chart = el("div", { class: "chart" });
  private area = el("canvas", { class: "areas" });
  private lane = el("canvas", { class: "lanes" });
  private strip = el("canvas", { class: "strip", "aria-hidden": "true" });
  private selected = el("div", { class: "selected", hidden: true });
  private cursor = el("div", { class: "cursor" });
  private hover = el("div", { class: "hover", hidden: true });
  private legend = el("div", { class: "legend" });
  private said = el("p", { class: "said", role: "status" });
  private plot: uPlot | null = null;
  private lines: { index: number[]; smi: number[]; constant: number; what: string }[] = [];
  private areas: Areas;
  private slices: Slice[] = [];
  private rows = 0;
  private width = 800;
  private pan = false;
  frames = 0;

  constructor(private model: Model, private store: Store, private scope: () => Scope, colours: Colours, private open: (key: number, track: number, row: number) => void) {
    this.areas = new Areas(model, colours);
    const button = (text: string, label: string, act: () => void) => el("button", { type: "button", "aria-label": label, title: label, click: act }, text);
    const mode = el("button", { type: "button", "aria-pressed": "false", title: "What dragging does; with Shift it always pans", click: () => {
      this.pan = !this.pan;
      mode.setAttribute("aria-pressed", String(this.pan));
    } }, "Drag pans");
    this.plots.append(this.chart, this.area, this.lane, this.selected, this.cursor, this.hover);
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "time-title" }, "Timeline"), this.legend,
        el("div", { class: "tools" }, mode, button("−", "Zoom out", () => this.zoom(2)), button("+", "Zoom in", () => this.zoom(0.5)), button("All", "Show all the time", () => this.all()))),
      this.strip, this.plots, this.said);
    this.listen();
  }

  private get all_time(): number {
    return Math.max(1, this.model.page.duration_ns);
  }

  private all(): void {
    this.store.set({ view: [0, this.all_time] });
  }

  private clamp([a, b]: Range): Range {
    const length = Math.min(this.all_time, Math.max(b - a, 100));
    a = Math.max(0, Math.min(a, this.all_time - length));
    return [a, a + length];
  }

  zoom(factor: number, around?: number): void {
    const [a, b] = this.store.state.view;
    const cursor = this.store.state.cursor;
    const at = around ?? (cursor > a && cursor < b ? cursor : (a + b) / 2);
    this.store.set({ view: this.clamp([at - (at - a) * factor, at + (b - at) * factor]) });
  }

  move(share: number): void {
    const [a, b] = this.store.state.view;
    this.store.set({ view: this.clamp([a + (b - a) * share, b + (b - a) * share]) });
  }

  private x(time: number): number {
    const [a, b] = this.store.state.view;
    return LEFT + ((time - a) / (b - a)) * (this.width - LEFT - RIGHT);
  }

  private time(x: number): number {
    const [a, b] = this.store.state.view;
    return Math.max(0, Math.min(this.all_time, a + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (b - a)));
  }

  private listen(): void {
    let from: { x: number; view: Range; pan: boolean; moved: boolean } | null = null;
    const place = (event: MouseEvent): [number, number] => {
      const box = this.plots.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.plots.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      const [x] = place(event);
      from = { x, view: this.store.state.view, pan: this.pan !== event.shiftKey || event.button === 1, moved: false };
      this.plots.setPointerCapture(event.pointerId);
      this.plots.focus({ preventScroll: true });
    });
    this.plots.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (!from) return this.show(x, y, event);
      if (Math.abs(x - from.x) > 4) from.moved = true;
      if (!from.moved) return;
      untip();
      if (from.pan) {
        const [a, b] = from.view;
        const by = ((from.x - x) / (this.width - LEFT - RIGHT)) * (b - a);
        this.store.set({ view: this.clamp([a + by, b + by]) });
      } else {
        const [a, b] = [this.time(Math.min(from.x, x)), this.time(Math.max(from.x, x))];
        if (b > a) this.store.set({ selection: [a, b] });
      }
    });
    this.plots.addEventListener("pointerup", (event) => {
      const [x, y] = place(event);
      if (from && !from.moved) this.click(x, y);
      from = null;
    });
    this.plots.addEventListener("pointercancel", () => (from = null));
    this.plots.addEventListener("pointerleave", () => {
      this.hover.hidden = true;
      untip();
    });
    this.plots.addEventListener("dblclick", () => this.all());
    this.plots.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x] = place(event);
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) this.move((event.deltaX || event.deltaY) / 800);
      else this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), this.time(x));
    }, { passive: false });
    this.plots.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const step = this.model.page.cells.width;
      const { cursor, view } = this.store.state;
      const act: Record<string, () => void> = {
        ArrowLeft: () => (event.shiftKey ? this.store.set({ cursor: Math.max(0, cursor - step) }) : this.move(-0.1)),
        ArrowRight: () => (event.shiftKey ? this.store.set({ cursor: Math.min(this.all_time, cursor + step) }) : this.move(0.1)),
        "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), Home: () => this.all(),
        s: () => this.store.set({ selection: view }), S: () => this.store.set({ selection: view }),
        Escape: () => this.store.set({ selection: null }),
      };
      if (!act[event.key]) return;
      event.preventDefault();
      act[event.key]();
    });
    new ResizeObserver(() => {
      if (this.plots.clientWidth && this.plots.clientWidth !== this.width) {
        this.width = this.plots.clientWidth;
        this.rebuild();
      }
    }).observe(this.plots);
    this.strip.addEventListener("pointerdown", (event) => {
      const box = this.strip.getBoundingClientRect();
      const [a, b] = this.store.state.view;
      const at = ((event.clientX - box.left - LEFT) / (this.width - LEFT - RIGHT)) * this.all_time;
      this.store.set({ view: this.clamp([at - (b - a) / 2, at + (b - a) / 2]) });
    });
  }

  private click(x: number, y: number): void {
    if (x < LEFT) return;
    const time = this.time(x);
    if (y > CHART && y < CHART + AREAS) {
      const hit = this.areas.hit(time, y - CHART, AREAS);
      if (hit) this.open(hit.key, hit.track, hit.row);
    } else if (y >= CHART + AREAS) {
      const slice = this.sliceAt(x, y - CHART - AREAS);
      if (slice?.kind === "range" && slice.end > slice.start) return this.store.set({ selection: [slice.start, slice.end], cursor: slice.end });
      if (slice) return this.store.set({ cursor: slice.start });
    }
    this.store.set({ cursor: time });
  }

  private sliceAt(x: number, y: number): Slice | null {
    const row = Math.floor(y / ROW);
    const time = this.time(x);
    const near = this.time(x + 5) - time;
    let best: Slice | null = null;
    for (const s of this.slices) {
      const wide = s.kind === "range" ? near / 3 : near;
      if (s.row === row && time >= s.start - wide && time <= s.end + wide && (!best || s.end - s.start < best.end - best.start)) best = s;
    }
    return best;
  }

  private show(x: number, y: number, event: PointerEvent): void {
    if (x < LEFT || x > this.width - RIGHT) return untip();
    const time = this.time(x), next = this.time(x + 1);
    this.hover.hidden = false;
    this.hover.style.transform = `translateX(${x}px)`;
    const at = moment(time, this.store.state.view[1] / 2000);
    if (y > CHART && y < CHART + AREAS) {
      const hit = this.areas.hit(time, y - CHART, AREAS);
      if (hit) return tip(event.clientX, event.clientY, this.areas.describe(hit));
      return tip(event.clientX, event.clientY, [at, ["smaller allocations, together", bytes(this.areas.rest(time))]]);
    }
    if (y >= CHART + AREAS) {
      const slice = this.sliceAt(x, y - CHART - AREAS);
      return slice ? tip(event.clientX, event.clientY, slice.lines) : untip();
    }
    const lines: (string | [string, string])[] = [at];
    for (const line of this.lines) {
      const value = this.value(line, time, next);
      if (value) lines.push([LINES.find(([what]) => what === line.what)![1], value[0] === value[1] ? bytes(value[1]) : `${bytes(value[0])} … ${bytes(value[1])}`]);
    }
    tip(event.clientX, event.clientY, lines);
  }

  private value(line: { index: number[]; smi: number[]; constant: number; what: string }, from: number, to: number): [number, number] | null {
    if (line.what === "limit") return [line.constant, line.constant];
    if (line.what === "smi") {
      let sum = 0, any = false;
      for (const i of line.smi) {
        const s = this.model.page.smi[i];
        let last: number | null = null;
        for (let n = 0; n < s.time.length && s.time[n] <= to; n++) last = s.process_bytes[n];
        if (last !== null) [sum, any] = [sum + last, true];
      }
      return any ? [sum, sum] : null;
    }
    let min = 0, max = 0, any = false;
    for (const i of line.index) {
      const found = this.model.pyramids[i].between(from, to);
      if (found) [min, max, any] = [min + found[0], max + found[1], true];
    }
    return any ? [min, max] : null;
  }

  /** Everything anew: another scope, width or theme. */
  rebuild(): void {
    const { model } = this;
    const scope = this.scope();
    this.lines = [];
    for (const [what] of LINES) {
      if (what === "smi") {
        const smi = model.page.smi.flatMap((s, i) => (scope.layer !== "host" && (scope.process === null || s.process === scope.process) && (scope.device === null || s.device === scope.device) ? [i] : []));
        if (smi.length) this.lines.push({ what, index: [], smi, constant: 0 });
      } else if (what === "limit") {
        if (scope.device !== null && model.page.devices[scope.device].total_bytes) this.lines.push({ what, index: [], smi: [], constant: model.page.devices[scope.device].total_bytes });
      } else {
        const index = model.seriesOf(scope, what);
        if (index.length) this.lines.push({ what, index, smi: [], constant: 0 });
      }
    }
    // A limit far above everything would leave no room for what is there.
    const peak = Math.max(1, ...this.lines.filter((l) => l.what !== "limit").map((l) => this.value(l, 0, this.all_time)?.[1] ?? 0));
    const limit = this.lines.find((l) => l.what === "limit")?.constant ?? 0;
    const inside = limit > 0 && limit < peak * 2.5;
    const drawn = this.lines.filter((l) => l.what !== "limit" || inside);
    clear(this.legend);
    for (const line of this.lines) {
      const [, label, colour] = LINES.find(([what]) => what === line.what)!;
      const swatch = el("i", { class: "swatch" });
      swatch.style.background = css(colour);
      this.legend.append(el("span", {}, swatch, line.what === "limit" && !inside ? `${label} (${shortBytes(limit)}, above the chart)` : label));
    }
    this.plot?.destroy();
    const font = `11px ${css("--font")}`;
    const axis = { stroke: css("--muted"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1, size: 4 }, font };
    const series: uPlot.Series[] = [{}];
    const bands: uPlot.Band[] = [];
    for (const line of drawn) {
      const colour = css(LINES.find(([what]) => what === line.what)![2]);
      series.push({ stroke: colour, width: line.what === "limit" ? 1 : 1.5, dash: line.what === "limit" ? [5, 4] : undefined, points: { show: false } }, { stroke: colour, width: 0.5, points: { show: false } });
      bands.push({ series: [series.length - 2, series.length - 1], fill: colour.replace(/\)$/, " / 0.25)") });
    }
    this.plot = new uPlot({
      width: this.width, height: CHART, padding: [10, RIGHT, 0, 0], legend: { show: false }, cursor: { show: false }, bands, series,
      scales: { x: { time: false, range: () => this.store.state.view }, y: { range: () => [0, peak * 1.06 > limit || !inside ? peak * 1.06 : limit * 1.04] } },
      axes: [
        { ...axis, size: 26, space: 90, incrs: STEPS, values: (_, ticks) => ticks.map((t) => moment(t, ticks.length > 1 ? ticks[1] - ticks[0] : 1e6)) },
        { ...axis, size: LEFT, space: 34, splits: (_, __, min, max) => byteTicks(min, max, 5), values: (_, ticks) => ticks.map(shortBytes) },
      ],
    }, [[], ...series.slice(1).map(() => [])], this.chart);
    (this.plot.root.querySelector("canvas") as HTMLElement).setAttribute("aria-hidden", "true");
    this.drawn = drawn;
    this.findSlices();
    this.areas.setScope(scope, this.width - LEFT - RIGHT, AREAS);
    this.draw(true);
  }

  private drawn: typeof this.lines = [];

  /** What the lanes hold: first failures and marks, then ranges by thread and depth. */
  private findSlices(): void {
    const { page, all } = this.model;
    const scope = this.scope();
    const takes = (process: number) => scope.process === null || process === scope.process;
    const base = Number(page.base_ns);
    this.slices = [];
    let row = 0;
    for (const f of all.oom.failures) {
      if (!takes(f.process)) continue;
      const at = f.at_ns - base;
      this.slices.push({ row, start: at, end: at, kind: "oom", label: `out of memory: ${shortBytes(f.asked_bytes)}`, lines: ["Out of memory", ["asked", bytes(f.asked_bytes)], ["free then", f.free_bytes === null ? "not known" : bytes(f.free_bytes)], ["attempts", count(f.attempts)]] });
    }
    if (this.slices.length) row++;
    const marks = page.marks.filter((m) => takes(m.process));
    for (const m of marks) {
      const text = page.texts[m.text];
      this.slices.push({ row, start: m.time, end: m.time, kind: "mark", label: short(text, 60), lines: [short(text), ["mark at", duration(m.time)]] });
    }
    if (marks.length) row++;
    const s = page.slices;
    const rows = new Map<string, number>();
    for (let i = 0; i < s.start.length; i++) {
      if (!takes(s.process[i])) continue;
      const id = `${s.process[i]}/${s.thread[i]}/${s.depth[i]}`;
      if (!rows.has(id)) {
        if (rows.size >= 10) continue;
        rows.set(id, 0);
      }
    }
    [...rows.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true })).forEach((id) => rows.set(id, row++));
    for (let i = 0; i < s.start.length; i++) {
      const at = rows.get(`${s.process[i]}/${s.thread[i]}/${s.depth[i]}`);
      if (at === undefined) continue;
      const text = page.texts[s.name[i]];
      this.slices.push({ row: at, start: s.start[i], end: s.start[i] + s.length[i], kind: "range", thread: s.depth[i] === 0 ? short(this.model.threadName(s.process[i], s.thread[i]), 18) : "", label: short(text, 60), lines: [short(text), ["NVTX range, thread", foreign(this.model.threadName(s.process[i], s.thread[i]))], ["first to last allocation in it", duration(s.length[i])], ["allocated", `${bytes(s.bytes[i])} in ${count(s.count[i])}`]] });
    }
    this.rows = row;
  }

  /** Another view, selection or cursor. `anew` if colours or the search changed. */
  draw(anew: boolean): void {
    if (!this.plot) return;
    this.frames++;
    const state = this.store.state;
    const [a, b] = state.view;
    const columns = Math.max(2, Math.min(900, Math.round((this.width - LEFT - RIGHT) / 1.5)));
    const step = (b - a) / columns;
    const data: (number | null)[][] = [Array.from({ length: columns }, (_, i) => a + i * step)];
    for (const line of this.drawn) {
      const [most, least]: (number | null)[][] = [new Array(columns), new Array(columns)];
      for (let i = 0; i < columns; i++) {
        const value = this.value(line, a + i * step, a + (i + 1) * step);
        [least[i], most[i]] = value ?? [null, null];
      }
      data.push(most, least);
    }
    if (this.plot.width !== this.width) this.plot.setSize({ width: this.width, height: CHART });
    this.plot.setData(data as uPlot.AlignedData, true);
    this.areas.draw(this.area, this.width, AREAS, LEFT, RIGHT, state, anew);
    this.drawLanes();
    this.drawStrip();
    const height = CHART + AREAS + Math.max(1, this.rows) * ROW;
    const bar = (node: HTMLElement, x: number, w: number | null) => {
      const visible = w === null ? x >= LEFT && x <= this.width - RIGHT : w > 0;
      node.hidden = !visible;
      node.style.transform = `translateX(${x}px)`;
      node.style.height = `${height}px`;
      if (w !== null) node.style.width = `${w}px`;
    };
    if (state.selection) {
      const x0 = Math.max(LEFT, this.x(state.selection[0])), x1 = Math.min(this.width - RIGHT, this.x(state.selection[1]));
      bar(this.selected, x0, Math.max(0, x1 - x0));
    } else this.selected.hidden = true;
    bar(this.cursor, this.x(state.cursor), null);
    this.hover.style.height = `${height}px`;
    const width = this.model.page.cells.width;
    const [from, to] = buckets(this.model, state);
    this.said.textContent = state.selection
      ? `Selected ${moment(from * width, width)} to ${moment(Math.min(to * width, this.all_time), width)} (in steps of ${duration(width)}); cursor at ${moment(state.cursor, width)}. Escape takes the selection away.`
      : `All the time; cursor at ${moment(state.cursor, width)}. Drag to select, click to put the cursor, wheel to zoom, Shift and drag to pan.`;
  }

  private drawLanes(): void {
    const context = fit(this.lane, this.width, Math.max(1, this.rows) * ROW);
    context.clearRect(0, 0, this.width, this.rows * ROW);
    context.font = `11px ${css("--font")}`;
    context.textBaseline = "middle";
    const colours = { range: css("--lane"), mark: css("--mark"), oom: css("--bad") };
    const ink = css("--ink");
    const named = new Set<number>();
    for (const s of this.slices) {
      if (!named.has(s.row)) {
        named.add(s.row);
        context.fillStyle = css("--muted");
        context.textAlign = "right";
        context.fillText({ range: s.thread ?? "", mark: "marks", oom: "failures" }[s.kind], LEFT - 8, s.row * ROW + ROW / 2, LEFT - 10);
      }
      const x0 = this.x(s.start), x1 = this.x(s.end), y = s.row * ROW;
      if (x1 < LEFT - 2 || x0 > this.width - RIGHT) continue;
      context.textAlign = "left";
      if (s.kind === "range") {
        const from = Math.max(LEFT, x0), w = Math.max(1.5, Math.min(x1, this.width - RIGHT) - from);
        context.fillStyle = colours.range;
        context.fillRect(from, y + 1, w, ROW - 2);
        if (w > 36) {
          context.save();
          context.beginPath();
          context.rect(from, y, w - 3, ROW);
          context.clip();
          context.fillStyle = ink;
          context.fillText(s.label, from + 4, y + ROW / 2 + 0.5);
          context.restore();
        }
      } else if (x0 >= LEFT) {
        context.fillStyle = colours[s.kind];
        context.beginPath();
        context.moveTo(x0, y + 3);
        context.lineTo(x0 + 5, y + ROW - 4);
        context.lineTo(x0 - 5, y + ROW - 4);
        context.fill();
      }
    }
  }

  private drawStrip(): void {
    const height = 26, w = this.width - LEFT - RIGHT;
    const context = fit(this.strip, this.width, height);
    context.clearRect(0, 0, this.width, height);
    const line = this.drawn[0];
    const peak = line ? Math.max(1, this.value(line, 0, this.all_time)?.[1] ?? 1) : 1;
    context.fillStyle = css("--strip");
    if (line) for (let x = 0; x < w; x += 2) {
      const value = this.value(line, (x / w) * this.all_time, ((x + 2) / w) * this.all_time);
      if (value) context.fillRect(LEFT + x, height - (value[1] / peak) * (height - 4), 2, (value[1] / peak) * (height - 4));
    }
    const [a, b] = this.store.state.view.map((t) => LEFT + (t / this.all_time) * w);
    context.strokeStyle = css("--accent");
    context.lineWidth = 1.5;
    context.strokeRect(a + 0.5, 1, Math.max(3, b - a - 1), height - 2);
  }
}

/** Even steps in binary units. */
export function byteTicks(min: number, max: number, n: number): number[] {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(1, max)) / Math.log(1024)));
  return scaleLinear([min / unit, max / unit], [0, 1]).ticks(n).map((t) => t * unit);
}
