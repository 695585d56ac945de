// Opens pages in headless Chromium and uses them as a person would: node page.mjs CHROMIUM FOLDER.
// FOLDER has a page of each trace of reader/tests/support/gallery.rs, and figures.json: what other commands said of the same traces.
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
const settle = (page) => page.waitForTimeout(300);
const said = (page, title) => page.locator(`section[aria-labelledby=${title}] > .said`).first().textContent();

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
  await page.mouse.move(plots.x + plots.width * 0.7, plots.y + 190 + 260);
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
  // Growth is what leaks says of both ends of the selection.
  await page.locator("[data-tab=growth]").click();
  await settle(page);
  const [begin, end] = figures.selected.remember_at;
  const grown = await row.locator("td").allTextContents();
  assert.deepEqual(grown.slice(3, 6), [begin, end, end - begin].map(bytes), String(grown));
  // Where the whole number goes is known of one moment, which is said.
  await page.locator("[data-tab=reconcile]").click();
  await settle(page);
  assert.match(await page.locator("section[aria-labelledby=tables-title] > .said").textContent(), /Of GPU 0 at \d.*, whatever is selected/);
  await page.locator("[data-tab=stacks]").click();
  await settle(page);
  // By mouse.
  await page.evaluate(() => scrollTo(0, 0));
  const plots = await page.locator(".plots").boundingBox();
  await page.mouse.move(plots.x + 300, plots.y + 50);
  await page.mouse.down();
  await page.mouse.move(plots.x + 500, plots.y + 60, { steps: 5 });
  await page.mouse.up();
  await settle(page);
  assert.match(await said(page, "time-title"), /^Selected/);
  await page.keyboard.press("Escape");
  await settle(page);
  assert.match(await said(page, "time-title"), /^All the time/);
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
  // Several processes: whose everything is.
  const { page, problems, context } = await open("ranks.html");
  const map = page.locator("section[aria-labelledby=map-title]");
  assert.ok((await map.locator(".said").textContent()).includes("in 36 rows"), await map.locator(".said").textContent());
  await map.locator("summary").click();
  await settle(page);
  assert.equal(await map.locator("tbody tr", { hasText: "rank 3, GPU" }).count(), 9);
  const rows = await page.locator("[role=tabpanel] tbody tr", { hasText: "AdamW.step" }).allTextContents();
  assert.deepEqual(rows.map((row) => row.match(/rank \d/)[0]).sort(), ["rank 0", "rank 1", "rank 2", "rank 3"]);
  // Rows of ranges beyond the first are a click away.
  const height = async () => (await page.locator(".plots").boundingBox()).height;
  const before = await height();
  await page.getByRole("button", { name: "Show 6 more rows of ranges" }).click();
  await settle(page);
  assert.equal(await height(), before + 6 * 17);
  assert.ok(await page.getByRole("button", { name: "Show fewer rows of ranges" }).isVisible());
  // After the end of a process it draws no more, and the flame graph says what it counts.
  await page.evaluate(() => (location.hash = "#measure=live&cursor=29500000000"));
  await settle(page);
  assert.match(await said(page, "flame-title"), /of processes that had ended, what they held in the end/);
  // One of them alone.
  await page.getByLabel("Memory", { exact: true }).selectOption({ label: await page.locator("select option", { hasText: "rank 2) · GPU" }).first().textContent() });
  await settle(page);
  assert.match(await map.locator(".said").textContent(), /in 9 rows/);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // What is too small to be drawn one by one is an area for each stack, with what leaks says of it at that moment.
  const { page, problems, context } = await open("many.html");
  await page.evaluate(() => scrollTo(0, 0));
  const plots = await page.locator(".plots").boundingBox();
  for (const { time, bytes: expected } of figures.many.moments) {
    const x = plots.x + 104 + (time / figures.many.duration) * (plots.width - 104 - 22);
    const tips = new Set();
    for (let y = plots.y + 190; y < plots.y + plots.height; y += 4) {
      await page.mouse.move(x, y);
      tips.add(await page.locator("#tip").textContent());
    }
    const areas = [...tips].filter((tip) => tip.includes("its smaller allocations, together"));
    assert.equal(expected.length, 3);
    for (const sum of expected) assert.equal(areas.filter((tip) => tip.includes(bytes(sum))).length, 1, `${bytes(sum)}: ${[...tips].join("\n")}`);
  }
  await page.screenshot({ path: `${folder}/many.png` });
  await page.locator("[data-tab=losses]").click();
  await settle(page);
  assert.match(await page.locator("[role=tabpanel]").textContent(), /an area for each of the largest stacks, in steps of/);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // Nothing was allocated: that is said, and nothing is drawn that is not there.
  const { page, problems, context } = await open("empty.html");
  assert.ok(await page.getByText("No memory was allocated in all this time.").isVisible());
  assert.ok(!(await page.locator(".plots").isVisible()));
  assert.ok(!(await page.locator("section[aria-labelledby=map-title]").isVisible()));
  assert.match(await said(page, "flame-title"), /^Nothing was held/);
  for (const tab of ["libraries", "leaks", "growth", "oom", "reconcile", "losses"]) await page.locator(`[data-tab=${tab}]`).click();
  await page.getByLabel("Help: keys and pointer").click();
  assert.ok(await page.getByRole("heading", { name: "Keys and pointer" }).isVisible());
  await page.keyboard.press("Escape");
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // Where the event log begins is said, and what stands for the time before.
  const { page, problems, context } = await open("wrapped.html", {}, "#measure=live&cursor=10000000000");
  assert.match(await page.locator("section[aria-labelledby=time-title]").textContent(), /The event log begins at 2\d\.\d+ s/);
  assert.match(await said(page, "flame-title"), /before the event log, which begins at/);
  await page.locator("[data-measure=growth]").click();
  await settle(page);
  // Nothing was live before the program began: all that is live has grown.
  assert.ok((await said(page, "flame-title")).startsWith(bytes(figures.wrapped.live)), await said(page, "flame-title"));
  assert.ok(!/other stacks hold/.test(await said(page, "flame-title")));
  // A selection that begins before the log: so does the table of growth.
  await page.evaluate(() => (location.hash = "#tab=growth&selection=10000000000-30000000000"));
  await settle(page);
  assert.match(await said(page, "tables-title"), /Of the beginning: that is before the event log/);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // Sampled stacks are said to be that, and estimates stand beside what is known.
  const { page, problems, context } = await open("sampled.html", {}, "#tab=leaks");
  assert.match(await said(page, "flame-title"), /stacks were sampled: .* have none and stand apart/);
  const { groups } = figures.sampled;
  const group = groups.find((group) => group.estimate);
  const row = page.locator("[role=tabpanel] tbody tr", { hasText: bytes(group.estimate.bytes) });
  assert.ok((await row.first().textContent()).includes(`${bytes(group.estimate.bytes_low)} to ${bytes(group.estimate.bytes_high)}`));
  assert.match(await page.locator(".figures").textContent(), /in part estimates/);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // A week: days, and curves from when on they are kept.
  const { page, problems, context } = await open("week.html", {}, `#cursor=${3 * 86_400e9}`);
  assert.match(await said(page, "time-title"), /Cursor at 3 d.*: Device layer \d.*, Framework layer \d/);
  assert.match(await page.locator("section[aria-labelledby=time-title]").textContent(), /Curves are known from 1 d \d+ h/);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // By keyboard alone, from the first to the last view.
  const { page, problems, context } = await open("training.html");
  await page.keyboard.press("?");
  assert.ok(await page.getByRole("heading", { name: "Keys and pointer" }).isVisible());
  await page.keyboard.press("Escape");
  await page.locator(".plots").focus();
  for (let key = 0; key < 3; key++) await page.keyboard.press("+");
  await page.keyboard.press("PageUp");
  const cursor = async () => (await said(page, "time-title")).match(/[Cc]ursor at ([^:]+)/)[1];
  const first = await cursor();
  await page.keyboard.press("Shift+ArrowLeft");
  await settle(page);
  assert.notEqual(await cursor(), first);
  await page.keyboard.press("[");
  await settle(page);
  assert.match(await said(page, "time-title"), /^Selected/);
  await page.keyboard.press("Escape");
  // Zooming a flame graph and sorting a table leave the keyboard where it was.
  await page.locator(".flame [role=treeitem]").first().focus();
  await page.keyboard.press("ArrowDown");
  const box = () => page.evaluate(() => document.activeElement.getAttribute("aria-label"));
  const label = await box();
  await page.keyboard.press("Enter");
  await settle(page);
  assert.equal((await box()).split(":")[0], label.split(":")[0]);
  assert.ok(page.url().includes("zoom=") || (await page.waitForTimeout(300), page.url().includes("zoom=")));
  await page.locator("[data-column=made]").focus();
  await page.keyboard.press("Enter");
  await settle(page);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.column), "made");
  assert.equal(await page.locator("th[aria-sort=descending]").textContent(), "Allocated ▾");
  // What is open is in the address, and closing leads back.
  await page.locator("[role=tabpanel] tbody button").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForTimeout(600);
  const address = page.url();
  assert.match(address, /open=\d+/);
  const title = await page.locator(".detail h2").textContent();
  await page.keyboard.press("Escape");
  await settle(page);
  assert.ok(!(await page.locator(".detail").isVisible()));
  assert.equal(await page.evaluate(() => document.activeElement.closest("[role=tabpanel]") !== null), true);
  await context.close();
  const again = await open("training.html", {}, new URL(address).hash);
  assert.equal(await again.page.locator(".detail h2").textContent(), title);
  assert.equal(await again.page.locator("th[aria-sort=descending]").textContent(), "Allocated ▾");
  await again.context.close();
  assert.deepEqual([...problems, ...again.problems], []);
}
{
  // An address that makes no sense does no harm.
  const { page, problems, context } = await open("training.html", {}, "#view=99999999999999-999999999999999&selection=5-x&cursor=-5&open=1.5&scope=no&measure=no&tab=no&sort=no&zoom=a.b&unit=%E0%A4%A&nonsense");
  assert.match(await said(page, "time-title"), /^All the time/);
  assert.match(await said(page, "flame-title"), /allocated over the whole time/);
  await page.locator(".plots").focus();
  await page.keyboard.press("+");
  await settle(page);
  await context.close();
  assert.deepEqual(problems, []);
}
{
  // While the view moves the picture is moved, and at rest it is what would be drawn there.
  const picture = async (hash, before) => {
    const { page, context } = await open("training.html", {}, hash);
    await settle(page);
    if (before) await before(page);
    await settle(page);
    const shot = await page.locator(".film").screenshot();
    await context.close();
    return shot;
  };
  const panned = await picture("#view=5000000000-9000000000", async (page) => {
    await page.locator(".plots").focus();
    for (let key = 0; key < 5; key++) await page.keyboard.press("ArrowRight");
  });
  const there = await picture("#view=7000000000-11000000000");
  assert.ok(panned.length > 5000 && Math.abs(panned.length - there.length) < 0.2 * there.length, `${panned.length} ${there.length}`);
}
{
  // On paper: light, all of it, whatever the screen's colours and width.
  const { page, context } = await open("training.html", { colorScheme: "dark", viewport: { width: 2400, height: 1000 } });
  const dark = () => page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
  assert.equal(await dark(), "dark");
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  assert.equal(await dark(), "light");
  assert.ok(await page.evaluate(() => document.querySelector(".plots").clientWidth < 1040));
  await page.emulateMedia({ media: "print" });
  await page.screenshot({ path: `${folder}/print.png`, fullPage: true });
  await page.emulateMedia({ media: "screen" });
  await page.evaluate(() => dispatchEvent(new Event("afterprint")));
  assert.equal(await dark(), "dark");
  assert.ok(await page.evaluate(() => document.querySelector(".plots").clientWidth > 2000));
  const pdf = await page.pdf({ path: `${folder}/print.pdf`, preferCSSPageSize: true });
  assert.ok(pdf.length > 20_000);
  await context.close();
}
{
  // Names do nothing.
  const { page, problems, context } = await open("hostile.html");
  await page.locator("[data-tab=leaks]").click();
  await settle(page);
  await page.locator("[role=tabpanel] tbody button").first().click();
  await settle(page);
  await page.screenshot({ path: `${folder}/hostile.png` });
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
