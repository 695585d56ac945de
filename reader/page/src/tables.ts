// Tables: of the selected part of the time, and the answers of the other commands.

import { type Answer, type Frame, frameLabel, type Model, type Scope } from "./data";
import { clear, copy, el } from "./dom";
import { bytes, count, counted, duration, foreign, moment, short } from "./format";
import { buckets, type Summing } from "./sums";
import type { State, Store } from "./state";

interface Column { id: string; label: string; text?: boolean; show?: (value: number) => string; title?: string }
interface Row { values: (number | string)[]; open?: () => void; indent?: number }
interface Table { columns: Column[]; rows: Row[]; about: string; sorted?: boolean; usual?: string }

const TABS: [string, string][] = [
  ["stacks", "Stacks"], ["libraries", "Libraries"], ["leaks", "Leaks"], ["growth", "Growth"], ["oom", "Out of memory"], ["reconcile", "Whole number"], ["losses", "Losses"],
];
const MOST = 200;
const B = { show: bytes };
const N = { show: count };

export class Tables {
  readonly node = el("section", { "aria-labelledby": "tables-title", class: "card" });
  private panel = el("div", { role: "tabpanel", id: "panel", tabindex: "0" });
  private list = el("div", { role: "tablist", "aria-label": "Tables", class: "choices" });
  private filter = el("input", { type: "search", placeholder: "Filter rows", "aria-label": "Filter rows" });
  private said = el("p", { class: "said", role: "status" });
  private everything = false;
  private tab = "";

  constructor(private model: Model, private store: Store, private summing: Summing, private scope: () => Scope, private open: (key: number) => void, private openFrames: (title: string, frames: Frame[], facts: [string, string][]) => void) {
    for (const [id, label] of TABS)
      this.list.append(el("button", { type: "button", role: "tab", id: `tab-${id}`, "data-tab": id, "aria-controls": "panel", click: () => store.set({ tab: id, sort: "" }) }, label));
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const at = TABS.findIndex(([id]) => id === store.state.tab);
      const next = TABS[(at + step + TABS.length) % TABS.length][0];
      store.set({ tab: next, sort: "" });
      (this.list.querySelector(`[data-tab="${next}"]`) as HTMLElement).focus();
    });
    this.filter.addEventListener("input", () => store.set({ filter: this.filter.value }));
    const copying = el("button", { type: "button", title: "Copy the rows that are shown, with tabs between columns", click: () => copy(this.tsv(), copying) }, "Copy");
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "tables-title" }, "Tables"), this.list, el("div", { class: "tools" }, this.filter, copying)),
      this.said, this.panel);
  }

  draw(state: State, when: (bucket: number) => string): void {
    for (const tab of this.list.querySelectorAll<HTMLElement>("[role=tab]")) {
      const on = tab.dataset.tab === state.tab;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
    }
    this.panel.setAttribute("aria-labelledby", `tab-${state.tab}`);
    if (this.filter.value !== state.filter) this.filter.value = state.filter;
    if (this.tab !== state.tab) [this.tab, this.everything] = [state.tab, false];
    this.render(this.table(state, when), state);
  }

  private table(state: State, when: (bucket: number) => string): Table {
    switch (state.tab) {
      case "libraries": return this.libraries(state, when);
      case "leaks": return this.leaks(state);
      case "growth": return state.selection ? this.grown(state, when) : this.growth();
      case "oom": return this.oom(state);
      case "reconcile": return this.reconcile(state);
      case "losses": return this.losses();
      default: return this.stacks(state, when);
    }
  }

  /** The sums of each key that did something in the selected time. */
  private driven(state: State) {
    const [from, to] = buckets(this.model, state);
    const scope = this.scope();
    const s = this.summing;
    return { made: s.made(scope, from, to), gone: s.gone(scope, from, to), kept: s.kept(scope, from, to), live: s.live(scope, s.cursorBucket(state)), start: s.live(scope, from), end: s.live(scope, to) };
  }

  private about(state: State, when: (bucket: number) => string): string {
    const [from, to] = buckets(this.model, state);
    return state.selection ? `From ${when(from)} to ${when(to)}; live at the cursor.` : "Of all the time; live at the cursor.";
  }

  private stacks(state: State, when: (bucket: number) => string): Table {
    const d = this.driven(state);
    const { keys, texts } = this.model.page;
    const rows: Row[] = [];
    for (let key = 0; key < keys.node.length; key++) {
      if (!d.made.bytes[key] && !d.gone.bytes[key] && !d.live.bytes[key] && !d.kept.bytes[key]) continue;
      rows.push({
        values: [this.model.top(key), this.model.place(keys.process[key], keys.device[key]), keys.kind[key], texts[keys.library[key]], d.live.bytes[key], d.made.bytes[key], d.made.count[key], d.gone.bytes[key], d.kept.bytes[key], d.kept.count[key], d.end.bytes[key] - d.start.bytes[key]],
        open: () => this.open(key),
      });
    }
    return {
      about: this.about(state, when), rows,
      columns: [
        { id: "where", label: "Where", text: true }, { id: "place", label: "Device", text: true }, { id: "kind", label: "Kind", text: true }, { id: "library", label: "Library", text: true },
        { id: "live", label: "Live", ...B }, { id: "made", label: "Allocated", ...B }, { id: "count", label: "Allocations", ...N }, { id: "gone", label: "Freed", ...B },
        { id: "kept", label: "Leaked", ...B }, { id: "kept-count", label: "Leaks", ...N }, { id: "growth", label: "Growth", ...B },
      ],
    };
  }

  private libraries(state: State, when: (bucket: number) => string): Table {
    const d = this.driven(state);
    const { keys, texts } = this.model.page;
    const sums = new Map<string, number[]>();
    for (let key = 0; key < keys.node.length; key++) {
      if (!d.made.bytes[key] && !d.live.bytes[key] && !d.kept.bytes[key]) continue;
      const name = texts[keys.library[key]] || "not known (no native frames)";
      const sum = sums.get(name) ?? sums.set(name, [0, 0, 0, 0, 0]).get(name)!;
      [d.live.bytes[key], d.made.bytes[key], d.made.count[key], d.kept.bytes[key], d.end.bytes[key] - d.start.bytes[key]].forEach((n, i) => (sum[i] += n));
    }
    return {
      about: this.about(state, when), rows: [...sums].map(([name, sum]) => ({ values: [name, ...sum] })),
      columns: [{ id: "library", label: "Library", text: true }, { id: "live", label: "Live", ...B }, { id: "made", label: "Allocated", ...B }, { id: "count", label: "Allocations", ...N }, { id: "kept", label: "Leaked", ...B }, { id: "growth", label: "Growth", ...B }],
    };
  }

  private place(of: Answer): string {
    return this.model.place(of.process, of.device);
  }

  private since(unix: number): number {
    return unix - Number(this.model.page.base_ns);
  }

  private top(stack: Frame[], missing?: string | null): string {
    return stack?.length ? frameLabel(stack[0]) : `[${missing ?? "no stack"}]`;
  }

  private leaks(state: State): Table {
    const { leaks } = this.model.all;
    const inside = (g: Answer) => !state.selection || (this.since(g.last_ns) >= state.selection[0] && this.since(g.first_ns) <= state.selection[1]);
    const groups = leaks.groups.filter(inside);
    const omitted = leaks.omitted.groups ? ` ${counted(leaks.omitted.groups, "smaller group")} with ${bytes(leaks.omitted.bytes)} left out.` : "";
    const { sampled } = this.model.page;
    const suppressed = leaks.suppressed.map((s: Answer) => `${s.pattern}: ${bytes(s.bytes)}`).join(", ");
    return {
      about: `As vramtrace leaks: ${bytes(leaks.total.gpu.bytes)} of GPU memory in ${counted(leaks.total.gpu.count, "allocation")}, ${bytes(leaks.total.host.bytes)} of host memory, ${bytes(leaks.total.cached.bytes)} cached.${sampled ? " Stacks were sampled: what is known of each, and what it is estimated to hold." : ""}${state.selection ? " Groups with allocations in the selected time." : ""}${omitted}${suppressed ? ` Suppressed: ${suppressed}.` : ""}`,
      rows: groups.map((g: Answer) => ({
        values: [this.top(g.stack, g.stack_missing), this.place(g), g.kind, g.bytes, ...(sampled ? [g.estimate?.bytes ?? g.bytes, g.estimate ? `${bytes(g.estimate.bytes_low)} to ${bytes(g.estimate.bytes_high)}` : "exact"] : []), g.count, this.since(g.first_ns), this.since(g.last_ns), g.suspicion ?? "", g.end ?? ""],
        open: () => this.openFrames(`${bytes(g.bytes)} in ${counted(g.count, "allocation")} leaked`, g.stack, [["kind", g.kind], ["function", g.api ?? ""], ["ranges", (g.ranges ?? []).join(", ")]]),
      })),
      columns: [{ id: "where", label: "Where", text: true }, { id: "place", label: "Device", text: true }, { id: "kind", label: "Kind", text: true }, { id: "bytes", label: "Bytes", ...B }, ...(sampled ? [{ id: "estimate", label: "Estimate", ...B }, { id: "between", label: "Between (95 %)", text: true }] : []), { id: "count", label: "Allocations", ...N }, { id: "first", label: "First", show: duration }, { id: "last", label: "Last", show: duration }, { id: "suspicion", label: "Suspicion", text: true }, { id: "end", label: "End", text: true }],
    };
  }

  /** Of a part of the time: what each stack held at both ends. What its shape was is known of all the time alone. */
  private grown(state: State, when: (bucket: number) => string): Table {
    const [from, to] = buckets(this.model, state);
    const { start, end } = this.driven(state);
    const { keys, cells, duration_ns } = this.model.page;
    const seconds = (Math.min(to * cells.width, duration_ns) - from * cells.width) / 1e9;
    const begun = this.summing.before(this.scope(), from);
    const rows: Row[] = [];
    for (let key = 0; key < keys.node.length; key++) {
      const by = end.bytes[key] - start.bytes[key];
      if (!by) continue;
      rows.push({
        values: [this.model.top(key), this.model.place(keys.process[key], keys.device[key]), keys.kind[key], start.bytes[key], end.bytes[key], by, by / seconds, end.count[key] - start.count[key]],
        open: () => this.open(key),
      });
    }
    return {
      about: `What each stack holds at ${when(to)} less what it held at ${when(from)}, as vramtrace leaks --to says of both.${begun ? ` Of the beginning: ${begun}.` : ""} Shapes (growing, warm-up, …) are of all the time: without a selection they are here.`,
      rows, usual: "-by",
      columns: [{ id: "where", label: "Where", text: true }, { id: "place", label: "Device", text: true }, { id: "kind", label: "Kind", text: true }, { id: "start", label: "At the beginning", ...B }, { id: "end", label: "At the end", ...B }, { id: "by", label: "Growth", ...B }, { id: "slope", label: "A second", ...B }, { id: "count", label: "More allocations", ...N }],
    };
  }

  private growth(): Table {
    const { growth } = this.model.all;
    return {
      about: `As vramtrace growth: stacks whose live bytes keep growing come first. Of all the time.`, sorted: true,
      rows: growth.groups.map((g: Answer) => ({
        values: [this.top(g.stack, g.stack_missing), this.place(g), g.shape ?? "", g.slope ?? 0, g.bytes, g.count],
        open: () => this.openFrames(`${bytes(g.bytes)} live`, g.stack, [["shape", g.shape ?? ""]]),
      })),
      columns: [{ id: "where", label: "Where", text: true }, { id: "place", label: "Device", text: true }, { id: "shape", label: "Shape", text: true }, { id: "slope", label: "A second", ...B }, { id: "bytes", label: "Live", ...B }, { id: "count", label: "Allocations", ...N }],
    };
  }

  private oom(state: State): Table {
    const failures = this.model.all.oom.failures.filter((f: Answer) => !state.selection || (this.since(f.at_ns) >= state.selection[0] && this.since(f.at_ns) <= state.selection[1]));
    return {
      about: failures.length ? "As vramtrace oom: each allocation that failed for lack of memory." : "No allocation failed for lack of memory.",
      rows: failures.map((f: Answer) => ({
        values: [this.since(f.at_ns), this.top(f.stack, f.stack_missing), this.place(f), f.asked_bytes, f.free_bytes ?? -1, f.held?.used?.bytes ?? -1, f.held?.cached_bytes ?? -1, f.attempts, f.fate],
        open: () => {
          this.store.set({ cursor: this.since(f.at_ns) });
          this.openFrames(`${bytes(f.asked_bytes)} asked for in vain`, f.stack, (f.held?.groups ?? []).map((g: Answer) => [this.top(g.stack, g.stack_missing), `held ${bytes(g.bytes)}`]));
        },
      })),
      columns: [{ id: "at", label: "At", show: duration }, { id: "where", label: "Where", text: true }, { id: "place", label: "Device", text: true }, { id: "asked", label: "Asked", ...B }, { id: "free", label: "Free", show: unknown }, { id: "used", label: "In use", show: unknown }, { id: "cached", label: "Cached", show: unknown }, { id: "attempts", label: "Attempts", ...N }, { id: "fate", label: "Then", text: true }],
    };
  }

  private reconcile(state: State): Table {
    const rows: Row[] = [];
    const lines = (all: Answer[], indent: number) => {
      for (const l of all) {
        rows.push({ values: [l.name ? `${l.part}: ${l.name}` : l.part, l.bytes, l.count, l.basis], indent });
        lines(l.within ?? [], indent + 1);
      }
    };
    for (const tree of this.model.all.reconcile.trees) {
      const shown = tree.shown?.process_bytes;
      rows.push({ values: [`${this.place(tree)}: ${shown == null ? "nvidia-smi's number was not recorded" : "shown by nvidia-smi"}`, shown ?? tree.explained, 0, ""], indent: 0 });
      lines(tree.lines, 1);
      if (tree.unexplained !== null) rows.push({ values: ["unexplained", tree.unexplained, 0, ""], indent: 1 });
    }
    // Contexts, code and pools are known of the moment that was asked about alone.
    const moments = this.model.all.reconcile.trees.map((tree: Answer) => `${this.place(tree)} at ${moment(this.since(tree.at_ns), this.model.page.cells.width)}`);
    const when = moments.length ? ` Of ${moments.join(", ")}${state.selection ? ", whatever is selected: vramtrace reconcile --to says it of other moments" : ""}.` : "";
    return { about: `As vramtrace reconcile: where the whole number goes that nvidia-smi shows.${when}`, rows, sorted: true, columns: [{ id: "part", label: "Part", text: true }, { id: "bytes", label: "Bytes", ...B }, { id: "count", label: "Allocations", ...N }, { id: "basis", label: "Known by", text: true }] };
  }

  private losses(): Table {
    const { page, all } = this.model;
    const rows: Row[] = [];
    for (const [name, list] of [["not exact", page.inexact], ["thinned on this page", page.thinned], ["note", page.notes], ["symbols", page.warnings]] as [string, string[]][])
      for (const text of list) rows.push({ values: [name, text] });
    for (const p of all.summary.processes)
      for (const [name, value] of Object.entries(p.losses as Record<string, number | number[]>)) {
        const text = Array.isArray(value) ? `device layer ${count(value[0])}, framework layer ${count(value[1])}` : count(value);
        if (name !== "ring_capacity" && ([] as number[]).concat(value).some((n) => n > 0)) rows.push({ values: [`pid ${p.pid}: ${name.replaceAll("_", " ")}`, text] });
      }
    return { about: page.inexact.length ? "Not all numbers are exact. Of all the time." : "All sums are exact. What is listed here was left out or is worth knowing, of all the time.", rows, sorted: true, columns: [{ id: "what", label: "What", text: true }, { id: "text", label: "", text: true }] };
  }

  private current: { table: Table; rows: Row[] } = { table: { columns: [], rows: [], about: "" }, rows: [] };

  private render(table: Table, state: State): void {
    const wanted = state.filter.toLowerCase();
    let rows = wanted ? table.rows.filter((row) => row.values.some((v) => typeof v === "string" && v.toLowerCase().includes(wanted))) : [...table.rows];
    const usual = table.usual ? table.usual : table.sorted ? "" : `-${table.columns.find((c) => c.id === (state.tab === "leaks" ? "bytes" : "kept") || c.id === "at")?.id ?? table.columns.find((c) => !c.text)?.id}`;
    const [down, id] = (state.sort || usual).startsWith("-") ? [true, (state.sort || usual).slice(1)] : [false, state.sort || usual];
    const at = table.columns.findIndex((c) => c.id === id);
    if (at >= 0) {
      rows.sort((a, b) => {
        const [x, y] = [a.values[at], b.values[at]];
        return (down ? -1 : 1) * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
      });
    }
    this.current = { table, rows };
    const shown = this.everything ? rows : rows.slice(0, MOST);
    this.said.textContent = `${table.about} ${counted(rows.length, "row")}${wanted ? " with the text" : ""}.`;
    // Whoever sorts by keyboard goes on from where they are.
    const focused = this.panel.contains(document.activeElement) ? (document.activeElement as HTMLElement).dataset.column : undefined;
    clear(this.panel);
    const head = el("tr");
    table.columns.forEach((c, i) => {
      const sort = i === at ? (down ? "descending" : "ascending") : "none";
      const by = i === at ? (down ? c.id : `-${c.id}`) : c.text ? c.id : `-${c.id}`;
      head.append(el("th", { scope: "col", "aria-sort": sort, class: c.text ? "" : "number" }, c.label ? el("button", { type: "button", "data-column": c.id, title: `Sort by ${c.label}`, click: () => this.store.set({ sort: by }) }, `${c.label}${sort === "descending" ? " ▾" : sort === "ascending" ? " ▴" : ""}`) : el("span", { class: "hidden" }, "Text")));
    });
    const body = el("tbody");
    for (const row of shown) {
      const tr = el("tr");
      table.columns.forEach((c, i) => {
        const value = row.values[i];
        const text = typeof value === "string" ? (i === 1 && table.columns.length === 2 ? foreign(value) : short(value)) : c.show!(value);
        const cell = i === 0 && row.open ? el("button", { type: "button", class: "link", click: () => row.open!() }, text) : text;
        const td = el("td", { class: c.text ? (i === 0 ? "" : "word") : "number" }, cell);
        if (i === 0 && row.indent) td.style.paddingLeft = `${8 + row.indent * 18}px`;
        tr.append(td);
      });
      body.append(tr);
    }
    this.panel.append(el("table", {}, el("thead", {}, head), body));
    if (focused) (this.panel.querySelector(`[data-column="${focused}"]`) as HTMLElement | null)?.focus();
    if (rows.length > shown.length) this.panel.append(el("button", { type: "button", click: () => {
      this.everything = true;
      this.render(table, this.store.state);
    } }, `Show all ${count(rows.length)} rows`));
  }

  /** Numbers as they are, for spreadsheets. */
  private tsv(): string {
    const clean = (v: number | string) => (typeof v === "string" ? foreign(v).replace(/^([=+@-])/, "'$1") : String(v));
    const lines = this.current.rows.map((row) => row.values.map(clean).join("\t"));
    return [this.current.table.columns.map((c) => c.label).join("\t"), ...lines].join("\n");
  }
}

function unknown(n: number): string {
  return n < 0 ? "not known" : bytes(n);
}

export { moment };
