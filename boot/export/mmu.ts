/**
 * mmu.json: how ram.img is to be walked, and what a walk must find.
 *
 *     ram        file name of the image               cr3      physical address of the top page table
 *     levels     4                                    complete true: no page lies outside the mappings
 *     mappings   ranges with equal rights, one behind the other in both address spaces; `end` is one past the last byte
 *     probes     {va, pa|null, r, w, x, user}: for each page its first and last byte and the byte behind it, and 1,000
 *                addresses drawn by a fixed seed, half of them in or near mappings; or those that the caller brings
 *
 * The page table is that of the CPU that exports, or of any process: all share the kernel's half. Any x86-64 MMU that loads
 * the image and cr3 must translate, allow and refuse alike.
 */
import { hex, virt_of, virt_px, type Phys, type Virt } from "../../hal/addr.ts";
import { read_cr3 } from "../../hal/control_regs.ts";
import { mmu_probe, type PageProbe } from "../../hal/page_walk.ts";
import { pg_level_base, pg_level_size } from "../../mm/pgtable.ts";

/** A piece of address space that lies in one piece in RAM, with the same rights all over. */
export interface Mapping {
  readonly start: Virt;
  /** One past the last byte. */
  end: Virt;
  readonly pa: Phys;
  readonly flags: string;
}
/** A page as the CPU sees it. */
interface Leaf {
  readonly va: Virt;
  readonly size: number;
  readonly probe: PageProbe;
}

const HALF = 2 ** 47;
const RANDOM_PROBES = 1000;
const NEAR = 4096;

/** The page table of the CPU that exports, which between two kernel entries is CPU 0. */
export function export_cr3(): Phys {
  return read_cr3() - (read_cr3() % 4096);
}

/** Every mapped page, found as the CPU finds it, by address: as 64 bits without a sign, as ELF files sort them. */
function* leaves(cr3: Phys): Generator<Leaf> {
  yield* leaves_between(cr3, 0, HALF);
  yield* leaves_between(cr3, -HALF, 0);
}

function* leaves_between(cr3: Phys, start: Virt, end: Virt): Generator<Leaf> {
  for (let va = start; va < end;) {
    const probe = mmu_probe(cr3, va);
    const size = pg_level_size(probe.level); // of the page, or of what the empty entry leaves out
    if (probe.pa !== null) yield { va, size, probe };
    va = pg_level_base(va, probe.level) + size;
  }
}

/** `rw-`, with `u` behind it for pages of user mode. */
function flags_of({ r, w, x, user }: PageProbe): string {
  return (r ? "r" : "-") + (w ? "w" : "-") + (x ? "x" : "-") + (user ? "u" : "");
}

/** All of the address space that is mapped, by address. */
export function mappings_of(cr3: Phys): Mapping[] {
  const all: Mapping[] = [];
  for (const { va, size, probe } of leaves(cr3)) {
    const last = all.at(-1);
    const flags = flags_of(probe);
    if (last?.end === va && last.flags === flags && last.pa + (va - last.start) === probe.pa) last.end = va + size;
    else all.push({ start: va, end: va + size, pa: probe.pa!, flags });
  }
  return all;
}

/** Addresses to try: the edges of every page, then what the seed draws. */
function probe_addresses(cr3: Phys, mappings: readonly Mapping[]): Virt[] {
  const edges = [...leaves(cr3)].flatMap(({ va, size }) => [va, va + size - 1, va + size]);
  let x = 1;
  const random = (): number => (x = (Math.imul(x, 1664525) + 1013904223) >>> 0);
  const drawn = Array.from({ length: RANDOM_PROBES }, (_, i) => {
    if (i % 2 === 0) return virt_of(random(), random() >> 16);
    const { start, end } = mappings[random() % mappings.length]!;
    return start - NEAR + Math.floor((random() / 2 ** 32) * (end - start + 2 * NEAR));
  });
  return [...edges, ...drawn].filter((va) => va >= -HALF && va < HALF);
}

const va_text = (va: Virt): string => `"0x${virt_px(va)}"`;
const pa_text = (pa: Phys | null): string => (pa === null ? "null" : `"0x${hex(pa)}"`);
const bit = (right: boolean): number => (right ? 1 : 0);

function probe_text(cr3: Phys, va: Virt): string {
  const { pa, r, w, x, user } = mmu_probe(cr3, va);
  return `{"va": ${va_text(va)}, "pa": ${pa_text(pa)}, "r": ${bit(r)}, "w": ${bit(w)}, "x": ${bit(x)}, "user": ${bit(user)}}`;
}

/** The file for a page table; `addresses` replaces the probes that are chosen here. A line a probe. */
export function mmu_json(cr3: Phys, addresses?: readonly Virt[]): string {
  const mappings = mappings_of(cr3);
  const mapping_lines = mappings.map(
    ({ start, end, pa, flags }) =>
      `{"start": ${va_text(start)}, "end": ${va_text(end)}, "pa": ${pa_text(pa)}, "flags": "${flags}"}`,
  );
  const probes = (addresses ?? probe_addresses(cr3, mappings)).map((va) => probe_text(cr3, va));
  return (
    `{\n"ram": "ram.img",\n"cr3": ${pa_text(cr3)},\n"levels": 4,\n"complete": true,\n` +
    `"mappings": [\n${mapping_lines.join(",\n")}\n],\n"probes": [\n${probes.join(",\n")}\n]\n}\n`
  );
}
