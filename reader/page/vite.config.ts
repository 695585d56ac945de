// One script and one style sheet, without names that change: build.mjs puts them into the page.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    cssCodeSplit: false,
    modulePreload: false,
    lib: { entry: "src/main.ts", formats: ["iife"], name: "vramtrace", fileName: () => "page.js", cssFileName: "page" },
  },
});
