// Measures in headless Chromium how long a page takes to open, and how many frames a second it draws while it is panned and
// zoomed: node speed.mjs CHROMIUM PAGE.html [TIMES]. Frames are those that requestAnimationFrame is called for; the program pans
// in every one of them, as a person who drags does.
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright";

const [program, file, times = "3"] = process.argv.slice(2);
const server = await chromium.launchServer({ executablePath: program, args: ["--no-sandbox"] });
const browser = await chromium.connect(server.wsEndpoint());

/** Processor time of all of the browser's processes so far, in ms: on a busy machine that says more than the clock. */
function worked() {
  const parents = new Map(), times = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /s, "").split(" ");
      parents.set(Number(pid), Number(fields[1]));
      times.set(Number(pid), (Number(fields[11]) + Number(fields[12])) * 10);
    } catch {
      // It has ended meanwhile.
    }
  }
  const root = server.process().pid;
  let sum = 0;
  for (const [pid, time] of times) {
    let at = pid;
    while (at && at !== root) at = parents.get(at);
    if (at === root) sum += time;
  }
  return sum;
}

/** Does something in every frame for some seconds; frames a second, and the longest frame in ms. */
function frames(page, what) {
  return page.evaluate(async (what) => {
    const plots = document.querySelector(".plots");
    const box = plots.getBoundingClientRect();
    const at = (type, x) => plots.dispatchEvent(new PointerEvent(type, { clientX: x, clientY: box.top + 250, button: 0, buttons: 1, pointerId: 1, shiftKey: what === "pan", bubbles: true }));
    const middle = box.left + box.width / 2;
    // Synthetic pointers cannot be captured.
    plots.setPointerCapture = () => {};
    if (what === "pan" || what === "select") at("pointerdown", middle);
    const begun = performance.now();
    let before = begun, longest = 0, n = 0;
    while (performance.now() - begun < 4000) {
      const since = performance.now() - begun;
      if (what === "pan" || what === "select") at("pointermove", middle + Math.sin(since / 400) * box.width * 0.4);
      else if (what === "zoom") plots.dispatchEvent(new WheelEvent("wheel", { deltaY: Math.sin(since / 500) * 60, clientX: middle, clientY: box.top + 100, bubbles: true, cancelable: true }));
      else at("pointermove", middle + Math.sin(since / 400) * box.width * 0.4);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      longest = Math.max(longest, now - before);
      before = now;
      n++;
    }
    const seconds = (performance.now() - begun) / 1000;
    if (what === "pan" || what === "select") at("pointerup", middle);
    return { rate: n / seconds, longest, n };
  }, what);
}

for (let n = 0; n < Number(times); n++) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  // Processes of the page before may end yet.
  await page.waitForTimeout(500);
  const idle = worked();
  const begun = performance.now();
  await page.goto(pathToFileURL(file).href);
  await page.waitForSelector("html[data-ready]");
  // Until what was drawn is on the screen.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const opened = (performance.now() - begun) / 1000;
  const memory = await page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
  const said = [`opened in ${opened.toFixed(2)} s, ${((worked() - idle) / 1000).toFixed(2)} s of processor time, ${(memory / 2 ** 20).toFixed(0)} MiB of JavaScript's heap`];
  // Panning is of a part of the time: all of it cannot be panned.
  await page.locator(".plots").focus();
  for (let key = 0; key < 4; key++) await page.keyboard.press("+");
  await page.waitForTimeout(500);
  for (const what of ["pan", "zoom", "select", "hover"]) {
    const before = worked();
    const { rate, longest, n } = await frames(page, what);
    said.push(`${what} ${rate.toFixed(0)} frames/s (longest ${longest.toFixed(0)} ms; ${((worked() - before) / n).toFixed(1)} ms of processor time each)`);
  }
  console.log(`  ${said.join("; ")}`);
  await context.close();
}
await browser.close();
await server.close();
