import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // The pictures of the documents are made by the same browser, when asked for.
    include: [process.env.SHOTS ? "site/e2e/shots.ts" : "site/e2e/**/*.e2e.ts"],
    testTimeout: 40_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    sequence: { concurrent: false },
  },
});
