/** One line on a terminal that says how far the bench is. Nothing elsewhere. */
import { performance } from "node:perf_hooks";

export interface Progress {
  show(what: string, done?: number, total?: number): void;
  /** A line that stays. */
  say(line: string): void;
  end(): void;
}

const EVERY_MS = 100;

export function create_progress(say: (line: string) => void): Progress {
  const terminal = process.stderr.isTTY;
  const begin = performance.now();
  let shown = 0;
  const clear = (): void => {
    if (terminal) process.stderr.write("\r\x1b[K");
  };
  return {
    show(what, done = 0, total = 0) {
      const now = performance.now();
      if (!terminal || (done > 0 && now - shown < EVERY_MS)) return;
      shown = now;
      const left = done > 20 ? `, ${Math.ceil(((now - begin) / 1000 / done) * (total - done))} s left` : "";
      process.stderr.write(`\r\x1b[K${`${what}${left}`.slice(0, (process.stderr.columns || 80) - 1)}`);
    },
    say(line) {
      clear();
      say(line);
    },
    end: clear,
  };
}
