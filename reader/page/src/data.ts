// The document that the reader wrote: its types, how it is unpacked, and what is found in it often.

export type Pair = [number[], number[]];

export interface Frame {
  function: string | null;
  file?: string | null;
  line?: number | null;
  module?: string | null;
  offset?: number | null;
  language: string;
}

export interface PageDocument {
  version: string;
  base_ns: string;
  duration_ns: number;
  processes: {
    pid: number; name: string; program: string; rank: number | null; host: string; start: number; duration: number;
    end: string; trace: string; point: string; from: (number | null)[];
  }[];
  devices: { uuid: string; name: string; index: number; total_bytes: number }[];
  series: {
    process: number; device: number | null; what: string; start: number; span: number; exact_from: number | null;
    peak_bytes: number; peak_at: number; live_bytes: number; min: number[]; max: number[]; last: number[];
  }[];
  smi: { process: number; device: number; time: number[]; process_bytes: (number | null)[]; used_bytes: number[] }[];
  texts: string[];
  frames: { function: number[]; file: number[]; line: number[]; module: number[]; offset: number[]; python: number[] };
  tree: { parent: number[]; frame: number[] };
  keys: {
    process: number[]; device: (number | null)[]; kind: string[]; layer: string[]; api: number[]; library: number[];
    node: number[]; cache: number[]; before_made: Pair; before_live: Pair; before_kept: Pair; peak: Pair;
  };
  cells: { buckets: number; width: number; of_key: number[]; bucket: number[]; made: Pair; gone: Pair; kept: Pair };
  tracks: {
    process: number; device: number | null; layer: string; seen: number; finest: number; start: number[]; length: number[];
    size: number[]; address: number[]; key: number[]; thread: number[]; range: number[]; how: number[]; early: number[];
  }[];
  threads: { process: number; id: number; text: number }[];
  ranges: { process: number; id: number; text: number }[];
  slices: {
    process: number[]; thread: number[]; depth: number[]; name: number[]; start: number[]; length: number[]; bytes: number[];
    count: number[]; told: number[];
  };
  marks: { process: number; time: number; domain: number; text: number }[];
  maps: {
    process: number[]; device: (number | null)[]; holder: string[]; address: number[]; size: number[]; tiles: number[];
    tile_size: number[]; tile_used: number[]; tile_blocks: number[]; tile_key: number[];
    samples: { process: number; time: number; rows: number[]; left_out: number }[];
  };
  /** Stacks were sampled: what has none is estimated from those that have one. */
  sampled: boolean;
  thinned: string[];
  inexact: string[];
  notes: string[];
  warnings: string[];
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Answer = any;

export interface Everything {
  page: PageDocument;
  leaks: Answer;
  summary: Answer;
  growth: Answer;
  oom: Answer;
  reconcile: Answer;
}

export async function read(): Promise<Everything> {
  const encoded = document.getElementById("document")!;
  const raw = decode(encoded.textContent!.trim());
  encoded.textContent = "";
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const everything: Everything = JSON.parse(await new Response(stream).text());
  unpack(everything.page);
  return everything;
}

function decode(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const raw = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) raw[i] = text.charCodeAt(i);
  return raw;
}

/** Undoes what made columns smaller. */
function unpack(page: PageDocument): void {
  for (const series of page.series) {
    let before = 0;
    for (let i = 0; i < series.last.length; i++) {
      series.min[i] += before;
      series.max[i] += before;
      series.last[i] += before;
      before = series.last[i];
    }
  }
  for (const track of page.tracks) {
    let before = 0;
    for (let i = 0; i < track.start.length; i++) before = track.start[i] += before;
  }
}

/** Bytes over time at all levels of detail, each half as fine as the one before. */
export class Pyramid {
  private levels: { min: Float64Array; max: Float64Array; last: Float64Array }[] = [];

  constructor(readonly start: number, readonly span: number, min: number[], max: number[], last: number[]) {
    let level = { min: Float64Array.from(min), max: Float64Array.from(max), last: Float64Array.from(last) };
    this.levels.push(level);
    while (level.min.length > 1) {
      const n = Math.ceil(level.min.length / 2);
      const next = { min: new Float64Array(n), max: new Float64Array(n), last: new Float64Array(n) };
      for (let i = 0; i < n; i++) {
        const a = 2 * i, b = Math.min(2 * i + 1, level.min.length - 1);
        next.min[i] = Math.min(level.min[a], level.min[b]);
        next.max[i] = Math.max(level.max[a], level.max[b]);
        next.last[i] = level.last[b];
      }
      this.levels.push(next);
      level = next;
    }
  }

  /** Fewest, most and last between two times; nothing outside of the process's life. */
  between(from: number, to: number): [number, number, number] | null {
    const finest = this.levels[0].min.length;
    let a = Math.floor((from - this.start) / this.span), b = Math.ceil((to - this.start) / this.span);
    if (b <= 0 || a >= finest) return null;
    a = Math.max(a, 0);
    b = Math.max(Math.min(b, finest), a + 1);
    let min = Infinity, max = 0;
    const last = this.levels[0].last[b - 1];
    let level = 0;
    while (a < b) {
      const of = this.levels[level];
      if (a & 1) {
        min = Math.min(min, of.min[a]);
        max = Math.max(max, of.max[a]);
        a++;
      }
      if (b & 1 && a < b) {
        b--;
        min = Math.min(min, of.min[b]);
        max = Math.max(max, of.max[b]);
      }
      a >>= 1;
      b >>= 1;
      level++;
    }
    return [min, max, last];
  }

  /** Bytes at a time, as of the end of its span. */
  at(time: number): number {
    const last = this.levels[0].last;
    const i = Math.floor((time - this.start) / this.span);
    return i < 0 ? 0 : last[Math.min(i, last.length - 1)];
  }
}

/** What of the memory is looked at. */
export interface Scope {
  id: string;
  label: string;
  process: number | null;
  device: number | null;
  /** A layer, or `finest`: each byte once, as leaks counts. */
  layer: string;
}

/** The document with everything that is looked up often. */
export class Model {
  readonly page: PageDocument;
  readonly pyramids: Pyramid[];
  readonly scopes: Scope[];
  readonly cellStart: Uint32Array;
  readonly cellBucket: Uint32Array;
  private thread = new Map<string, number>();
  private range = new Map<string, number>();
  private labels: string[] = [];

  constructor(readonly all: Everything) {
    const page = (this.page = all.page);
    this.pyramids = page.series.map((s) => new Pyramid(s.start, s.span, s.min, s.max, s.last));
    for (const row of page.threads) this.thread.set(`${row.process}/${row.id}`, row.text);
    for (const row of page.ranges) this.range.set(`${row.process}/${row.id}`, row.text);
    const { of_key, bucket } = page.cells;
    this.cellStart = new Uint32Array(of_key.length + 1);
    this.cellBucket = new Uint32Array(bucket.length);
    let at = 0;
    for (let key = 0; key < of_key.length; key++) {
      let before = 0;
      for (let n = 0; n < of_key[key]; n++, at++) this.cellBucket[at] = before += bucket[at];
      this.cellStart[key + 1] = at;
    }
    this.scopes = this.findScopes();
  }

  private findScopes(): Scope[] {
    const { page } = this;
    const scopes: Scope[] = [];
    const places = new Map<string, { process: number; device: number; layers: Set<string> }>();
    const hosts = new Set<number>();
    for (const s of page.series) {
      if (s.device === null) hosts.add(s.process);
      else {
        const id = `${s.process}.${s.device}`;
        if (!places.has(id)) places.set(id, { process: s.process, device: s.device, layers: new Set() });
        if (s.what !== "reserved") places.get(id)!.layers.add(s.what);
      }
    }
    const who = (process: number) => (page.processes.length > 1 ? `${this.process(process)} · ` : "");
    if (places.size > 1) scopes.push({ id: "gpus", label: "All GPU memory", process: null, device: null, layer: "finest" });
    for (const [id, place] of places) {
      const gpu = `${who(place.process)}GPU ${page.devices[place.device].index}`;
      scopes.push({ id: `${id}.finest`, label: `${gpu}: each byte once, at the finest layer`, ...place, layer: "finest" });
      for (const layer of place.layers)
        scopes.push({ id: `${id}.${layer}`, label: `${gpu}: ${layer} layer`, process: place.process, device: place.device, layer });
    }
    for (const process of hosts)
      scopes.push({ id: `${process}.host`, label: `${who(process)}Page-locked host memory`, process, device: null, layer: "host" });
    if (!scopes.length) scopes.push({ id: "gpus", label: "All GPU memory", process: null, device: null, layer: "finest" });
    return scopes;
  }

  process(id: number): string {
    const p = this.page.processes[id];
    return `${p.name || "process"} (pid ${p.pid}${p.rank === null ? "" : `, rank ${p.rank}`})`;
  }

  /** A GPU, and of several processes whose; short. */
  place(process: number, device: number | null): string {
    const p = this.page.processes[process];
    const of = this.page.processes.length === 1 ? "" : `${p.rank === null ? `pid ${p.pid}` : `rank ${p.rank}`}, `;
    return `${of}${device === null ? "host" : `GPU ${this.page.devices[device].index}`}`;
  }

  device(id: number | null): string {
    if (id === null) return "host";
    const d = this.page.devices[id];
    return `GPU ${d.index}${d.name ? ` (${d.name})` : ""}`;
  }

  /** Whether a key's memory is in a scope. */
  inScope(key: number, scope: Scope): boolean {
    const { keys } = this.page;
    if (scope.process !== null && keys.process[key] !== scope.process) return false;
    const layer = keys.layer[key];
    if (scope.layer === "host") return layer === "host";
    if (layer === "host") return false;
    if (scope.device !== null && keys.device[key] !== scope.device) return false;
    return scope.layer === "finest" ? !keys.cache[key] : layer === scope.layer;
  }

  /** Indices of series of a scope, by what they are. */
  seriesOf(scope: Scope, what: string): number[] {
    const found: number[] = [];
    this.page.series.forEach((s, i) => {
      const process = scope.process === null || s.process === scope.process;
      const device = scope.layer === "host" ? s.device === null : s.device !== null && (scope.device === null || s.device === scope.device);
      if (process && device && s.what === what) found.push(i);
    });
    return found;
  }

  threadName(process: number, id: number): string {
    const text = this.thread.get(`${process}/${id}`);
    return id === 0 ? "not known" : text === undefined ? `${id}` : `${this.page.texts[text]} (${id})`;
  }

  rangeName(process: number, id: number): string {
    const text = this.range.get(`${process}/${id}`);
    return text === undefined ? "" : this.page.texts[text];
  }

  /** Nodes of a key's stack, innermost first, the root left out. */
  stack(key: number): number[] {
    return this.up(this.page.keys.node[key]);
  }

  up(node: number): number[] {
    const { parent } = this.page.tree;
    const nodes: number[] = [];
    while (node !== 0 && nodes.length < 2000) {
      nodes.push(node);
      node = parent[node];
    }
    return nodes;
  }

  frame(frame: number): Frame {
    const { frames, texts } = this.page;
    return {
      function: texts[frames.function[frame]] || null,
      file: texts[frames.file[frame]] || null,
      line: frames.line[frame] || null,
      module: texts[frames.module[frame]] || null,
      offset: frames.offset[frame],
      language: frames.python[frame] ? "python" : "native",
    };
  }

  private searched = "";
  private matches = new Uint8Array();

  /** Whether the stack of a key has a function or file with this text, in small letters, in it. */
  matching(wanted: string): (key: number) => boolean {
    const { tree, keys } = this.page;
    if (this.searched !== wanted || this.matches.length !== tree.parent.length) {
      const frames = this.page.frames.function.map((_, frame) => this.label(frame).toLowerCase().includes(wanted));
      this.matches = new Uint8Array(tree.parent.length);
      // Those further out come first.
      for (let node = 1; node < tree.parent.length; node++) this.matches[node] = frames[tree.frame[node]] || this.matches[tree.parent[node]] ? 1 : 0;
      this.searched = wanted;
    }
    return (key) => this.matches[keys.node[key]] === 1;
  }

  /** Whether this is what has no stack because another was sampled. */
  isNotSampled(key: number): boolean {
    return this.page.sampled && this.top(key).startsWith("[not sampled");
  }

  isPython(frame: number): boolean {
    return this.page.frames.python[frame] === 1;
  }

  /** One line for a frame. */
  label(frame: number): string {
    return (this.labels[frame] ??= frameLabel(this.frame(frame)));
  }

  /** The innermost frame of a key's stack. */
  top(key: number): string {
    const node = this.page.keys.node[key];
    return node ? this.label(this.page.tree.frame[node]) : "";
  }
}

function file(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

export function frameLabel(frame: Frame): string {
  const module = frame.module ? file(frame.module) : "";
  const name = frame.function ?? (module ? `${module}+0x${(frame.offset ?? 0).toString(16)}` : `0x${(frame.offset ?? 0).toString(16)}`);
  if (frame.file) return `${name} ${file(frame.file)}${frame.line ? `:${frame.line}` : ""}`;
  return name;
}
