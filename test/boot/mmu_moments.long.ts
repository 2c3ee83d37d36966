/** The same as mmu_moments.test.ts, at more moments; and by qemu's MMU, where there is one. */
import { execFileSync, spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { agree_at_moments, tlbs_forget_in_time } from "./mmu_moments.ts";

const qemu = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;

describe("the page tables of a busy machine", () => {
  for (const seed of [2, 3, 4])
    it(`translate, allow and refuse as an MMU written from the manual does, 25 moments, seed ${seed}`, () =>
      agree_at_moments(seed, 25));

  it("are what each CPU's TLB remembers and may use, after each of 6,000 entries", () => tlbs_forget_in_time(5, 6000));

  it.runIf(qemu)("are to qemu's MMU what they are to ours, at 12 moments", () => {
    const said = execFileSync(process.execPath, ["test/tools/mmu.mjs", "--seed", "5", "--moments", "12"], { encoding: "utf8" }); // prettier-ignore
    const lines = said.trimEnd().split("\n");
    expect(lines).toHaveLength(13); // an export of the console first
    expect(lines.filter((line) => !/ \d{5} accesses \(\d{4,} allowed\) in qemu: 0 differ$/.test(line))).toEqual([]);
  });
});
