/**
 * vitest: one project for each kind of realm, chosen by `--mode`.
 *
 *   test (default)  plain: every test/…/*.test.ts        quick  the same without SMP, random and hot tests
 *   long, nightly   long: every test/…/*.long.ts         tests read the mode from process.env.KHEAP_RUN
 *
 * Files of a project share a realm (`isolate: false`): the kernel loads once a worker, and each test boots it anew.
 */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const root = fileURLToPath(new URL("../..", import.meta.url));
const long_modes = ["long", "nightly"];
const not_quick = ["test/smp/**", "test/random/**", "test/hot/**"];

export default defineConfig(({ mode }) => {
  const shared = {
    pool: "forks" as const,
    isolate: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    env: { KHEAP_RUN: mode },
    exclude: ["**/node_modules/**", "dist/**", ...(mode === "quick" ? not_quick : [])],
    setupFiles: ["test/lib/setup_plain.ts"],
  };
  const plain = { ...shared, name: "plain", include: ["test/**/*.test.ts"] };
  const long = { ...shared, name: "long", include: ["test/**/*.long.ts"], testTimeout: 300_000 };
  const projects = long_modes.includes(mode) ? [long] : [plain];
  return {
    root,
    test: {
      maxWorkers: 2,
      passWithNoTests: true,
      coverage: { provider: "v8", include: ["{hal,mm,kernel,boot}/**/*.ts"], reporter: ["text-summary", "html"] },
      projects: projects.map((test) => ({ root, test })),
    },
  };
});
