/** A thousand processes that fork, fault and die while memory runs out: none reads what it did not write, no page is lost. */
import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { O_RDONLY } from "../../kernel/fs/fs.ts";
import { program } from "../../kernel/program.ts";
import { SIGKILL } from "../../kernel/signal.ts";
import { tasklist } from "../../kernel/task.ts";
import { u } from "../../kernel/user_memory.ts";
import { MAP_PRIVATE, PROT_READ, PROT_WRITE } from "../../mm/mmap.ts";
import { NR_ANON_MAPPED, NR_FILE_MAPPED, global_node_page_state } from "../../mm/vmstat.ts";
import { validate_mm } from "../../mm/validate.ts";
import { log, reports, test_init, with_tasks } from "./tasks.ts";

const WRONG = 3;
const RW = PROT_READ | PROT_WRITE;
const next = (seed: number): number => (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;

const INODE = Buffer.from("inod").readInt32LE(); // how each page of a film begins

// Maps memory and parts of a film, fills, forks, unmaps by turns; before each turn it reads all it has. Children go on from
// where they were made.
program("t_churn", function* (sys, start: number, turns: number) {
  const areas: { va: number; pages: number; value: number }[] = [];
  let [seed, depth] = [start, 0];
  const film: number = yield sys.open("/usr/media/film3", O_RDONLY);
  for (let turn = 0; turn < turns; turn++) {
    seed = next(seed);
    for (const { va, pages, value } of areas)
      for (let i = 0; i < pages; i++) if (u.load32(va + i * PAGE_SIZE) !== value) return WRONG;
    const choice = (seed >> 8) % 8;
    if (choice === 3) {
      const pages = 1 + ((seed >> 12) % 64);
      const va: number = yield sys.mmap(pages * PAGE_SIZE, RW, MAP_PRIVATE, 0, film, (seed % 4096) * PAGE_SIZE);
      if (va > 0) areas.push({ va, pages, value: INODE });
    } else if (choice < 3) {
      const pages = 1 + ((seed >> 12) % 64);
      const va: number = yield sys.mmap(pages * PAGE_SIZE);
      if (va < 0) continue;
      for (let i = 0; i < pages; i++) u.store32(va + i * PAGE_SIZE, seed);
      areas.push({ va, pages, value: seed });
    } else if (choice < 6 && depth < 3) {
      const pid: number = yield sys.fork();
      if (pid !== 0) continue;
      [seed, depth] = [next(seed ^ 0x5555), depth + 1];
      for (const area of areas) {
        area.value = seed ^ area.va;
        for (let i = 0; i < area.pages; i++) u.store32(area.va + i * PAGE_SIZE, area.value);
      }
    } else if (areas.length > 0) {
      const [area] = areas.splice(seed % areas.length, 1);
      if ((yield sys.munmap(area!.va, area!.pages * PAGE_SIZE)) !== 0) return WRONG;
    }
  }
  for (;;) {
    const ended: { status: number } | number = yield sys.wait();
    if (typeof ended === "number") return 0;
    if (ended.status >> 8 === WRONG) return WRONG;
  }
});

const churn = test_init("t_churns", function* (sys) {
  let [ok, killed, wrong] = [0, 0, 0];
  for (let round = 0; round < 12; round++) {
    for (let i = 0; i < 8; i++)
      if ((yield sys.fork()) === 0) {
        yield sys.exec("t_churn", 1000 * round + i, 16);
        return 1;
      }
    for (;;) {
      const ended: { status: number } | number = yield sys.wait();
      if (typeof ended === "number") break;
      if (ended.status === 0) ok++;
      else if (ended.status === SIGKILL) killed++;
      else wrong++;
    }
  }
  yield sys.syslog(`${ok} ${killed} ${wrong}`);
});

describe("memory pressure", () => {
  it("a thousand processes fork, fault and die: no panic, nothing wrong, no page lost", () => {
    with_tasks(churn, () => {
      const [ok, killed, wrong] = reports()[0]!.split(" ").map(Number);
      expect(wrong).toBe(0);
      expect(ok).toBeGreaterThan(0);
      expect(killed).toBeGreaterThan(0);
      expect(tasklist.total_forks).toBeGreaterThan(1000);
      expect(log().some((line) => /^Out of memory: Killed process/.test(line))).toBe(true);
      expect([NR_ANON_MAPPED, NR_FILE_MAPPED].map(global_node_page_state)).toEqual([0, 0]);
      expect(validate_mm()).toEqual([]);
    });
  });
});
