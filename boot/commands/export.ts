/** `export`: one moment of the kernel as files on the host. */
import { readFileSync } from "node:fs";
import { parse_virt, type Virt } from "../../hal/addr.ts";
import { page_table_of } from "./pt.ts";
import { export_obstacle, export_to } from "../export.ts";
import { CommandError, parse_args, register, usage_error } from "./registry.ts";

const mib = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;

/** The addresses in a file on the host: one in hex a line. */
function read_probes(path: string): Virt[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new CommandError(`export: ${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  const lines = text.split("\n").map((line) => line.trim());
  return lines.flatMap((line, i) => {
    const va = line === "" ? 0 : parse_virt(line);
    if (Number.isNaN(va)) throw new CommandError(`export: ${path}:${i + 1}: "${line}" is no canonical address in hex`);
    return line === "" ? [] : [va];
  });
}

register({
  name: "export",
  group: "system",
  usage: "export DIR [--pid PID|kernel] [--probe FILE]",
  summary: "one moment of the kernel as files on the host: /proc, /sys, RAM",
  man: `DIR is a folder on the host: a new one, an empty one, or an earlier export,
which is replaced.

  DIR/proc, DIR/sys   what cat /proc/… and cat /sys/… would print; merged caches
                      are links, as on Linux
  DIR/ram.img         physical RAM from address 0, a sparse file
  DIR/mmu.json        how the page tables in it are to be walked, and what a walk
                      must find: an x86-64 MMU can be checked against it, or we
                      against an MMU. With --probe FILE the addresses in FILE are
                      looked up, one in hex a line, instead of our choice; with
                      --pid in the address space of that process
  DIR/vmcore          the same RAM by virtual address, an ELF core dump
  DIR/vmlinux         the kernel's symbols: gdb vmlinux vmcore
  DIR/symbols.json    address and words of each variable and function of the
                      kernel: {NAME: {"va", "u64": […]}}

Nothing runs while it is written and the kernel allocates nothing, so all files
agree.

  replay test/data/traces/fs-walk.trace.gz --stop 60000; export /tmp/moment`,
  async run(_ctx, args) {
    const { plain, flags } = parse_args(args);
    const wrong = [...flags].find((flag) => flag !== "--probe" && flag !== "--pid");
    if (wrong !== undefined) throw usage_error(this, `export: no option ${wrong}`);
    const [who, probe_file] = ["--pid", "--probe"].map((flag) =>
      flags.has(flag) ? args[args.indexOf(flag) + 1] : undefined,
    );
    const [folder, ...more] = args.filter((_, i) => !flags.has(args[i]!) && !flags.has(args[i - 1] ?? ""));
    if (plain.length !== 1 + flags.size || folder === undefined || more.length > 0) throw usage_error(this);
    const cr3 = who === undefined ? undefined : page_table_of("export", who);
    const probes = probe_file === undefined ? undefined : read_probes(probe_file);
    const obstacle = export_obstacle(folder);
    if (obstacle !== undefined) throw new CommandError(`export: ${folder}: ${obstacle}`);
    await Promise.resolve(); // this command's own kernel entry has ended
    try {
      const figures = export_to(folder, cr3, probes);
      const { files, links, ram_bytes, ram_bytes_written } = figures;
      const ram = `${mib(ram_bytes)} of RAM, ${mib(ram_bytes_written)} of it not zero`;
      return { text: `${folder}: ${files} files, ${links} links, ${ram}`, json: { folder, ...figures } };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === undefined) throw error;
      throw new CommandError(`export: ${folder}: ${code}`);
    }
  },
});
