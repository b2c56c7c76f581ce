import { defineConfig } from "vite";

/** The server that answers the page's requests during development; the built page asks the one that served it. */
const server = process.env.BITNET_SERVER ?? "http://127.0.0.1:8080";

export default defineConfig({
  // Relative, so that the page also works below another path (`Service::router` nested into a program's own server).
  base: "./",
  server: {
    proxy: { "/v1": server, "/bitnet": server, "/health": server },
  },
  build: {
    outDir: "../crates/bitnet-server/page",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rollupOptions: {
      output: {
        // Fixed names: the server embeds these files by name and tells browsers by a tag when they changed.
        entryFileNames: "assets/app.js",
        assetFileNames: "assets/app[extname]",
        inlineDynamicImports: true,
      },
    },
  },
  test: { include: ["test/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
