/** Boot time and resident memory by RAM size: a process that boots a machine, init's programs included, and ends. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { create_progress } from "./progress.ts";
import { spread, type Spread } from "./results.ts";

export const BOOT_SIZES = ["64M", "256M", "2G"];
const entry = fileURLToPath(new URL("boot_child.ts", import.meta.url));

export interface BootFigures {
  readonly mem: string;
  /** Nanoseconds from the start of the process to the end of boot, and of boot alone. */
  readonly start: Spread;
  readonly boot: Spread;
  /** Bytes of the process: with the kernel loaded but nothing booted, after boot, and after a gibibyte was asked for. */
  readonly rss_loaded: number;
  readonly rss: number;
}

export interface BootAnswer {
  readonly start_ms: number;
  readonly boot_ms: number;
  readonly rss_loaded: number;
  readonly rss: number;
}

export function boot_figures(rounds: number, say: (line: string) => void): Promise<BootFigures[]> {
  const progress = create_progress(say);
  const answers = BOOT_SIZES.map((): BootAnswer[] => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, mem] of BOOT_SIZES.entries()) {
      progress.show(`round ${round + 1} of ${rounds}: boot with ${mem}`);
      const child = spawnSync(process.execPath, ["--import", "tsx", entry, mem], { encoding: "utf8" });
      if (child.status !== 0) throw new Error(`boot with ${mem}: ${child.stderr}`);
      answers[i]!.push(JSON.parse(child.stdout) as BootAnswer);
    }
  progress.end();
  const of = (list: readonly BootAnswer[], pick: (answer: BootAnswer) => number): Spread => spread(list.map(pick))!;
  return Promise.resolve(
    BOOT_SIZES.map((mem, i) => ({
      mem,
      start: of(answers[i]!, ({ start_ms }) => start_ms * 1e6),
      boot: of(answers[i]!, ({ boot_ms }) => boot_ms * 1e6),
      rss_loaded: of(answers[i]!, ({ rss_loaded }) => rss_loaded).median,
      rss: of(answers[i]!, ({ rss }) => rss).median,
    })),
  );
}
