// The time: series, allocations as stacked areas, lanes; zoom, pan, selection and cursor for all of them.

import { Areas } from "./areas";
import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { clear, type Context, css, el, paint, tip, untip } from "./dom";
import { AXIS, Film, type Layer, LEFT, RIGHT } from "./film";
import { bytes, duration, moment, shortBytes } from "./format";
import { Lanes, ROW } from "./lanes";
import { type Line, Lines } from "./lines";
import { buckets, logBegins } from "./sums";
import type { Range, Store } from "./state";

const STRIP = 26;
/** Height of the words above a chart. */
const HEAD = 16;

export class TimeView {
  readonly node = el("section", { "aria-labelledby": "time-title", class: "card" });
  private plots = el("div", {
    class: "plots", tabindex: "0", role: "group", "aria-describedby": "time-said",
    "aria-label": "Timeline. Arrow keys move, plus and minus zoom, shift with arrows moves the cursor, S selects what is shown, brackets select from or to the cursor, Escape takes the selection away, Home shows all.",
  });
  private strip = el("canvas", { class: "strip", "aria-hidden": "true" });
  private frame = el("div", { class: "frame" });
  private overview = el("div", { class: "overview" }, this.strip, this.frame);
  private selected = el("div", { class: "selected", hidden: true });
  private cursor = el("div", { class: "cursor" });
  private hover = el("div", { class: "hover", hidden: true });
  private legend = el("div", { class: "legend" });
  private said = el("p", { class: "said", role: "status", id: "time-said" });
  private about = el("p", { class: "said" });
  private nothing = el("p", { class: "nothing", hidden: true }, "No memory was allocated in all this time.");
  private more = el("button", { type: "button", hidden: true, click: () => this.showLanes() });
  private captions = [el("span", { class: "caption" }, "Live bytes"), el("span", { class: "caption" }, "Allocations; pale: smaller ones of a stack together; grey: all others")];
  private areas: Areas;
  private lines: Lines;
  private lanes: Lanes;
  private film: Film;
  private width = 800;
  private chart = 190;
  private area = 260;
  private pan = false;

  constructor(private model: Model, private store: Store, private scope: () => Scope, colours: Colours, private open: (key: number, facts: [string, string][]) => void) {
    this.areas = new Areas(model, colours);
    this.lines = new Lines(model);
    this.lanes = new Lanes(model);
    this.film = new Film(() => this.layers(), (context, x, width) => this.shade(context, x, width), () => this.all_time);
    const button = (text: string, label: string, act: () => void) => el("button", { type: "button", "aria-label": label, title: label, click: act }, text);
    const mode = el("button", { type: "button", "aria-pressed": "false", title: "What dragging does; with Shift it always pans", click: () => {
      this.pan = !this.pan;
      mode.setAttribute("aria-pressed", String(this.pan));
    } }, "Drag pans");
    this.plots.append(this.film.gutter, this.film.window, ...this.captions, this.selected, this.cursor, this.hover);
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "time-title" }, "Timeline"), this.legend,
        el("div", { class: "tools" }, mode, button("−", "Zoom out", () => this.zoom(2)), button("+", "Zoom in", () => this.zoom(0.5)), button("All", "Show all the time", () => this.all()))),
      this.overview, this.plots, this.nothing, this.more, this.said, this.about);
    this.listen();
  }

  private get all_time(): number {
    return Math.max(1, this.model.page.duration_ns);
  }

  private get inner(): number {
    return Math.max(50, this.width - LEFT - RIGHT);
  }

  private get areasTop(): number {
    return this.chart + AXIS + HEAD;
  }

  private get lanesTop(): number {
    return this.areasTop + this.area;
  }

  private get height(): number {
    return this.lanesTop + Math.max(4, this.lanes.height);
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
    return LEFT + ((time - a) / (b - a)) * this.inner;
  }

  private time(x: number): number {
    const [a, b] = this.store.state.view;
    return Math.max(0, Math.min(this.all_time, a + ((x - LEFT) / this.inner) * (b - a)));
  }

  private showLanes(): void {
    this.lanes.everything = !this.lanes.everything;
    this.rebuild();
  }

  private listen(): void {
    let from: { x: number; view: Range; pan: boolean; moved: boolean; left: number; top: number } | null = null;
    const place = (event: MouseEvent): [number, number] => {
      const box = from ?? this.plots.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.plots.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      const [x] = place(event);
      const { left, top } = this.plots.getBoundingClientRect();
      from = { x, view: this.store.state.view, pan: this.pan !== event.shiftKey || event.button === 1, moved: false, left, top };
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
        const by = ((from.x - x) / this.inner) * (b - a);
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
    this.plots.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => {
      if (this.plots.clientWidth && this.plots.clientWidth !== this.width) this.rebuild();
    }).observe(this.plots);
    addEventListener("resize", () => {
      if (this.heights().some((height, i) => height !== [this.chart, this.area][i])) this.rebuild();
    });
    this.overview.addEventListener("pointerdown", (event) => {
      const { left } = this.overview.getBoundingClientRect();
      const go = (x: number) => {
        const [a, b] = this.store.state.view;
        const at = ((x - left - LEFT) / this.inner) * this.all_time;
        this.store.set({ view: this.clamp([at - (b - a) / 2, at + (b - a) / 2]) });
      };
      go(event.clientX);
      this.overview.setPointerCapture(event.pointerId);
      this.overview.onpointermove = (moved) => go(moved.clientX);
      this.overview.onpointerup = this.overview.onpointercancel = () => (this.overview.onpointermove = null);
    });
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.model.page.cells.width;
    const { cursor, view, selection } = this.store.state;
    const put = (time: number) => {
      this.store.set({ cursor: time });
      // A cursor that is moved stays in sight.
      if (time < view[0] || time > view[1]) this.store.set({ view: this.clamp([time - (view[1] - view[0]) / 2, time + (view[1] - view[0]) / 2]) });
    };
    const select = (from: number, to: number) => from < to && this.store.set({ selection: [from, to] });
    const act: Record<string, () => void> = {
      ArrowLeft: () => (event.shiftKey ? put(Math.max(0, cursor - step)) : this.move(-0.1)),
      ArrowRight: () => (event.shiftKey ? put(Math.min(this.all_time, cursor + step)) : this.move(0.1)),
      PageUp: () => this.move(-0.9), PageDown: () => this.move(0.9),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), Home: () => this.all(),
      s: () => this.store.set({ selection: view }), S: () => this.store.set({ selection: view }),
      "[": () => select(cursor, Math.max(selection?.[1] ?? 0, 0) > cursor ? selection![1] : this.all_time),
      "]": () => select((selection?.[0] ?? this.all_time) < cursor ? selection![0] : 0, cursor),
      Escape: () => this.store.set({ selection: null }),
    };
    if (!act[event.key]) return;
    event.preventDefault();
    act[event.key]();
  }

  private click(x: number, y: number): void {
    if (x < LEFT) return;
    const time = this.time(x);
    const inAreas = y - this.areasTop;
    if (inAreas > 0 && inAreas < this.area) {
      const hit = this.areas.hit(time, inAreas, this.area);
      const heap = hit ? null : this.areas.heap(time, inAreas, this.area);
      const facts = (lines: (string | [string, string])[]) => lines.filter((l): l is [string, string] => Array.isArray(l));
      if (hit) this.open(hit.key, facts(this.areas.describe(hit, this.step())));
      else if (heap) this.open(heap.key, facts(this.areas.describeHeap(heap, time)));
    } else if (y >= this.lanesTop) {
      const slice = this.lanes.hit(time, y - this.lanesTop, this.time(x + 5) - time);
      if (slice?.kind === "range" && slice.end > slice.start) return this.store.set({ selection: [slice.start, slice.end], cursor: slice.end });
      if (slice) return this.store.set({ cursor: slice.end });
    }
    this.store.set({ cursor: time });
  }

  /** As finely as times are said. */
  private step(): number {
    const [a, b] = this.store.state.view;
    return (b - a) / 2000;
  }

  private show(x: number, y: number, event: PointerEvent): void {
    if (x < LEFT || x > this.width - RIGHT) {
      this.hover.hidden = true;
      const row = this.lanes.rows[Math.floor((y - this.lanesTop) / ROW)];
      return x < LEFT && y >= this.lanesTop && row?.title ? tip(event.clientX, event.clientY, [row.title]) : untip();
    }
    const time = this.time(x), next = this.time(x + 1);
    this.hover.hidden = false;
    this.hover.style.transform = `translateX(${x}px)`;
    const at = moment(time, this.step());
    const inAreas = y - this.areasTop;
    if (inAreas > 0 && inAreas < this.area) {
      const hit = this.areas.hit(time, inAreas, this.area);
      if (hit) return tip(event.clientX, event.clientY, this.areas.describe(hit, this.step()));
      const heap = this.areas.heap(time, inAreas, this.area);
      if (heap) return tip(event.clientX, event.clientY, this.areas.describeHeap(heap, time));
      return tip(event.clientX, event.clientY, [at, ["other smaller allocations, together", bytes(this.areas.rest(time))]]);
    }
    if (y >= this.lanesTop) {
      const slice = this.lanes.hit(time, y - this.lanesTop, this.time(x + 5) - time);
      return slice ? tip(event.clientX, event.clientY, slice.lines) : untip();
    }
    tip(event.clientX, event.clientY, [at, ...this.values(time, next)]);
  }

  /** What each line is between two times. */
  private values(from: number, to: number): [string, string][] {
    return this.lines.all.flatMap((line): [string, string][] => {
      const value = this.lines.value(line, from, to);
      return value ? [[line.label, value[0] === value[1] ? bytes(value[1]) : `${bytes(value[0])} … ${bytes(value[1])}`]] : [];
    });
  }

  private layers(): Layer[] {
    const wanted = this.store.state.query.toLowerCase();
    const matching = wanted ? this.model.matching(wanted) : null;
    return [
      { top: HEAD, height: this.chart - HEAD, draw: (context, part, width) => this.lines.draw(context, part, width, this.chart - HEAD), ticks: () => this.lines.ticks() },
      { top: this.areasTop, height: this.area, draw: (context, part, width) => this.areas.draw(context, part, width, this.area, matching), ticks: () => this.areas.ticks() },
      { top: this.lanesTop, height: Math.max(4, this.lanes.height), draw: (context, part, width, edges) => this.lanes.draw(context, part, width, edges), ticks: () => [], beside: (context, width) => this.lanes.name(context, width) },
    ];
  }

  /** Hatches the time of which no single allocations are known. */
  private shade(context: Context, x: (time: number) => number, width: number): void {
    const until = logBegins(this.model, this.scope());
    const [from, to] = [Math.max(0, x(0)), Math.min(width, x(until))];
    if (until <= 0 || to <= from) return;
    const top = this.areasTop, height = this.height - top;
    context.save();
    context.beginPath();
    context.rect(from, top, to - from, height);
    context.clip();
    context.strokeStyle = css("--hatch");
    context.lineWidth = 1;
    context.beginPath();
    for (let at = from - height; at < to; at += 9) {
      context.moveTo(at, top + height);
      context.lineTo(at + height, top);
    }
    context.stroke();
    context.restore();
  }

  private heights(): [number, number] {
    const within = (share: number, least: number, most: number) => Math.round(Math.max(least, Math.min(most, innerHeight * share)));
    return [within(0.21, 160, 300), within(0.32, 220, 480)];
  }

  /** Everything anew: another scope, width or theme. */
  rebuild(): void {
    const scope = this.scope();
    this.width = this.plots.clientWidth || this.width;
    [this.chart, this.area] = this.heights();
    this.lines.setScope(scope, this.all_time);
    this.areas.setScope(scope);
    this.lanes.setScope(scope);
    const any = this.lines.any || this.lanes.rows.length > 0;
    this.nothing.hidden = this.lines.any;
    this.plots.hidden = this.overview.hidden = !any;
    this.more.hidden = !this.lanes.hidden && !this.lanes.everything;
    this.more.textContent = this.lanes.hidden ? `Show ${this.lanes.hidden} more rows of ranges` : "Show fewer rows of ranges";
    clear(this.legend);
    for (const line of this.lines.all) this.legend.append(this.swatch(line));
    this.plots.style.height = `${this.height}px`;
    this.captions[0].style.transform = `translate(${LEFT}px, 0)`;
    this.captions[1].style.transform = `translate(${LEFT}px, ${this.chart + AXIS}px)`;
    this.drawStrip();
    this.draw(true);
  }

  private swatch(line: Line): HTMLElement {
    const swatch = el("i", { class: "swatch" });
    swatch.style.background = css(line.colour);
    return el("span", {}, swatch, line.what === "limit" && this.lines.above ? `${line.label} (${shortBytes(this.lines.limit)}, above the chart)` : line.label);
  }

  /** Another view, selection or cursor. `anew` if what is drawn has changed. */
  draw(anew: boolean): void {
    const state = this.store.state;
    if (this.plots.hidden) {
      this.said.textContent = `All the time is ${duration(this.all_time)}.`;
      return;
    }
    this.film.show(state.view, this.inner, this.height, anew);
    const bar = (node: HTMLElement, x: number, w: number | null) => {
      node.hidden = w === null ? x < LEFT - 1 || x > this.width - RIGHT + 1 : w <= 0;
      node.style.transform = `translateX(${x}px)`;
      if (w !== null) node.style.width = `${w}px`;
    };
    if (state.selection) {
      const x0 = Math.max(LEFT, this.x(state.selection[0])), x1 = Math.min(this.width - RIGHT, this.x(state.selection[1]));
      bar(this.selected, x0, Math.max(0, x1 - x0));
    } else this.selected.hidden = true;
    bar(this.cursor, this.x(state.cursor), null);
    const [a, b] = state.view.map((t) => (t / this.all_time) * this.inner);
    this.frame.style.transform = `translateX(${LEFT + a}px)`;
    this.frame.style.width = `${Math.max(3, b - a)}px`;
    this.say();
  }

  private spoken = "";

  /** In words: what is selected, and what there is at the cursor. */
  private say(): void {
    const { state } = this.store;
    const width = this.model.page.cells.width;
    const id = JSON.stringify([state.selection, state.cursor, state.scope]);
    if (id === this.spoken) return;
    this.spoken = id;
    const [from, to] = buckets(this.model, state);
    const at = this.values(state.cursor >= this.all_time ? this.all_time - 1 : state.cursor, state.cursor + 1).filter(([name]) => name !== "Device's memory");
    const there = `Cursor at ${moment(state.cursor, width)}${at.length ? `: ${at.map(([name, value]) => `${name} ${value}`).join(", ")}` : ""}.`;
    const [said, hint] = state.selection
      ? [`Selected ${moment(from * width, width)} to ${moment(Math.min(to * width, this.all_time), width)} (in steps of ${duration(width)}). ${there}`, " Escape takes the selection away."]
      : [`All the time. ${there}`, " Drag to select, click to put the cursor, wheel to zoom, Shift and drag to pan."];
    this.said.replaceChildren(said, el("span", { class: "hint" }, hint));
    const until = logBegins(this.model, this.scope());
    this.about.hidden = until <= 0;
    const { series, processes } = this.model.page;
    const unknown = Math.max(0, ...this.lines.all.flatMap((line) => line.index).map((i) => (series[i].start > processes[series[i].process].start ? series[i].start : 0)));
    this.about.textContent = `${unknown > 0 ? `Curves are known from ${moment(unknown, width)} on. ` : ""}The event log begins at ${moment(until, width)}: before that (hatched) curves are coarser, and single allocations are not known but for those that were live then. Sums of all the time are whole.`;
  }

  private drawStrip(): void {
    const line = this.lines.all.find((l) => l.what !== "limit");
    if (!line) return;
    const peak = Math.max(1, this.lines.value(line, 0, this.all_time)?.[1] ?? 1);
    paint(this.strip, this.width, STRIP, (context) => {
      context.fillStyle = css("--strip");
      for (let x = 0; x < this.inner; x += 2) {
        const value = this.lines.value(line, (x / this.inner) * this.all_time, ((x + 2) / this.inner) * this.all_time);
        if (value) context.fillRect(LEFT + x, STRIP - (value[1] / peak) * (STRIP - 4), 2, (value[1] / peak) * (STRIP - 4));
      }
    });
  }
}
