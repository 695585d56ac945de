// Puts the page together.

import { Colours } from "./colour";
import { Model, read, type Scope } from "./data";
import { Details } from "./details";
import { clear, copy, el } from "./dom";
import { Flame } from "./flame";
import { bytes, count, counted, duration, foreign, moment, short } from "./format";
import { help } from "./help";
import { Maps } from "./maps";
import { type State, Store } from "./state";
import { Summing } from "./sums";
import "./style.css";
import { Tables } from "./tables";
import { TimeView } from "./timeline";

/** How long the time has to rest before what takes longer follows, milliseconds. */
const REST = 100;

function build(model: Model): void {
  const { page, all } = model;
  const length = Math.max(1, page.duration_ns);
  const leaked = all.leaks.total.gpu.bytes + all.leaks.total.host.bytes;
  const scopes = model.scopes;
  const store = new Store({
    view: [0, length], selection: null, cursor: length, scope: scopes[0].id, measure: leaked > 0 ? "leaked" : "peak", unit: "bytes",
    invert: false, python: false, query: "", tab: "stacks", sort: "", filter: "", zoom: "", open: -1,
  }, length);
  const scope = (): Scope => scopes.find((s) => s.id === store.state.scope) ?? scopes[0];
  const when = (bucket: number) => (bucket >= page.cells.buckets ? "the end" : moment(bucket * page.cells.width, page.cells.width));
  const summing = new Summing(model);
  const colours = new Colours(model);
  const details = new Details(model, store, summing, scope);
  const time = new TimeView(model, store, scope, colours, (key, facts) => details.open(key, facts));
  const flame = new Flame(model, store, summing, scope, (key) => details.open(key));
  const maps = new Maps(model, store, scope, colours, (key) => details.open(key));
  const tables = new Tables(model, store, summing, scope, (key) => details.open(key), (title, frames, facts) => details.frames(title, frames, facts));

  const choose = el("select", { "aria-label": "Memory", change: () => store.set({ scope: choose.value, zoom: "" }) });
  for (const s of scopes) choose.append(el("option", { value: s.id }, short(s.label)));
  const query = el("input", { type: "search", placeholder: "Search functions and files  ( / )", "aria-label": "Search functions and files", input: () => store.set({ query: query.value }) });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    query.focus();
  });
  const theme = el("button", { type: "button", title: "Light or dark", "aria-label": "Change between light and dark", click: () => {
    const root = document.documentElement;
    root.dataset.theme = getComputedStyle(root).colorScheme === "dark" ? "light" : "dark";
    redraw();
  } }, "◐");
  const link = el("button", { type: "button", title: "Copy a link to this view", click: () => copy(store.link(), link) }, "Link");
  const { button: asking, dialog } = help();

  const name = page.processes.length === 1 ? page.processes[0].name || "process" : `${page.processes.length} processes`;
  document.title = `${short(name, 60)}: GPU memory`;
  const root = document.getElementById("page")!;
  clear(root);
  root.append(
    el("header", {},
      el("div", { class: "title" }, el("h1", {}, short(name, 60)), el("p", {}, about(model))),
      el("div", { class: "bar", role: "search" }, choose, query, link, theme, asking)),
    el("main", {}, figures(model, store), time.node, flame.node, maps.node, tables.node),
    details.node, dialog,
    el("footer", {}, el("p", {}, `vramtrace ${page.version}. ${page.thinned.map(sentence).join(" ")}`)));

  const redraw = () => {
    choose.value = scope().id;
    time.rebuild();
    flame.draw(store.state, when);
    maps.draw(store.state);
    tables.draw(store.state, when);
  };
  // The timeline follows at once; what is summed anew follows when the time rests.
  let pending = new Set<keyof State>();
  let timer = 0;
  const follow = () => {
    const changed = pending;
    pending = new Set();
    const { state } = store;
    const any = (...names: (keyof State)[]) => names.some((name) => changed.has(name));
    const moves = state.measure === "live" && any("cursor");
    if (any("scope", "selection", "measure", "unit", "invert", "python", "query", "zoom") || moves) flame.draw(state, when);
    if (any("scope", "selection", "tab", "sort", "filter", "cursor")) tables.draw(state, when);
  };
  store.listen((state, changed) => {
    const any = (...names: (keyof State)[]) => names.some((name) => changed.has(name));
    if (any("scope")) {
      choose.value = scope().id;
      time.rebuild();
    } else if (any("view", "selection", "cursor", "query")) time.draw(changed.has("query"));
    if (any("scope", "cursor", "query")) maps.draw(state);
    if (any("open")) details.show(state);
    if (any("query") && query.value !== state.query) query.value = state.query;
    changed.forEach((one) => pending.add(one));
    clearTimeout(timer);
    if (any("selection", "cursor", "query", "filter")) timer = window.setTimeout(follow, REST);
    else follow();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  printing(redraw);
  query.value = store.state.query;
  redraw();
  if (store.state.open >= 0) details.show(store.state);
  document.documentElement.dataset.ready = "true";
}

/** Pictures are drawn in light colours and as wide as paper before they are printed. */
function printing(redraw: () => void): void {
  const root = document.documentElement;
  let theme: string | undefined;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    root.classList.add("print");
    redraw();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("print");
    if (theme === undefined) delete root.dataset.theme;
    else root.dataset.theme = theme;
    redraw();
  });
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** Which processes, where and when. */
function about(model: Model): string {
  const { page } = model;
  const said = page.processes.slice(0, 8).map((p) => `${foreign(p.name || "process")} (pid ${p.pid}${p.rank === null ? "" : `, rank ${p.rank}`}) on ${foreign(p.host || "an unknown host")}, ${p.end}, traced for ${duration(p.duration)}`);
  if (page.processes.length > 8) said.push(`and ${page.processes.length - 8} more`);
  const began = new Date(Number(page.base_ns) / 1e6);
  return `${said.join("; ")}. Began ${Number.isFinite(began.getTime()) ? began.toISOString().replace("T", " ").slice(0, 19) : "?"} UTC.`;
}

/** The numbers that one looks for first; each leads to what it is made of. */
function figures(model: Model, store: Store): HTMLElement {
  const { page, all } = model;
  const cards = el("dl", { class: "figures" });
  const figure = (label: string, value: string, small: string, act?: () => void) =>
    cards.append(el("div", {}, el("dt", {}, label), el("dd", {}, act ? el("button", { type: "button", class: "link", click: act }, value) : value), el("dd", { class: "small" }, small)));
  const { gpu, host, cached } = all.leaks.total;
  const tab = (id: string) => () => {
    store.set({ tab: id, sort: "" });
    document.getElementById("tables-title")?.scrollIntoView({ block: "nearest" });
  };
  figure("Leaked on the GPU", bytes(gpu.bytes), counted(gpu.count, "allocation"), tab("leaks"));
  if (host.bytes) figure("Leaked in host memory", bytes(host.bytes), counted(host.count, "allocation"), tab("leaks"));
  const of = (what: string) => page.series.filter((s) => s.what === what && s.peak_bytes > 0);
  const peaks = of("device").length ? of("device") : of("framework");
  const peak = peaks.sort((a, b) => b.peak_bytes - a.peak_bytes)[0];
  if (peak) {
    const where = page.processes.length > 1 || peaks.length > 1 ? `${model.place(peak.process, peak.device)}, ` : "";
    figure(peaks.length > 1 ? "Highest peak" : "Peak", bytes(peak.peak_bytes), `${where}${peak.what} layer, at ${duration(peak.peak_at)}`, () => store.set({ cursor: peak.peak_at, measure: "live" }));
  }
  figure("Cached, not in use", bytes(cached.bytes), "by allocators, at the end");
  const failed = all.oom.failures.length;
  figure("Failed allocations", count(failed), failed ? "for lack of memory" : "none for lack of memory", failed ? tab("oom") : undefined);
  figure("Numbers", page.inexact.length ? "not exact" : page.sampled ? "in part estimates" : "exact", page.inexact.length ? "see Losses" : page.sampled ? "by stack; sums are exact" : "nothing that counts was lost", tab("losses"));
  return cards;
}

read().then((all) => build(new Model(all))).catch((error) => {
  const root = document.getElementById("page")!;
  clear(root);
  root.append(el("p", { class: "loading", role: "alert" }, `This page cannot be shown: ${error}. It needs a current browser (DecompressionStream, oklch colours).`));
  throw error;
});
