// What lies where in allocators' segments at the cursor, to play through.

import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { type Context, css, el, paint, tip, untip } from "./dom";
import { bytes, count, counted, moment, short } from "./format";
import type { State, Store } from "./state";

const ROW = 22, BAR = 16, LEFT = 236, MOST = 300, NAMES: Record<string, string> = { segment: "segment", expandable: "expandable", pool: "pool", "graph-pool": "graph pool", direct: "from the driver" };

interface Drawn { row: number; y: number; x: number; w: number; tile: number; offset: number }
interface Sample { process: number; time: number; rows: number[]; left_out: number }

export class Maps {
  readonly node = el("section", { "aria-labelledby": "map-title", class: "card" });
  private canvas = el("canvas", { class: "map", role: "img" });
  private said = el("p", { class: "said", role: "status" });
  private slider = el("input", { type: "range", min: "0", step: "1", "aria-label": "Moment of the map" });
  private play = el("button", { type: "button", "aria-pressed": "false" }, "Play");
  private table = el("tbody");
  private details = el("details");
  private first: number[] = [0];
  private drawn: Drawn[] = [];
  private timer = 0;
  private known: { process: number | null; times: number[] } | null = null;

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
    ["Where", "Kind", "Address", "Size", "Used", "Free", "Largest hole", "Blocks"].forEach((text, i) => head.append(el("th", { scope: "col", class: i > 2 ? "number" : "" }, text)));
    this.node.append(
      el("div", { class: "head" }, el("h2", { id: "map-title" }, "Segments"), el("div", { class: "tools wide" }, this.play, this.slider)),
      this.said, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Map of segments" }, this.canvas),
      this.details);
    this.details.append(el("summary", {}, "As a table"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Segments as a table" }, el("table", {}, el("thead", {}, head), this.table)));
    this.details.addEventListener("toggle", () => this.draw(this.store.state));
    new ResizeObserver(() => this.draw(this.store.state)).observe(this.node);
  }

  /** The moments of a scope's maps, of all its processes. */
  private moments(): number[] {
    const { process } = this.scope();
    if (this.known?.process !== process) {
      const times = this.model.page.maps.samples.filter((s) => process === null || s.process === process).map((s) => s.time);
      this.known = { process, times: [...new Set(times)].sort((a, b) => a - b) };
    }
    return this.known.times;
  }

  /** The last map of each process before the cursor. */
  private samples(cursor: number): Sample[] {
    const { process } = this.scope();
    const last = new Map<number, Sample>();
    for (const s of this.model.page.maps.samples) {
      if (process !== null && s.process !== process) continue;
      const before = last.get(s.process);
      const started = this.model.page.processes[s.process].start <= cursor;
      if (started && (!before || s.time <= cursor)) last.set(s.process, s);
    }
    return [...last.values()].sort((a, b) => a.process - b.process);
  }

  private go(at: number): void {
    const time = this.moments()[at];
    if (time !== undefined) this.store.set({ cursor: time });
  }

  private start(): void {
    if (this.current() >= this.moments().length - 1) this.go(0);
    this.play.setAttribute("aria-pressed", "true");
    this.play.textContent = "Pause";
    this.timer = window.setInterval(() => {
      const next = this.current() + 1;
      if (next >= this.moments().length) return this.stop();
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
    const times = this.moments();
    let at = 0;
    while (at + 1 < times.length && times[at + 1] <= this.store.state.cursor) at++;
    return at;
  }

  draw(state: State): void {
    const { maps, processes, duration_ns } = this.model.page;
    const scope = this.scope();
    const times = this.moments();
    const takes = (row: number) => scope.device === null || maps.device[row] === scope.device;
    const rows_of = (s: Sample) => s.rows.filter(takes);
    // Where there never is anything there is nothing to play.
    this.node.hidden = scope.layer === "host" || !maps.samples.some((s) => (scope.process === null || s.process === scope.process) && s.rows.some(takes));
    if (this.node.hidden) return this.stop();
    this.slider.max = String(Math.max(0, times.length - 1));
    const at = this.current();
    this.slider.value = String(at);
    this.slider.setAttribute("aria-valuetext", moment(times[at], Math.max(1, duration_ns / 1000)));
    const samples = this.samples(state.cursor);
    const several = processes.length > 1;
    const shown: { row: number; process: number }[] = [];
    let left_out = 0;
    for (const s of samples) {
      const rows = rows_of(s);
      left_out += s.left_out;
      for (const row of rows) shown.length < MOST ? shown.push({ row, process: s.process }) : left_out++;
    }
    const heads = several ? new Set(shown.map((s) => s.process)).size : 0;
    const width = Math.max(300, this.node.clientWidth - 34);
    const height = Math.max(1, shown.length + heads) * ROW;
    const largest = Math.max(1, ...shown.map(({ row }) => maps.size[row]));
    const table = document.createDocumentFragment();
    let used = 0, size = 0, blocks = 0;
    this.drawn = [];
    paint(this.canvas, width, height, (context) => {
      context.textBaseline = "middle";
      let y = 3, process = -1;
      for (const { row, process: of } of shown) {
        if (several && of !== process) {
          this.head(context, of, y, state);
          y += ROW;
          process = of;
        }
        const bar = this.bar(context, row, y, width, largest, state);
        used += bar.used;
        size += maps.size[row];
        blocks += bar.blocks;
        const name = this.name(row, !several && scope.device === null);
        context.fillStyle = css("--ink");
        context.textAlign = "left";
        context.fillText(name, 0, y + BAR / 2 + 0.5, 130);
        context.fillStyle = css("--muted");
        context.textAlign = "right";
        context.fillText(`${bytes(maps.size[row])}  ${((bar.used / Math.max(1, maps.size[row])) * 100).toFixed(0)} %`, LEFT - 8, y + BAR / 2 + 0.5);
        y += ROW;
        if (!this.details.open) continue;
        const cells = [NAMES[maps.holder[row]], this.addressed(row) ? this.name(row, false) : "", bytes(maps.size[row]), bytes(bar.used), bytes(maps.size[row] - bar.used), bytes(bar.hole), count(bar.blocks)];
        table.append(el("tr", {}, el("td", {}, this.model.place(of, maps.device[row])), ...cells.map((text, i) => el("td", { class: i > 1 ? "number" : "" }, text))));
      }
    });
    this.table.replaceChildren(table);
    const step = Math.max(1, duration_ns / 1000);
    const what = shown.length ? `${bytes(used)} in ${counted(blocks, "block")}, ${bytes(size - used)} free, in ${counted(shown.length, "row")}` : "nothing is held";
    const text = `At ${moment(times[at], step)} (moment ${at + 1} of ${times.length}): ${what}${left_out ? `; ${counted(left_out, "smaller row")} not drawn` : ""}.`;
    this.said.textContent = text;
    this.canvas.setAttribute("aria-label", `${text} The table below has the same numbers.`);
  }

  /** Whose the rows below are. */
  private head(context: Context, process: number, y: number, state: State): void {
    const p = this.model.page.processes[process];
    const end = p.start + p.duration;
    const ended = end < state.cursor ? `, ended at ${moment(end, this.model.page.duration_ns / 1000)}` : "";
    context.font = `600 11px ${css("--font")}`;
    context.fillStyle = css("--ink");
    context.textAlign = "left";
    context.fillText(short(this.model.process(process), 80) + ended, 0, y + BAR / 2 + 0.5);
  }

  /** Draws a row's tiles; bytes in blocks, blocks, the largest hole. */
  private bar(context: Context, row: number, y: number, width: number, largest: number, state: State): { used: number; blocks: number; hole: number } {
    const { maps, keys } = this.model.page;
    const wanted = state.query.toLowerCase();
    const matching = wanted ? this.model.matching(wanted) : null;
    const [free, muted] = [css("--hole"), css("--muted")];
    context.font = `11px ${css("--font")}`;
    const scale = Math.max(40, (maps.size[row] / largest) * (width - LEFT - 2)) / maps.size[row];
    let x = LEFT, used = 0, blocks = 0, hole = 0, offset = 0;
    for (let tile = this.first[row]; tile < this.first[row + 1]; tile++) {
      const w = maps.tile_size[tile] * scale;
      const full = maps.tile_used[tile] / Math.max(1, maps.tile_size[tile]);
      context.fillStyle = free;
      context.fillRect(x, y, w, BAR);
      if (maps.tile_used[tile] > 0) {
        const key = maps.tile_key[tile] - 1;
        const owned = key >= 0 && key < keys.node.length;
        context.globalAlpha = !matching || (owned && matching(key)) ? 1 : 0.2;
        context.fillStyle = owned ? this.colours.of(key) : muted;
        context.fillRect(x, y + BAR * (1 - full), Math.max(0.5, w > 3 ? w - 0.6 : w), BAR * full);
        context.globalAlpha = 1;
      } else hole = Math.max(hole, maps.tile_size[tile]);
      this.drawn.push({ row, y, x, w, tile, offset });
      x += w;
      offset += maps.tile_size[tile];
      used += maps.tile_used[tile];
      blocks += maps.tile_blocks[tile];
    }
    return { used, blocks, hole };
  }

  private name(row: number, withDevice: boolean): string {
    const { maps, devices } = this.model.page;
    const device = maps.device[row];
    const name = this.addressed(row) ? `0x${maps.address[row].toString(16)}` : NAMES[maps.holder[row]];
    return withDevice && device !== null ? `GPU ${devices[device].index} · ${name}` : name;
  }

  private addressed(row: number): boolean {
    const holder = this.model.page.maps.holder[row];
    return holder === "segment" || holder === "expandable";
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
    const place: [string, string][] = this.addressed(hit.row) ? [["in the segment from", bytes(hit.offset)], ["at", `0x${(maps.address[hit.row] + hit.offset).toString(16)}`]] : [];
    if (!used) return tip(event.clientX, event.clientY, ["free", ["size", bytes(size)], ...place]);
    const owned = key >= 0 && key < keys.node.length;
    const frames = owned ? this.model.stack(key).slice(0, 4).map((node) => short(this.model.label(this.model.page.tree.frame[node]))) : ["owner not known"];
    tip(event.clientX, event.clientY, [
      ...frames, ["size", bytes(size)],
      ...(blocks > 1 || used < size ? [["in it", `${counted(blocks, "block")} with ${bytes(used)}`] as [string, string]] : []),
      ...place,
    ]);
  }
}
