/** The page of the desktop program, as the files that it embeds. */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  root: here("desktop"),
  publicDir: false,
  base: "./",
  server: { fs: { allow: [here("..")] } },
  build: {
    outDir: here("../target/desktop/page"),
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
