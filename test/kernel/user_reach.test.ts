/**
 * What a program can reach, whatever address it tries: its own areas with their rights, and nothing else.
 *
 * Worlds are drawn by a seed: a program with areas of all rights, some of them given back, and another process that shares
 * pages with it by a fork and has its own. Then accesses of all kinds, widths and lengths, by the program and by system
 * calls on its behalf, at addresses near every border there is. A model (areas, and the bytes of their pages) says for each
 * what is read, or that it is refused and nothing is changed.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PAGE_SIZE, type Virt } from "../../hal/addr.ts";
import { DATA_BASE, TEXT_BASE, image_end } from "../../hal/image.ts";
import { machine_end } from "../../hal/machine.ts";
import { ram8, ram_read_bytes } from "../../hal/ram.ts";
import { Trap } from "../../hal/trap.ts";
import { O_CREAT, O_RDWR } from "../../kernel/fs/fs.ts";
import { EFAULT } from "../../kernel/lib/errno.ts";
import { register_syscall, system_call } from "../../kernel/syscall.ts";
import { TaskStruct, current_task } from "../../kernel/task.ts";
import { AccessLimit, u, user_step } from "../../kernel/user_memory.ts";
import { GFP_KERNEL } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import { PAGE_OFFSET, VMALLOC_END, VMALLOC_START, image_to_virt, ptr_to_virt } from "../../mm/kernel_map.ts";
import { MMAP_MIN_ADDR, STACK_TOP, type MmPtr } from "../../mm/mm_types.ts";
import {
  MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE, dup_mm, mm_alloc,
  mmput,
} from "../../mm/mmap.ts"; // prettier-ignore
import { TASK_SIZE_MAX } from "../../mm/pgtable.ts";
import { switch_mm } from "../../mm/tlbflush.ts";
import { clear_user, copy_from_user, copy_to_user } from "../../mm/uaccess.ts";
import { vfree, vmalloc } from "../../mm/vmalloc.ts";
import { TEST_MACHINE } from "../lib/machine.ts";
import { reports, test_init, with_tasks } from "./tasks.ts";

const FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
const RW = PROT_READ | PROT_WRITE;
/** Two windows of pages: the program's, across two page tables, and one where only the other process has areas. */
const BASE: Virt = 0x40000000 - 12 * PAGE_SIZE;
const PAGES = 24;
const OTHERS: Virt = 0x7f0000000000;
const OTHERS_PAGES = 4;
const REFUSED = "refused";

/** A process: its address space, and what it should find there. A page that is absent is not its own. */
interface Process {
  readonly mm: MmPtr;
  readonly pages: Map<Virt, { prot: number; bytes: Uint8Array }>;
}

/** What lies at an address if `right` (0: any) is there for it. */
function cell(of: Process, va: Virt, right: number): { bytes: Uint8Array; at: number } | undefined {
  if (!Number.isInteger(va)) return undefined;
  const at = ((va % PAGE_SIZE) + PAGE_SIZE) % PAGE_SIZE;
  const page = of.pages.get(va - at);
  return page && (page.prot & (right || 7)) !== 0 ? { bytes: page.bytes, at } : undefined;
}

/** How many of `length` bytes can be had from `va` on. */
function reach(of: Process, va: Virt, length: number, right: number): number {
  let done = 0;
  while (done < length && cell(of, va + done, right)) done++;
  return done;
}

function put(of: Process, va: Virt, values: Uint8Array): void {
  for (const [i, value] of values.entries()) {
    const { bytes, at } = cell(of, va + i, PROT_WRITE)!;
    bytes[at] = value;
  }
}

function get(of: Process, va: Virt, length: number): DataView {
  const bytes = Array.from({ length }, (_, i) => {
    const found = cell(of, va + i, 0)!;
    return found.bytes[found.at]!;
  });
  return new DataView(Uint8Array.from(bytes).buffer);
}

/** Makes the running task one of that address space. */
function run_in(mm: MmPtr): void {
  TaskStruct.mm.set(current_task(), mm);
  switch_mm(mm);
}

/** As a program: what it loads, or REFUSED. */
function by_program(fn: () => unknown): unknown {
  const result = user_step(fn);
  if ("value" in result) return result.value;
  expect(result.thrown instanceof Trap || result.thrown instanceof AccessLimit).toBe(true);
  return REFUSED;
}

/* Tries: what is done, and what the model says it comes to. Each returns [is, should be]. */

type Try = (of: Process, va: Virt, value: number) => [unknown, unknown];
const buffer_bytes = 3 * PAGE_SIZE;
const LENGTHS = [0, 1, 8, PAGE_SIZE - 1, PAGE_SIZE, buffer_bytes];
const length_of = (value: number): number => LENGTHS[(value >>> 3) % LENGTHS.length]!;

const WIDTHS = [
  { bytes: 1, load: u.load8, store: u.store8, read: (view: DataView) => view.getUint8(0) },
  { bytes: 2, load: u.load16, store: u.store16, read: (view: DataView) => view.getUint16(0, true) },
  { bytes: 4, load: u.load32, store: u.store32, read: (view: DataView) => view.getInt32(0, true) },
  { bytes: 8, load: u.load64, store: u.store64, read: (view: DataView) => view.getInt32(4, true) * 2 ** 32 + view.getUint32(0, true) },
]; // prettier-ignore

const loads = WIDTHS.map(({ bytes, load, read }): Try => (of, va) => {
  const is = by_program(() => load(va));
  return [is, reach(of, va, bytes, 0) === bytes ? read(get(of, va, bytes)) : REFUSED];
});

const stores = WIDTHS.map(({ bytes, store }): Try => (of, va, value) => {
  const is = by_program(() => store(va, value));
  if (reach(of, va, bytes, PROT_WRITE) < bytes) return [is, REFUSED];
  const all = new DataView(new ArrayBuffer(8));
  all.setBigInt64(0, BigInt(value), true);
  put(of, va, new Uint8Array(all.buffer, 0, bytes));
  return [is, undefined];
});

const fill: Try = (of, va, value) => {
  const length = [-1, NaN, Infinity][value & 15] ?? length_of(value);
  const is = by_program(() => u.memset(va, value, length));
  if (length === Infinity) return [is, REFUSED];
  const done = reach(of, va, length, PROT_WRITE);
  put(of, va, new Uint8Array(done).fill(value));
  return [is, done >= length || !(length > 0) ? undefined : REFUSED];
};

const jump: Try = (of, va) => [by_program(() => u.exec(va)), cell(of, va, PROT_EXEC) ? undefined : REFUSED];

const look: Try = (of, va, value) => {
  const length = length_of(value);
  const is = by_program(() => u.look(va, length, (memory) => Buffer.from(memory).toString("latin1")));
  const whole = reach(of, va, length, 0) === length;
  return [is, whole ? Buffer.from(get(of, va, length).buffer).toString("latin1") : REFUSED];
};

/** From the address to another place in the window. */
const move: Try = (of, va, value) => {
  const length = length_of(value);
  const to = BASE + ((value >>> 8) % (PAGES * PAGE_SIZE));
  const is = by_program(() => u.memmove(to, va, length));
  if (reach(of, va, length, 0) < length) return [is, REFUSED];
  const done = reach(of, to, length, PROT_WRITE);
  put(of, to, new Uint8Array(get(of, va, length).buffer).subarray(0, done));
  return [is, done < length ? REFUSED : undefined];
};

/** unlink of what should be a path: whatever comes of the name, -EFAULT only where memory ends before the name does. */
const path: Try = (of, va) => {
  const result = system_call("unlink", [va]);
  for (let i = 0; i < 4096; i++) {
    const found = cell(of, va + i, 0);
    if (!found) return [result, -EFAULT];
    if (found.bytes[found.at] === 0) break;
  }
  return [result !== -EFAULT, true];
};

/** Takes over what a call has written: at most `length` bytes, as far as they are the process's to write. */
function take_over(of: Process, va: Virt, length: number): void {
  const done = reach(of, va, length, PROT_WRITE);
  const is = with_buffer((ptr) => (expect(copy_from_user(ptr, va, done)).toBe(0), ram_read_bytes(ptr, done)));
  put(of, va, is);
}

/** A result for `length` bytes of which `done` can be reached: all, or some of those, or -EFAULT. */
function counts_or_fails(result: unknown, length: number, done: number): boolean {
  if (done === length) return result === length;
  return result === -EFAULT || (Number(result) > 0 && Number(result) <= done);
}

/** A file of three pages, open. */
const file = { fd: -1 };
const rewind = (): unknown => system_call("lseek", [file.fd, 0, 0]);

const to_file: Try = (of, va, value) => {
  const length = length_of(value);
  rewind();
  return [counts_or_fails(system_call("write", [file.fd, va, length]), length, reach(of, va, length, 0)), true];
};

const from_file: Try = (of, va, value) => {
  const length = length_of(value);
  rewind();
  const done = reach(of, va, length, PROT_WRITE);
  const is_right = counts_or_fails(system_call("read", [file.fd, va, length]), length, done);
  take_over(of, va, length);
  return [is_right, true];
};

const STAT_BYTES = 144;
const stat: Try = (of, va) => {
  const result = system_call("stat", ["/", va]);
  const whole = reach(of, va, STAT_BYTES, PROT_WRITE) === STAT_BYTES;
  take_over(of, va, STAT_BYTES);
  return [result, whole ? 0 : -EFAULT];
};

function with_buffer<T>(fn: (ptr: number) => T): T {
  const ptr = kmalloc(buffer_bytes, GFP_KERNEL);
  const result = fn(ptr);
  kfree(ptr);
  return result;
}

const from_user: Try = (of, va, value) =>
  with_buffer((ptr) => {
    const length = length_of(value);
    const left = copy_from_user(ptr, va, length);
    const is_user = Number.isInteger(va) && va >= 0 && va <= TASK_SIZE_MAX - length;
    const done = is_user ? reach(of, va, length, 0) : 0;
    const expected = Buffer.concat([Buffer.from(get(of, va, done).buffer), Buffer.alloc(length - done)]);
    return [
      [left, Buffer.compare(expected, ram_read_bytes(ptr, length))],
      [length - done, 0],
    ];
  });

const to_user =
  (write: (va: Virt, ptr: number, length: number) => number, byte: (value: number) => number): Try =>
  (of, va, value) =>
    with_buffer((ptr) => {
      const length = length_of(value);
      ram8.fill(byte(value), ptr, ptr + buffer_bytes);
      const left = write(va, ptr, length);
      const is_user = Number.isInteger(va) && va >= 0 && va <= TASK_SIZE_MAX - length;
      const done = is_user ? reach(of, va, length, PROT_WRITE) : 0;
      put(of, va, new Uint8Array(done).fill(byte(value)));
      return [left, length - done];
    });

const TRIES: readonly Try[] = [
  ...loads, ...stores, fill, look, move, jump, path, to_file, from_file, stat, from_user,
  to_user(copy_to_user, (value) => value & 0xff), to_user((va, _ptr, length) => clear_user(va, length), () => 0),
]; // prettier-ignore

/* Worlds */

const page_of = fc.record({ prot: fc.nat(7), kept: fc.nat(3), touched: fc.boolean(), forked: fc.boolean() });
const world = fc.record({
  pages: fc.array(page_of, { minLength: PAGES, maxLength: PAGES }),
  tries: fc.array(
    fc.record({ kind: fc.nat(TRIES.length - 1), border: fc.nat(), off: fc.integer({ min: -9, max: 9 }), far: fc.double({ min: -(2 ** 48), max: 2 ** 48, noNaN: true }), value: fc.integer() }),
    { minLength: 400, maxLength: 400 },
  ),
}); // prettier-ignore

/** Maps a page in the running process, which reads as zeroes, or as `value` all over. */
function add_page(to: Process, va: Virt, value: number): void {
  expect(system_call("mmap", [PAGE_SIZE, RW, FIXED, va])).toBe(va);
  if (value !== 0) u_fill(va, value);
  to.pages.set(va, { prot: RW, bytes: new Uint8Array(PAGE_SIZE).fill(value) });
}
const u_fill = (va: Virt, value: number): void => void expect(by_program(() => u.memset(va, value, PAGE_SIZE))).toBe(undefined); // prettier-ignore

/** The program and the other process, as drawn; the program runs. */
function make_world(drawn: readonly { prot: number; kept: number; touched: boolean; forked: boolean }[]): Process[] {
  const program: Process = { mm: mm_alloc(), pages: new Map() };
  run_in(program.mm);
  for (const [i, { touched, forked }] of drawn.entries())
    if (forked) add_page(program, BASE + i * PAGE_SIZE, touched ? 0x41 + i : 0);
  const copies = [...program.pages].map(([va, { prot, bytes }]) => [va, { prot, bytes: bytes.slice() }] as const);
  const other: Process = { mm: dup_mm(program.mm), pages: new Map(copies) };
  run_in(other.mm);
  for (const [va, { bytes }] of other.pages)
    if (va % (2 * PAGE_SIZE) === 0) {
      u_fill(va, 0xee);
      bytes.fill(0xee);
    }
  for (let i = 0; i < OTHERS_PAGES; i++) add_page(other, OTHERS + i * PAGE_SIZE, 0xdd);
  run_in(program.mm);
  for (const [i, { prot, kept, touched, forked }] of drawn.entries()) {
    const va = BASE + i * PAGE_SIZE;
    if (!forked) add_page(program, va, touched ? 0x41 + i : 0);
    if (kept === 0) {
      expect(system_call("munmap", [va, PAGE_SIZE])).toBe(0);
      program.pages.delete(va);
    } else {
      expect(system_call("mprotect", [va, PAGE_SIZE, prot])).toBe(0);
      program.pages.get(va)!.prot = prot;
    }
  }
  return [program, other];
}

/** All bytes that a process can read are what the model says. */
function check(of: Process): void {
  run_in(of.mm);
  for (const [va, { prot, bytes }] of of.pages) {
    if (prot === 0) continue;
    const is = with_buffer((ptr) => (expect(copy_from_user(ptr, va, PAGE_SIZE)).toBe(0), ram_read_bytes(ptr, PAGE_SIZE))); // prettier-ignore
    expect([va, Buffer.compare(is, bytes)]).toEqual([va, 0]);
  }
}

const seen = { refused: 0, done: 0 };
const outcome: { error?: unknown } = {};

register_syscall("t_reach", "", () => {
  const own = TaskStruct.mm.get(current_task());
  file.fd = system_call("open", ["/tmp/reach", O_CREAT | O_RDWR, 0o644]) as number;
  system_call("write", [file.fd, "3".repeat(buffer_bytes)]);
  const area = vmalloc(2 * PAGE_SIZE);
  const gone = vmalloc(PAGE_SIZE);
  vfree(gone);
  const object = kmalloc(64, GFP_KERNEL);
  const ram_end = machine_end(TEST_MACHINE);
  const borders = [
    ...Array.from({ length: PAGES + 1 }, (_, i) => BASE + i * PAGE_SIZE), OTHERS, OTHERS + OTHERS_PAGES * PAGE_SIZE, 0, -0, MMAP_MIN_ADDR,
    STACK_TOP, TASK_SIZE_MAX, 2 ** 47, -(2 ** 47), PAGE_OFFSET, PAGE_OFFSET + ram_end, ptr_to_virt(object), area, area + 2 * PAGE_SIZE, gone,
    VMALLOC_START, VMALLOC_END, image_to_virt(TEXT_BASE), image_to_virt(DATA_BASE), image_to_virt(image_end(2)), -(2 ** 31), -1,
    0.5, BASE + 0.5, NaN, Infinity, -Infinity, 2 ** 53, 2 ** 60, -(2 ** 60), 0xffff888000000000, 0xeaeb0b5b00002f5e, 2 ** 32 + BASE, BASE - 2 ** 32,
  ]; // prettier-ignore
  const kernel = (): Buffer => Buffer.concat([ram_read_bytes(TEXT_BASE, DATA_BASE - TEXT_BASE), ram_read_bytes(object, 64)]); // prettier-ignore
  const before = kernel();
  const property = fc.property(world, ({ pages, tries }) => {
    const [program, other] = make_world(pages) as [Process, Process];
    for (const { kind, border, off, far, value } of tries) {
      const near = border % (borders.length + 4);
      const va = near < borders.length ? borders[near]! + off : Math.floor(far);
      const [is, should_be] = TRIES[kind]!(program, va, value);
      expect([kind, va, value, is]).toEqual([kind, va, value, should_be]);
      seen[should_be === REFUSED ? "refused" : "done"]++;
    }
    for (const process of [program, other]) check(process);
    expect(Buffer.compare(kernel(), before)).toBe(0);
    run_in(own);
    for (const { mm } of [program, other]) mmput(mm);
  });
  try {
    fc.assert(property, { seed: 119, numRuns: 25, endOnFailure: true });
  } catch (error) {
    outcome.error = (error as Error).cause; // the world that it happened in is long to print
  }
  run_in(own);
  system_call("close", [file.fd]);
  system_call("unlink", ["/tmp/reach"]);
  vfree(area);
  kfree(object);
  return 0;
});

const reaches = test_init("t_reaches", function* () {
  yield { call: "t_reach", args: [] };
});

describe("a program", () => {
  it("reads, writes and runs its own memory with its rights, and nothing of the kernel's, another's, or freed", () => {
    with_tasks(reaches, () => {
      expect(outcome.error).toBeUndefined();
      expect(Math.min(seen.refused, seen.done)).toBeGreaterThan(1000);
      expect(reports()).toEqual([]);
    });
  });
});
