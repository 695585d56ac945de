// Bytes over time as lines: what each layer holds, what is reserved, what nvidia-smi showed, the device's memory.

import { byteLabel, byteTicks } from "./axis";
import type { Model, Scope } from "./data";
import { type Context, css } from "./dom";
import type { Range } from "./state";

/** What a line is, what it is called, its colour. */
const ALL: [string, string, string][] = [
  ["device", "Device layer", "--line-device"],
  ["framework", "Framework layer", "--line-framework"],
  ["reserved", "Reserved by allocators", "--line-reserved"],
  ["host", "Page-locked host memory", "--line-host"],
  ["smi", "nvidia-smi, this process", "--line-smi"],
  ["limit", "Device's memory", "--line-limit"],
];

export interface Line {
  what: string;
  label: string;
  colour: string;
  /** Series that are added up. */
  index: number[];
  /** What nvidia-smi showed, likewise. */
  smi: number[];
  constant: number;
}

/** Pixels of a column; the finest that is told apart. */
const COLUMN = 1.5;

export class Lines {
  all: Line[] = [];
  /** Bytes at the upper edge. */
  top = 1;
  limit = 0;
  /** The limit is so far above everything that it is not drawn. */
  above = false;

  constructor(private model: Model) {}

  setScope(scope: Scope, length: number): void {
    const { page } = this.model;
    this.all = [];
    for (const [what, label, colour] of ALL) {
      const line: Line = { what, label, colour, index: [], smi: [], constant: 0 };
      if (what === "smi") {
        page.smi.forEach((s, i) => {
          const inside = scope.layer !== "host" && (scope.process === null || s.process === scope.process) && (scope.device === null || s.device === scope.device);
          if (inside) line.smi.push(i);
        });
      } else if (what === "limit") line.constant = scope.device === null ? 0 : page.devices[scope.device].total_bytes;
      else line.index = this.model.seriesOf(scope, what);
      if (line.index.length || line.smi.length || line.constant) this.all.push(line);
    }
    const peak = Math.max(1024, ...this.all.filter((l) => l.what !== "limit").map((l) => this.value(l, 0, length)?.[1] ?? 0));
    this.limit = this.all.find((l) => l.what === "limit")?.constant ?? 0;
    // A limit far above everything would leave no room for what is there.
    this.above = this.limit >= peak * 2.5;
    this.top = this.above || peak * 1.06 > this.limit ? peak * 1.06 : this.limit * 1.04;
  }

  /** Whether anything is known but the limit. */
  get any(): boolean {
    return this.all.some((line) => line.what !== "limit");
  }

  /** Fewest and most between two times. */
  value(line: Line, from: number, to: number): [number, number] | null {
    if (line.what === "limit") return [line.constant, line.constant];
    let min = 0, max = 0, any = false;
    for (const i of line.smi) {
      const { time, process_bytes } = this.model.page.smi[i];
      let [low, high] = [0, time.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (time[middle] <= to) low = middle + 1;
        else high = middle;
      }
      const bytes = low > 0 ? process_bytes[low - 1] : null;
      if (bytes !== null) [min, max, any] = [min + bytes, max + bytes, true];
    }
    for (const i of line.index) {
      const found = this.model.pyramids[i].between(from, to);
      if (found) [min, max, any] = [min + found[0], max + found[1], true];
    }
    return any ? [min, max] : null;
  }

  /** Draws a part of the time, from the left edge on. */
  draw(context: Context, part: Range, width: number, height: number): void {
    const column = ((part[1] - part[0]) / width) * COLUMN;
    const y = (bytes: number) => height - (bytes / this.top) * height;
    context.lineJoin = "round";
    for (const line of this.all) {
      if (line.what === "limit" && this.above) continue;
      const colour = css(line.colour);
      context.strokeStyle = colour;
      context.fillStyle = colour.replace(/\)$/, " / 0.22)");
      context.setLineDash(line.what === "limit" ? [5, 4] : []);
      // Runs without gaps: a band from fewest to most, its upper edge as a line.
      let run: [number, number, number][] = [];
      const flush = () => {
        if (run.length === 1) run.push([run[0][0] + COLUMN, run[0][1], run[0][2]]);
        if (run.some(([, least, most]) => least !== most)) {
          context.beginPath();
          for (const [x, , most] of run) context.lineTo(x, most);
          for (let i = run.length - 1; i >= 0; i--) context.lineTo(run[i][0], run[i][1]);
          context.fill();
        }
        context.lineWidth = line.what === "limit" ? 1 : 1.5;
        context.beginPath();
        for (const [x, , most] of run) context.lineTo(x, most);
        context.stroke();
        run = [];
      };
      for (let i = 0; i * COLUMN <= width; i++) {
        const from = part[0] + i * column;
        const value = this.value(line, from, from + column);
        if (value) run.push([i * COLUMN, y(value[0]), y(value[1])]);
        else if (run.length) flush();
      }
      if (run.length) flush();
    }
    context.setLineDash([]);
  }

  ticks(): [number, string][] {
    return byteTicks(this.top, 5).map((tick) => [tick / this.top, byteLabel(tick)]);
  }
}
