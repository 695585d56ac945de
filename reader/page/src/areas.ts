// Allocations stacked over time. What is drawn is chosen by bytes × time in view; the rest is one area.

import type { Colours } from "./colour";
import type { Model, Scope } from "./data";
import { css, fit } from "./dom";
import { bytes, duration, foreign, moment, short, shortBytes } from "./format";
import { byteTicks } from "./timeline";
import type { Range, State } from "./state";

/** Allocations that are drawn one by one. */
const MOST = 320;
const ENDED: Record<number, string> = { 0: "live at the end", 2: "freed", 3: "free not seen", 4: "ended with its context", 5: "ended by a reset", 6: "freed in teardown", 8: "its pool changed size" };

export interface Hit { key: number; track: number; row: number }
interface Band extends Hit { start: number; end: number; size: number; xs: number[]; ys: number[] }

export class Areas {
  private scope: Scope | null = null;
  private tracks: number[] = [];
  private bands: Band[] = [];
  private bitmap = document.createElement("canvas");
  private drawn: Range = [0, 0];
  private shown: Range = [0, 0];
  private top = 1;
  private timer = 0;

  constructor(private model: Model, private colours: Colours) {}

  setScope(scope: Scope, _width: number, _height: number): void {
    this.scope = scope;
    this.tracks = this.model.page.tracks.flatMap((t, i) => {
      if (scope.process !== null && t.process !== scope.process) return [];
      if (scope.layer === "host") return t.layer === "host" ? [i] : [];
      if (t.layer === "host" || (scope.device !== null && t.device !== scope.device)) return [];
      return scope.layer === "finest" || t.layer === scope.layer ? [i] : [];
    });
    this.drawn = [0, 0];
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
        found.push({ weight, band: { key: t.key[row], track, row, start, end: t.how[row] === 0 ? Infinity : end, size: t.size[row], xs: [], ys: [] } });
        if (found.length > 4 * MOST) prune();
      }
    }
    prune();
    return found.map((f) => f.band).sort((x, y) => x.start - y.start || x.row - y.row);
  }

  private layout(part: Range, column: number): void {
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
    const total = Math.max(1, this.model.bytesBetween(this.scope!, part[0], part[1]), most);
    this.top = this.scope!.layer === "finest" ? Math.max(total, ...Array.from({ length: 200 }, (_, i) => this.total(part[0] + ((part[1] - part[0]) * i) / 200, part[0] + ((part[1] - part[0]) * (i + 1)) / 200))) * 1.06 : total * 1.06;
  }

  private total(from: number, to: number): number {
    return this.model.bytesBetween(this.scope!, from, to);
  }

  private render(part: Range, width: number, height: number, state: State): void {
    const column = (part[1] - part[0]) / width;
    this.layout(part, column * 0.75);
    this.drawn = part;
    const context = fit(this.bitmap, width, height);
    context.clearRect(0, 0, width, height);
    const x = (time: number) => Math.min(width, (time - part[0]) / column);
    const y = (b: number) => height - (b / this.top) * height;
    context.fillStyle = css("--rest");
    context.beginPath();
    context.moveTo(0, height);
    for (let i = 0; i <= width; i += 1.5) context.lineTo(i, y(this.total(part[0] + i * column, part[0] + (i + 1.5) * column)));
    context.lineTo(width, height);
    context.fill();
    const wanted = state.query.toLowerCase();
    context.lineWidth = 0.6;
    context.strokeStyle = css("--card");
    for (const band of this.bands) {
      const end = x(Math.min(band.end, part[1]));
      context.beginPath();
      const n = band.xs.length;
      for (let i = 0; i < n; i++) {
        context.lineTo(x(band.xs[i]), y(band.ys[i]));
        context.lineTo(i + 1 < n ? x(band.xs[i + 1]) : Math.max(end, x(band.xs[i]) + 0.7), y(band.ys[i]));
      }
      for (let i = n - 1; i >= 0; i--) {
        context.lineTo(i + 1 < n ? x(band.xs[i + 1]) : Math.max(end, x(band.xs[i]) + 0.7), y(band.ys[i] + band.size));
        context.lineTo(x(band.xs[i]), y(band.ys[i] + band.size));
      }
      context.closePath();
      context.globalAlpha = wanted && !this.matches(band.key, wanted) ? 0.15 : 1;
      context.fillStyle = this.colours.of(band.key);
      context.fill();
      if ((band.size / this.top) * height > 3) context.stroke();
    }
    context.globalAlpha = 1;
  }

  private matches(key: number, wanted: string): boolean {
    return this.model.stack(key).some((node) => this.model.label(this.model.page.tree.frame[node]).toLowerCase().includes(wanted));
  }

  /** While the view moves the picture moves with it; it is drawn anew when it is left, or at rest. */
  draw(canvas: HTMLCanvasElement, width: number, height: number, left: number, right: number, state: State, anew: boolean): void {
    const inner = width - left - right;
    const [a, b] = state.view;
    const length = b - a;
    this.shown = [a, b];
    const same = Math.abs((this.drawn[1] - this.drawn[0]) / 3 / length - 1) < 1e-6;
    const inside = a >= this.drawn[0] && b <= this.drawn[1];
    const draw = () => this.render([a - length, b + length], inner * 3, height, state);
    if (anew || this.drawn[1] === 0 || !inside) draw();
    else if (!same) {
      clearTimeout(this.timer);
      this.timer = window.setTimeout(() => {
        if (this.shown[0] !== a || this.shown[1] !== b) return;
        draw();
        this.blit(canvas, width, height, left, right);
      }, 90);
    }
    this.blit(canvas, width, height, left, right);
  }

  private blit(canvas: HTMLCanvasElement, width: number, height: number, left: number, right: number): void {
    const context = fit(canvas, width, height);
    const inner = width - left - right;
    context.clearRect(0, 0, width, height);
    const [a, b] = this.shown, [from, to] = this.drawn;
    const pixels = this.bitmap.width / (to - from);
    context.drawImage(this.bitmap, (a - from) * pixels, 0, Math.max(1, (b - a) * pixels), this.bitmap.height, left, 0, inner, height);
    context.font = `11px ${css("--font")}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of byteTicks(0, this.top, 5)) {
      const y = Math.round(height - (tick / this.top) * height) + 0.5;
      context.strokeStyle = css("--grid");
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(width - right, y);
      context.stroke();
      context.fillStyle = css("--muted");
      if (y > 8) context.fillText(shortBytes(tick), left - 8, Math.min(y, height - 7));
    }
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

  rest(time: number): number {
    const sum = this.bands.reduce((all, band) => all + (time >= band.start && time < band.end ? band.size : 0), 0);
    return Math.max(0, this.total(time, time + 1) - sum);
  }

  describe(hit: Hit): (string | [string, string])[] {
    const t = this.model.page.tracks[hit.track];
    const step = this.shown[1] / 2000;
    const range = this.model.rangeName(t.process, t.range[hit.row]);
    const live = t.how[hit.row] === 0;
    return [
      short(this.model.top(hit.key)),
      ["size", bytes(t.size[hit.row])],
      ["made at", `${t.early.includes(hit.row) ? "before " : ""}${moment(t.start[hit.row], step)}`],
      ["lifetime", live ? `${duration(t.length[hit.row])}, ${ENDED[0]}` : `${duration(t.length[hit.row])}, ${ENDED[t.how[hit.row]] ?? "ended"}`],
      ["thread", foreign(this.model.threadName(t.process, t.thread[hit.row]))],
      ...(range ? [["range", short(range, 80)] as [string, string]] : []),
      ["kind", this.model.page.keys.kind[hit.key]],
    ];
  }
}
