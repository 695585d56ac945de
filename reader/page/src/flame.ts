// Memory by call stack as boxes: as wide as the bytes or allocations that a function accounts for.

import { colourOf } from "./colour";
import type { Model, Scope } from "./data";
import { clear, el, tip, untip } from "./dom";
import { bytes, counted, short } from "./format";
import { MEASURES, type Summing, type Sums } from "./sums";
import type { State, Store } from "./state";

interface Shown { box: Box; label: string; trail: number[] }
interface Box { frame: number; value: number; children: Map<number, Box>; keys: number[] }

const HEIGHT = 20;
const DEEPEST = 80;

export class Flame {
  readonly node = el("section", { "aria-labelledby": "flame-title", class: "card" });
  private boxes = el("div", { class: "flame", role: "tree", "aria-labelledby": "flame-title" });
  private said = el("p", { class: "said", role: "status" });
  private root: Box = { frame: 0, value: 0, children: new Map(), keys: [] };
  private shown: Shown[] = [];

  constructor(private model: Model, private store: Store, private summing: Summing, private scope: () => Scope, private open: (key: number) => void) {
    const measures = el("div", { class: "choices", role: "radiogroup", "aria-label": "What is shown" });
    for (const [id, label, title] of MEASURES)
      measures.append(el("button", { type: "button", role: "radio", "data-measure": id, "aria-checked": "false", title, click: () => store.set({ measure: id, zoom: "" }) }, label));
    const toggle = (name: "invert" | "python", label: string, title: string) =>
      el("button", { type: "button", "data-toggle": name, "aria-pressed": "false", title, click: () => store.set({ [name]: !store.state[name], zoom: "" }) }, label);
    const unit = el("button", { type: "button", "data-toggle": "unit", "aria-pressed": "false", title: "Boxes as wide as the number of allocations", click: () => store.set({ unit: store.state.unit === "bytes" ? "count" : "bytes" }) }, "Count");
    const reset = el("button", { type: "button", title: "Show the whole graph", click: () => store.set({ zoom: "" }) }, "Reset zoom");
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "flame-title" }, "Flame graph"), measures,
        el("div", { class: "tools" }, toggle("invert", "Invert", "Innermost functions first"), toggle("python", "Python only", "Only frames of Python code"), unit, reset)),
      this.said, this.boxes);
    this.boxes.addEventListener("keydown", (event) => this.key(event));
    this.boxes.addEventListener("click", (event) => {
      const shown = this.under(event);
      if (!shown) return;
      this.store.set({ zoom: shown.trail.join(".") });
      if (shown.box.keys.length && !shown.box.children.size) this.open(shown.box.keys[0]);
    });
    this.boxes.addEventListener("pointermove", (event) => this.show(event));
    this.boxes.addEventListener("pointerleave", untip);
  }

  private under(event: Event): Shown | undefined {
    const node = (event.target as HTMLElement).closest<HTMLElement>("[data-box]");
    return node ? this.shown[Number(node.dataset.box)] : undefined;
  }

  private show(event: PointerEvent): void {
    const shown = this.under(event);
    if (!shown) return untip();
    const { box, label } = shown;
    const inside = [...box.children.values()].reduce((sum, child) => sum + child.value, 0);
    const share = (value: number) => `${((value / this.root.value) * 100).toFixed(1)} %`;
    tip(event.clientX, event.clientY, [
      short(label), [this.store.state.unit === "bytes" ? "bytes" : "allocations", this.say(box.value)], ["of all", share(box.value)],
      ...(inside > 0 && box.value - inside > 0 ? [["itself, without what it calls", this.say(box.value - inside)] as [string, string]] : []),
    ]);
  }

  private build(sums: Sums, state: State): void {
    const values = state.unit === "bytes" ? sums.bytes : sums.count;
    const root: Box = { frame: 0, value: 0, children: new Map(), keys: [] };
    const { tree } = this.model.page;
    for (let key = 0; key < values.length; key++) {
      const value = values[key];
      if (value <= 0) continue;
      root.value += value;
      let frames = this.model.stack(key).map((node) => tree.frame[node]);
      if (state.python) frames = frames.filter((frame) => this.model.isPython(frame));
      if (!state.invert) frames.reverse();
      let box = root;
      for (const frame of frames.slice(0, DEEPEST)) {
        let next = box.children.get(frame);
        if (!next) box.children.set(frame, (next = { frame, value: 0, children: new Map(), keys: [] }));
        next.value += value;
        box = next;
      }
      box.keys.push(key);
    }
    this.root = root;
  }

  private say(value: number): string {
    return this.store.state.unit === "bytes" ? bytes(value) : counted(value, "allocation");
  }

  draw(state: State, when: (bucket: number) => string): void {
    for (const button of this.node.querySelectorAll<HTMLElement>("[data-measure]")) button.setAttribute("aria-checked", String(button.dataset.measure === state.measure));
    for (const button of this.node.querySelectorAll<HTMLElement>("[data-toggle]")) {
      const name = button.dataset.toggle as "invert" | "python" | "unit";
      button.setAttribute("aria-pressed", String(name === "unit" ? state.unit === "count" : state[name]));
    }
    const sums = this.summing.of(this.scope(), state, when);
    this.build(sums, state);
    // Whoever zooms by keyboard goes on from where they are.
    const focused = this.boxes.contains(document.activeElement) ? this.shown[Number((document.activeElement as HTMLElement).dataset.box)]?.trail.join(".") : undefined;
    clear(this.boxes);
    this.shown = [];
    const built = document.createDocumentFragment();
    const zoom = state.zoom ? state.zoom.split(".").map(Number) : [];
    const path: Box[] = [this.root];
    for (const frame of zoom) {
      const next = path[path.length - 1].children.get(frame);
      if (!next) break;
      path.push(next);
    }
    const wanted = state.query.toLowerCase();
    const less = sums.less ?? 0;
    const total = this.root.value;
    let matched = 0;
    let boxes = 0, depth = 0;
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    const put = (box: Box, level: number, left: number, width: number, label: string, trail: number[], in_match: boolean) => {
      const match = !!wanted && box !== this.root && label.toLowerCase().includes(wanted);
      if (match && !in_match) matched += box.value;
      if (boxes < 3000) {
        boxes++;
        depth = Math.max(depth, level + 1);
        const share = ((box.value / total) * 100).toFixed(1);
        const shown = short(label);
        const node = el("div", {
          role: "treeitem", tabindex: level === 0 ? "0" : "-1", class: `box${wanted && !match ? " dim" : ""}${match ? " match" : ""}`,
          "aria-level": String(level + 1), "aria-label": `${shown}: ${this.say(box.value)}, ${share} %`, "data-box": String(this.shown.length),
        }, width > 0.02 ? shown : "");
        this.shown.push({ box, label, trail });
        node.style.left = `${(left * 100).toFixed(4)}%`;
        node.style.width = `${(width * 100).toFixed(4)}%`;
        node.style.top = `${level * HEIGHT}px`;
        if (box !== this.root) node.style.background = colourOf(label.replace(/:\d+$/, ""), dark);
        built.append(node);
      }
      const inside = path.indexOf(box);
      const children = inside >= 0 && inside + 1 < path.length ? [path[inside + 1]] : [...box.children.values()].sort((a, b) => b.value - a.value);
      const whole = inside >= 0 && inside + 1 < path.length ? path[inside + 1].value : box.value;
      let at = left;
      for (const child of children) {
        const w = (child.value / whole) * width;
        if (w < 0.001) {
          if (wanted) matched += in_match || match ? 0 : this.searchIn(child, wanted);
          continue;
        }
        put(child, level + 1, at, w, this.model.label(child.frame), [...trail, child.frame], in_match || match);
        at += w;
      }
    };
    if (total > 0) put(this.root, 0, 0, 1, "all", [], false);
    this.boxes.append(built);
    if (focused !== undefined) {
      const at = Math.max(0, this.shown.findIndex((shown) => shown.trail.join(".") === focused));
      this.go(this.boxes.children[0] as HTMLElement, this.boxes.children[at] as HTMLElement);
    }
    this.boxes.style.height = `${Math.max(1, depth) * HEIGHT}px`;
    this.boxes.hidden = total <= 0;
    const parts = [`${this.say(total)} ${sums.about}`];
    if (less > 0) parts.push(`other stacks hold ${bytes(less)} less`);
    if (wanted && total > 0) parts.push(`${this.say(matched)} (${((matched / total) * 100).toFixed(1)} %) match “${short(state.query, 40)}”`);
    if (sums.note) parts.push(sums.note);
    this.said.textContent = total > 0 ? `${parts.join("; ")}.` : `Nothing was ${sums.about}${state.python ? ", in Python code" : ""}.`;
  }

  private searchIn(box: Box, wanted: string): number {
    if (this.model.label(box.frame).toLowerCase().includes(wanted)) return box.value;
    let sum = 0;
    for (const child of box.children.values()) sum += this.searchIn(child, wanted);
    return sum;
  }

  private key(event: KeyboardEvent): void {
    const now = document.activeElement as HTMLElement;
    if (now.getAttribute("role") !== "treeitem") return;
    const all = [...this.boxes.children] as HTMLElement[];
    const level = Number(now.getAttribute("aria-level"));
    const at = all.indexOf(now);
    const levelOf = (node: HTMLElement) => Number(node.getAttribute("aria-level"));
    let to: HTMLElement | undefined;
    if (event.key === "ArrowDown") to = all[at + 1] && levelOf(all[at + 1]) > level ? all[at + 1] : undefined;
    else if (event.key === "ArrowUp") to = all.slice(0, at).reverse().find((node) => levelOf(node) < level);
    else if (event.key === "ArrowRight") to = all.slice(at + 1).find((node) => levelOf(node) === level);
    else if (event.key === "ArrowLeft") to = all.slice(0, at).reverse().find((node) => levelOf(node) === level);
    else if (event.key === "Enter" || event.key === " ") now.click();
    else if (event.key === "Escape") this.store.set({ zoom: "" });
    else return;
    event.preventDefault();
    if (to) this.go(now, to);
  }

  private go(from: HTMLElement | undefined, to: HTMLElement | undefined): void {
    if (!from || !to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus({ preventScroll: true });
  }
}
