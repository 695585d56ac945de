// Draws snapshots with the script of PyTorch's memory_viz page; see scripts/check-memory-viz.
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const [folder, tools, page, ...snapshots] = process.argv.slice(2);
const { chromium } = createRequire(path.join(page, "package.json"))("playwright");
const script = fs.readFileSync(path.join(folder, "MemoryViz.js"), "utf8");
const version = /\/d3@(\d+)/.exec(script)?.[1];
const d3 = fs.readFileSync(path.join(tools, `d3-${version}.js`));
const html = '<!doctype html><body><script type="module">import * as viz from "./MemoryViz.js"; window.viz = viz;</script>';

const server = http.createServer((request, response) => {
  const name = path.basename(request.url);
  const file = path.join(folder, name);
  if (request.url === "/") {
    response.setHeader("content-type", "text/html").end(html);
  } else if (name.endsWith(".js") && fs.existsSync(file)) {
    response.setHeader("content-type", "text/javascript").end(fs.readFileSync(file));
  } else {
    response.writeHead(204).end();
  }
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const address = `http://127.0.0.1:${server.address().port}/`;
const browser = await chromium.launch({ executablePath: process.env.VRAMTRACE_TEST_CHROMIUM, args: ["--no-sandbox"] });

/** Opens the page with nothing in it; errors are put into `errors`. */
async function open(errors) {
  const tab = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  tab.on("pageerror", (error) => errors.push(String(error)));
  tab.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  // Whatever the page wants from elsewhere is d3.
  await tab.route(
    (url) => url.hostname !== "127.0.0.1",
    (route) => route.fulfill({ contentType: "text/javascript", headers: { "access-control-allow-origin": "*" }, body: d3 }),
  );
  await tab.goto(address);
  await tab.waitForFunction(() => window.viz, undefined, { timeout: 30_000 });
  return tab;
}

let wrong = 0;
for (const snapshot of snapshots) {
  const base64 = fs.readFileSync(snapshot).toString("base64");
  const first = await open([]);
  const views = await first.evaluate(() => [...document.querySelectorAll("select")][1]?.innerText.split("\n") ?? []);
  await first.close();
  for (const view of views.map((view) => view.trim()).filter(Boolean)) {
    const errors = [];
    const tab = await open(errors);
    const load = ([base64, view]) => window.viz.add_local_files([{ name: "snapshot", base64 }], view);
    await tab.evaluate(load, [base64, view]).catch((error) => errors.push(String(error)));
    // Settings are text; all others are drawn.
    const drawn = () => document.querySelectorAll("svg rect, svg polygon").length > 1;
    const text = /settings/i.test(view);
    if (!text) {
      await tab.waitForFunction(drawn, undefined, { timeout: 60_000 }).catch(() => errors.push("nothing is drawn"));
    }
    const shapes = await tab.evaluate(() => document.querySelectorAll("svg rect, svg polygon").length);
    const said = await tab.evaluate(() => /\(.*allocated \/ .*reserved\)/.exec(document.body.innerText)?.[0] ?? "");
    console.log(`${path.basename(snapshot)}, ${view}: ${text ? "text" : `${shapes} shapes`} ${said}`);
    errors.forEach((error) => console.log(`  ERROR ${error}`));
    wrong += errors.length;
    if (process.env.VRAMTRACE_TEST_PAGES) {
      const name = `${path.basename(snapshot)}-${view.replace(/\W+/g, "-")}.png`;
      await tab.screenshot({ path: path.join(process.env.VRAMTRACE_TEST_PAGES, name) });
    }
    await tab.close();
  }
  if (!views.length) {
    console.log("the page offers no views");
    wrong += 1;
  }
}
await browser.close();
server.close();
process.exit(wrong ? 1 : 0);
