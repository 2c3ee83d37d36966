/** What is written into the kernel's files in an instrumented realm, and what is refused. */
import { describe, expect, test } from "vitest";
import * as atomic from "../../hal/atomic.ts";
import * as ram from "../../hal/ram.ts";
import * as timing from "../../hal/timing.ts";
import * as list from "../../kernel/lib/list.ts";
import * as spinlock from "../../kernel/lib/spinlock.ts";
import * as slub from "../../mm/slub.ts";
import { is_instrumented, transform } from "../../boot/instrument/transform.ts";

const HEAD = 'import { ram8, ram32 } from "../hal/ram.ts";const m = ram32;';
/** The code behind the head, as it is after the transform; of a file whose functions are left alone. */
function written(code: string, path = "kernel/lib/x.ts"): string {
  const out = transform(HEAD + code, path, "TIMING").toString();
  return out.slice(out.indexOf(HEAD) + HEAD.length);
}

describe("accesses", () => {
  test.each([
    ["f(m[i])", "f(m[$ld32(i)])"],
    ["ram8[m[a] + m[b]]", "ram8[$ld8(m[$ld32(a)] + m[$ld32(b)])]"],
    ["m[i] = v", "$st32(m,i,v)"],
    ["m[a] = m[b] = ram8[c]", "$st32(m,a,$st32(m,b,ram8[$ld8(c)]))"],
    ["m[m[i]] = m[j]", "$st32(m,m[$ld32(i)],m[$ld32(j)])"],
    ["m[i] += m[j]", "$st32(m,$t=i,m[$ld32($t)]+(m[$ld32(j)]))"],
    ["m[i] >>>= a, b", "$st32(m,$t=i,m[$ld32($t)]>>>(a)), b"],
    ["x = m[i]++", "x = ($st32(m,$t=i,m[$ld32($t)]+1)-1)"],
    ["x = --m[f(m[i])]", "x = $st32(m,$t=f(m[$ld32(i)]),m[$ld32($t)]-1)"],
    ["const t = m[a]; m[a] = m[b]; m[b] = t;", "const t = m[$ld32(a)]; $st32(m,a,m[$ld32(b)]); $st32(m,b,t);"],
    ["g = (p, v) => void (m[p] = v)", "g = (p, v) => void ($st32(m,p,v))"],
    ["other[i] = x.m[j] + { m: 1 }.m", "other[i] = x.m[j] + { m: 1 }.m"],
  ])("%s", (code, expected) => expect(written(code)).toBe(expected));

  test("do what they did", () => {
    const code = `
      m[0] = 2147483647; const old = m[0]++; const wrapped = m[0];
      m[1] = 7; m[2] = m[1] *= 3; m[3] = (m[4] = 300) + (ram8[20] += 255);
      m[5] = m[m[1] - 20] -= m[1]; const last = --m[6];
      for (let i = 0; i < 3; i++) m[7] += m[i] & 7;
      result = [old, wrapped, last, [...all]];`;
    const run = (body: string): unknown => {
      const all = new Int32Array(new SharedArrayBuffer(40));
      const hooks = `const $ld8 = (i) => i, $ld32 = $ld8, $st8 = (v, i, x) => (v[i] = x), $st32 = $st8; let $t, result;`;
      const views = `const all = m, ram8 = new Uint8Array(m.buffer);`;
      return new Function("m", `${hooks}${views}${body};return result;`)(all);
    };
    expect(written(code)).toContain("$st32(m,$t=0");
    expect(run(written(code))).toEqual(run(code));
  });

  test("no line is added", () => {
    const code = "\nfunction f() {\n  m[1] +=\n    2;\n  return m[2];\n}\n";
    const out = transform(HEAD + code, "mm/x.ts", "TIMING").toString();
    const lines = (text: string): string[] => text.split("\n");
    expect(lines(out)).toHaveLength(lines(code).length);
    expect(lines(out)[4]).toContain("return m[$ld32(2)]");
  });
});

describe("functions", () => {
  const body = (enter: string, inner: string): string => `const $f=${enter};try{${inner}}finally{$leave($f)}`;

  test("those of mm/ enter by number, those of kernel/ as the kernel, those of hal/ and kernel/lib not at all", () => {
    const code = "function f(x) {return x}";
    expect(written(code, "mm/x.ts")).toBe(`function f(x) {${body("$enter($n+0)", "return x")}}`);
    expect(written(code, "kernel/x.ts")).toBe(`function f(x) {${body("$enter_kernel()", "return x")}}`);
    expect(written(code, "kernel/lib/x.ts")).toBe(code);
    expect(written(code, "hal/x.ts")).toBe(code);
  });

  test("arrows, methods, empty ones; not generators, which are their caller's", () => {
    expect(written("const a = x => m[x];", "mm/x.ts")).toBe(`const a = x => {${body("$enter($n+0)", "return m[$ld32(x)]")}};`); // prettier-ignore
    expect(written("const a = () => ({});", "mm/x.ts")).toBe(`const a = () => {${body("$enter($n+0)", "return ({})")}};`); // prettier-ignore
    expect(written("const o = { f() {} };", "mm/x.ts")).toBe(`const o = { f() {${body("$enter($n+0)", "")}} };`);
    expect(written("function* walk() { yield m[0]; }", "mm/x.ts")).toBe("function* walk() { yield m[$ld32(0)]; }");
  });

  test("are named as a stack names them", () => {
    const code = `function f() { return [1].map((x) => x); }
      const g = () => 0, h = __name(() => 0, "real");
      const o = { put: () => 0, get size() { return 1; } };
      ksym("k", () => 0);`;
    const names = /define_functions\("mm\/x\.ts",(\[.*?\])\)/.exec(transform(code, "mm/x.ts", "TIMING").toString())![1];
    expect(JSON.parse(names!)).toEqual(["f.<anonymous>", "f", "g", "real", "put", "size", "<anonymous>"]);
  });

  test("what hal/ram.ts, hal/atomic.ts and spinlocks do is told as a whole", () => {
    const told = (code: string, path: string): string =>
      transform(code, path, "T")
        .toString()
        .replace(/^import.*?;/, "");
    expect(told("function ram_zero(ptr, size) {m8.fill(0)}", "hal/ram.ts")).toBe(
      "function ram_zero(ptr, size) {$on_ram_zero(ptr,size);m8.fill(0)}",
    );
    expect(told("function spin_lock(lock) {m[lock] = 1}", "kernel/lib/spinlock.ts")).toBe(
      "function spin_lock(lock) {$on_spin_lock(lock);m[lock] = 1}",
    );
  });
});

describe("a file that lets a view out of sight is refused with its line", () => {
  test.each([
    ["\n\nf(m);", "kernel/lib/x.ts:3: m is a view of RAM, of which only elements may be used here; hal/ram.ts has the rest"],
    ["m.fill(0);", "kernel/lib/x.ts:1: m is a view of RAM, of which only elements may be used here; hal/ram.ts has the rest"],
    ["const o = { m };", "kernel/lib/x.ts:1: m is a view of RAM, of which only elements may be used here; hal/ram.ts has the rest"],
    ["\nfunction f(m) {}", "kernel/lib/x.ts:2: m is a view of RAM in this file; call this something else"],
    ["function f() { const m = 1; }", "kernel/lib/x.ts:1: m is a view of RAM in this file; call this something else"],
    ["[m[0], m[1]] = [1, 2];", "kernel/lib/x.ts:1: an element of RAM as the target of a pattern; write assignments"],
    ["m[0] ||= 1;", "kernel/lib/x.ts:1: ||= on an element of RAM; write an if"],
    ["delete m[0];", "kernel/lib/x.ts:1: an element of RAM as the target of a pattern; write assignments"],
    ["export { m };", "kernel/lib/x.ts:1: a view of RAM is exported"],
    ['import * as ram from "../ram.ts";', "kernel/lib/x.ts:1: import what you use of hal/ram.ts by name"],
  ])("%j", (code, line) => expect(() => written(code)).toThrow(line)); // prettier-ignore
});

test("a plain realm pays nothing: its functions are what stands in the files", () => {
  const all = Object.values({ ...slub, ...list, ...spinlock }).filter((value) => typeof value === "function");
  expect(all.length).toBeGreaterThan(20);
  for (const fn of all) expect(String(fn)).not.toMatch(/\b(ld|st)\d|\b(enter|leave|on_\w+)\b/);
});

test("the instruments, and what they need, are left alone", () => {
  const all = ["hal/cpu.ts", "mm/slub.ts", "kernel/fs/inode.ts", "hal/timing.ts", "hal/host.ts", "boot/main.ts", "kernel/entry.ts", "test/x.ts"]; // prettier-ignore
  expect(all.filter(is_instrumented)).toEqual(["hal/cpu.ts", "mm/slub.ts", "kernel/fs/inode.ts"]);
});

test("every operation on RAM as a whole has its hook, or is none of the kernel's", () => {
  // Power-on; what spin_lock and spin_unlock tell; what only looks.
  const silent = ["ram_clear", "ram_fill_garbage", "spin_trylock", "drop_locks", "locks_held", "last_lock_taken"];
  for (const [path, module] of Object.entries({
    "hal/ram.ts": ram,
    "hal/atomic.ts": atomic,
    "kernel/lib/spinlock.ts": spinlock,
  })) {
    const names = Object.entries(module).flatMap(([name, value]) => (typeof value === "function" ? [name] : []));
    for (const name of names.filter((other) => !silent.includes(other))) {
      expect(Object.keys(timing), `${path}: ${name}`).toContain(`on_${name}`);
      expect(transform(`function ${name}(a, b) {}`, path, "T").toString()).toContain(`{$on_${name}(a,b);}`);
    }
  }
});
