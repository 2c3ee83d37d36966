/** `kunit`: suites of modules, as KTAP. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { console_run } from "./run.ts";

const folder = mkdtempSync(join(tmpdir(), "kheap-"));
afterAll(() => rmSync(folder, { recursive: true }));
const examples = fileURLToPath(new URL("../../examples", import.meta.url));

const SUITE = `import { KUNIT_ASSERT_TRUE, KUNIT_CASE_PARAM, KUNIT_EXPECT_EQ, KUNIT_EXPECT_LT, kunit_kzalloc, kunit_skip, kunit_suite_exit, kunit_test_suite } from "kheap/linux/kunit";
import { module_exit, module_init } from "kheap/linux/module";
import { GFP_KERNEL } from "kheap/linux/slab";
import { static_data } from "kheap/linux/types";
const my = static_data("mixed", { suite: "*kunit_suite" });
module_init(() => {
  my.suite = kunit_test_suite("mixed", {
    good(test) { KUNIT_EXPECT_LT(test, kunit_kzalloc(test, 100, GFP_KERNEL) > 0 ? 1 : 2, 2); },
    two_wrong(test) {
      KUNIT_EXPECT_EQ(test, 3, 4);
      KUNIT_EXPECT_EQ(test, "a", "b");
    },
    asserts(test) {
      KUNIT_ASSERT_TRUE(test, false);
      throw new Error("not reached");
    },
    throws() { throw new TypeError("why"); },
    left_out(test) { kunit_skip(test, "not here"); },
    even: KUNIT_CASE_PARAM([2, 3], (test, n) => KUNIT_EXPECT_EQ(test, n % 2, 0)),
  });
  return 0;
});
module_exit(() => kunit_suite_exit(my.suite));
`;

describe("kunit", () => {
  it("runs an example's suite", async () => {
    const { out, err, failed } = await console_run([
      `modprobe -d ${examples} ring_kunit`,
      "kunit",
      "modprobe -r ring_kunit",
    ]);
    expect({ err, failed }).toEqual({ err: "", failed: false });
    expect(out).toBe(`KTAP version 1
1..1
    KTAP version 1
    # Subtest: ring
    1..2
    ok 1 first_in_first_out
        KTAP version 1
        # Subtest: holds_eight
        1..4
        ok 1 7
        ok 2 8
        ok 3 9
        ok 4 20
    ok 2 holds_eight
# ring: pass:5 fail:0 skip:0 total:5
ok 1 ring
`);
  });

  it("says what failed and where, goes on after an expectation and not after an assertion, and leaks nothing", async () => {
    const file = join(folder, "mixed.ts");
    writeFileSync(file, SUITE);
    const { out, failed } = await console_run([`insmod ${file}`, "kunit mixed", "rmmod mixed"]);
    expect(failed).toBe(true);
    for (const text of [
      "    ok 1 good\n    # two_wrong: EXPECTATION FAILED at mixed.ts:10\n    #     Expected left == right, but\n    #         left == 3 (0x3)\n    #         right == 4 (0x4)\n    # two_wrong: EXPECTATION FAILED at mixed.ts:11\n",
      "    not ok 2 two_wrong\n    # asserts: ASSERTION FAILED at mixed.ts:14\n    #     Expected true, but it is false\n    not ok 3 asserts\n",
      "    # throws: threw TypeError: why in throws [mixed.ts:17]\n    not ok 4 throws\n    ok 5 left_out # SKIP\n",
      "        ok 1 2\n        # even.1: EXPECTATION FAILED at mixed.ts:19\n",
      "# mixed: pass:2 fail:4 skip:1 total:7\nnot ok 1 mixed\n",
    ])
      expect(out).toContain(text);
  });

  it("says that there is no suite", async () => {
    const { err } = await console_run(["kunit", "kunit ring"]);
    expect(err).toBe("kunit: no suite is loaded; modprobe ring_kunit brings one\nkunit: there is no suite ring\n");
  });
});
