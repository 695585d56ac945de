// What is shown; kept in the address, so that a link leads to the same view.

export type Range = [number, number];

export interface State {
  view: Range;
  /** The part of the time that all views are about; none is all of it. */
  selection: Range | null;
  cursor: number;
  scope: string;
  measure: string;
  unit: string;
  invert: boolean;
  python: boolean;
  query: string;
  tab: string;
  sort: string;
  filter: string;
  /** The stack that is open: a number in the document's keys; -1 none. */
  open: number;
  /** The box that the flame graph is zoomed to: numbers of frames from the root. */
  zoom: string;
}

type Listener = (state: State, changed: Set<keyof State>) => void;

export class Store {
  readonly state: State;
  private listeners: Listener[] = [];
  private changed = new Set<keyof State>();
  private scheduled = false;
  private timer: number | undefined;

  /** `length` is all the time there is, nanoseconds. */
  constructor(private readonly defaults: State, private readonly length: number) {
    this.state = { ...defaults, ...this.fromHash() };
    addEventListener("hashchange", () => {
      if (location.hash !== this.hash()) this.set({ ...this.defaults, ...this.fromHash() });
    });
  }

  listen(listener: Listener): void {
    this.listeners.push(listener);
  }

  /** Views hear of changes once a frame, all together. */
  set(part: Partial<State>): void {
    for (const name of Object.keys(part) as (keyof State)[]) {
      if (JSON.stringify(this.state[name]) !== JSON.stringify(part[name])) this.changed.add(name);
    }
    Object.assign(this.state, part);
    if (this.scheduled || !this.changed.size) return;
    this.scheduled = true;
    requestAnimationFrame(() => this.tell());
  }

  private tell(): void {
    this.scheduled = false;
    const changed = this.changed;
    this.changed = new Set();
    for (const listener of this.listeners) listener(this.state, changed);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => history.replaceState(null, "", this.hash() || "#"), 250);
  }

  /** The address of what is shown now. */
  link(): string {
    return location.href.replace(/#.*/, "") + this.hash();
  }

  private hash(): string {
    const pairs: string[] = [];
    for (const name of Object.keys(this.defaults) as (keyof State)[]) {
      const [value, usual] = [this.state[name], this.defaults[name]];
      if (JSON.stringify(value) === JSON.stringify(usual)) continue;
      const text = Array.isArray(value) ? value.map((n) => Math.round(n)).join("-") : value === null ? "" : String(value);
      pairs.push(`${name}=${encodeURIComponent(text)}`);
    }
    return pairs.length ? `#${pairs.join("&")}` : "";
  }

  private fromHash(): Partial<State> {
    const part: Record<string, unknown> = {};
    for (const pair of location.hash.slice(1).split("&")) {
      const at = pair.indexOf("=");
      const name = pair.slice(0, at);
      if (at < 0 || !Object.hasOwn(this.defaults, name)) continue;
      let text: string;
      try {
        text = decodeURIComponent(pair.slice(at + 1));
      } catch {
        continue;
      }
      const usual = this.defaults[name as keyof State];
      if (name === "view" || name === "selection") {
        // Addresses are written by hand, too: what lies outside of the time is not to be seen.
        const range = text.split("-").map((n) => Math.min(Number(n), this.length));
        if (range.length === 2 && range.every(Number.isFinite) && range[0] < range[1]) part[name] = range;
      } else if (typeof usual === "number") {
        const [number, most] = [Math.round(Number(text)), name === "cursor" ? this.length : Infinity];
        if (Number.isFinite(number)) part[name] = Math.max(-1, Math.min(number, most));
      } else if (typeof usual === "boolean") part[name] = text === "true";
      else part[name] = text;
    }
    return part;
  }
}
