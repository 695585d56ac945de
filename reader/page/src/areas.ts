// Allocations stacked over time. What is drawn one by one is chosen by bytes × time in view; on it stand the rest, as an area for each
// of the largest stacks, and what is left in grey.

import { byteLabel, byteTicks } from "./axis";
import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { type Context, css } from "./dom";
import { type Heap, Heaps } from "./heaps";
import { bytes, duration, foreign, moment, short } from "./format";
import type { Range } from "./state";

/** Allocations that are drawn one by one. */
const MOST = 320;
/** Pixels of a column of what is not drawn one by one. */
const COLUMN = 1.5;
const ENDED: Record<number, string> = { 0: "live at the end", 2: "freed", 3: "free not seen", 4: "ended with its context", 5: "ended by a reset", 6: "freed in teardown", 8: "its pool changed size" };

export interface Hit { key: number; track: number; row: number }
interface Band extends Hit { start: number; end: number; size: number; live: boolean; xs: number[]; ys: number[] }

export class Areas {
  private scope: Scope | null = null;
  private tracks: number[] = [];
  /** Series whose sum is what the scope holds, and those to be taken off. */
  private more: number[] = [];
  private less: number[] = [];
  private bands: Band[] = [];
  private top = 1;
  private heaps: Heaps;

  constructor(private model: Model, private colours: Colours) {
    this.heaps = new Heaps(model);
  }

  setScope(scope: Scope): void {
    this.scope = scope;
    this.tracks = this.model.page.tracks.flatMap((t, i) => {
      if (scope.process !== null && t.process !== scope.process) return [];
      if (scope.layer === "host") return t.layer === "host" ? [i] : [];
      if (t.layer === "host" || (scope.device !== null && t.device !== scope.device)) return [];
      return scope.layer === "finest" || t.layer === scope.layer ? [i] : [];
    });
    const finest = scope.layer === "finest";
    const of = (...what: string[]) => what.flatMap((one) => this.model.seriesOf(scope, one));
    this.more = finest ? of("framework", "device") : of(scope.layer);
    this.less = finest ? of("reserved") : [];
  }

  /** The largest in a part of the time, in the order in which they were made. */
  private choose([a, b]: Range): Band[] {
    const found: { weight: number; band: Band }[] = [];
    let least = 0;
    const prune = () => {
      found.sort((x, y) => y.weight - x.weight);
      found.length = Math.min(found.length, MOST);
      least = found.length === MOST ? found[MOST - 1].weight : 0;
    };
    for (const track of this.tracks) {
      const t = this.model.page.tracks[track];
      for (let row = 0; row < t.start.length && t.start[row] < b; row++) {
        const start = t.start[row], end = start + t.length[row];
        if (end < a) continue;
        const weight = t.size[row] * Math.max(1, Math.min(end, b) - Math.max(start, a));
        if (weight <= least || !this.model.inScope(t.key[row], this.scope!)) continue;
        found.push({ weight, band: { key: t.key[row], track, row, start, end, size: t.size[row], live: t.how[row] === 0, xs: [], ys: [] } });
        if (found.length > 4 * MOST) prune();
      }
    }
    prune();
    return found.map((f) => f.band).sort((x, y) => x.start - y.start || x.row - y.row);
  }

  /** Stacks them; returns the most that they are at any time. */
  private layout(part: Range, column: number): number {
    const bands = (this.bands = this.choose(part));
    const events: { time: number; band: Band; ends: boolean }[] = [];
    for (const band of bands) {
      events.push({ time: Math.max(part[0], band.start), band, ends: false });
      if (band.end <= part[1]) events.push({ time: band.end, band, ends: true });
    }
    events.sort((x, y) => x.time - y.time || Number(y.ends) - Number(x.ends));
    const active: Band[] = [];
    let top = 0, most = 0;
    const put = (band: Band, time: number, y: number) => {
      const n = band.xs.length;
      if (n && time - band.xs[n - 1] < column) band.ys[n - 1] = y;
      else band.xs.push(time), band.ys.push(y);
    };
    for (const { time, band, ends } of events) {
      if (!ends) {
        active.push(band);
        put(band, time, top);
        top += band.size;
        most = Math.max(most, top);
      } else {
        const at = active.indexOf(band);
        if (at < 0) continue;
        active.splice(at, 1);
        top -= band.size;
        for (let i = at; i < active.length; i++) put(active[i], time, active[i].ys[active[i].ys.length - 1] - band.size);
      }
    }
    return most;
  }

  /** What the scope holds: of one layer the most between two times, else at the second. */
  private total(from: number, to: number): number {
    const part = this.less.length || this.more.length > 1 ? 2 : 1;
    let sum = 0;
    for (const i of this.more) sum += this.model.pyramids[i].between(from, to)?.[part] ?? 0;
    for (const i of this.less) sum -= this.model.pyramids[i].between(from, to)?.[part] ?? 0;
    return Math.max(0, sum);
  }

  /** Draws a part of the time. Matching is what is searched for; all other is pale. */
  draw(context: Context, part: Range, width: number, height: number, matching: ((key: number) => boolean) | null): void {
    const column = (part[1] - part[0]) / width;
    let most = this.layout(part, column * 0.75);
    const totals: number[] = [];
    for (let i = 0; i * COLUMN <= width; i++) {
      const from = part[0] + i * COLUMN * column;
      totals.push(this.total(from, from + COLUMN * column));
      most = Math.max(most, totals[i]);
    }
    this.top = Math.max(1024, most) * 1.06;
    const x = (time: number) => Math.min(width, (time - part[0]) / column);
    const y = (b: number) => height - (b / this.top) * height;
    context.fillStyle = css("--rest");
    context.beginPath();
    context.moveTo(0, height);
    totals.forEach((total, i) => context.lineTo(i * COLUMN, y(total)));
    context.lineTo(width, height);
    context.fill();
    this.heaps.lay(this.scope!, part, COLUMN * column, this.bands, totals);
    const pale = (key: number, alpha: number) => (matching && !matching(key) ? 0.15 : alpha);
    for (const heap of this.heaps.all) {
      const { lower, upper } = heap;
      context.beginPath();
      for (let i = 0; i < lower.length; i++) context.lineTo(i * COLUMN, y(lower[i]));
      for (let i = lower.length - 1; i >= 0; i--) context.lineTo(i * COLUMN, y(upper[i]));
      context.globalAlpha = pale(heap.key, 0.6);
      context.fillStyle = this.colours.of(heap.key);
      context.fill();
    }
    context.lineWidth = 0.6;
    context.strokeStyle = css("--card");
    for (const band of this.bands) {
      const end = x(Math.min(band.end, part[1]));
      context.beginPath();
      const n = band.xs.length;
      const until = (i: number) => (i + 1 < n ? x(band.xs[i + 1]) : Math.max(end, x(band.xs[i]) + 0.7));
      for (let i = 0; i < n; i++) {
        context.lineTo(x(band.xs[i]), y(band.ys[i]));
        context.lineTo(until(i), y(band.ys[i]));
      }
      for (let i = n - 1; i >= 0; i--) {
        context.lineTo(until(i), y(band.ys[i] + band.size));
        context.lineTo(x(band.xs[i]), y(band.ys[i] + band.size));
      }
      context.closePath();
      context.globalAlpha = pale(band.key, 1);
      context.fillStyle = this.colours.of(band.key);
      context.fill();
      if ((band.size / this.top) * height > 3) context.stroke();
    }
    context.globalAlpha = 1;
  }

  ticks(): [number, string][] {
    return byteTicks(this.top, 5).map((tick) => [tick / this.top, byteLabel(tick)]);
  }

  hit(time: number, y: number, height: number): Hit | null {
    const at = (1 - y / height) * this.top;
    for (const band of this.bands) {
      if (time < band.start || time > band.end) continue;
      let i = band.xs.length - 1;
      while (i > 0 && band.xs[i] > time) i--;
      if (at >= band.ys[i] && at < band.ys[i] + band.size) return band;
    }
    return null;
  }

  /** The stack whose smaller allocations are drawn there. */
  heap(time: number, y: number, height: number): Heap | null {
    return this.heaps.hit(time, (1 - y / height) * this.top);
  }

  /** A stack's smaller allocations, as of the step nearest to a time. */
  describeHeap(heap: Heap, time: number): (string | [string, string])[] {
    const { width } = this.model.page.cells;
    const at = Math.round(time / width) * width;
    const frames = this.model.stack(heap.key).slice(0, 4).map((node) => short(this.model.label(this.model.page.tree.frame[node])));
    const process = this.model.page.keys.process[heap.key];
    const several = this.model.page.processes.length > 1;
    return [
      ...frames,
      ["its smaller allocations, together", bytes(this.heaps.value(heap, at))],
      ["at", `${moment(at, width)} (a step)`],
      ...(several ? [["process", foreign(this.model.process(process))] as [string, string]] : []),
      ["kind", this.model.page.keys.kind[heap.key]],
    ];
  }

  rest(time: number): number {
    const sum = this.bands.reduce((all, band) => all + (time >= band.start && time < band.end ? band.size : 0), 0);
    return Math.max(0, this.total(time, time + 1) - sum - this.heaps.sum(time));
  }

  describe(hit: Hit, step: number): (string | [string, string])[] {
    const t = this.model.page.tracks[hit.track];
    const range = this.model.rangeName(t.process, t.range[hit.row]);
    const live = t.how[hit.row] === 0;
    const several = this.model.page.processes.length > 1;
    const frames = this.model.stack(hit.key).slice(0, 4).map((node) => short(this.model.label(this.model.page.tree.frame[node])));
    return [
      ...frames,
      ["size", bytes(t.size[hit.row])],
      ["made at", `${t.early.includes(hit.row) ? "before " : ""}${moment(t.start[hit.row], step)}`],
      ["lifetime", live ? `${duration(t.length[hit.row])}, ${ENDED[0]}` : `${duration(t.length[hit.row])}, ${ENDED[t.how[hit.row]] ?? "ended"}`],
      ...(several ? [["process", foreign(this.model.process(t.process))] as [string, string]] : []),
      ["thread", foreign(this.model.threadName(t.process, t.thread[hit.row]))],
      ...(range ? [["range", short(range, 80)] as [string, string]] : []),
      ["kind", this.model.page.keys.kind[hit.key]],
    ];
  }
}
