// Puts the page together.

import { Areas } from "./areas";
import { Colours } from "./colour";
import { type Frame, frameLabel, Model, read, type Scope } from "./data";
import { clear, copy, el } from "./dom";
import { Flame } from "./flame";
import { bytes, count, duration, foreign, moment, short } from "./format";
import { Maps } from "./maps";
import { Store } from "./state";
import { Summing } from "./sums";
import "./style.css";
import { Tables } from "./tables";
import { TimeView } from "./timeline";

function build(model: Model): void {
  const { page, all } = model;
  const length = Math.max(1, page.duration_ns);
  const leaked = all.leaks.total.gpu.bytes + all.leaks.total.host.bytes;
  const scopes = model.scopes;
  const store = new Store({
    view: [0, length], selection: null, cursor: length, scope: scopes[0].id, measure: leaked > 0 ? "leaked" : "peak", unit: "bytes",
    invert: false, python: false, query: "", tab: "stacks", sort: "", filter: "", zoom: "",
  });
  const scope = (): Scope => scopes.find((s) => s.id === store.state.scope) ?? scopes[0];
  const when = (bucket: number) => (bucket >= page.cells.buckets ? "the end" : moment(bucket * page.cells.width, page.cells.width));
  const summing = new Summing(model);
  const colours = new Colours(model);

  // What was clicked.
  const detail = el("aside", { class: "detail card", "aria-label": "Details", hidden: true, tabindex: "-1" });
  const openFrames = (title: string, frames: Frame[], facts: [string, string][]) => {
    clear(detail);
    const lines = frames.map((frame, i) => `#${i}  ${foreign(frameLabel(frame))}${frame.file ? `  ${foreign(frame.file)}` : frame.module ? `  ${foreign(frame.module)}` : ""}`);
    const copying = el("button", { type: "button", click: () => copy([title, ...lines].join("\n"), copying) }, "Copy");
    const list = el("ol", { class: "stack", start: "0" });
    for (const frame of frames)
      list.append(el("li", { class: frame.language }, el("code", {}, short(frameLabel(frame), 400)), el("small", {}, foreign(frame.file ?? frame.module ?? "").slice(-300))));
    const table = el("dl");
    for (const [name, value] of facts) if (value) table.append(el("dt", {}, short(name, 90)), el("dd", {}, short(value, 300)));
    detail.append(el("div", { class: "head" }, el("h2", {}, short(title)), el("div", { class: "tools" }, copying, el("button", { type: "button", click: () => (detail.hidden = true) }, "Close"))), table, list);
    detail.hidden = false;
    detail.focus({ preventScroll: true });
  };
  const openKey = (key: number, facts: [string, string][] = []) => {
    if (key >= page.keys.node.length) return;
    const [made, kept, live] = [summing.made(scope(), 0, page.cells.buckets), summing.kept(scope(), 0, page.cells.buckets), summing.live(scope(), summing.cursorBucket(store.state))];
    const frames = model.stack(key).map((node) => model.frame(page.tree.frame[node]));
    const sums: [string, string][] = [
      ["memory", `${page.keys.kind[key]}, ${page.keys.layer[key]} layer, ${model.device(page.keys.device[key])}`], ["process", model.process(page.keys.process[key])],
      ["function", page.texts[page.keys.api[key]]], ["library", page.texts[page.keys.library[key]]],
      ["ever allocated", `${bytes(made.bytes[key])} in ${count(made.count[key])}`], ["live at cursor", bytes(live.bytes[key])], ["leaked", `${bytes(kept.bytes[key])} in ${count(kept.count[key])}`],
    ];
    openFrames(model.top(key), frames, [...facts, ...sums]);
  };
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !detail.hidden) detail.hidden = true;
    if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
      event.preventDefault();
      query.focus();
    }
  });

  const describer = new Areas(model, colours);
  const time = new TimeView(model, store, scope, colours, (key, track, row) => openKey(key, describer.describe({ key, track, row }).slice(1).filter((l): l is [string, string] => Array.isArray(l))));
  const flame = new Flame(model, store, summing, scope, (key) => openKey(key));
  const maps = new Maps(model, store, scope, colours, (key) => openKey(key));
  const tables = new Tables(model, store, summing, scope, (key) => openKey(key), openFrames);

  const choose = el("select", { "aria-label": "Memory", change: () => store.set({ scope: choose.value, zoom: "" }) });
  for (const s of scopes) choose.append(el("option", { value: s.id }, short(s.label)));
  const query = el("input", { type: "search", placeholder: "Search functions and files  ( / )", "aria-label": "Search functions and files", input: () => store.set({ query: query.value }) });
  const theme = el("button", { type: "button", title: "Light or dark", "aria-label": "Change between light and dark", click: () => {
    const root = document.documentElement;
    root.dataset.theme = getComputedStyle(root).colorScheme === "dark" ? "light" : "dark";
    redraw(true);
  } }, "◐");
  const link = el("button", { type: "button", title: "Copy a link to this view", click: () => copy(location.href, link) }, "Link");

  const name = page.processes.length === 1 ? page.processes[0].name || "process" : `${page.processes.length} processes`;
  document.title = `${short(name, 60)}: GPU memory`;
  const began = new Date(Number(page.base_ns) / 1e6);
  const peaks = page.series.filter((s) => s.what === "device").sort((a, b) => b.peak_bytes - a.peak_bytes);
  const cards = el("dl", { class: "figures" });
  const figure = (label: string, value: string, small: string, act?: () => void) =>
    cards.append(el("div", {}, el("dt", {}, label), el("dd", {}, act ? el("button", { type: "button", class: "link", click: act }, value) : value), el("dd", { class: "small" }, small)));
  figure("Leaked on the GPU", bytes(all.leaks.total.gpu.bytes), `${count(all.leaks.total.gpu.count)} allocations`, () => store.set({ tab: "leaks", sort: "" }));
  if (all.leaks.total.host.bytes) figure("Leaked in host memory", bytes(all.leaks.total.host.bytes), `${count(all.leaks.total.host.count)} allocations`);
  if (peaks[0]) figure("Peak", bytes(peaks[0].peak_bytes), `device layer, at ${duration(peaks[0].peak_at)}`, () => store.set({ cursor: peaks[0].peak_at, measure: "live" }));
  figure("Cached, not in use", bytes(all.leaks.total.cached.bytes), "by allocators, at the end");
  figure("Failed allocations", count(all.oom.failures.length), all.oom.failures.length ? "for lack of memory" : "none for lack of memory", () => store.set({ tab: "oom", sort: "" }));
  figure("Numbers", page.inexact.length ? "not exact" : "exact", page.inexact.length ? "see Losses" : "nothing that counts was lost", () => store.set({ tab: "losses", sort: "" }));

  const about = page.processes.slice(0, 12).map((p) => `${foreign(p.name || "process")} (pid ${p.pid}${p.rank === null ? "" : `, rank ${p.rank}`}) on ${foreign(p.host || "an unknown host")}, ${p.end}, traced for ${duration(p.duration)}`);
  if (page.processes.length > 12) about.push(`and ${page.processes.length - 12} more`);
  const root = document.getElementById("page")!;
  clear(root);
  root.append(
    el("header", {},
      el("div", { class: "title" }, el("h1", {}, short(name, 60)), el("p", {}, `${about.join("; ")}. Began ${Number.isFinite(began.getTime()) ? began.toISOString().replace("T", " ").slice(0, 19) : "?"} UTC.`)),
      el("div", { class: "bar", role: "search" }, choose, query, link, theme)),
    el("main", {}, cards, time.node, flame.node, maps.node, tables.node),
    detail,
    el("footer", {}, el("p", {}, `vramtrace ${page.version}. ${page.thinned.join(". ")}. The licences of bundled libraries are in this file's source.`)));

  const redraw = (anew: boolean) => {
    time.rebuild();
    flame.draw(store.state, when);
    maps.draw(store.state);
    tables.draw(store.state, when);
    if (anew) choose.value = scope().id;
  };
  store.listen((state, changed) => {
    const any = (...names: (keyof typeof state)[]) => names.some((name) => changed.has(name));
    if (any("scope")) {
      choose.value = scope().id;
      time.rebuild();
    } else if (any("view", "selection", "cursor", "query")) time.draw(changed.has("query"));
    const moves = state.measure === "live" && any("cursor");
    if (any("scope", "selection", "measure", "unit", "invert", "python", "query", "zoom") || moves) flame.draw(state, when);
    if (any("scope", "cursor", "query")) maps.draw(state);
    if (any("scope", "selection", "tab", "sort", "filter", "cursor")) tables.draw(state, when);
    if (any("query") && query.value !== state.query) query.value = state.query;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(true));
  addEventListener("beforeprint", () => document.documentElement.classList.add("print"));
  query.value = store.state.query;
  redraw(true);
  document.documentElement.dataset.ready = "true";
}

read().then((all) => build(new Model(all))).catch((error) => {
  const root = document.getElementById("page")!;
  clear(root);
  root.append(el("p", { class: "loading", role: "alert" }, `This page cannot be shown: ${error}. It needs a current browser (DecompressionStream, oklch colours).`));
  throw error;
});
