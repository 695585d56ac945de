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

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(n: number): string {
  return GROUPED.format(Math.round(n));
}

/** `1 allocation`, `2 allocations`. */
export function counted(n: number, what: string): string {
  return `${count(n)} ${what}${Math.round(n) === 1 ? "" : "s"}`;
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
  if (s < 7200) return sign + parts([Math.floor(s / 60), "min"], [s % 60, "s"]);
  const minutes = Math.round(s / 60);
  if (minutes < 2880) return sign + parts([Math.floor(minutes / 60), "h"], [minutes % 60, "min"]);
  const hours = Math.round(minutes / 60);
  return sign + parts([Math.floor(hours / 24), "d"], [hours % 24, "h"]);
}

/** What is nothing is not said. */
function parts(...all: [number, string][]): string {
  const said = all.filter(([n]) => n > 0);
  return (said.length ? said : all.slice(-1)).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

/** A time since the beginning, as finely as the distance between two of them asks for. */
export function moment(ns: number, step: number): string {
  if (step >= 60e9 || ns >= 7200e9) {
    const s = Math.round(Math.max(0, ns) / 1e9);
    const [d, h, min, rest] = [Math.floor(s / 86_400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, s % 60];
    if (step >= 86_400e9) return parts([d, "d"]);
    if (step >= 3600e9) return parts([d, "d"], [h, "h"]);
    if (step >= 60e9) return parts([d, "d"], [h, "h"], [min, "min"]);
    const fine = step < 1e9 ? ((ns / 1e9) % 60).toFixed(Math.min(9, Math.ceil(-Math.log10(step / 1e9) - 1e-9))) : String(rest);
    return `${parts([d, "d"], [h, "h"], [step < 1e9 ? Math.floor(ns / 60e9) % 60 : min, "min"])} ${fine} s`;
  }
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
