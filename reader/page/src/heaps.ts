// What is not drawn one by one, as areas by stack: what each stack holds at the steps for which the reader kept sums, less what of
// it is drawn one by one. Between two steps an area is straight.

import type { Model, Scope } from "./data";
import type { Range } from "./state";

/** Stacks that have an area of their own; all others are the grey one. */
const MOST = 24;

/** An allocation that is drawn. */
export interface Drawn { key: number; start: number; end: number; size: number; live: boolean }

/** The smaller allocations of a stack. */
export interface Heap {
  key: number;
  /** Bytes at each step from the first that is in view. */
  at: Float64Array;
  /** Where it is drawn: bytes above nothing, by column. */
  lower: Float64Array;
  upper: Float64Array;
}

export class Heaps {
  all: Heap[] = [];
  private first = 0;
  private part: Range = [0, 1];
  private column = 1;

  constructor(private model: Model) {}

  /** The stacks of which most is not drawn one by one, largest first. */
  private choose(scope: Scope, part: Range, drawn: Drawn[]): void {
    const { keys, cells } = this.model.page;
    const { cellStart, cellBucket } = this.model;
    const first = (this.first = Math.max(0, Math.floor(part[0] / cells.width)));
    const last = Math.max(first, Math.min(cells.buckets, Math.ceil(part[1] / cells.width)));
    // A step is its beginning: what was made at or after it is not yet there.
    const steps = (one: Drawn): Range => [Math.max(first, Math.floor(one.start / cells.width) + 1), one.live ? last : Math.min(last, Math.floor(one.end / cells.width))];
    const single = new Map<number, Drawn[]>();
    for (const one of drawn) single.get(one.key)?.push(one) ?? single.set(one.key, [one]);
    // Each key's bytes, from one change to the next.
    const each = (key: number, run: (bytes: number, from: number, to: number) => void) => {
      let now = keys.before_live[0][key], from = Math.max(first, 1);
      for (let at = cellStart[key]; at < cellStart[key + 1]; at++) {
        const step = cellBucket[at] + 1;
        if (step > last) break;
        if (step > from) {
          run(now, from, step);
          from = step;
        }
        now += cells.made[0][at] - cells.gone[0][at];
      }
      if (from <= last) run(now, from, last + 1);
    };
    const found: { key: number; weight: number }[] = [];
    for (let key = 0; key < keys.node.length; key++) {
      if (!this.model.inScope(key, scope)) continue;
      let weight = 0;
      each(key, (bytes, from, to) => (weight += bytes * (to - from)));
      for (const one of single.get(key) ?? []) {
        const [from, to] = steps(one);
        if (to >= from) weight -= one.size * (to - from + 1);
      }
      if (weight > 0) found.push({ key, weight });
    }
    found.sort((x, y) => y.weight - x.weight || x.key - y.key);
    this.all = found.slice(0, MOST).map(({ key }) => {
      const at = new Float64Array(last - first + 1);
      each(key, (bytes, from, to) => at.fill(bytes, from - first, to - first));
      for (const one of single.get(key) ?? []) {
        const [from, to] = steps(one);
        for (let step = from; step <= to; step++) at[step - first] -= one.size;
      }
      return { key, at: at.map((bytes) => Math.max(0, bytes)), lower: new Float64Array(), upper: new Float64Array() };
    });
  }

  /** Puts them on what is drawn one by one, in columns of so much time, and never above what there is. */
  lay(scope: Scope, part: Range, column: number, drawn: Drawn[], totals: number[]): void {
    this.choose(scope, part, drawn);
    [this.part, this.column] = [part, column];
    const n = totals.length;
    const below = new Float64Array(n + 1);
    const of = (time: number) => Math.max(0, Math.min(n, Math.ceil((time - part[0]) / column)));
    for (const one of drawn) {
      below[of(one.start)] += one.size;
      if (!one.live) below[of(one.end)] -= one.size;
    }
    for (let i = 1; i <= n; i++) below[i] += below[i - 1];
    for (const heap of this.all) {
      heap.lower = new Float64Array(n);
      heap.upper = new Float64Array(n);
      for (let i = 0; i < n; i++) {
        heap.lower[i] = Math.min(below[i], totals[i]);
        below[i] = heap.upper[i] = Math.max(heap.lower[i], Math.min(below[i] + this.value(heap, part[0] + i * column), totals[i]));
      }
    }
  }

  /** Bytes of one at a time. */
  value(heap: Heap, time: number): number {
    const at = Math.max(0, time / this.model.page.cells.width - this.first), step = Math.min(heap.at.length - 1, Math.floor(at));
    const next = Math.min(heap.at.length - 1, step + 1);
    return heap.at[step] + (heap.at[next] - heap.at[step]) * Math.min(1, at - step);
  }

  /** The one that is drawn there. */
  hit(time: number, bytes: number): Heap | null {
    const i = Math.floor((time - this.part[0]) / this.column);
    return this.all.find((heap) => bytes >= heap.lower[i] && bytes < heap.upper[i]) ?? null;
  }

  /** Bytes of all of them at a time. */
  sum(time: number): number {
    return this.all.reduce((sum, heap) => sum + this.value(heap, time), 0);
  }
}
