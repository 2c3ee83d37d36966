/** sh: what it makes of lines. */
import { describe, expect, it } from "vitest";
import { console_run } from "../boot/run.ts";

/** A line, and what it prints on standard output and standard error together. */
const LINES: readonly (readonly [string, string])[] = [
  ["echo a  'b  c' \"d;e\" f\\ g # h", "a b  c d;e f g\n"],
  ["echo a;echo b ; echo c", "a\nb\nc\n"],
  ["true && echo a || echo b", "a\n"],
  ["false && echo a || echo b && echo c", "b\nc\n"],
  ["echo b a | cat | wc", "       1        2        4\n"],
  ["echo x|cat|cat", "x\n"],
  ["echo one > /tmp/f; echo two >> /tmp/f; cat < /tmp/f", "one\ntwo\n"],
  ["cat < /tmp/f > /tmp/g; cat /tmp/g | grep -v one", "two\n"],
  ["ls /none 2> /tmp/f; cat /tmp/f", "ls: /none: No such file or directory\n"],
  ["ls /none > /tmp/f 2>&1; cat /tmp/f", "ls: /none: No such file or directory\n"],
  ["cd /tmp; pwd; cd /none; cd; pwd", "/tmp\ncd: /none: No such file or directory\n/\n"],
  ["cd /tmp | pwd; pwd", "/\n/\n"],
  ["sleep 0.02 & echo first; wait; echo last", "first\nlast\n"],
  ["sh -c 'exit 3' || echo failed", "failed\n"],
  ["nothing", "sh: nothing: not found\n"],
  ["/tmp; /usr/src/000/000.c", "sh: /tmp: Permission denied\nsh: /usr/src/000/000.c: Exec format error\n"],
  ["echo a > /none/f", "sh: /none/f: No such file or directory\n"],
  ["yes | head -n 2", "y\ny\n"],
  ["echo 'not closed", "sh: 'not closed: a quote is not closed\n"],
  ["echo a |", "sh: a command is missing at the end\n"],
  ["| echo a", 'sh: "|" stands behind nothing\n'],
  ["echo a >", "sh: a file name is missing behind >\n"],
  ["echo a && && echo b", 'sh: "&&" stands behind nothing\n'],
];

describe("sh", () => {
  it("runs lists, pipelines and redirections", async () => {
    // Each line from a file, with both outputs into another.
    const quoted = LINES.map(([line]) => `'${line.replaceAll("'", `'"'"'`)}'`);
    const run = 'sh -c "sh /tmp/line > /tmp/out 2>&1; cat /tmp/out; echo @"';
    const { out, err } = await console_run(quoted.map((line) => `echo ${line} > /tmp/line; ${run}`));
    expect(err).toBe("");
    const said = out.split("@\n").slice(0, -1);
    expect(said).toEqual(LINES.map(([, text]) => text));
  });

  it("runs a file of lines by its name, and standard input", async () => {
    const script =
      "echo '#!/bin/sh' > /tmp/s; echo 'echo from a script' >> /tmp/s; echo exit 7 >> /tmp/s; echo no >> /tmp/s";
    const { out, err } = await console_run([script, "/tmp/s", "echo echo piped | sh; sh < /tmp/s"]);
    expect(out).toBe("from a script\npiped\nfrom a script\n");
    expect(err).toBe("s: status 7\nsh: status 7\n");
  });
});
