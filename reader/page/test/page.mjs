// Opens pages in headless Chromium and uses them as a person would: node page.mjs CHROMIUM FOLDER.
// FOLDER has training.html, hostile.html and figures.json, which other commands said of the same traces.
import { readFileSync } from "node:fs";
import { strict as assert } from "node:assert";
import { pathToFileURL } from "node:url";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright";

const [program, folder] = process.argv.slice(2);
const figures = JSON.parse(readFileSync(`${folder}/figures.json`, "utf8"));
const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < 4) [n, unit] = [n / 1024, unit + 1];
  return `${unit === 0 ? n.toFixed(0) : n.toFixed(2)} ${UNITS[unit]}`;
}

async function open(name, options = {}, hash = "") {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => message.type() !== "log" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("dialog", (dialog) => problems.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
  page.on("request", (request) => /^(file|data|blob):/.test(request.url()) || problems.push(`request: ${request.url()}`));
  await page.goto(pathToFileURL(`${folder}/${name}`).href + hash);
  await page.waitForSelector("html[data-ready]");
  return { page, problems, context };
}
const settle = (page) => page.waitForTimeout(250);
const said = (page, title) => page.locator(`section[aria-labelledby=${title}] > .said`).textContent();

{
  const { page, problems, context } = await open("training.html");
  // Figures.
  const figure = (label) => page.locator(".figures > div", { hasText: label }).locator("dd").first().textContent();
  assert.equal(await figure("Leaked on the GPU"), bytes(figures.leaks.total.gpu.bytes));
  assert.equal(await figure("Leaked in host memory"), bytes(figures.leaks.total.host.bytes));
  const device = figures.timeline.series.find((s) => s.layer === "device");
  assert.equal(await figure("Peak"), bytes(device.peak_bytes));
  // The flame graph.
  assert.ok((await said(page, "flame-title")).startsWith(`${bytes(figures.leaks.total.gpu.bytes)} allocated`));
  await page.locator("[data-measure=total]").click();
  await settle(page);
  assert.ok((await said(page, "flame-title")).startsWith(bytes(figures.total)), await said(page, "flame-title"));
  await page.locator("[data-measure=leaked]").click();
  await settle(page);
  const boxes = () => page.locator(".flame [role=treeitem]").evaluateAll((all) => all.map((box) => box.getAttribute("aria-label")));
  const remember = figures.leaks.groups.find((group) => group.stack[0].function === "remember");
  assert.ok((await boxes()).some((label) => label.startsWith("remember metrics.py:12: " + bytes(remember.bytes))));
  await page.locator("[data-toggle=invert]").click();
  await settle(page);
  const second = await page.locator(".flame [role=treeitem][aria-level='2']").first().getAttribute("aria-label");
  assert.ok(/^AdamW.step/.test(second), second);
  await page.locator("[data-toggle=python]").click();
  await settle(page);
  assert.ok((await boxes()).every((label) => !label.includes("train+0x")));
  await page.locator("[data-toggle=python]").click();
  await page.locator("[data-toggle=invert]").click();
  // Search.
  await page.keyboard.press("/");
  await page.keyboard.type("remember");
  await settle(page);
  assert.ok((await said(page, "flame-title")).includes(`${bytes(remember.bytes)} (`), await said(page, "flame-title"));
  assert.ok((await page.locator(".box.match").count()) >= 1);
  await page.getByLabel("Search functions and files").fill("");
  // Zoom by keyboard and wheel, deep links.
  await page.locator(".plots").focus();
  await page.keyboard.press("+");
  await settle(page);
  await page.waitForTimeout(300);
  assert.ok(page.url().includes("view="), page.url());
  await page.keyboard.press("Home");
  await page.evaluate(() => scrollTo(0, 0));
  const plots = await page.locator(".plots").boundingBox();
  await page.mouse.move(plots.x + plots.width / 2, plots.y + 300);
  await page.mouse.wheel(0, -400);
  await page.waitForTimeout(600);
  const view = new URL(page.url()).hash.match(/view=(\d+)-(\d+)/);
  assert.ok(view && view[2] - view[1] < figures.duration, page.url());
  await page.keyboard.press("Home");
  // Hover.
  await page.mouse.move(plots.x + plots.width * 0.7, plots.y + 190 + 240);
  await settle(page);
  assert.match(await page.locator("#tip").textContent(), /size.*lifetime.*thread/);
  await page.mouse.move(plots.x + plots.width * 0.7, plots.y + 60);
  await settle(page);
  assert.match(await page.locator("#tip").textContent(), /Device layer.*Framework layer/);
  await page.screenshot({ path: `${folder}/light.png`, fullPage: true });
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // A selection drives every view; what the other commands say of the same part of the time is what is shown.
  const { from, to } = figures.selected;
  const { page, problems, context } = await open("training.html", {}, `#selection=${from}-${to}&cursor=${to}`);
  assert.ok((await said(page, "flame-title")).startsWith(bytes(figures.selected.kept)), await said(page, "flame-title"));
  await page.locator("[data-measure=live]").click();
  await settle(page);
  assert.ok((await said(page, "flame-title")).startsWith(bytes(figures.selected.live)), await said(page, "flame-title"));
  await page.locator("[data-measure=total]").click();
  await settle(page);
  assert.ok((await said(page, "flame-title")).startsWith(bytes(figures.selected.made)), await said(page, "flame-title"));
  const row = page.locator("[role=tabpanel] tr", { hasText: "remember metrics.py:12" });
  assert.ok((await row.textContent()).includes(bytes(figures.selected.remember)), await row.textContent());
  // By mouse.
  await page.evaluate(() => scrollTo(0, 0));
  const plots = await page.locator(".plots").boundingBox();
  await page.mouse.move(plots.x + 300, plots.y + 50);
  await page.mouse.down();
  await page.mouse.move(plots.x + 500, plots.y + 60, { steps: 5 });
  await page.mouse.up();
  await settle(page);
  assert.match(await page.locator("section[aria-labelledby=time-title] > .said").textContent(), /^Selected/);
  await page.keyboard.press("Escape");
  await settle(page);
  assert.match(await page.locator("section[aria-labelledby=time-title] > .said").textContent(), /^All the time/);
  // Segments play.
  const map = () => page.locator("section[aria-labelledby=map-title] > .said").textContent();
  await page.getByLabel("Moment of the map").fill("0");
  await settle(page);
  assert.match(await map(), /moment 1 of/);
  await page.getByRole("button", { name: "Play" }).click();
  await page.waitForTimeout(1500);
  await page.getByRole("button", { name: "Pause" }).click();
  assert.ok(Number((await map()).match(/moment (\d+) of/)[1]) > 3, await map());
  const last = await page.getByLabel("Moment of the map").getAttribute("max");
  await page.getByLabel("Moment of the map").fill(last);
  await settle(page);
  assert.ok((await map()).includes(bytes(figures.segments_used)), await map());
  // Tables: sorted, filtered, each tab.
  for (const [tab, text] of [["leaks", bytes(figures.leaks.total.gpu.bytes)], ["growth", "keep growing"], ["oom", "failed for lack of memory"], ["reconcile", "nvidia-smi"], ["losses", "thinned on this page"], ["libraries", "PyTorch's caching allocator"]]) {
    await page.locator(`[data-tab=${tab}]`).click();
    await settle(page);
    assert.ok((await page.locator("section[aria-labelledby=tables-title]").textContent()).includes(text), tab);
  }
  await page.locator("[data-tab=leaks]").click();
  await page.getByLabel("Filter rows").fill("remember");
  await settle(page);
  assert.equal(await page.locator("[role=tabpanel] tbody tr").count(), 1);
  await page.locator("[role=tabpanel] tbody button").click();
  assert.match(await page.locator(".detail").textContent(), /remember metrics\.py:12.*train_step/);
  await context.close();
  assert.deepEqual(problems, []);
}
for (const [colorScheme, width] of [["dark", 1280], ["light", 1280], ["dark", 2400]]) {
  const { page, problems, context } = await open("training.html", { colorScheme, viewport: { width, height: 1000 } });
  await settle(page);
  await page.screenshot({ path: `${folder}/${colorScheme}-${width}.png`, fullPage: true });
  const found = await new AxeBuilder({ page }).analyze();
  assert.deepEqual(found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`), []);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  const { page, context } = await open("training.html");
  await page.emulateMedia({ media: "print" });
  await page.screenshot({ path: `${folder}/print.png`, fullPage: true });
  await context.close();
}
{
  // Names do nothing.
  const { page, problems, context } = await open("hostile.html");
  await page.locator("[data-tab=leaks]").click();
  await settle(page);
  await page.locator("[role=tabpanel] tbody button").first().click();
  await settle(page);
  assert.equal(await page.locator("img, iframe, object, embed").count(), 0);
  assert.equal(await page.evaluate(() => document.scripts.length), 2);
  const text = await page.evaluate(() => document.body.innerText);
  assert.ok(text.includes("<img src=x onerror="), "the name is shown as it is");
  assert.ok(!/[\u0000-\u0008\u202a-\u202e\u2066-\u2069]/.test(text), "nothing invisible is in the page");
  await context.close();
  assert.deepEqual(problems, []);
}
await browser.close();
console.log("the page works");
