// Puts the built script and styles into the page's template, with a Content-Security-Policy that lets
// nothing else run and nothing be loaded: ../src/page/page.html, which the reader contains.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const here = new URL(".", import.meta.url);
const read = (name) => readFileSync(new URL(name, here), "utf8");
const hash = (text) => `'sha256-${createHash("sha256").update(text, "utf8").digest("base64")}'`;

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
  .replace("@@POLICY@@", () => policy)
  .replace("@@STYLE@@", () => style)
  .replace("@@SCRIPT@@", () => script);
if (page.split("@@DOCUMENT@@").length !== 2) throw new Error("there must be one place for the document");
writeFileSync(new URL("../src/page/page.html", here), page);
console.log(`page.html: ${(page.length / 1024).toFixed(0)} KiB`);
