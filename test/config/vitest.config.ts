/**
 * vitest: one project for each kind of realm, chosen by `--mode`.
 *
 *   test (default)  plain: every test/…/*.test.ts        quick  the same without SMP, random and hot tests
 *                   timing: every test/…/*.timing.ts, in a realm that counts cycles
 *   long, nightly   long: every test/…/*.long.ts         tests read the mode from process.env.KHEAP_RUN
 *
 * Files of a project share a realm (`isolate: false`): the kernel loads once a worker, and each test boots it anew.
 */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";
import { is_instrumented, transform } from "../../boot/instrument/transform.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const long_modes = ["long", "nightly"];
const not_quick = ["test/smp/**", "test/random/**", "test/hot/**"];

/** What boot/instrument/hooks.ts does in Node's loader. */
const instrument = {
  name: "kheap-instrument",
  enforce: "post" as const,
  transform(code: string, id: string) {
    const path = id.startsWith(root) ? id.slice(root.length).split("?")[0]! : "";
    if (!is_instrumented(path)) return undefined;
    const out = transform(code, path, `${root}hal/timing.ts`);
    return { code: out.toString(), map: out.generateMap({ hires: "boundary" }) };
  },
};

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
  const timing = {
    ...shared,
    name: "timing",
    include: ["test/**/*.timing.ts"],
    setupFiles: ["test/lib/setup_timing.ts"],
  };
  return {
    root,
    test: {
      maxWorkers: 2,
      passWithNoTests: true,
      coverage: { provider: "v8", include: ["{hal,mm,kernel,boot}/**/*.ts"], reporter: ["text-summary", "html"] },
      projects: long_modes.includes(mode)
        ? [{ root, test: long }]
        : [
            { root, test: plain },
            { root, test: timing, plugins: [instrument] },
          ],
    },
  };
});
