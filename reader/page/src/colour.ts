// One colour for a stack wherever it is shown.

import type { Model } from "./data";

const media = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  const wish = document.documentElement.dataset.theme;
  return wish ? wish === "dark" : media.matches;
}

function hash(text: string): number {
  let h = 2166136261;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

// Hues of calm colours that differ for most eyes; lightness tells neighbours of a hue apart.
const HUES = [255, 230, 205, 180, 155, 95, 75, 55, 35, 15, 340, 310, 285];

export function colourOf(text: string, dark = isDark()): string {
  const h = hash(text);
  const hue = HUES[h % HUES.length] + ((h >>> 8) % 12) - 6;
  const light = (dark ? 0.44 : 0.76) + (((h >>> 16) % 5) - 2) * 0.025;
  return `oklch(${light.toFixed(3)} ${dark ? 0.11 : 0.105} ${hue})`;
}

export class Colours {
  private known: string[] = [];
  private dark = isDark();

  constructor(private readonly model: Model) {}

  of(key: number): string {
    if (this.dark !== isDark()) {
      this.dark = isDark();
      this.known = [];
    }
    return (this.known[key] ??= colourOf(this.model.stack(key).slice(0, 4).map((node) => this.model.label(this.model.page.tree.frame[node])).join("\n"), this.dark));
  }
}
