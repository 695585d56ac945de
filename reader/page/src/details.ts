// What was clicked: a stack, whole, and what is known of it.

import { type Frame, frameLabel, type Model, type Scope } from "./data";
import { clear, copy, el } from "./dom";
import { bytes, counted, foreign, short } from "./format";
import type { Summing } from "./sums";
import type { State, Store } from "./state";

export type Facts = [string, string][];

export class Details {
  readonly node = el("aside", { class: "detail card", "aria-label": "Details", hidden: true, tabindex: "-1" });
  /** Where the keyboard was before. */
  private before: Element | null = null;
  private facts: Facts = [];

  constructor(private model: Model, private store: Store, private summing: Summing, private scope: () => Scope) {
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.node.hidden) this.close();
    });
  }

  private close(): void {
    const inside = this.node.contains(document.activeElement);
    this.node.hidden = true;
    this.store.set({ open: -1 });
    if (inside && this.before instanceof HTMLElement && this.before.isConnected) this.before.focus({ preventScroll: true });
  }

  /** Opens the stack of a key; the address keeps which. */
  open(key: number, facts: Facts = []): void {
    if (key < 0 || key >= this.model.page.keys.node.length) return;
    this.facts = facts;
    if (this.store.state.open === key) this.show(this.store.state);
    else this.store.set({ open: key });
  }

  /** Shows the stack that is open. */
  show(state: State): void {
    const key = state.open;
    const { keys, texts, tree, cells } = this.model.page;
    const facts = this.facts;
    this.facts = [];
    if (key < 0 || key >= keys.node.length) return;
    const s = this.summing, scope = this.scope();
    const [made, kept, live] = [s.made(scope, 0, cells.buckets), s.kept(scope, 0, cells.buckets), s.live(scope, s.cursorBucket(state))];
    const frames = this.model.stack(key).map((node) => this.model.frame(tree.frame[node]));
    const held = (sums: { bytes: Float64Array; count: Float64Array }) => `${bytes(sums.bytes[key])} in ${counted(sums.count[key], "allocation")}`;
    this.frames(this.model.top(key), frames, [
      ...facts,
      ["memory", `${keys.kind[key]}, ${keys.layer[key]} layer, ${this.model.device(keys.device[key])}`], ["process", this.model.process(keys.process[key])],
      ["function", texts[keys.api[key]]], ["library", texts[keys.library[key]]],
      ...(this.model.inScope(key, scope) ? [["ever allocated", held(made)], ["live at cursor", held(live)], ["leaked", held(kept)]] as Facts : []),
    ]);
  }

  /** Shows frames with a title and facts. */
  frames(title: string, frames: Frame[], facts: Facts): void {
    clear(this.node);
    const said = facts.filter(([, value]) => value);
    const lines = frames.map((frame, i) => `#${i}  ${foreign(frameLabel(frame))}${frame.file ? `  ${foreign(frame.file)}` : frame.module ? `  ${foreign(frame.module)}` : ""}`);
    const copying = el("button", { type: "button", click: () => copy([foreign(title), ...said.map(([name, value]) => `${foreign(name)}: ${foreign(value)}`), ...lines].join("\n"), copying) }, "Copy");
    const list = el("ol", { class: "stack", start: "0" });
    for (const frame of frames)
      list.append(el("li", { class: frame.language }, el("code", {}, short(frameLabel(frame), 400)), el("small", {}, foreign(frame.file ?? frame.module ?? "").slice(-300))));
    const table = el("dl");
    for (const [name, value] of said) table.append(el("dt", {}, short(name, 90)), el("dd", {}, short(value, 300)));
    this.node.append(el("div", { class: "head" }, el("h2", {}, short(title)), el("div", { class: "tools" }, copying, el("button", { type: "button", click: () => this.close() }, "Close"))), table, list);
    if (this.node.hidden) this.before = document.activeElement;
    this.node.hidden = false;
    this.node.scrollTop = 0;
    this.node.focus({ preventScroll: true });
  }
}
