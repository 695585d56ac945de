// Small helpers to make elements. Texts go in as texts, never as HTML.

type Child = Node | string | null;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Record<string, string | boolean | ((event: Event) => void)> = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false) node.setAttribute(name, value);
  }
  for (const child of children) if (child !== null) node.append(child);
  return node;
}

export function clear(node: Element): void {
  while (node.lastChild) node.lastChild.remove();
}

export type Context = OffscreenCanvasRenderingContext2D;

/**
 * Puts a picture into a canvas, drawn in CSS pixels. It is drawn elsewhere and handed over as a bitmap: a canvas that can be drawn on
 * is copied at every frame of the page by browsers that draw without a GPU, whether it has changed or not.
 */
export function paint(canvas: HTMLCanvasElement, width: number, height: number, draw: (context: Context) => void): void {
  const ratio = devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  const surface = new OffscreenCanvas(w, h);
  const context = surface.getContext("2d")!;
  context.scale(ratio, ratio);
  draw(context);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("bitmaprenderer")!.transferFromImageBitmap(surface.transferToImageBitmap());
}

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = "";
const known = new Map<string, string>();

/** A custom property of the page's style; asking the browser takes long, so once for each theme. */
export function css(name: string): string {
  const now = `${document.documentElement.dataset.theme} ${dark.matches}`;
  if (now !== theme) {
    theme = now;
    known.clear();
  }
  let value = known.get(name);
  if (value === undefined) known.set(name, (value = getComputedStyle(document.documentElement).getPropertyValue(name).trim()));
  return value;
}

let box: HTMLElement | null = null;

/** Shows what is under the pointer. */
export function tip(x: number, y: number, lines: (string | [string, string])[]): void {
  if (!box) {
    box = el("div", { id: "tip", "aria-hidden": "true" });
    document.body.append(box);
  }
  clear(box);
  lines.forEach((line, i) => {
    box!.append(
      typeof line === "string" ? el("div", i === 0 ? { class: "first" } : {}, line) : el("div", { class: "pair" }, el("span", {}, line[0]), el("b", {}, line[1])),
    );
  });
  box.hidden = false;
  const { offsetWidth: w, offsetHeight: h } = box;
  const left = x + 16 + w > innerWidth ? Math.max(4, x - w - 12) : x + 16;
  const top = y + 14 + h > innerHeight ? Math.max(4, y - h - 10) : y + 14;
  box.style.transform = `translate(${left}px, ${top}px)`;
}

export function untip(): void {
  if (box) box.hidden = true;
}

/** Copies, and says so on the button. */
export async function copy(text: string, button: HTMLElement): Promise<void> {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Pages from disk may not be allowed to; the old way still works.
    const area = el("textarea", { "aria-label": "text to copy" });
    area.value = text;
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Not allowed";
    area.remove();
  }
  setTimeout(() => (button.textContent = said), 1200);
}
