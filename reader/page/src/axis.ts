// Where axes have their ticks, and what stands there.

import { shortBytes } from "./format";

/** Round numbers between two, about so many: 1, 2 or 5 times a power of ten. */
function round(min: number, max: number, n: number): number[] {
  const rough = Math.max(1e-9, max - min) / Math.max(1, n);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((by) => by * power >= rough * 0.7)! * power;
  const ticks: number[] = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max * (1 + 1e-12) && ticks.length < 100; i++) ticks.push(i * step);
  return ticks;
}

/** Even steps in binary units, no finer than a byte. */
export function byteTicks(max: number, n: number): number[] {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(1, max)) / Math.log(1024)));
  return round(0, max / unit, n).map((tick) => tick * unit).filter((tick) => unit > 1 || Number.isInteger(tick));
}

/** What stands beside them; as many digits at all as one of them needs. */
export function byteLabel(tick: number): string {
  return shortBytes(tick);
}

const SECOND = 1e9, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
/** Steps of time that people count in, nanoseconds. */
const STEPS = [
  ...Array.from({ length: 33 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3)).filter((step) => step < MINUTE),
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000].map((days) => days * DAY),
];

/** The distance of ticks of a part of the time that has room for so many. */
export function timeStep(length: number, most: number): number {
  return STEPS.find((step) => length / step <= most) ?? STEPS[STEPS.length - 1];
}
