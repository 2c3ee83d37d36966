import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UsageError, parse_options } from "../../boot/options.ts";
import { VERSION } from "../../kernel/version.ts";
import { machine_of } from "../../boot/machine_option.ts";
import { machine_ram_bytes } from "../../hal/machine.ts";

/** What the command line is refused with. */
function refusal(...argv: string[]): string {
  try {
    machine_of(parse_options(argv)!);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return "";
}

describe("options", () => {
  it("have the defaults of the default machine", () => {
    const options = parse_options([])!;
    expect(options).toMatchObject({ smp: "lockstep", slab: "slub", seed: 1, append: "", json: false, quiet: false });
    const machine = machine_of(options);
    expect([machine.name, machine.nodes.length, machine.cpus]).toEqual(["textbook", 2, 4]);
  });

  it("shape a machine", () => {
    const machine = machine_of(parse_options(["--mem", "64M", "--nodes", "1", "--cpus=3"])!);
    expect([machine.nodes.length, machine.cpus]).toEqual([1, 3]);
    expect(Math.round(machine_ram_bytes(machine) / 2 ** 20)).toBe(64);
    expect(machine_of(parse_options(["--machine", "laptop"])!).name).toBe("laptop");
    expect(machine_of(parse_options(["--distance", "10,21/21,10"])!).distance).toEqual([[10, 21], [21, 10]]); // prettier-ignore
  });

  it("join repeated kernel parameters", () => {
    expect(parse_options(["--append", "a=1", "--append", "b"])!.append).toBe("a=1 b");
  });

  it("name what is wrong in one line: the option, what was given, what is allowed", () => {
    for (const [argv, ...parts] of [
      [["--mem", "64X"], "--mem", "64X", "64M"],
      [["--mem", "3G"], "--mem", "3G", "2G"],
      [["--nodes", "0"], "--nodes", "0", "1 to"],
      [["--cpus", "many"], "--cpus", "many", "1 to"],
      [["--distance", "10,5/5,10"], "--distance", "10,5/5,10", "255"],
      [["--machine", "nothere"], "--machine", "nothere", "textbook"],
      [["--smp", "threads"], "--smp", "threads", "not there yet", "lockstep"],
      [["--smp", "magic"], "--smp", "magic", "lockstep"],
      [["--slab", "slqb"], "--slab", "slqb", "slub"],
      [["--seed", "-1"], "--seed", "-1", "4294967295"],
      [["--seed", "1e3"], "--seed", "1e3", "4294967295"],
      [["--use", "buddy=x.ts"], "--use", "buddy=x.ts", "not there yet"],
      [["--exec", "a", "--script", "b"], "--exec", "--script", "one"],
      [["--colour"], "--colour", "--help"],
      [["--mem"], "--mem", "argument missing"],
      [["slabtop"], "slabtop", "options only", "--exec"],
    ] as const) {
      const line = refusal(...argv);
      expect(line, String(argv)).not.toContain("\n");
      for (const part of parts) expect(line).toContain(part);
    }
  });

  it("know the version of the package", () => {
    const url = new URL("../../package.json", import.meta.url);
    expect(VERSION).toBe((JSON.parse(readFileSync(url, "utf8")) as { version: string }).version);
  });
});
