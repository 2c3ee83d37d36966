/**
 * The MMU agrees with a second one written from the manual (mmu_model.ts), whatever the page tables, registers, ring and
 * kind of access; and how traps reach a handler, and what an access does when the handler gives up.
 *
 * Five-level paging is left out.
 */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { is_canonical, parse_virt, virt_px, type Virt } from "../../hal/addr.ts";
import { read_cr0, read_cr2, read_cr3, read_cr4, read_efer, write_cr0, write_cr3, write_cr3_noflush, write_cr4, write_efer } from "../../hal/control_regs.ts"; // prettier-ignore
import { cpu_switch, smp_processor_id } from "../../hal/cpu.ts";
import { events } from "../../hal/events.ts";
import { IMAGE_BASE, image_end } from "../../hal/image.ts";
import {
  mmu_copy_from, mmu_copy_to, mmu_fetch, mmu_fill, mmu_load16, mmu_load32, mmu_load64, mmu_load8, mmu_store16,
  mmu_store32, mmu_store64, mmu_store8, mmu_translate,
} from "../../hal/mmu.ts"; // prettier-ignore
import { _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_GLOBAL, _PAGE_NX_HI, _PAGE_PCD, _PAGE_PRESENT, _PAGE_PSE, _PAGE_PWT, _PAGE_RW, _PAGE_USER, mmu_probe } from "../../hal/page_walk.ts"; // prettier-ignore
import {
  EFER_LME, EFER_NX, MMU_FETCH, MMU_READ, MMU_WRITE, X86_CR0_PE, X86_CR0_PG, X86_CR0_WP, X86_CR4_PAE, X86_CR4_PCIDE,
  X86_CR4_PGE, X86_CR4_SMAP, X86_CR4_SMEP, clac, cpl, set_cpl, stac,
} from "../../hal/privilege.ts"; // prettier-ignore
import { ram8, ram_read_bytes } from "../../hal/ram.ts";
import { invlpg, tlb_flush_all } from "../../hal/tlb.ts";
import {
  Trap, X86_PF_INSTR, X86_PF_PROT, X86_PF_RSVD, X86_PF_USER, X86_PF_WRITE, X86_TRAP_GP, X86_TRAP_MC, X86_TRAP_PF,
  set_trap_gate, type TrapHandler,
} from "../../hal/trap.ts"; // prettier-ignore
import {
  KINDS, RAM_END, TABLES, TABLES_BYTES, cpu_model, get_entry, manual_access, power_on_bare, power_on_with_paging,
  set_entry, type Outcome,
} from "./mmu_model.ts"; // prettier-ignore

const P = _PAGE_PRESENT;
const URW = _PAGE_PRESENT | _PAGE_RW | _PAGE_USER;
const KRW = _PAGE_PRESENT | _PAGE_RW;
const NX = 1n << 63n;
const FRAMES = 0x1800000;

/** Tables by level for one region of addresses: PGD, PUD, PMD, PTE tables at TABLES, TABLES + 4096, … */
function build_tables(va: Virt): void {
  for (const [i, level] of [4, 3, 2].entries())
    set_entry(TABLES + i * 4096 + 8 * index_of(va, level), BigInt((TABLES + (i + 1) * 4096) | URW));
}

function index_of(va: Virt, level: number): number {
  return Number((BigInt.asUintN(48, BigInt(va)) >> BigInt(3 + 9 * level)) & 511n);
}

function pte_at(va: Virt): number {
  return TABLES + 3 * 4096 + 8 * index_of(va, 1);
}

/** Maps a page of the region of `build_tables` to a frame. */
function map(va: Virt, frame: number, flags: number): void {
  set_entry(pte_at(va), BigInt(frame | flags));
  invlpg(va);
}

/** Traps as they come, by a handler that never resolves one. */
function record_traps(): [vector: number, code: number, address: Virt][] {
  const seen: [number, number, Virt][] = [];
  for (const vector of [X86_TRAP_GP, X86_TRAP_PF, X86_TRAP_MC])
    set_trap_gate(vector, (code, address) => {
      seen.push([vector, code, address]);
      return false;
    });
  return seen;
}

function in_ring_3<T>(fn: () => T): T {
  set_cpl(3);
  try {
    return fn();
  } finally {
    set_cpl(0);
  }
}

const USER = 0x7fff12345000;
const KERNEL = parse_virt("ffffc90012345000");

beforeEach(power_on_with_paging);

describe("against the manual", () => {
  // Few indices, so that entries meet addresses; both halves, first and last of each table.
  const INDICES = [0, 256, 511];
  const index = fc.constantFrom(...INDICES);
  const address = fc
    .tuple(index, index, index, index, fc.constantFrom(0, 1, 0x7ff, 0xfff))
    .map(([a, b, c, d, e]) =>
      BigInt.asIntN(48, (BigInt(a) << 39n) | (BigInt(b) << 30n) | BigInt((c << 21) | (d << 12) | e)),
    );
  const odd_address = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((va) => BigInt(Number(va)));
  // Mostly a table of ours; sometimes a page, aligned to what large pages need or not; sometimes beyond RAM.
  const TARGETS = [
    0n, 0x200000n, 0x1800000n, 0x2600000n, 0x1801000n, 0x2000n, 0x2800000n, 0x40000000n, 0x80000000n, 0xff00000000n,
  ]; // prettier-ignore
  const often = fc.nat(7).map((n) => n !== 7);
  // 32 random bits choose the target and the flags, each of them set or clear 7 times out of 8.
  const entry = fc.tuple(fc.integer(), fc.nat(0x7fff)).map(([dice, bits]) => {
    const clear = (n: number): boolean => ((dice >>> (3 * n)) & 7) === 7;
    const to = clear(0) ? TARGETS[bits % TARGETS.length]! : BigInt(TABLES + (bits & 15) * 4096);
    let value = to | BigInt((bits >> 4) & 0x178) | (BigInt(bits & 0x7ff) << 52n); // PWT, PCD, A, D, G; ignored bits
    if (!clear(1)) value |= 1n;
    if (!clear(2)) value |= 2n;
    if (!clear(3)) value |= 4n;
    if (clear(4) || clear(0)) value |= 0x80n;
    if (clear(5)) value |= NX;
    if (clear(6)) value |= 0xe00n;
    return clear(7) && clear(8) ? value | (BigInt(bits & 0xfff) << 40n) : value;
  });
  const registers = fc.record({ wp: often, pge: fc.boolean(), smep: fc.boolean(), smap: fc.boolean(), nxe: often });
  const cases = fc.record({
    entries: fc.array(entry, { minLength: 16 * INDICES.length, maxLength: 16 * INDICES.length }),
    cr3: fc.oneof({ weight: 20, arbitrary: fc.constant(TABLES) }, { weight: 1, arbitrary: fc.constant(RAM_END) }),
    registers,
    accesses: fc.array(
      fc.tuple(
        fc.oneof({ weight: 12, arbitrary: address }, { weight: 1, arbitrary: odd_address }),
        fc.nat(2),
        fc.boolean(),
        fc.boolean(),
      ),
      { minLength: 20, maxLength: 20 },
    ),
  });

  /** All entries that an address can meet. */
  function set_tables(entries: readonly bigint[]): void {
    for (const [n, value] of entries.entries())
      set_entry(TABLES + Math.floor(n / INDICES.length) * 4096 + 8 * INDICES[n % INDICES.length]!, value);
  }

  function set_registers(given: { wp: boolean; pge: boolean; smep: boolean; smap: boolean; nxe: boolean }): void {
    set_cpl(0);
    write_cr0(X86_CR0_PE | X86_CR0_PG | (given.wp ? X86_CR0_WP : 0));
    const cr4 = [X86_CR4_PAE, given.pge && X86_CR4_PGE, given.smep && X86_CR4_SMEP, given.smap && X86_CR4_SMAP];
    write_cr4(cr4.reduce((sum: number, bits) => sum | Number(bits), 0));
    write_efer(EFER_LME | (given.nxe ? EFER_NX : 0));
  }

  it("A115 four levels, all page sizes: the same address, fault, error code and CR2, and the same A and D bits", () => {
    const counts = { none: 0, pf: 0, gp: 0, mc: 0, reserved: 0, large: 0, huge: 0, dirtied: 0 };
    const seen = record_traps();
    fc.assert(
      fc.property(cases, ({ entries, cr3, registers: given, accesses }) => {
        set_tables(entries);
        set_registers(given);
        write_cr3(cr3);
        tlb_flush_all();
        for (const [va, kind, user, ac] of accesses) {
          set_cpl(user ? 3 : 0);
          if (ac) stac();
          else clac();
          const writes = new Map<number, bigint>();
          const expected = manual_access(cpu_model(ac), va, KINDS[kind]!, writes);
          const before = ram_read_bytes(TABLES, TABLES_BYTES);
          seen.length = 0;
          const cr2 = read_cr2();
          const pa = mmu_translate(Number(va), kind);
          const [trap] = seen;
          expect(seen.length).toBe(expected.trap === "none" ? 0 : 1);
          expect(outcome(pa, trap)).toEqual(short(expected));
          expect(read_cr2()).toBe(expected.trap === "pf" ? Number(va) : cr2);
          for (const [at, value] of writes) expect(get_entry(at)).toBe(value);
          expect(changed_entries(before).filter((at) => !writes.has(at))).toEqual([]);
          tally(counts, expected, writes);
          set_cpl(0);
          tlb_flush_all();
        }
      }),
      { seed: 115, numRuns: 200 },
    );
    // The generator reaches everything often enough to mean something.
    expect(Object.entries(counts).filter(([, count]) => count < 10)).toEqual([]);
  });

  function outcome(pa: number, trap: [number, number, Virt] | undefined): unknown {
    if (!trap) return { trap: "none", pa };
    if (trap[0] === X86_TRAP_PF) return { trap: "pf", code: trap[1] };
    return { trap: trap[0] === X86_TRAP_GP ? "gp" : "mc" };
  }

  function short(expected: Outcome): unknown {
    return expected.trap === "none" ? { trap: "none", pa: Number(expected.pa) } : expected;
  }

  function changed_entries(before: Uint8Array): number[] {
    const after = ram_read_bytes(TABLES, TABLES_BYTES);
    if (Buffer.compare(before, after) === 0) return [];
    const changed = new Set<number>();
    for (let i = 0; i < after.length; i++) if (before[i] !== after[i]) changed.add(TABLES + (i & ~7));
    return [...changed];
  }

  function tally(counts: Record<string, number>, expected: Outcome, writes: Map<number, bigint>): void {
    counts[expected.trap]!++;
    if (expected.trap === "pf" && expected.code & 8) counts["reserved"]!++;
    if (expected.trap === "none" && writes.size === 3) counts["large"]!++;
    if (expected.trap === "none" && writes.size === 2) counts["huge"]!++;
    if (expected.trap === "none" && [...writes.values()].some((value) => value & 0x40n)) counts["dirtied"]!++;
  }

  it("A115 a probe finds the same and leaves no trace", () => {
    fc.assert(
      fc.property(cases, ({ entries, registers: given, accesses }) => {
        set_tables(entries);
        set_registers(given);
        const state = (): Buffer => Buffer.concat([ram_read_bytes(IMAGE_BASE, image_end(2) - IMAGE_BASE), ram_read_bytes(TABLES, TABLES_BYTES)]); // prettier-ignore
        const before = state();
        for (const [va] of accesses.filter(([address]) => is_canonical(Number(address)))) {
          const { pa, r, w, x, user, level, entries: path } = mmu_probe(TABLES, Number(va));
          const kernel = { ...cpu_model(true), wp: false, smep: false, smap: false };
          const expected = manual_access(kernel, va, "read", new Map());
          expect(path.length).toBe(expected.trap === "mc" ? path.length : 5 - level);
          if (expected.trap === "none")
            expect({ pa, r, w, x, user }).toEqual({
              pa: Number(expected.pa),
              r: true,
              w: expected.rights.rw,
              x: !expected.rights.xd,
              user: expected.rights.us,
            });
          else if (expected.trap === "pf") expect({ pa, r, w, x, user }).toEqual({ pa: null, r: false, w: false, x: false, user: false }); // prettier-ignore
        }
        expect(Buffer.compare(before, state())).toBe(0);
      }),
      { seed: 116, numRuns: 20 },
    );
  });
});

describe("page sizes", () => {
  const sizes = [
    { name: "4 KiB", level: 1, bytes: 0x1000, frame: 0x1801000 },
    { name: "2 MiB", level: 2, bytes: 0x200000, frame: 0x1800000 },
    { name: "1 GiB", level: 3, bytes: 0x40000000, frame: 0 },
  ];
  for (const va of [USER, KERNEL])
    it.each(sizes)(`A115 maps, finds and unmaps a page of $name at ${virt_px(va)}`, ({ level, bytes, frame }) => {
      record_traps();
      build_tables(va);
      const entry = TABLES + (4 - level) * 4096 + 8 * index_of(va, level);
      set_entry(entry, BigInt(frame | KRW | (level > 1 ? _PAGE_PSE : 0)));
      const start = va - (((va % bytes) + bytes) % bytes);
      const last = Math.min(bytes, RAM_END - frame) - 1;
      for (const offset of [0, 0x123, last]) {
        expect(mmu_translate(start + offset, MMU_READ)).toBe(frame + offset);
        expect(mmu_probe(read_cr3(), start + offset)).toMatchObject({ pa: frame + offset, level, user: false });
      }
      set_entry(entry, 0n);
      invlpg(va);
      for (const offset of [0, 0x123, last]) expect(mmu_translate(start + offset, MMU_READ)).toBe(-1);
    });

  it("sets A in every level at the first access, D in the last at the first write", () => {
    build_tables(USER);
    map(USER, FRAMES, URW);
    const marks = (): number[] =>
      [4, 3, 2, 1].map((level) => Number(get_entry(TABLES + (4 - level) * 4096 + 8 * index_of(USER, level)) & 0x60n));
    expect(marks()).toEqual([0, 0, 0, 0]);
    mmu_load8(USER);
    expect(marks()).toEqual([0x20, 0x20, 0x20, 0x20]);
    mmu_store8(USER, 1);
    expect(marks()).toEqual([0x20, 0x20, 0x20, 0x60]);
  });
});

describe("rings and rights", () => {
  it("A117 a store to a read-only page: present + write; from ring 3 to user text + user", () => {
    build_tables(KERNEL);
    map(KERNEL, FRAMES, P);
    expect(() => mmu_store32(KERNEL, 1)).toThrow(expect.objectContaining({ error_code: X86_PF_PROT | X86_PF_WRITE }));
    map(KERNEL, FRAMES, P | _PAGE_USER);
    const before = ram_read_bytes(FRAMES, 8);
    const code = X86_PF_PROT | X86_PF_WRITE | X86_PF_USER;
    expect(() => in_ring_3(() => mmu_store32(KERNEL, 1))).toThrow(expect.objectContaining({ vector: X86_TRAP_PF, error_code: code, address: KERNEL })); // prettier-ignore
    expect(ram_read_bytes(FRAMES, 8)).toEqual(before);
    expect(in_ring_3(() => mmu_fetch(KERNEL))).toBe(before[0]);
  });

  it("A119 ring 3 loads nothing of the kernel: 40 addresses, 50,000 bytes apart", () => {
    const seen = record_traps();
    build_tables(KERNEL);
    const start = KERNEL - (KERNEL & 0x1fffff);
    for (let i = 0; i < 512; i++) map(start + i * 4096, FRAMES + i * 4096, KRW | _PAGE_GLOBAL);
    for (let i = 0; i < 40; i++) {
      const va = start + i * 50_000;
      expect(mmu_load8(va)).toBe(ram8[FRAMES + i * 50_000]);
      expect(() => in_ring_3(() => mmu_load8(va))).toThrow(Trap);
      expect(seen.pop()).toEqual([X86_TRAP_PF, X86_PF_PROT | X86_PF_USER, va]);
      expect(cpl()).toBe(0);
    }
    expect(seen).toEqual([]);
  });

  it("a fetch of an NX page says so; a reserved bit is told apart", () => {
    const seen = record_traps();
    build_tables(USER);
    set_entry(pte_at(USER), BigInt(FRAMES | URW) | NX);
    mmu_translate(USER, MMU_FETCH);
    set_entry(pte_at(USER), BigInt(FRAMES | URW) | (1n << 45n));
    mmu_translate(USER, MMU_READ);
    set_entry(pte_at(USER), BigInt(FRAMES | _PAGE_RW) | NX);
    mmu_translate(USER, MMU_WRITE);
    expect(seen.map(([, code]) => code)).toEqual([X86_PF_PROT | X86_PF_INSTR, X86_PF_PROT | X86_PF_RSVD, X86_PF_WRITE]);
  });

  it("SMAP: the kernel touches user pages between stac and clac only; SMEP: it never runs them", () => {
    record_traps();
    build_tables(USER);
    map(USER, FRAMES, URW);
    write_cr4(X86_CR4_PAE | X86_CR4_SMAP | X86_CR4_SMEP);
    expect(mmu_translate(USER, MMU_READ)).toBe(-1);
    stac();
    expect(mmu_translate(USER, MMU_WRITE)).toBe(FRAMES);
    expect(mmu_translate(USER, MMU_FETCH)).toBe(-1);
    clac();
    expect(mmu_translate(USER, MMU_WRITE)).toBe(-1);
    expect(in_ring_3(() => mmu_fetch(USER))).toBe(ram8[FRAMES]);
  });
});

describe("traps", () => {
  it("hands the fault to the handler at ring 0, and makes the access again", () => {
    build_tables(USER);
    const faults: unknown[] = [];
    const heard: unknown[] = [];
    events.on("fault", (event) => heard.push(event));
    set_trap_gate(X86_TRAP_PF, (code, address) => {
      faults.push([code, address, read_cr2(), cpl()]);
      map(USER, FRAMES, URW);
      return true;
    });
    const value = in_ring_3(() => {
      mmu_store32(USER + 4, 77);
      expect(cpl()).toBe(3);
      return mmu_load32(USER + 4);
    });
    events.removeAllListeners("fault");
    expect(value).toBe(77);
    expect(faults).toEqual([[X86_PF_WRITE | X86_PF_USER, USER + 4, USER + 4, 0]]);
    expect(heard).toEqual([{ cpu: 0, address: USER + 4, error_code: X86_PF_WRITE | X86_PF_USER }]);
  });

  it("a handler's own faults do not change what the access is told", () => {
    build_tables(USER);
    set_trap_gate(X86_TRAP_PF, (_code, address) => {
      if (address === USER) expect(mmu_translate(USER + 0x5000, MMU_READ)).toBe(-1);
      return false;
    });
    expect(() => mmu_store8(USER, 1)).toThrow(expect.objectContaining({ address: USER, error_code: X86_PF_WRITE }));
  });

  it("a handler that resolves nothing and says it did is found out", () => {
    build_tables(USER);
    set_trap_gate(X86_TRAP_PF, () => true);
    expect(() => mmu_load8(USER)).toThrow("trap 14, error code 0, address 00007fff12345000: resolved, but still there");
  });

  it("whatever is not a canonical address is #GP, and no page fault", () => {
    const seen = record_traps();
    const odd = [2 ** 47, -(2 ** 47) - 1, 2 ** 60, 0xeaeb0b5b00002f5e, NaN, Infinity, 4096.5, 0xffff888000000000];
    for (const va of odd) {
      for (const access of [MMU_READ, MMU_WRITE, MMU_FETCH]) expect(mmu_translate(va, access)).toBe(-1);
      expect(() => mmu_load32(va)).toThrow(expect.objectContaining({ vector: X86_TRAP_GP, address: va }));
    }
    expect(() => mmu_load32(2 ** 47 - 2)).toThrow(Trap); // page not present: the first page comes first
    expect(new Set(seen.slice(0, -1).map(([vector, code]) => `${vector} ${code}`))).toEqual(new Set(["13 0"]));
    expect(seen.at(-1)).toEqual([X86_TRAP_PF, 0, 2 ** 47 - 2]);
  });

  it("an entry that leads where there is no RAM is a machine check", () => {
    const seen = record_traps();
    build_tables(USER);
    set_entry(pte_at(USER), BigInt(RAM_END | URW));
    expect(mmu_translate(USER, MMU_READ)).toBe(-1);
    set_entry(pte_at(USER), (0xffffffn << 12n) | BigInt(URW));
    expect(mmu_translate(USER, MMU_READ)).toBe(-1);
    write_cr3(0xff00000000);
    expect(mmu_translate(USER, MMU_READ)).toBe(-1);
    expect(seen).toEqual(Array(3).fill([X86_TRAP_MC, 0, USER]));
  });
});

describe("accesses of several bytes", () => {
  it("load what was stored, at every width and alignment, in a page and across two", () => {
    build_tables(USER);
    map(USER, FRAMES + 0x3000, URW);
    map(USER + 4096, FRAMES + 0x1000, URW);
    const model = new DataView(new ArrayBuffer(8192));
    const bytes = (): Buffer =>
      Buffer.concat([ram_read_bytes(FRAMES + 0x3000, 4096), ram_read_bytes(FRAMES + 0x1000, 4096)]);
    new Uint8Array(model.buffer).set(bytes());
    const place = fc.oneof(fc.nat(8192 - 8), fc.integer({ min: 4086, max: 4104 }), fc.constantFrom(0, 8, 4088, 8184));
    fc.assert(
      fc.property(
        place,
        fc.integer(),
        fc.integer({ min: -(2 ** 52), max: 2 ** 52 }),
        fc.nat(3),
        (at, value, wide, width) => {
          const va = USER + at;
          if (width === 0) void [mmu_store8(va, value), model.setUint8(at, value)];
          if (width === 1) void [mmu_store16(va, value), model.setUint16(at, value, true)];
          if (width === 2) void [mmu_store32(va, value), model.setInt32(at, value, true)];
          if (width === 3) void [mmu_store64(va, wide), model.setBigInt64(at, BigInt(wide), true)];
          if (width === 3) expect(mmu_load64(va)).toBe(wide);
          expect([mmu_load8(va), mmu_load16(va), mmu_load32(va)]).toEqual([model.getUint8(at), model.getUint16(at, true), model.getInt32(at, true)]); // prettier-ignore
        },
      ),
      { seed: 64, numRuns: 2000 },
    );
    expect(Buffer.compare(bytes(), Buffer.from(model.buffer))).toBe(0);
  });

  it("write nothing if the second page cannot be reached, and say where it starts", () => {
    build_tables(USER);
    map(USER, FRAMES, URW);
    const before = ram_read_bytes(FRAMES, 4096);
    const failure = { vector: X86_TRAP_PF, error_code: X86_PF_WRITE, address: USER + 4096 };
    expect(() => mmu_store32(USER + 4094, -1)).toThrow(expect.objectContaining(failure));
    expect(() => mmu_store64(USER + 4089, -1)).toThrow(expect.objectContaining(failure));
    expect(ram_read_bytes(FRAMES, 4096)).toEqual(before);
  });

  it("start over if handling the second page took the first away", () => {
    build_tables(USER);
    map(USER, FRAMES, URW);
    const handled: Virt[] = [];
    const handler: TrapHandler = (_code, address) => {
      handled.push(address);
      if (handled.length === 1) {
        map(USER, 0, 0); // "reclaimed"
        map(USER + 4096, FRAMES + 0x2000, URW);
      } else map(USER, FRAMES + 0x1000, URW);
      return true;
    };
    set_trap_gate(X86_TRAP_PF, handler);
    const old = ram8[FRAMES + 4095];
    mmu_store16(USER + 4095, 0x1234);
    expect(handled).toEqual([USER + 4096, USER + 4095]);
    expect([ram8[FRAMES + 4095], ram8[FRAMES + 0x1fff], ram8[FRAMES + 0x2000]]).toEqual([old, 0x34, 0x12]);
  });

  it("block copies go page by page and say what is left", () => {
    const seen = record_traps();
    build_tables(USER);
    map(USER, FRAMES + 0x5000, URW);
    map(USER + 4096, FRAMES, URW);
    const [from, to] = [FRAMES + 0x10000, FRAMES + 0x20000];
    expect(mmu_copy_to(USER + 100, from, 8092)).toBe(0);
    expect(ram_read_bytes(FRAMES, 4096)).toEqual(ram_read_bytes(from + 3996, 4096));
    expect(mmu_copy_from(to, USER + 100, 8092)).toBe(0);
    expect(ram_read_bytes(to, 8092)).toEqual(ram_read_bytes(from, 8092));
    expect(mmu_fill(USER + 4000, 7, 200)).toBe(0);
    expect(ram_read_bytes(FRAMES, 104)).toEqual(new Uint8Array(104).fill(7));
    expect(seen).toEqual([]);
    expect(mmu_copy_to(USER + 8190, from, 10)).toBe(8);
    expect(mmu_copy_from(to, USER + 8000, 1000)).toBe(808);
    expect(mmu_fill(USER - 1, 0, 5)).toBe(5);
    expect(seen.map(([, code, address]) => [code, address])).toEqual([[X86_PF_WRITE, USER + 8192], [0, USER + 8192], [X86_PF_WRITE, USER - 1]]); // prettier-ignore
  });
});

describe("registers", () => {
  it("a CPU finds its own again, after others ran", () => {
    write_cr4(X86_CR4_PAE | X86_CR4_PCIDE);
    write_cr3(TABLES + 4096, 7);
    set_cpl(3);
    cpu_switch(1);
    expect([smp_processor_id(), cpl(), read_cr3(), read_cr4()]).toEqual([1, 0, TABLES, X86_CR4_PAE]);
    cpu_switch(0);
    expect([smp_processor_id(), cpl(), read_cr3(), read_cr4()]).toEqual([0, 3, TABLES + 4096 + 7, X86_CR4_PAE | X86_CR4_PCIDE]); // prettier-ignore
    set_cpl(0);
  });

  it("without paging an address is physical", () => {
    power_on_bare();
    const seen = record_traps();
    expect([read_cr0(), read_cr4(), read_efer(), cpl()]).toEqual([0, 0, 0, 0]);
    mmu_store32(FRAMES, 5);
    expect(mmu_load8(FRAMES)).toBe(5);
    expect(mmu_translate(RAM_END, MMU_READ)).toBe(-1);
    expect(mmu_translate(-4096, MMU_READ)).toBe(-1);
    expect(seen.map(([vector]) => vector)).toEqual([X86_TRAP_MC, X86_TRAP_MC]);
  });

  it("refuses what the manual forbids, and everything at ring 3", () => {
    const forbidden: (() => void)[] = [
      () => write_cr0(X86_CR0_PE), // paging is never left
      () => write_cr4(0), // PAE, in long mode
      () => write_cr4(X86_CR4_PAE | 0x1000), // five levels: not there
      () => write_efer(EFER_NX), // LME, with paging on
      () => write_cr3(0x123),
      () => write_cr3(2 ** 40),
      () => write_cr3(TABLES, 4096),
      () => invlpg_in_ring_3(),
      () => in_ring_3(() => write_cr3(TABLES)),
    ];
    for (const act of forbidden) expect(act).toThrow(expect.objectContaining({ vector: X86_TRAP_GP }));
    write_cr3_noflush(TABLES, 5);
    expect(() => write_cr4(X86_CR4_PAE | X86_CR4_PCIDE)).toThrow(Trap); // only from PCID 0
    power_on_bare();
    expect(() => write_cr0(X86_CR0_PE | X86_CR0_PG)).toThrow(Trap); // PAE and LME first
    expect(() => write_cr4(X86_CR4_PAE | X86_CR4_PCIDE)).toThrow(Trap); // paging first
  });

  function invlpg_in_ring_3(): void {
    in_ring_3(() => invlpg(USER));
  }
});

it("addresses are read and printed as 16 digits, exactly", () => {
  const known: [string, number][] = [
    ["ffffc90000000000", -0x370000000000],
    ["00007fffffffefff", 0x7fffffffefff],
    ["ffff800000000000", -(2 ** 47)],
    ["ffffffffffffffff", -1],
  ];
  for (const [text, va] of known) expect([parse_virt(text), virt_px(va)]).toEqual([va, text]);
  expect(parse_virt("0x1000")).toBe(4096);
  for (const text of ["", "0x", "xyz", "0000800000000000", "1ffff800000000000"]) expect(parse_virt(text)).toBeNaN();
  const virt = fc.integer({ min: -(2 ** 47), max: 2 ** 47 - 1 });
  fc.assert(
    fc.property(virt, (va) => void expect(parse_virt(virt_px(va))).toBe(va)),
    { seed: 47 },
  );
});

it("the bits of an entry are where the manual says", () => {
  expect([_PAGE_PWT, _PAGE_PCD, _PAGE_ACCESSED, _PAGE_DIRTY, _PAGE_PSE, _PAGE_GLOBAL]).toEqual([8, 0x10, 0x20, 0x40, 0x80, 0x100]); // prettier-ignore
  expect(BigInt(_PAGE_NX_HI >>> 0) << 32n).toBe(NX);
});
