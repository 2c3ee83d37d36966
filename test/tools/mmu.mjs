/**
 * An MMU that is not ours, qemu's, loads an export's RAM and CR3, and makes every access that mmu.json says something
 * about: read, write and fetch, at ring 0 and at ring 3.
 *
 *     npm run mmu                                  an export of a machine that has taken some memory of all kinds, then
 *                                                  the address spaces of busy programs at 8 moments (mmu_moments.ts)
 *     npm run mmu -- --seed 7 --moments 50         other moments, and more
 *     npm run mmu -- DIR                           an export that is there
 *
 *     RAM         a sparse file of 4 GiB that both qemu and we map: page tables from ram.img; every other page that a
 *                 probe leads to says its own address in every 8 bytes, so that what is read tells where it was read
 *     0xf0000000  our own page: code, GDT, IDT, stacks, the list of accesses (what, where, and later what became of it)
 *     CR3         a copy of the export's top table with one empty entry filled: it maps our own page, for either ring,
 *                 and all of RAM for ring 0
 *
 * The machine is `qemu-system-x86_64 -machine none`: a CPU and RAM, nothing else. It starts at the reset vector in real mode,
 * goes to 64 bits, works off the list and halts. CR0.WP, CR4.SMEP, SMAP and PGE and EFER.NXE are on, as in kheap.
 * Without qemu it says so and checks nothing.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

const QEMU = "qemu-system-x86_64";
const WORKLOAD =
  "replay test/data/traces/fs-walk.trace.gz --stop 60000 > /r; vmalloc 10000; vmalloc 3000000; vmalloc 1";
const TIMEOUT_MS = 120_000;
const PAGE = 4096;
const GIB = 2 ** 30;

/**
 * The program, as GNU as made it. In words: [0x00, 32 bits] PAE, CR3 = boot table, LME and NXE, PG and WP, to 64 bits.
 * [0x80] to the other mapping; CR3 = table under test; PGE, SMEP, SMAP; GDT, IDT, TSS, stack. [0xc1] for each access:
 * for a fetch put `ret` where it should lead; at ring 3 iretq; read (rdi), write or jump; ends by falling through (ring
 * 0), int 0x80 (ring 3) or a fault; notes the outcome. [0x180] ring 3's entry; [0x190] int 0x80; [0x1a0] #GP; [0x1b0] #PF;
 * [0x1c0] any other vector. At the end: done = 1, hlt.
 */
const CODE = Buffer.from(
  "66b810008ed88ed0b8200000000f22e0b8005000f00f22d8b9800000c00f320d000900000f300f20c00d000001800f22c0ea800000f01800000000000000" +
    "00".repeat(66) +
    "488b0579120000ffe0488b05781200000f22d80f20e00d800030000f22e00f01155b1100000f011d6411000066b830000f00d8488b25761200004c8b3d4f" +
    "1200004c3b3d501200000f8320010000498b3f498b7708498b5f1031c04531ed4885f6740d440fb62e4883fb027503c606c34c89e849837f1800750ae819" +
    "000000e98c0000006a23ff351c1200006a026a2bff350a12000048cf4883fb01740d770e0fb6074883e7f8488b07c38807c3ffe7" +
    "00".repeat(80) +
    "e893ffffffcd8000000000000000000031d2eb330000000000000000000000005a480fbaea2ceb1f00000000000000005a480fbaea2deb0f000000000000" +
    "000031d2480fbaea2e488b25621100004885f6740344882e49895720498947280f20d0498947304983c740e9d3feffff48c7058711000001000000f4ebfd",
  "hex",
);
/** Real mode: GDT, protected mode, to the program. Lies at 0xfffff000, the reset vector jumps there. */
const START = Buffer.from("fa2e660f011680f00f20c00c010f22c066ea000000f00800", "hex");
const RESET = Buffer.from("e90df0", "hex");

/* Where our own things lie, from 0xf0000000 on */
const OURS = 0xf0000000;
const GDT = 0x1000;
const TSS = 0x1100;
const GDTR = 0x1200;
const IDTR = 0x1210;
const PARAMS = 0x1300;
const DONE = 0x1380;
const IDT = 0x2000;
const STACK0_END = 0x4000;
const STACK3_END = 0x5000;
const BOOT_PGD = 0x5000;
const OUR_PUD = 0x6000;
const PMD_KERNEL = 0x7000;
const PMD_USER = 0x8000;
const TEST_PGD = 0x9000;
const BOOT_PUD = 0xa000;
const LIST = 0x200000;
const LIST_PAGES = 64; // of 2 MiB, LIST in the second
const ACCESS_BYTES = 64;
/** Bits of the outcome above the error code: the vector. */
const OUTCOMES = { 12: "#GP", 13: "#PF", 14: "another trap" };

/** Runs a program of ours; the lines that it prints. */
function kheap(...args) {
  const child = spawnSync(process.execPath, ["--import", "tsx", ...args], { encoding: "utf8" });
  if (child.status !== 0) throw new Error(`kheap failed: ${child.stderr}`);
  return child.stdout.trimEnd().split("\n");
}

/** Physical addresses of all page tables below `table`, found from the image alone. */
function table_pages(ram, table, level, found = new Set()) {
  found.add(table);
  if (level === 1) return found;
  for (let at = table; at < table + PAGE; at += 8) {
    const entry = ram.readBigUInt64LE(at);
    const leaf = level < 4 && (entry & 0x80n) !== 0n;
    if ((entry & 1n) !== 0n && !leaf) table_pages(ram, Number(entry & 0xffffff000n), level - 1, found);
  }
  return found;
}

/** The accesses to make, and what the export says of each: 0 for success, or the error code of the page fault. */
function accesses_of(probes) {
  const list = [];
  for (const probe of probes)
    for (const ring of [0, 3])
      for (const kind of [0, 1, 2]) {
        const { pa, w, x, user } = probe;
        const right = kind === 0 || (kind === 1 ? w : x) === 1;
        const allowed = pa !== null && right && (user === 1) === (ring === 3); // ring 0: SMAP and SMEP
        const code = (pa === null ? 0 : 1) | (kind === 1 ? 2 : 0) | (ring === 3 ? 4 : 0) | (kind === 2 ? 16 : 0);
        list.push({ probe, ring, kind, expected: allowed ? "done" : `#PF ${code}` });
      }
  return list;
}

/** A PGD entry of the kernel's half in whose range neither a mapping nor a probe lies. */
function free_slot(ram, cr3, probes) {
  const used = new Set(probes.map(({ va }) => Number((BigInt(va) >> 39n) & 511n)));
  for (let slot = 511; slot > 255; slot--)
    if (!used.has(slot) && ram.readBigUInt64LE(cr3 + 8 * slot) === 0n) return slot;
  throw new Error("no free entry in the top table");
}

function build(path, ram, mmu) {
  const cr3 = Number(mmu.cr3);
  const slot = free_slot(ram, cr3, mmu.probes);
  const base = (BigInt(slot) << 39n) | 0xffff000000000000n;
  const [kernel, user, alias] = [base, base + BigInt(GIB), base + 4n * BigInt(GIB)];
  const file = openSync(path, "w");
  ftruncateSync(file, 4 * GIB);
  const write = (at, bytes) => writeSync(file, bytes, 0, bytes.length, at);
  const u64 = (...values) => {
    const bytes = Buffer.alloc(8 * values.length);
    values.forEach((value, i) => bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 8 * i));
    return bytes;
  };
  const ours = (at, ...values) => write(OURS + at, u64(...values));

  const tables = table_pages(ram, cr3, 4);
  for (const table of tables) write(table, ram.subarray(table, table + PAGE));
  const pages = new Set(mmu.probes.filter(({ pa }) => pa !== null).map(({ pa }) => Number(pa) - (Number(pa) % PAGE)));
  const stamped = [...pages].filter((page) => !tables.has(page));
  for (const page of stamped) write(page, u64(...Array.from({ length: PAGE / 8 }, (_, i) => page + 8 * i)));

  write(0xfffffff0, RESET);
  write(0xfffff000, START);
  const gdtr = (at, limit, address) => {
    const bytes = Buffer.alloc(10);
    bytes.writeUInt16LE(limit);
    bytes.writeBigUInt64LE(BigInt(address), 2);
    write(at, bytes);
  };
  gdtr(0xfffff080, 0x3f, OURS + GDT);
  gdtr(OURS + GDTR, 0x3f, kernel + BigInt(GDT));
  gdtr(OURS + IDTR, 0xfff, kernel + BigInt(IDT));
  write(OURS, CODE);
  const tss = kernel + BigInt(TSS);
  const tss_low = 0x67n | ((tss & 0xffffffn) << 16n) | (0x89n << 40n) | (((tss >> 24n) & 0xffn) << 56n);
  ours(GDT, 0, 0x00cf9a000000ffffn, 0x00cf92000000ffffn, 0x00af9a000000ffffn, 0x00cff2000000ffffn, 0x00affa000000ffffn, tss_low, tss >> 32n); // prettier-ignore
  const rsp0 = Buffer.alloc(12);
  rsp0.writeBigUInt64LE(kernel + BigInt(STACK0_END), 4);
  write(OURS + TSS, rsp0);
  for (let vector = 0; vector < 256; vector++) {
    const handler = kernel + BigInt({ 13: 0x1a0, 14: 0x1b0, 0x80: 0x190 }[vector] ?? 0x1c0);
    const type = vector === 0x80 ? 0xee00n : 0x8e00n;
    ours(IDT + 16 * vector, (handler & 0xffffn) | (0x18n << 16n) | (type << 32n) | (((handler >> 16n) & 0xffffn) << 48n), handler >> 32n); // prettier-ignore
  }
  ours(BOOT_PGD, OURS + BOOT_PUD + 3);
  ours(BOOT_PGD + 8 * slot, OURS + OUR_PUD + 7);
  write(OURS + TEST_PGD, ram.subarray(cr3, cr3 + PAGE));
  ours(TEST_PGD + 8 * slot, OURS + OUR_PUD + 7);
  for (let i = 0; i < 4; i++) ours(BOOT_PUD + 8 * i, i * GIB + 0x83);
  ours(OUR_PUD, OURS + PMD_KERNEL + 3, OURS + PMD_USER + 7);
  for (let i = 0; i < 4; i++) ours(OUR_PUD + 8 * (4 + i), BigInt(i * GIB + 0x83) | (1n << 63n));
  for (let i = 0; i < LIST_PAGES; i++) ours(PMD_KERNEL + 8 * i, OURS + i * 0x200000 + 0x83);
  ours(PMD_USER, OURS + 0x87);

  const list = accesses_of(mmu.probes);
  const start = kernel + BigInt(LIST);
  const end = start + BigInt(list.length * ACCESS_BYTES);
  if (end > kernel + BigInt(LIST_PAGES * 0x200000)) throw new Error(`${mmu.probes.length} probes are too many`);
  ours(PARAMS, kernel + 0x89n, OURS + TEST_PGD, start, end, user + 0x180n, user + BigInt(STACK3_END), kernel + BigInt(STACK0_END)); // prettier-ignore
  // A byte is written only where it should succeed: else it might be an entry on its own way.
  const place = ({ probe, kind, expected }) =>
    probe.pa === null || (kind === 2 && expected !== "done") ? 0 : alias + BigInt(probe.pa);
  const accesses = list.map((access) => u64(access.probe.va, place(access), access.kind, access.ring, 0, 0, 0, 0));
  write(OURS + LIST, Buffer.concat(accesses));
  closeSync(file);
  return { list, stamped: new Set(stamped) };
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs the machine until it says that it is done. */
async function run_machine(path) {
  const args = [
    "-machine",
    "none,memory-backend=ram",
    "-cpu",
    "max,phys-bits=40,apic-id=0,-apic",
    "-m",
    "4096M",
    "-display",
    "none",
  ];
  const backend = `memory-backend-file,id=ram,size=4096M,mem-path=${path},share=on`;
  const qemu = spawn(QEMU, [...args, "-object", backend, "-accel", "tcg", "-monitor", "none", "-serial", "none"]);
  let complaint = "";
  let ended = false;
  qemu.stderr.on("data", (chunk) => (complaint += chunk));
  qemu.on("exit", () => (ended = true));
  const file = openSync(path, "r");
  const done = Buffer.alloc(8);
  try {
    for (const until = Date.now() + TIMEOUT_MS; done[0] === 0; await sleep(50)) {
      if (ended) throw new Error(`qemu ended: ${complaint}`);
      if (Date.now() > until) throw new Error("qemu did not finish: an access led to where it should not");
      readSync(file, done, 0, 8, OURS + DONE);
    }
  } finally {
    closeSync(file);
    qemu.kill();
  }
}

const outcome_of = (word) => {
  const trap = Object.keys(OUTCOMES).find((bit) => (word >> (32n + BigInt(bit))) & 1n);
  return word === 0n ? "done" : `${OUTCOMES[trap]} ${word & 0xffffn}`;
};

/** Lines that say where qemu and the export differ. */
function differences(path, list, stamped) {
  const results = Buffer.alloc(list.length * ACCESS_BYTES);
  const file = openSync(path, "r");
  readSync(file, results, 0, results.length, OURS + LIST);
  closeSync(file);
  const lines = [];
  list.forEach(({ probe, ring, kind, expected }, i) => {
    const what = `${["read", "write", "fetch"][kind]} at ring ${ring} of ${probe.va}`;
    const outcome = outcome_of(results.readBigUInt64LE(i * ACCESS_BYTES + 32));
    if (outcome !== expected) return lines.push(`${what}: qemu ${outcome}, kheap ${expected}`);
    if (outcome !== "done" || kind !== 0) return;
    const pa = Number(probe.pa);
    const read = Number(results.readBigUInt64LE(i * ACCESS_BYTES + 40));
    if (stamped.has(pa - (pa % PAGE)) && read !== pa - (pa % 8))
      lines.push(`${what}: qemu reads at ${read.toString(16)}, kheap says ${probe.pa}`);
  });
  return lines;
}

/** Lets qemu make the accesses of an export; says in one line how it went. */
async function check(folder, what = "") {
  const work = mkdtempSync(join(tmpdir(), "kheap-qemu-"));
  try {
    const mmu = JSON.parse(readFileSync(join(folder, "mmu.json"), "utf8"));
    const { list, stamped } = build(join(work, "ram"), readFileSync(join(folder, mmu.ram)), mmu);
    await run_machine(join(work, "ram"));
    const wrong = differences(join(work, "ram"), list, stamped);
    for (const line of wrong.slice(0, 20)) console.log(line);
    const done = list.filter(({ expected }) => expected === "done").length;
    const accesses = `${list.length} accesses (${done} allowed)`;
    console.log(`mmu: ${what}${mmu.probes.length} probes, ${accesses} in qemu: ${wrong.length} differ`);
    if (wrong.length > 0) process.exitCode = 1;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Exports of our own: one from the console, then moments of a busy machine. */
async function check_ours(seed, moments) {
  const folder = mkdtempSync(join(tmpdir(), "kheap-mmu-"));
  try {
    kheap("boot/main.ts", "--quiet", "--exec", `${WORKLOAD}; export ${join(folder, "console")}`);
    await check(join(folder, "console"));
    const names = kheap("test/tools/mmu_moments.ts", folder, seed, moments);
    for (const [i, name] of names.entries()) await check(join(folder, String(i)), `moment ${i}, ${name}: `);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (spawnSync(QEMU, ["--version"]).status !== 0) {
  console.log(`mmu: ${QEMU} is not installed here (Debian: qemu-system-x86); nothing was checked`);
  process.exit(0);
}
const options = { seed: { type: "string", default: "1" }, moments: { type: "string", default: "8" } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
if (positionals.length > 0) await check(positionals[0]);
else await check_ours(values.seed, values.moments);
