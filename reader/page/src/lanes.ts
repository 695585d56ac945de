// What happened when, in rows: allocations that failed, marks, NVTX ranges by thread.

import type { Model, Scope } from "./data";
import { type Context, css } from "./dom";
import { bytes, count, counted, duration, foreign, short, shortBytes } from "./format";
import type { Range } from "./state";

export const ROW = 17;
/** Rows of ranges that are shown before one asks for all. */
const FEW = 10;
const MOST = 120;

export interface Slice { row: number; start: number; end: number; lines: (string | [string, string])[]; label: string; kind: "range" | "mark" | "oom" }
interface Row { label: string; title: string }

export class Lanes {
  slices: Slice[] = [];
  rows: Row[] = [];
  /** Rows of ranges that are not shown. */
  hidden = 0;
  everything = false;

  constructor(private model: Model) {}

  setScope(scope: Scope): void {
    const { page, all } = this.model;
    const takes = (process: number) => scope.process === null || process === scope.process;
    const several = page.processes.length > 1;
    const who = (process: number): [string, string][] => (several ? [["process", foreign(this.model.process(process))]] : []);
    const base = Number(page.base_ns);
    this.slices = [];
    this.rows = [];
    for (const f of all.oom.failures) {
      if (!takes(f.process)) continue;
      // Several attempts in a row are one failure.
      const [start, end] = [(f.attempts > 1 ? f.first_ns : f.at_ns) - base, f.at_ns - base];
      this.slices.push({
        row: 0, start, end, kind: "oom", label: `out of memory: ${shortBytes(f.asked_bytes)}`,
        lines: ["Out of memory", ...who(f.process), ["asked", bytes(f.asked_bytes)], ["free then", f.free_bytes === null ? "not known" : bytes(f.free_bytes)], ["attempts", f.attempts > 1 ? `${count(f.attempts)} in ${duration(end - start)}` : "1"]],
      });
    }
    if (this.slices.length) this.rows.push({ label: "failures", title: "Allocations that failed" });
    const marks = page.marks.filter((m) => takes(m.process));
    for (const m of marks) {
      const text = page.texts[m.text];
      this.slices.push({ row: this.rows.length, start: m.time, end: m.time, kind: "mark", label: short(text, 60), lines: [short(text), ...who(m.process), ["mark at", duration(m.time)]] });
    }
    if (marks.length) this.rows.push({ label: "marks", title: "NVTX marks" });
    this.findRanges(takes, who);
  }

  private findRanges(takes: (process: number) => boolean, who: (process: number) => [string, string][]): void {
    const { page } = this.model;
    const s = page.slices;
    const rows = new Map<string, { process: number; thread: number; depth: number; row: number }>();
    const id = (i: number) => `${s.process[i]}/${s.thread[i]}/${s.depth[i]}`;
    for (let i = 0; i < s.start.length; i++)
      if (takes(s.process[i]) && !rows.has(id(i))) rows.set(id(i), { process: s.process[i], thread: s.thread[i], depth: s.depth[i], row: 0 });
    const ordered = [...rows.values()].sort((a, b) => a.process - b.process || a.thread - b.thread || a.depth - b.depth);
    const most = this.everything ? MOST : FEW;
    this.hidden = Math.max(0, ordered.length - most);
    for (const [n, row] of ordered.entries()) {
      row.row = n < most ? this.rows.length : -1;
      if (n >= most) continue;
      const thread = row.thread === 0 ? "process" : foreign(this.model.threadName(row.process, row.thread));
      const process = page.processes[row.process];
      const of = page.processes.length > 1 ? `${process.rank === null ? `pid ${process.pid}` : `rank ${process.rank}`}: ` : "";
      // Whose a thread is matters more than its number, and there is not room for all.
      this.rows.push(row.depth === 0 ? { label: of ? of + thread.replace(/ \(\d+\)$/, "") : thread, title: `${row.thread === 0 ? "Ranges that the process started" : `Thread ${thread}`}${of ? ` of ${foreign(this.model.process(row.process))}` : ""}` } : { label: "", title: "" });
    }
    for (let i = 0; i < s.start.length; i++) {
      const row = rows.get(id(i))?.row ?? -1;
      if (row < 0) continue;
      const text = page.texts[s.name[i]];
      this.slices.push({
        row, start: s.start[i], end: s.start[i] + s.length[i], kind: "range", label: short(text, 60),
        lines: [short(text), ...who(s.process[i]), s.thread[i] === 0 ? ["NVTX range", "of the process"] : ["NVTX range, thread", foreign(this.model.threadName(s.process[i], s.thread[i]))], [s.told[i] ? "took" : "first to last allocation in it", duration(s.length[i])], ["allocated", `${bytes(s.bytes[i])} in ${counted(s.count[i], "allocation")}`]],
      });
    }
  }

  get height(): number {
    return this.rows.length * ROW;
  }

  /** The one at a time in the row at this height; `near` is how much time five pixels are. */
  hit(time: number, y: number, near: number): Slice | null {
    const row = Math.floor(y / ROW);
    let best: Slice | null = null;
    for (const s of this.slices) {
      const wide = s.kind === "range" ? near / 3 : near;
      if (s.row === row && time >= s.start - wide && time <= s.end + wide && (!best || s.end - s.start < best.end - best.start)) best = s;
    }
    return best;
  }

  /** Threads, beside their rows. */
  name(context: Context, width: number): void {
    this.rows.forEach((row, i) => context.fillText(fitting(context, row.label, width - 12), width - 8, i * ROW + ROW / 2));
  }

  /** Draws a part of the time. Names stand where things begin, and again at each of the `edges`, the left edges of screens. */
  draw(context: Context, part: Range, width: number, edges: number[]): void {
    const colours = { range: css("--lane"), mark: css("--mark"), oom: css("--bad") };
    const ink = css("--ink");
    context.font = `11px ${css("--font")}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    const scale = width / (part[1] - part[0]);
    for (const s of this.slices) {
      const [x0, x1, y] = [(s.start - part[0]) * scale, (s.end - part[0]) * scale, s.row * ROW];
      if (x1 < -6 || x0 > width + 6) continue;
      context.fillStyle = colours[s.kind];
      if (s.kind !== "range") {
        if (x1 > x0) context.fillRect(Math.max(0, x0), y + ROW - 6, Math.min(width, x1) - Math.max(0, x0), 2);
        for (const x of x1 > x0 + 6 ? [x0, x1] : [x1]) {
          context.beginPath();
          context.moveTo(x, y + 3);
          context.lineTo(x + 5, y + ROW - 4);
          context.lineTo(x - 5, y + ROW - 4);
          context.fill();
        }
        continue;
      }
      const from = Math.max(-2, x0), w = Math.max(1.5, Math.min(x1, width + 2) - from);
      context.fillRect(from, y + 1, w, ROW - 2);
      context.fillStyle = ink;
      const names = [from, ...edges.filter((edge) => edge > from && edge < from + w)];
      names.forEach((x, i) => {
        const room = (names[i + 1] ?? from + w) - x - 8;
        if (room > 28) context.fillText(fitting(context, s.label, room), x + 4, y + ROW / 2 + 0.5);
      });
    }
  }
}

/** As much of a text as fits, with a sign where it goes on. */
export function fitting(context: Context, text: string, width: number): string {
  if (text.length * 11 < width || context.measureText(text).width <= width) return text;
  let [low, high] = [0, Math.min(text.length, Math.ceil(width / 2))];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 0 ? `${text.slice(0, low)}…` : "";
}
