/** The page with the WebAssembly package in it, as a folder for any static server. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const outDir = here("../target/site");

function filesIn(folder: string): string[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? filesIn(path) : [path];
    })
    .sort();
}

/** Writes the service worker with the names of all files but models and modules, which the package keeps itself, and a version that changes with their contents. */
function offline(): Plugin {
  return {
    name: "offline",
    apply: "build",
    closeBundle() {
      const files = filesIn(outDir).filter((path) => !/\.(gguf|wasm)$|sw\.js$/.test(path));
      const hash = createHash("sha256");
      for (const path of files) hash.update(path).update(readFileSync(path));
      const names = [
        "./",
        ...files.map((path) => `./${relative(outDir, path)}`).filter((name) => name !== "./index.html"),
      ];
      const code = readFileSync(here("site/sw.js"), "utf8")
        .replace("__VERSION__", hash.digest("hex").slice(0, 16))
        .replace('["__FILES__"]', JSON.stringify(names));
      writeFileSync(join(outDir, "sw.js"), code);
    },
  };
}

export default defineConfig({
  root: here("site"),
  publicDir: here("public"),
  base: "./",
  resolve: { alias: { "bitnet-wasm": here("../bindings/wasm/js/dist/index.js") } },
  worker: { format: "es" },
  plugins: [offline()],
  server: { fs: { allow: [here("..")] } },
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
