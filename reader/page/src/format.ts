// Numbers and foreign texts as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(n: number): string {
  if (!Number.isFinite(n)) return "?";
  const sign = n < 0 ? "−" : "";
  n = Math.abs(n);
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${sign}${unit === 0 ? n.toFixed(0) : n.toFixed(2)} ${UNITS[unit]}`;
}

/** For axes: as few digits as possible. */
export function shortBytes(n: number): string {
  return bytes(n).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

export function count(n: number): string {
  return Math.round(n).toLocaleString("en-US");
}

export function duration(ns: number, digits = 3): string {
  const sign = ns < 0 ? "−" : "";
  const a = Math.abs(ns);
  const say = (n: number, unit: string) => `${sign}${Number(n.toPrecision(Math.max(digits, Math.trunc(n).toString().length)))} ${unit}`;
  if (a < 1e3) return say(a, "ns");
  if (a < 1e6) return say(a / 1e3, "µs");
  if (a < 1e9) return say(a / 1e6, "ms");
  if (a < 120e9) return say(a / 1e9, "s");
  const s = Math.round(a / 1e9);
  if (s < 7200) return `${sign}${Math.floor(s / 60)} min ${s % 60} s`;
  return `${sign}${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** A time since the beginning, as finely as the distance between two of them asks for. */
export function moment(ns: number, step: number): string {
  if (step >= 60e9) return duration(ns);
  const [unit, scale] = step >= 1e6 || ns >= 1e9 ? ["s", 1e9] : step >= 1e3 || ns >= 1e6 ? ["ms", 1e6] : ["µs", 1e3];
  const digits = Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / scale) - 1e-9)));
  return `${(ns / scale).toFixed(digits)} ${unit}`;
}

// Characters that do something instead of being seen: controls, marks of direction, joiners, private ones.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb]/g;

/** A text of the traced program: what would not be seen is shown as its number. */
export function foreign(text: string): string {
  return text.replace(UNSEEN, (c) => `\\u{${c.codePointAt(0)!.toString(16)}}`);
}

/** As that, on one line that is not endless. */
export function short(text: string, most = 160): string {
  const cut = text.length > most ? `${text.slice(0, most - 30)}…${text.slice(-28)}` : text;
  return foreign(cut);
}
