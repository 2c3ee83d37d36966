/**
 * Hot paths make no garbage: millions of operations in a process of their own, and no garbage collection meanwhile.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { HotAnswer } from "./child.ts";

const child = fileURLToPath(new URL("child.ts", import.meta.url));

test.each(["", "slab=slab"])("millions of hot operations cause no garbage collection: %s", (append) => {
  const flags = ["--import", "tsx", "--expose-gc", "--max-semi-space-size=1"];
  const { stdout, stderr, status } = spawnSync(process.execPath, [...flags, child, append], { encoding: "utf8" });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  const { answers, seen, findings } = JSON.parse(stdout) as { answers: HotAnswer[]; seen: number; findings: string[] };
  expect(findings).toEqual([]);
  // The observer works: it saw at least the collections that were asked for.
  expect(seen).toBeGreaterThanOrEqual(answers.length);
  expect(answers.length).toBe(7);
  expect(answers.filter(({ collections }) => collections > 0)).toEqual([]);
});
