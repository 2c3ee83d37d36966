/** The leaf routines: lists, log, locks, command line, random numbers, bits. */
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { console_attach } from "../../../hal/console.ts";
import { image_load, image_symbols, static_data } from "../../../hal/image.ts";
import { ram32 } from "../../../hal/ram.ts";
import { __ffs, fls, get_order, hweight32, ilog2, int_sqrt, rounddown_pow_of_two, roundup_pow_of_two, swab32 } from "../../../kernel/lib/bitops.ts"; // prettier-ignore
import { BUG_ON, KernelBug, KernelPanic, panic } from "../../../kernel/lib/bug.ts";
import { cmdline_bool, cmdline_number, cmdline_param, setup_command_line } from "../../../kernel/lib/cmdline.ts";
import { errno_name, is_err, strerror } from "../../../kernel/lib/errno.ts";
import { ksym, ksym_address, ksym_fn, sprint_symbol, text_px } from "../../../kernel/lib/ksym.ts";
import { ListHead, init_list_head, list_add, list_add_tail, list_count, list_del, list_empty, list_move, list_next, list_splice_init } from "../../../kernel/lib/list.ts"; // prettier-ignore
import { KERN_DEBUG, KERN_ERR, pr_err, pr_info, printk, printk_records, set_console_loglevel } from "../../../kernel/lib/printk.ts"; // prettier-ignore
import { get_random_u32, get_random_u32_below, random_init } from "../../../kernel/lib/random.ts";
import { SpinLock, locks_held, spin_lock, spin_trylock, spin_unlock } from "../../../kernel/lib/spinlock.ts";

const data = static_data("lib_test", { head: ListHead, other: ListHead, lock: SpinLock, text: "char[8]" });
const NODES = 0x300000;
const node = (i: number): number => NODES + i * 16;

beforeEach(() => image_load(1));

function walk(head: number): number[] {
  const found: number[] = [];
  for (let n = list_next(head); n !== head; n = list_next(n)) found.push((n - NODES) / 16);
  return found;
}

describe("list", () => {
  it("adds at both ends, moves, splices, removes", () => {
    init_list_head(data.head);
    init_list_head(data.other);
    expect(list_empty(data.head)).toBe(true);
    list_add(node(1), data.head);
    list_add(node(2), data.head);
    list_add_tail(node(3), data.head);
    expect(walk(data.head)).toEqual([2, 1, 3]);
    list_add(node(9), data.other);
    list_move(node(3), data.other);
    list_splice_init(data.other, data.head);
    expect(walk(data.head)).toEqual([3, 9, 2, 1]);
    expect(list_empty(data.other)).toBe(true);
    list_del(node(9));
    expect(walk(data.head)).toEqual([3, 2, 1]);
    expect(list_count(data.head)).toBe(3);
    expect(list_count(data.head, 2)).toBe(2);
  });

  it("agrees with an array under random operations", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(19)), { maxLength: 200 }), (steps) => {
        init_list_head(data.head);
        let model: number[] = [];
        for (const [front, i] of steps)
          if (model.includes(i)) {
            list_del(node(i));
            model = model.filter((other) => other !== i);
          } else if (front) {
            list_add(node(i), data.head);
            model.unshift(i);
          } else {
            list_add_tail(node(i), data.head);
            model.push(i);
          }
        expect(walk(data.head)).toEqual(model);
      }),
      { seed: 3, numRuns: 100 },
    );
  });
});

describe("printk", () => {
  it("keeps every line with its level, and sends urgent ones to the console", () => {
    const sent: string[] = [];
    const before = console_attach((text) => void sent.push(text));
    set_console_loglevel(KERN_ERR + 1);
    pr_info("quiet\nlines");
    pr_err("loud");
    console_attach(before);
    expect([...printk_records()].map(({ level, text }) => [level, text])).toEqual([
      [6, "quiet"],
      [6, "lines"],
      [3, "loud"],
    ]);
    expect(sent).toEqual(["[    0.000000] loud\n"]);
  });

  it("drops the oldest lines when the ring is full, and no others", () => {
    const total = 5000;
    for (let i = 0; i < total; i++) printk(KERN_DEBUG, `line ${i} ${"x".repeat(i % 97)}`);
    const kept = [...printk_records()].map(({ text }) => Number(text.split(" ")[1]));
    expect(kept.length).toBeGreaterThan(1000);
    expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => total - kept.length + i));
  });

  it("writes nothing behind the ring, whatever the lengths of lines", () => {
    const { address, size } = [...image_symbols("data")].find(({ name }) => name === "printk_ringbuffer")!;
    ram32[(address + size) >> 2] = 0x5a5a5a5a;
    for (let i = 0; i < 30_000; i++) printk(KERN_DEBUG, "x".repeat(i % 61));
    expect(ram32[(address + size) >> 2]).toBe(0x5a5a5a5a);
  });
});

describe("spinlock", () => {
  it("counts held locks and calls a second taking a deadlock", () => {
    spin_lock(data.lock);
    expect(locks_held()).toBe(1);
    expect(spin_trylock(data.lock)).toBe(false);
    expect(() => spin_lock(data.lock)).toThrow("deadlock");
    spin_unlock(data.lock);
    expect(locks_held()).toBe(0);
    expect(() => spin_unlock(data.lock)).toThrow(KernelBug);
    expect(spin_trylock(data.lock)).toBe(true);
    spin_unlock(data.lock);
  });
});

describe("command line", () => {
  it("reads names, values, quotes, sizes and switches; the last one wins", () => {
    setup_command_line('a=1 quiet name="two words" size=64K hex=0x10 on=on off=0 a=2 bad=x');
    expect(cmdline_param("a")).toBe("2");
    expect(cmdline_param("quiet")).toBe("");
    expect(cmdline_param("name")).toBe("two words");
    expect(cmdline_param("none")).toBeUndefined();
    expect([cmdline_number(0, "size"), cmdline_number(0, "hex"), cmdline_number(5, "bad")]).toEqual([65536, 16, 5]);
    expect([cmdline_bool(false, "on"), cmdline_bool(true, "off"), cmdline_bool(false, "quiet")]).toEqual([
      true,
      false,
      true,
    ]);
    expect(cmdline_bool(true, "bad")).toBe(true);
  });
});

describe("functions in RAM", () => {
  it("a named function has an address that leads back to it", () => {
    const fn = (x: number): number => x + 1;
    const address = ksym("lib_test_fn", fn);
    expect(ksym_address(fn)).toBe(address);
    expect(ksym_fn(address)(1)).toBe(2);
    expect(sprint_symbol(address)).toBe("lib_test_fn+0x0/0x10");
    expect(text_px(address)).toMatch(/^ffffffff8100[0-9a-f]{4}$/);
    expect(() => ksym("lib_test_fn", fn)).toThrow("defined twice");
    expect(sprint_symbol(ksym_address(() => 0))).toMatch(/^anon:\d+\+0x0\/0x10$/);
    expect(ksym_address(null)).toBe(0);
  });
});

describe("small things", () => {
  it("bits", () => {
    expect([fls(0), fls(1), fls(7), fls(-1)]).toEqual([0, 1, 3, 32]);
    expect([ilog2(1), ilog2(4096), __ffs(8), hweight32(0xff)]).toEqual([0, 12, 3, 8]);
    expect([get_order(1), get_order(4096), get_order(4097), get_order(2 ** 40)]).toEqual([0, 0, 1, 28]);
    expect([roundup_pow_of_two(5), rounddown_pow_of_two(5), swab32(0x01020304)]).toEqual([8, 4, 0x04030201]);
    expect([int_sqrt(15), int_sqrt(16), int_sqrt(2 ** 52 - 1)]).toEqual([3, 4, 67108863]);
  });

  it("errors have names and texts", () => {
    expect([errno_name(-12), strerror(2), is_err(-22), is_err(0), is_err(-5000)]).toEqual([
      "ENOMEM", "No such file or directory", true, false, false,
    ]); // prettier-ignore
  });

  it("a panic and a bug carry their message", () => {
    expect(() => BUG_ON(true, "three is 4")).toThrow(new KernelBug("three is 4"));
    expect(() => panic("no init")).toThrow(KernelPanic);
    expect([...printk_records()].at(-1)!.text).toBe("Kernel panic - not syncing: no init");
  });

  it("random streams are apart, and the same for the same seed", () => {
    random_init(5);
    const first = [get_random_u32(0), get_random_u32(0), get_random_u32(1)];
    random_init(5);
    get_random_u32(1);
    expect([get_random_u32(0), get_random_u32(0)]).toEqual(first.slice(0, 2));
    random_init(6);
    expect(get_random_u32(0)).not.toBe(first[0]);
    for (let i = 0; i < 1000; i++) expect(get_random_u32_below(2, 7)).toBeLessThan(7);
  });
});
