/**
 * For mmu.mjs: `node --import tsx test/tools/mmu_moments.ts DIR SEED COUNT` writes DIR/0, DIR/1 …, each the RAM of a busy
 * machine (test/lib/mmu_moments.ts) at a moment, and mmu.json for the address space of one of its programs.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { machine_end } from "../../hal/machine.ts";
import { ram_read_bytes } from "../../hal/ram.ts";
import { mmu_json } from "../../boot/export/mmu.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { at_moments } from "../lib/mmu_moments.ts";

const [folder, seed, count] = process.argv.slice(2);
let nth = 0;
at_moments(Number(seed), Number(count), (spaces, random) => {
  const { name, cr3 } = spaces[random % spaces.length]!;
  const moment = join(folder!, String(nth++));
  mkdirSync(moment);
  writeFileSync(join(moment, "ram.img"), ram_read_bytes(0, machine_end(TEST_MACHINE)));
  writeFileSync(join(moment, "mmu.json"), mmu_json(cr3));
  console.log(name);
});
