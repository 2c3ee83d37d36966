/** `lkdtm`: breaks the kernel on purpose, to see an oops. */
import { strerror } from "../../kernel/lib/errno.ts";
import { CRASH_POINTS, lkdtm } from "../../kernel/lkdtm.ts";
import { CommandError, nearest, register, usage_error } from "./registry.ts";

register({
  name: "lkdtm",
  group: "system",
  usage: "lkdtm CRASHPOINT",
  summary: "breaks the kernel on purpose: a thread dies of a bad access or a BUG",
  man: `Starts a kernel thread that does what the crash point says, as Linux's module of this name does. The kernel prints an
oops, kills the thread and goes on.

${Object.entries(CRASH_POINTS).map(([name, [what]]) => `  ${name.padEnd(24)}${what}`).join("\n")}`,
  complete: () => Object.keys(CRASH_POINTS),
  run(_ctx, [name, ...more]) {
    if (name === undefined || more.length > 0) throw usage_error(this);
    if (!Object.hasOwn(CRASH_POINTS, name)) {
      const other = nearest(name, Object.keys(CRASH_POINTS));
      const hint = other === undefined ? "; man lkdtm lists them" : `; do you mean ${other}?`;
      throw new CommandError(`lkdtm: there is no crash point ${name}${hint}`);
    }
    const error = lkdtm(name);
    if (error < 0) throw new CommandError(`lkdtm: ${strerror(error)}`);
    return { text: "", json: name };
  },
}); // prettier-ignore
