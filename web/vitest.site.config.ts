import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["site/e2e/**/*.e2e.ts"],
    testTimeout: 40_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    sequence: { concurrent: false },
  },
});
