// What lies where in allocators' segments at the cursor, to play through.

import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { clear, css, el, fit, tip, untip } from "./dom";
import { bytes, count, moment, short } from "./format";
import type { State, Store } from "./state";

const ROW = 22, BAR = 16, LEFT = 236, MOST = 300, NAMES: Record<string, string> = { segment: "segment", expandable: "expandable", pool: "pool", "graph-pool": "graph pool", direct: "from the driver" };

interface Drawn { row: number; y: number; x: number; w: number; tile: number }

export class Maps {
  readonly node = el("section", { "aria-labelledby": "map-title", class: "card" });
  private canvas = el("canvas", { class: "map", role: "img" });
  private said = el("p", { class: "said", role: "status" });
  private slider = el("input", { type: "range", min: "0", step: "1", "aria-label": "Moment of the map" });
  private play = el("button", { type: "button", "aria-pressed": "false" }, "Play");
  private table = el("tbody");
  private first: number[] = [0];
  private drawn: Drawn[] = [];
  private timer = 0;

  constructor(private model: Model, private store: Store, private scope: () => Scope, private colours: Colours, private open: (key: number) => void) {
    for (const n of model.page.maps.tiles) this.first.push(this.first[this.first.length - 1] + n);
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
    this.canvas.addEventListener("pointermove", (event) => this.show(event));
    this.canvas.addEventListener("pointerleave", untip);
    this.canvas.addEventListener("click", (event) => {
      const hit = this.hit(event);
      const key = hit ? model.page.maps.tile_key[hit.tile] : 0;
      if (key) this.open(key - 1);
    });
    const head = el("tr");
    for (const text of ["Kind", "Address", "Size", "Used", "Free", "Largest hole", "Blocks"]) head.append(el("th", { scope: "col" }, text));
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "map-title" }, "Segments"), el("div", { class: "tools wide" }, this.play, this.slider)),
      this.said, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Map of segments" }, this.canvas),
      el("details", {}, el("summary", {}, "As a table"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Segments as a table" }, el("table", {}, el("thead", {}, head), this.table))));
    new ResizeObserver(() => this.draw(this.store.state)).observe(this.node);
  }

  private samples(): { process: number; time: number; rows: number[]; left_out: number }[] {
    const { process } = this.scope();
    const all = this.model.page.maps.samples;
    return process === null ? all.filter((s) => s.process === (all[0]?.process ?? 0)) : all.filter((s) => s.process === process);
  }

  private go(at: number): void {
    const samples = this.samples();
    if (samples[at]) this.store.set({ cursor: samples[at].time });
  }

  private start(): void {
    const samples = this.samples();
    if (this.current() >= samples.length - 1) this.go(0);
    this.play.setAttribute("aria-pressed", "true");
    this.play.textContent = "Pause";
    this.timer = window.setInterval(() => {
      const next = this.current() + 1;
      if (next >= this.samples().length) return this.stop();
      this.go(next);
    }, 150);
  }

  private stop(): void {
    clearInterval(this.timer);
    this.timer = 0;
    this.play.setAttribute("aria-pressed", "false");
    this.play.textContent = "Play";
  }

  private current(): number {
    const samples = this.samples();
    let at = 0;
    while (at + 1 < samples.length && samples[at + 1].time <= this.store.state.cursor) at++;
    return at;
  }

  draw(state: State): void {
    const samples = this.samples();
    const { maps } = this.model.page;
    const scope = this.scope();
    this.slider.max = String(Math.max(0, samples.length - 1));
    this.node.hidden = !samples.length;
    if (!samples.length) return;
    const at = this.current();
    const sample = samples[at];
    this.slider.value = String(at);
    const rows = sample.rows.filter((row) => scope.device === null || maps.device[row] === scope.device);
    const shown = rows.slice(0, MOST);
    const width = Math.max(300, this.node.clientWidth - 34);
    const context = fit(this.canvas, width, Math.max(1, shown.length) * ROW);
    context.clearRect(0, 0, width, shown.length * ROW);
    context.font = `11px ${css("--font")}`;
    context.textBaseline = "middle";
    const largest = Math.max(1, ...shown.map((row) => maps.size[row]));
    const wanted = state.query.toLowerCase();
    const [hole, ink, muted] = [css("--hole"), css("--ink"), css("--muted")];
    this.drawn = [];
    clear(this.table);
    let used = 0, size = 0, blocks = 0;
    shown.forEach((row, i) => {
      const y = i * ROW + 3;
      const scale = Math.max(40, (maps.size[row] / largest) * (width - LEFT - 2)) / maps.size[row];
      let x = LEFT, of_row = 0, blocks_of = 0, largest_hole = 0;
      for (let tile = this.first[row]; tile < this.first[row + 1]; tile++) {
        const w = maps.tile_size[tile] * scale;
        const full = maps.tile_used[tile] / Math.max(1, maps.tile_size[tile]);
        context.fillStyle = hole;
        context.fillRect(x, y, w, BAR);
        if (maps.tile_used[tile] > 0) {
          const key = maps.tile_key[tile] - 1;
          const match = !wanted || (key >= 0 && key < this.model.page.keys.node.length && this.model.stack(key).some((node) => this.model.label(this.model.page.tree.frame[node]).toLowerCase().includes(wanted)));
          context.globalAlpha = match ? 1 : 0.2;
          context.fillStyle = key >= 0 && key < this.model.page.keys.node.length ? this.colours.of(key) : muted;
          context.fillRect(x, y + BAR * (1 - full), Math.max(0.5, w > 3 ? w - 0.6 : w), BAR * full);
          context.globalAlpha = 1;
        } else largest_hole = Math.max(largest_hole, maps.tile_size[tile]);
        this.drawn.push({ row, y, x, w, tile });
        x += w;
        of_row += maps.tile_used[tile];
        blocks_of += maps.tile_blocks[tile];
      }
      used += of_row;
      size += maps.size[row];
      blocks += blocks_of;
      const holder = NAMES[maps.holder[row]];
      const name = maps.holder[row].includes("pool") || maps.holder[row] === "direct" ? holder : `0x${maps.address[row].toString(16)}`;
      context.fillStyle = ink;
      context.textAlign = "left";
      context.fillText(name, 0, y + BAR / 2 + 0.5);
      context.fillStyle = muted;
      context.textAlign = "right";
      context.fillText(`${bytes(maps.size[row])}  ${((of_row / Math.max(1, maps.size[row])) * 100).toFixed(0)} %`, LEFT - 8, y + BAR / 2 + 0.5);
      const tr = el("tr");
      for (const text of [holder, name, bytes(maps.size[row]), bytes(of_row), bytes(maps.size[row] - of_row), bytes(largest_hole), count(blocks_of)]) tr.append(el("td", {}, text));
      this.table.append(tr);
    });
    const left_out = sample.left_out + rows.length - shown.length;
    const text = `At ${moment(sample.time, Math.max(1, this.model.page.duration_ns / 1000))} (moment ${at + 1} of ${samples.length}): ${bytes(used)} in ${count(blocks)} blocks, ${bytes(size - used)} free, in ${count(shown.length)} rows${left_out ? `; ${left_out} smaller ones are not drawn` : ""}.`;
    this.said.textContent = text;
    this.canvas.setAttribute("aria-label", `${text} The table below has the same numbers.`);
  }

  private hit(event: MouseEvent): Drawn | undefined {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return this.drawn.find((d) => y >= d.y - 2 && y < d.y + BAR + 2 && x >= d.x && x < d.x + Math.max(1, d.w));
  }

  private show(event: PointerEvent): void {
    const hit = this.hit(event);
    if (!hit) return untip();
    const { maps, keys } = this.model.page;
    const key = maps.tile_key[hit.tile] - 1;
    const used = maps.tile_used[hit.tile], size = maps.tile_size[hit.tile], blocks = maps.tile_blocks[hit.tile];
    if (!used) return tip(event.clientX, event.clientY, ["free", ["size", bytes(size)]]);
    tip(event.clientX, event.clientY, [
      key >= 0 && key < keys.node.length ? short(this.model.top(key)) : "owner not known",
      ["size", bytes(size)],
      ...(blocks > 1 || used < size ? [["in it", `${count(blocks)} blocks with ${bytes(used)}`] as [string, string]] : []),
    ]);
  }
}
