/** The readers of traces: what they take, and what they say to what they do not. No machine is needed. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { read_trace_file } from "../../boot/replay/file.ts";
import { Rep } from "../../boot/replay/rep.ts";
import { Trace, fit_slot } from "../../boot/replay/trace.ts";

const HEADER = [
  "#kheap-trace 1", "#cpus 2", "#nodes 1", "#page_size 4096", "#time_unit us", "#cache 0 filp 184 192",
  "#gfp 0 GFP_KERNEL", "#site 0 alloc_empty_file",
]; // prettier-ignore
const FIRST = HEADER.length + 1;

function read(lines: readonly string[]): Trace {
  const trace = new Trace("t", Buffer.from(lines.join("\n") + "\n"));
  while (trace.next());
  return trace;
}

describe("the reader of #kheap-trace 1", () => {
  it("takes every kind of line and counts them", () => {
    const trace = read([
      ...HEADER, "k 0 5 0n 0 100 128 0 -1 0", "c 1 0 17s 1 0 0 0 0", "f 1 0 0h 0 0", "x 1", "p 0 1 0n 0 2 1 0",
      "q 0 0 0n 0 1 2", "y 0 0 1",
    ]); // prettier-ignore
    expect(trace.ops).toEqual({ k: 1, c: 1, f: 1, d: 0, x: 1, p: 1, q: 1, y: 1 });
    expect(trace.events).toBe(7);
  });

  it("takes both recordings, to the last line", () => {
    for (const name of ["fork-shell", "fs-walk"]) {
      const url = new URL(`../data/traces/${name}`, import.meta.url);
      const truth = JSON.parse(readFileSync(`${url.pathname}.truth.json`, "utf8")) as Record<string, unknown>;
      const trace = new Trace(name, read_trace_file(`${url.pathname}.trace.gz`));
      while (trace.next());
      expect({ lines: trace.events, ops: trace.ops }).toEqual({ lines: truth["lines"], ops: truth["ops"] });
      expect(trace.header["#events"]).toBe(trace.events);
    }
  });

  const k0 = "k 0 5 0n 0 100 128 0 -1 0";
  const p0 = "p 0 1 0n 0 2 1 0";
  const faults: [what: string, lines: string[], says: RegExp][] = [
    ["an unknown event", ["z 1"], /"z" begins no line of a trace/],
    ["an event of two letters", ["kk 0"], /"kk" begins no line/],
    ["an empty line", [""], /"" begins no line/],
    ["a carriage return", [k0 + "\r"], /SITE is/],
    ["a missing field", ["k 0 5 0n 0 100 128 0 -1"], /k ends before SITE/],
    ["a field too many", [k0 + " 7"], /k has more fields than CPU DT WHO OBJ BYTES_REQ BYTES_ALLOC GFP NODE SITE/],
    ["a space too many", [k0.replace(" 100", "  100")], /BYTES_REQ is ""/],
    ["a space at the end", [k0 + " "], /k has more fields than CPU DT WHO OBJ BYTES_REQ BYTES_ALLOC GFP NODE SITE/],
    ["a letter for a number", [k0.replace("100", "1o0")], /BYTES_REQ is "1o0"/],
    ["a negative number", [k0.replace("100", "-5")], /BYTES_REQ is "-5"/],
    ["a number beyond all bounds", [k0.replace("100", "99999999999")], /BYTES_REQ is "99999999999"/],
    ["a CPU that the trace does not have", [k0.replace("k 0", "k 2")], /CPU is "2"/],
    ["a node that the trace does not have", [k0.replace("-1", "1")], /NODE is "1"/],
    ["an unknown context", [k0.replace("0n", "0q")], /WHO is "0q"/],
    ["fewer bytes given than asked", [k0.replace("128", "64")], /BYTES_ALLOC is 64 for 100/],
    ["no bytes asked", [k0.replace("100", "0")], /BYTES_REQ is "0"/],
    ["an undeclared cache", ["c 0 0 0n 0 9 0 -1 0"], /CACHE 9 is not declared/],
    ["undeclared flags", ["c 0 0 0n 0 0 3 -1 0"], /GFP 3 is not declared/],
    ["an undeclared site", ["c 0 0 0n 0 0 0 -1 4"], /SITE 4 is not declared/],
    ["an object allocated twice", [k0, k0], /OBJ is 0, not 1/],
    ["an object out of order", ["k 0 5 0n 4 100 128 0 -1 0"], /OBJ is 4, not 0/],
    ["a free of what never was", ["f 0 0 0n 0 0"], /object 0 was never allocated/],
    ["a second free", [k0, "f 0 0 0n 0 0", "x 0"], /object 0 is free already/],
    ["kmem_cache_free of a kmalloc object", [k0, "d 0 0 0n 0 0"], /object 0 is kmalloc's, not a cache's/],
    ["a block of too high an order", ["p 0 1 0n 0 11 1 0"], /ORDER is "11"/],
    ["pages beyond a block", [p0, "q 0 0 0n 0 3 2"], /block 0 has 4 pages/],
    ["a free of no pages", [p0, "q 0 0 0n 0 1 0"], /PAGES is "0"/],
    ["pages freed twice", [p0, "q 0 0 0n 0 1 2", "y 0 2 1"], /page 2 of block 0 is free already/],
    ["a block freed twice", [p0, "y 0 0 4", "y 0 0 4"], /page 0 of block 0 is free already/],
    ["a header among the events", [k0, "#gfp 1 GFP_NOWAIT"], /#gfp after the first event/],
    ["an unknown header", ["#colour red"], /"#colour" begins no line/],
    ["unknown flags", ["#gfp 1 GFP_KERNAL"], /unknown flags: GFP_KERNAL/],
    ["a cache declared twice", ["#cache 1 filp 184 192"], /filp is declared already/],
    ["a slot that no cache can have", ["#cache 1 odd 100 250"], /no cache has slots of 250 bytes for objects of 100/],
    ["another page size", ["#page_size 16384"], /BYTES is "16384"/],
  ];
  it.each(faults)("refuses %s with file and line", (_what, lines, says) => {
    const at = FIRST + lines.length - 1;
    expect(() => read([...HEADER, ...lines])).toThrow(says);
    expect(() => read([...HEADER, ...lines])).toThrow(new RegExp(`^t:${at}: `));
  });

  it("refuses a file of another kind in its first line", () => {
    expect(() => read(["#kheap-trace 2"])).toThrow(/^t:1: the first line is not "#kheap-trace 1"/);
    expect(() => read(["237354", "6510"])).toThrow(/^t:1: /);
    expect(() => new Trace("t", new Uint8Array(0))).toThrow(/^t:1: /);
  });

  it("finds an alignment or a constructor for every slot of the recorded caches", () => {
    expect(fit_slot("anon_vma", 96, 104)).toEqual({ align: 8, has_ctor: true });
    expect(fit_slot("mm_struct", 1568, 1600)).toEqual({ align: 64, has_ctor: false });
    expect(fit_slot("sock_inode_cache", 768, 832)).toEqual({ align: 64, has_ctor: true });
    expect(fit_slot("unheard_of", 1568, 1600)).toEqual({ align: 64, has_ctor: false });
    expect(fit_slot("unheard_of", 184, 192)).toEqual({ align: 8, has_ctor: true });
    expect(fit_slot("unheard_of", 100, 250)).toBeUndefined();
  });
});

describe("the reader of .rep files", () => {
  const requests = (text: string): string[] => {
    const rep = new Rep("r", Buffer.from(text));
    const found: string[] = [];
    while (rep.next()) found.push(`${rep.op} ${rep.id} ${rep.bytes}`);
    return found;
  };

  it("takes any line ends, blank lines and a wrong header", () => {
    const want = ["a 0 10", "r 0 20", "f 0 0", "f -1 0"];
    for (const end of ["\n", "\r\n", "\r"])
      expect(requests(["9", "9", "9", "1", "a 0 10", "", "r 0  20 ", "f 0", "f -1"].join(end))).toEqual(want);
  });

  it("refuses what makes no sense with file and line", () => {
    expect(() => requests("1\n1\n1\n1\nb 0 1\n")).toThrow(/^r:5: "b 0 1" is no request/);
    expect(() => requests("1\n1\n1\n1\na 0\n")).toThrow(/^r:5: "a 0" is no request/);
    expect(() => requests("1\n1\n1\n1\na -1 5\n")).toThrow(/^r:5: "a -1 5" is no request/);
    expect(() => requests("#kheap-trace 1\n")).toThrow(/^r:1: header line 1 of 4 is no number/);
    expect(() => requests("1\n1\n")).toThrow(/header line 3 of 4 is no number/);
  });
});

describe("files", () => {
  it("are read plain and packed; what cannot be read is one line", () => {
    const folder = mkdtempSync(join(tmpdir(), "kheap-"));
    try {
      const at = (name: string): string => join(folder, name);
      writeFileSync(at("plain"), "abc");
      writeFileSync(at("packed"), gzipSync("abc"));
      writeFileSync(at("cut"), gzipSync("abc".repeat(1000)).subarray(0, 20));
      expect(Buffer.from(read_trace_file(at("plain"))).toString()).toBe("abc");
      expect(Buffer.from(read_trace_file(at("packed"))).toString()).toBe("abc");
      expect(() => read_trace_file(at("cut"))).toThrow(`${at("cut")}: damaged gzip data`);
      expect(() => read_trace_file(at("none"))).toThrow(`${at("none")}: no such file`);
      expect(() => read_trace_file(folder)).toThrow(`${folder}: cannot be read (EISDIR)`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
