// What the timeline shows, drawn once for more time than is in view: while the view moves the picture is only moved, and drawn
// anew when the view leaves it, or at rest.

import { timeStep } from "./axis";
import { type Context, css, el, paint } from "./dom";
import { moment } from "./format";
import type { Range } from "./state";

export const LEFT = 104;
export const RIGHT = 22;
/** Height of the axis of time. */
export const AXIS = 24;

/** A strip of the picture, as wide as the film. */
export interface Layer {
  top: number;
  height: number;
  draw(context: Context, part: Range, width: number, edges: number[]): void;
  /** Ticks of its left axis, as shares of its height from below, after it was drawn. */
  ticks(): [number, string][];
  /** Draws what stands beside it, in a strip of this width. */
  beside?(context: Context, width: number): void;
}

export class Film {
  readonly window = el("div", { class: "film" });
  readonly gutter = el("canvas", { class: "gutter", "aria-hidden": "true" });
  private reel = el("canvas", { class: "reel", "aria-hidden": "true" });
  private part: Range = [0, 0];
  private pixels = 0;
  private timer = 0;
  private width = 0;

  constructor(private layers: () => Layer[], private below: (context: Context, x: (time: number) => number, width: number) => void, private length: () => number) {
    this.window.append(this.reel);
  }

  /** Shows a part of the time in so many pixels. `anew` when what is drawn has changed. */
  show(view: Range, width: number, height: number, anew: boolean): void {
    const [a, b] = view;
    const pixels = width / (b - a);
    const inside = a >= this.part[0] - 1 && b <= this.part[1] + 1;
    const stretch = this.pixels > 0 ? pixels / this.pixels : 0;
    clearTimeout(this.timer);
    if (anew || !inside || stretch > 2.5 || stretch < 0.4 || this.width !== width) return this.draw(view, width, height);
    const near = (b - a) * 0.2;
    const short = (this.part[0] > 0 && a - this.part[0] < near) || (this.part[1] < this.length() && this.part[1] - b < near);
    const same = Math.abs(stretch - 1) < 1e-6;
    if (!same || short) this.timer = window.setTimeout(() => this.draw(view, width, height), 80);
    const by = (this.part[0] - a) * pixels;
    // Between pixels everything would be blurred.
    this.reel.style.transform = same ? `translateX(${Math.round(by)}px)` : `translateX(${by}px) scaleX(${stretch})`;
  }

  private draw(view: Range, width: number, height: number): void {
    const [a, b] = view;
    // Not more pixels than are cheap to keep.
    const around = width * (devicePixelRatio || 1) > 2600 ? 0.5 : 1;
    const part: Range = [Math.max(a - around * (b - a), Math.min(a, 0)), Math.min(b + around * (b - a), Math.max(b, this.length()))];
    this.part = part;
    this.width = width;
    const pixels = (this.pixels = width / (b - a));
    const wide = (part[1] - part[0]) * pixels;
    this.window.style.width = `${width}px`;
    this.window.style.height = `${height}px`;
    const x = (time: number) => (time - part[0]) * pixels;
    const layers = this.layers();
    const edges = [-1, 0, 1].map((n) => x(a + n * (b - a)));
    paint(this.reel, wide, height, (context) => {
      this.grid(context, view, wide, pixels, x, layers);
      for (const layer of layers) {
        context.save();
        context.translate(0, layer.top);
        context.beginPath();
        context.rect(0, 0, wide, layer.height);
        context.clip();
        layer.draw(context, part, wide, edges);
        context.restore();
      }
      this.below(context, x, wide);
      context.fillStyle = css("--over");
      for (const layer of layers) for (const [share] of layer.ticks()) context.fillRect(0, Math.min(this.tick(layer, share), layer.top + layer.height - 1), wide, 1);
    });
    paint(this.gutter, LEFT, height, (context) => this.label(context, layers));
    this.reel.style.transform = `translateX(${Math.round((part[0] - a) * pixels)}px)`;
  }

  /** Lines of the time, and what stands at them, below the first layer. */
  private grid(context: Context, [a, b]: Range, wide: number, pixels: number, x: (time: number) => number, layers: Layer[]): void {
    const step = timeStep(b - a, Math.max(2, (wide ? (b - a) * pixels : 1) / 105));
    context.font = `11px ${css("--font")}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    const top = layers[0];
    const [grid, muted] = [css("--grid"), css("--muted")];
    for (let n = Math.max(0, Math.ceil(this.part[0] / step)); n * step <= this.part[1]; n++) {
      const at = Math.round(x(n * step)) + 0.5;
      context.fillStyle = grid;
      context.fillRect(at - 0.5, top.top, 1, top.height + 4);
      context.fillStyle = muted;
      const text = moment(n * step, step);
      // What would be cut off at either end of all the time is moved inside.
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.max(half, Math.min(at, wide - half)), top.top + top.height + AXIS / 2);
    }
  }

  private tick(layer: Layer, share: number): number {
    return layer.top + Math.round(layer.height * (1 - share));
  }

  /** What stands beside the film: numbers at the ticks of bytes, names of lanes. */
  private label(context: Context, layers: Layer[]): void {
    context.font = `11px ${css("--font")}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillStyle = css("--muted");
    for (const layer of layers) {
      for (const [share, text] of layer.ticks())
        context.fillText(text, LEFT - 8, Math.max(layer.top + 6, Math.min(this.tick(layer, share), layer.top + layer.height - 5)), LEFT - 10);
      if (!layer.beside) continue;
      context.save();
      context.translate(0, layer.top);
      layer.beside(context, LEFT);
      context.restore();
    }
  }
}
