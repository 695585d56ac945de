// Sums by stack of a part of the time.

import type { Model, Scope } from "./data";
import { bytes as formatted, moment } from "./format";
import type { State } from "./state";

export const MEASURES: [string, string, string][] = [
  ["leaked", "Leaked", "allocated in the selected time and never freed"],
  ["live", "Live at cursor", "what was allocated and not yet freed at the cursor"],
  ["peak", "Peak", "what was held when most was"],
  ["total", "Allocated", "all that was allocated in the selected time"],
  ["growth", "Growth", "how much more each stack holds at the end of the selected time than at its beginning"],
  ["churn", "Churn", "allocated in the selected time and freed again"],
];

/** Bytes and allocations by key. */
export interface Sums {
  bytes: Float64Array;
  count: Float64Array;
  /** What it is of, in words. */
  about: string;
  /** Of growth: what stacks hold less that shrank. */
  less?: number;
  /** What else is to be known, in words. */
  note?: string;
}

/** The parts of the time that a selection covers: from the first, up to and without the second. */
export function buckets(model: Model, state: State): [number, number] {
  const { width, buckets } = model.page.cells;
  if (!state.selection) return [0, buckets];
  const from = Math.min(buckets - 1, Math.max(0, Math.round(state.selection[0] / width)));
  return [from, Math.min(buckets, Math.max(from + 1, Math.round(state.selection[1] / width)))];
}

/** From when on single events of a scope are all known, where that is later than its beginning; else 0. */
export function logBegins(model: Model, scope: Scope): number {
  let latest = 0;
  const lanes = scope.layer === "finest" ? ["device", "framework"] : [scope.layer];
  for (const what of lanes) {
    for (const i of model.seriesOf(scope, what)) {
      const process = model.page.processes[model.page.series[i].process];
      const from = process.from[what === "framework" ? 1 : 0] ?? process.start + process.duration;
      if (from > process.start) latest = Math.max(latest, from);
    }
  }
  return latest;
}

export class Summing {
  readonly n: number;

  constructor(private readonly model: Model) {
    this.n = model.page.keys.node.length;
  }

  private empty(about: string): Sums {
    return { bytes: new Float64Array(this.n), count: new Float64Array(this.n), about };
  }

  /** What each key had made, in the parts of the time from one to below another. */
  made(scope: Scope, from: number, to: number): Sums {
    return this.flow(scope, from, to, "made", "before_made");
  }

  kept(scope: Scope, from: number, to: number): Sums {
    return this.flow(scope, from, to, "kept", "before_kept");
  }

  gone(scope: Scope, from: number, to: number): Sums {
    return this.flow(scope, from, to, "gone", null);
  }

  private flow(scope: Scope, from: number, to: number, what: "made" | "kept" | "gone", before: "before_made" | "before_kept" | null): Sums {
    const sums = this.empty("");
    const { keys, cells } = this.model.page;
    const { cellStart, cellBucket } = this.model;
    for (let key = 0; key < this.n; key++) {
      if (!this.model.inScope(key, scope)) continue;
      let bytes = 0, count = 0;
      if (from === 0 && before) {
        bytes += keys[before][0][key];
        count += keys[before][1][key];
      }
      for (let at = cellStart[key]; at < cellStart[key + 1]; at++) {
        if (cellBucket[at] < from) continue;
        if (cellBucket[at] >= to) break;
        bytes += cells[what][0][at];
        count += cells[what][1][at];
      }
      sums.bytes[key] = bytes;
      sums.count[key] = count;
    }
    return sums;
  }

  /** What each key had live before part `until` of the time began. */
  live(scope: Scope, until: number): Sums {
    const sums = this.empty("");
    const { keys, cells } = this.model.page;
    const { cellStart, cellBucket } = this.model;
    for (let key = 0; key < this.n; key++) {
      // Nothing is live before a program begins.
      if (until === 0 || !this.model.inScope(key, scope)) continue;
      let bytes = keys.before_live[0][key], count = keys.before_live[1][key];
      for (let at = cellStart[key]; at < cellStart[key + 1] && cellBucket[at] < until; at++) {
        bytes += cells.made[0][at] - cells.gone[0][at];
        count += cells.made[1][at] - cells.gone[1][at];
      }
      sums.bytes[key] = bytes;
      sums.count[key] = count;
    }
    return sums;
  }

  /** The end of the part of the time, within these, at which most was live. */
  private fullest(scope: Scope, from: number, to: number): number {
    const { keys, cells } = this.model.page;
    const { cellStart, cellBucket } = this.model;
    const change = new Float64Array(cells.buckets + 1);
    let now = 0;
    for (let key = 0; key < this.n; key++) {
      if (!this.model.inScope(key, scope)) continue;
      now += keys.before_live[0][key];
      for (let at = cellStart[key]; at < cellStart[key + 1]; at++) change[cellBucket[at] + 1] += cells.made[0][at] - cells.gone[0][at];
    }
    const begins = logBegins(this.model, scope) / cells.width;
    let best = Math.max(1, from), most = -1;
    for (let until = 0; until <= to; until++) {
      now += change[until];
      // What stands for the time before the event log was there when that begins.
      if (until >= Math.max(1, from) && (now > most || (now === most && until <= begins))) [best, most] = [until, now];
    }
    return best;
  }

  /** Said where a moment lies before the event log. */
  before(scope: Scope, bucket: number): string | undefined {
    const { width } = this.model.page.cells;
    const begins = logBegins(this.model, scope);
    if (bucket === 0 || bucket * width >= begins) return undefined;
    return `that is before the event log, which begins at ${moment(begins, width)}: what was live then stands for it`;
  }

  /** Said where processes had ended by then. */
  private ended(scope: Scope, bucket: number): string | undefined {
    const { processes, cells } = this.model.page;
    const at = bucket * cells.width;
    const ended = bucket < cells.buckets && scope.process === null && processes.some((p) => p.start + p.duration + cells.width < at);
    return ended ? "of processes that had ended, what they held in the end" : undefined;
  }

  cursorBucket(state: State): number {
    const { width, buckets } = this.model.page.cells;
    return state.cursor >= this.model.page.duration_ns ? buckets : Math.max(0, Math.min(buckets, Math.round(state.cursor / width)));
  }

  /** Sums of what is shown in the flame graph, with all that is to be known of them. */
  of(scope: Scope, state: State, when: (bucket: number) => string): Sums {
    const sums = this.measured(scope, state, when);
    if (!this.model.page.sampled) return sums;
    const without = sums.bytes.reduce((sum, bytes, key) => sum + (this.model.isNotSampled(key) ? bytes : 0), 0);
    const note = without > 0 ? `stacks were sampled: ${formatted(without)} have none and stand apart (the Leaks table has estimates by stack)` : undefined;
    return { ...sums, note: [sums.note, note].filter(Boolean).join("; ") || undefined };
  }

  private measured(scope: Scope, state: State, when: (bucket: number) => string): Sums {
    const [from, to] = buckets(this.model, state);
    const all = !state.selection;
    const time = all ? "over the whole time" : `from ${when(from)} to ${when(to)}`;
    switch (state.measure) {
      case "live": {
        const at = this.cursorBucket(state);
        return { ...this.live(scope, at), about: `live at ${when(at)}`, note: this.ended(scope, at) ?? this.before(scope, at) };
      }
      case "peak": {
        if (all && scope.layer !== "finest") {
          const sums = this.empty("held at the peak of this layer, exactly");
          for (let key = 0; key < this.n; key++) {
            if (!this.model.inScope(key, scope)) continue;
            sums.bytes[key] = this.model.page.keys.peak[0][key];
            sums.count[key] = this.model.page.keys.peak[1][key];
          }
          return sums;
        }
        const at = this.fullest(scope, from, to);
        return { ...this.live(scope, at), about: `held at ${when(at)}, the step of the time with most`, note: this.before(scope, at) };
      }
      case "total":
        return { ...this.made(scope, from, to), about: `allocated ${time}` };
      case "growth": {
        const [a, b] = [this.live(scope, from), this.live(scope, to)];
        let less = 0;
        for (let key = 0; key < this.n; key++) {
          b.bytes[key] -= a.bytes[key];
          b.count[key] -= a.count[key];
          if (b.bytes[key] < 0) {
            less -= b.bytes[key];
            b.bytes[key] = b.count[key] = 0;
          } else if (b.count[key] < 0) b.count[key] = 0;
        }
        return { ...b, about: `grown ${time}`, less, note: this.before(scope, from) };
      }
      case "churn": {
        const [made, kept] = [this.made(scope, from, to), this.kept(scope, from, to)];
        for (let key = 0; key < this.n; key++) {
          made.bytes[key] = Math.max(0, made.bytes[key] - kept.bytes[key]);
          made.count[key] = Math.max(0, made.count[key] - kept.count[key]);
        }
        return { ...made, about: `allocated ${time} and freed again` };
      }
      default:
        return { ...this.kept(scope, from, to), about: `allocated ${time} and never freed` };
    }
  }
}
