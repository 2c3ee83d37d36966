/** Machine specs: presets, options, JSON, and the one line that says what is wrong with an impossible machine. */
import { describe, expect, test } from "vitest";
import {
  GIB,
  KIB,
  MIB,
  PRESETS,
  check_machine,
  format_size,
  machine_end,
  machine_from_options,
  machine_ram_bytes,
  parse_size,
  type MachineOptions,
  type MachineSpec,
} from "../../hal/machine.ts";
import { read_machine } from "../../hal/machine_file.ts";

const { textbook, server } = PRESETS;

function made(options: MachineOptions): MachineSpec {
  const spec = machine_from_options(options);
  if (typeof spec === "string") throw new Error(spec);
  return spec;
}
/** A textbook machine with something changed. */
function changed(change: Partial<MachineSpec>): string | undefined {
  return check_machine({ ...textbook, ...change });
}

describe("presets", () => {
  test.each(Object.entries(PRESETS))("%s can run", (name, spec) => {
    expect(spec.name).toBe(name);
    expect(check_machine(spec)).toBeUndefined();
  });

  test("are what the README says", () => {
    const shape = Object.values(PRESETS).map((spec) => [
      spec.name, machine_end(spec) / MIB, spec.nodes.length, spec.cpus, spec.dma_limit / MIB, spec.dma32_limit / MIB,
    ]); // prettier-ignore
    expect(shape).toEqual([
      ["textbook", 256, 2, 4, 16, 64],
      ["laptop", 512, 1, 4, 16, 256],
      ["server", 1088, 4, 8, 16, 128],
      ["embedded", 16, 1, 1, 4, 4],
    ]);
  });

  test("a PC's low memory: 639 KiB usable, the BIOS area reserved, RAM from 1 MiB", () => {
    expect(textbook.memory).toEqual([
      { start: 0, size: 0x9fc00, type: 1 },
      { start: 0x9fc00, size: 0x100000 - 0x9fc00, type: 2 },
      { start: 0x100000, size: 255 * MIB, type: 1 },
    ]);
  });

  test("the server's hole is no RAM, and on no node", () => {
    expect(machine_ram_bytes(server)).toBe(GIB - MIB + 0x9fc00);
    expect(server.nodes.map(({ ranges }) => ranges[0].start / MIB)).toEqual([0, 256, 576, 832]);
  });
});

describe("options", () => {
  test("none: the textbook machine", () => expect(made({})).toEqual(textbook));

  test("--mem is shared evenly, nodes start at page-block borders, the last takes the rest", () => {
    const spec = made({ mem: "100M", nodes: 3, cpus: 6 });
    expect(spec.nodes.map(({ ranges }) => [ranges[0].start / MIB, ranges[0].size / MIB])).toEqual([
      [0, 32], [32, 32], [64, 36],
    ]); // prettier-ignore
    expect(spec.nodes.map(({ cpus }) => cpus)).toEqual([
      [0, 1],
      [2, 3],
      [4, 5],
    ]);
    expect(machine_end(spec)).toBe(100 * MIB);
    expect(spec.distance).toEqual([
      [10, 20, 20],
      [20, 10, 20],
      [20, 20, 10],
    ]);
  });

  test("small nodes keep all three zones on node 0", () => {
    const { dma_limit, dma32_limit, nodes } = made({ mem: "64M" });
    expect([dma_limit / MIB, dma32_limit / MIB, nodes[0].ranges[0].size / MIB]).toEqual([4, 16, 32]);
  });

  test("large machines keep the preset's zone limits", () => {
    const { dma_limit, dma32_limit } = made({ mem: "2G" });
    expect([dma_limit / MIB, dma32_limit / MIB]).toEqual([16, 64]);
  });

  test("fewer CPUs than nodes leave nodes without", () => {
    expect(made({ nodes: 4, cpus: 2 }).nodes.map(({ cpus }) => cpus)).toEqual([[0], [], [1], []]);
  });

  test("--distance is read by rows", () => {
    expect(made({ distance: "10,21/31,10" }).distance).toEqual([
      [10, 21],
      [31, 10],
    ]);
  });

  test("a preset keeps its parameters when it is resized", () => {
    expect(made({ preset: "laptop", mem: "128M" }).append).toBe(PRESETS.laptop.append);
    expect(made({ preset: "laptop", mem: "128M" }).nodes.length).toBe(1);
  });

  test.each(["16M", "40M", "64M", "256M", "1G", "2G", "131072K", "0x4000000", "67108864"])(
    "--mem %s can run",
    (mem) => {
      expect(check_machine(made({ mem }))).toBeUndefined();
    },
  );

  test.each<[MachineOptions, string]>([
    [{ preset: "mainframe" }, 'no machine "mainframe"; there are: textbook, laptop, server, embedded'],
    [{ mem: "lots" }, "--mem lots: not a size; give a number with K, M or G behind it, as 64M or 1G"],
    [{ mem: "64X" }, "--mem 64X: not a size; give a number with K, M or G behind it, as 64M or 1G"],
    [{ mem: "-1" }, "--mem -1: not a size; give a number with K, M or G behind it, as 64M or 1G"],
    [{ mem: "" }, "--mem : not a size; give a number with K, M or G behind it, as 64M or 1G"],
    [{ mem: "4G" }, "--mem 4G: more than the 2G that a machine can have"],
    [{ mem: "1M" }, "--mem 1M: too little to boot 2 nodes and 4 CPUs; give 9M or more"],
    [{ mem: "32M", nodes: 16 }, "--mem 32M: too little to boot 16 nodes and 4 CPUs; give 64M or more"],
    [{ mem: "20000001" }, "--mem 20000001: not a multiple of 4096, the size of a page; try 20M"],
    [{ nodes: 0 }, "--nodes 0: give a whole number from 1 to 16"],
    [{ nodes: "17" }, "--nodes 17: give a whole number from 1 to 16"],
    [{ nodes: "two" }, "--nodes two: give a whole number from 1 to 16"],
    [{ cpus: 65 }, "--cpus 65: give a whole number from 1 to 64"],
    [{ cpus: "1.5" }, "--cpus 1.5: give a whole number from 1 to 64"],
    [{ distance: "10,20" }, "--distance 10,20: 2 nodes need 2 rows of 2 numbers, as in 10,20/20,10"],
    [{ distance: "10,x/20,10" }, "--distance 10,x/20,10: from node 0 to node 1 must be a whole number from 11 to 255, not NaN"],
    [{ distance: "10,10/20,10" }, "--distance 10,10/20,10: from node 0 to node 1 must be a whole number from 11 to 255, not 10"],
    [{ distance: "10,256/20,10" }, "--distance 10,256/20,10: from node 0 to node 1 must be a whole number from 11 to 255, not 256"],
    [{ distance: "11,20/20,10" }, "--distance 11,20/20,10: from node 0 to itself must be 10, not 11"],
  ])("%j is refused in one line", (options, line) => expect(machine_from_options(options)).toBe(line)); // prettier-ignore
});

describe("impossible machines are refused in one line", () => {
  const ram = (start: number, size: number) => ({ start, size, type: 1 });
  const node = (start: number, size: number, cpus: number[] = []) => ({ ranges: [{ start, size }], cpus });

  test.each<[string, Partial<MachineSpec>, string]>([
    ["no memory map", { memory: [] }, "memory map: no usable RAM; give at least one entry of type usable"],
    ["no usable RAM", { memory: [{ start: 0, size: GIB, type: 2 }] }, "memory map: no usable RAM; give at least one entry of type usable"],
    ["RAM beyond 2 GiB", { memory: [ram(MIB, 3 * GIB)] }, "memory map: RAM ends at 0xc0100000; it has to end by 0x80000000 (2G)"],
    ["a negative start", { memory: [ram(-1, GIB)] }, "memory map: start -1 is no address"],
    ["an empty range", { memory: [ram(MIB, 0)] }, "memory map: size 0 at 0x100000 is no size"],
    ["a type that is none", { memory: [{ start: 0, size: MIB, type: 0 }] }, "memory map: type 0 at 0x0-0xfffff is no e820 type; 1 is usable, 2 reserved"],
    ["entries that overlap", { memory: [ram(MIB, 2 * MIB), ram(2 * MIB, 2 * MIB)] }, "memory map: 0x100000-0x2fffff and 0x200000-0x3fffff overlap"],
    ["no node", { nodes: [] }, "0 nodes; 1 to 16 are allowed"],
    ["no CPU", { cpus: 0 }, "0 CPUs; 1 to 64 are allowed"],
    ["nodes that overlap", { nodes: [node(0, 200 * MIB, [0, 1]), node(128 * MIB, 128 * MIB, [2, 3])] }, "nodes overlap: 0x0-0xc7fffff of node 0 and 0x8000000-0xfffffff of node 1"],
    ["RAM on no node", { nodes: [node(0, 128 * MIB, [0, 1, 2, 3]), node(128 * MIB, 64 * MIB)] }, "usable RAM 0x100000-0xfffffff is not all on a node; extend a node's range over it"],
    ["a CPU on no node", { nodes: [node(0, 128 * MIB, [0, 1]), node(128 * MIB, 128 * MIB, [3])] }, "CPU 2 is on no node; add it to the cpus of one"],
    ["a CPU on two nodes", { nodes: [node(0, 128 * MIB, [0, 1]), node(128 * MIB, 128 * MIB, [1, 2, 3])] }, "CPU 1 is on node 0 and on node 1; put it on one"],
    ["a CPU there is not", { nodes: [node(0, 128 * MIB, [0, 1]), node(128 * MIB, 128 * MIB, [2, 3, 4])] }, "node 1: there is no CPU 4; this machine has CPUs 0 to 3"],
    ["an empty node", { nodes: [...textbook.nodes, { ranges: [], cpus: [] }] }, "node 2 has neither memory nor CPUs; leave it out"],
    ["a distance table of another size", { distance: [[10]] }, "distance table: 2 nodes need 2 rows of 2 numbers, as in 10,20/20,10"],
    ["a zone limit that a block of the buddy allocator could lie across", { dma_limit: 6 * MIB }, "dma_limit 6291456: give a multiple of 4M"],
    ["zone limits in the wrong order", { dma_limit: 128 * MIB }, "dma_limit 128M is above dma32_limit 64M"],
    ["RAM where the firmware is", { memory: [ram(0, 256 * MIB)] }, "memory map: 0xe0000-0xfffff is the firmware's; mark it reserved"],
    ["no RAM where the kernel is loaded", { memory: [ram(2 * MIB, 128 * MIB)] }, "memory map: the kernel is loaded at 0x100000-0x19ffff, which is not all usable RAM"],
    ["too little RAM", { memory: [ram(MIB, 2 * MIB)] }, "too little RAM to boot: 2M; give 9M or more"],
  ])("%s", (_what, change, line) => expect(changed(change)).toBe(line)); // prettier-ignore

  test("a node without memory, or without CPUs, is possible", () => {
    const nodes = [node(0, 128 * MIB, [0, 1]), node(128 * MIB, 128 * MIB), { ranges: [], cpus: [2, 3] }];
    const distance = made({ nodes: 3 }).distance;
    expect(changed({ nodes, distance })).toBeUndefined();
  });
});

describe("a machine as JSON", () => {
  const json = {
    memory: [
      { start: 0, size: "639K" },
      { start: "0x9fc00", size: 0x60400, type: "reserved" },
      { start: "1M", size: "63M", type: "usable" },
    ],
    nodes: [{ ranges: [{ start: 0, size: "64M" }], cpus: [0, 1] }],
    dma_limit: "4M",
    dma32_limit: "16M",
    append: "slab_full=on",
    timing: { memory: 300, l1d: { size: "64K" } },
  };
  const read = (change: object): MachineSpec | string => read_machine(JSON.stringify({ ...json, ...change }));

  test("takes numbers, sizes and names of types; what is absent has a default", () => {
    const spec = read({}) as MachineSpec;
    expect(spec.memory).toEqual([
      { start: 0, size: 639 * KIB, type: 1 },
      { start: 0x9fc00, size: 0x60400, type: 2 },
      { start: MIB, size: 63 * MIB, type: 1 },
    ]);
    expect([spec.name, spec.cpus, spec.distance, spec.append]).toEqual(["custom", 2, [[10]], "slab_full=on"]);
    expect([spec.timing.memory, spec.timing.l1d.size, spec.timing.l1d.ways]).toEqual([300, 64 * KIB, 8]);
  });

  test("every preset survives being written and read", () => {
    for (const spec of Object.values(PRESETS)) expect(read_machine(JSON.stringify(spec))).toEqual(spec);
  });

  test.each<[object, string]>([
    [{ memory: undefined }, "memory: is missing; give a list"],
    [{ memory: [{ start: 0 }] }, "memory[0].size: is missing; give a number, or a size as 64M, 1G or 0x100000"],
    [{ memory: [{ start: "x", size: 1 }] }, 'memory[0].start: "x"; give a number, or a size as 64M, 1G or 0x100000'],
    [{ memory: [{ start: 0, size: 1, type: "ram" }] }, 'memory[0].type: "ram"; give a number or one of usable, reserved, ACPI data, ACPI NVS, unusable'],
    [{ nodes: [{ cpu: [0] }] }, 'nodes[0]: no such field "cpu"; there are ranges, cpus'],
    [{ nodes: 2 }, "nodes: 2; give a list"],
    [{ nodes: [{ ranges: [{ start: 0, size: "64M" }], cpus: ["0"] }] }, 'nodes[0].cpus[0]: "0"; give a number'],
    [{ speed: 1 }, 'machine: no such field "speed"; there are name, memory, nodes, cpus, distance, dma_limit, dma32_limit, timing, append'],
    [{ append: 1 }, "append: 1; give a text"],
    [{ cpus: 3 }, "CPU 2 is on no node; add it to the cpus of one"],
    [{ distance: [[11]] }, "distance table: from node 0 to itself must be 10, not 11"],
  ])("%j is refused in one line", (change, line) => expect(read(change)).toBe(line)); // prettier-ignore

  test("text that is no JSON, and JSON that is no object", () => {
    expect(read_machine("{")).toMatch(/^not JSON: [^\n]+$/);
    expect(read_machine("[]")).toMatch(/^machine: \[\]; give an object with name, memory/);
  });
});

test("sizes are read and written with K, M and G", () => {
  expect(["64M", "1G", "512k", "4096", "0x1000", "64MB", "M", "1.5G"].map(parse_size)).toEqual([
    64 * MIB, GIB, 512 * KIB, 4096, 4096, NaN, NaN, NaN,
  ]); // prettier-ignore
  expect([64 * MIB, GIB, 640 * KIB, 100].map(format_size)).toEqual(["64M", "1G", "640K", "100"]);
});
