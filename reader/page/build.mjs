// Puts the built script and styles into the page's template, with a Content-Security-Policy that lets
// nothing else run and nothing be loaded: ../src/page/page.html, which the reader contains.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const here = new URL(".", import.meta.url);
const read = (name) => readFileSync(new URL(name, here), "utf8");
const hash = (text) => `'sha256-${createHash("sha256").update(text, "utf8").digest("base64")}'`;

// The licences of what is bundled go with it.
const bundled = ["uplot", "d3-array", "d3-scale", "d3-color", "d3-format", "d3-interpolate", "d3-time", "d3-time-format", "internmap"];
const licences = bundled
  .map((name) => {
    const of = JSON.parse(read(`node_modules/${name}/package.json`));
    return `${name} ${of.version} (${of.license}), ${of.homepage ?? ""}\n${read(`node_modules/${name}/LICENSE`).trim()}`;
  })
  .join("\n\n")
  .replaceAll("--", "- -");
const script = read("dist/page.js").replaceAll("</script", "<\\/script");
const style = read("dist/page.css").replaceAll("</style", "<\\/style");
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "img-src data:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

// Replacements are functions: `$&` in a bundle is no instruction.
const page = read("template.html")
  .replace("@@LICENCES@@", () => licences)
  .replace("@@POLICY@@", () => policy)
  .replace("@@STYLE@@", () => style)
  .replace("@@SCRIPT@@", () => script);
if (page.split("@@DOCUMENT@@").length !== 2) throw new Error("there must be one place for the document");
writeFileSync(new URL("../src/page/page.html", here), page);
console.log(`page.html: ${(page.length / 1024).toFixed(0)} KiB`);
