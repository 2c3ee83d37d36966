/** Programs that the console starts. */
import { describe, expect, it } from "vitest";
import { console_run } from "./run.ts";

describe("programs about memory", () => {
  it("run in the foreground; their answer is what they log, and how they fail is one line", async () => {
    const { out, err, failed } = await console_run(["cowtest; memhog 2; memhog 0; cowtest 1", "memhog; free"]);
    expect(out.split("\n").slice(0, 2)).toEqual(["16 pages, each process read its own", "2 MiB filled"]);
    expect(err.split("\n").filter((line) => !line.startsWith("["))).toEqual([
      'memhog: "0" given, 1 to 2048 allowed',
      "usage: cowtest",
      "memhog: ended by signal 9",
      "",
    ]);
    expect(failed).toBe(true);
  });
});
