/** `export`: one moment of the kernel as files on the host. */
import { export_obstacle, export_to } from "../export.ts";
import { CommandError, parse_args, register, usage_error } from "./registry.ts";

const mib = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;

register({
  name: "export",
  group: "system",
  usage: "export DIR",
  summary: "one moment of the kernel as files on the host: /proc, /sys, RAM",
  man: `DIR is a folder on the host: a new one, an empty one, or an earlier export,
which is replaced.

  DIR/proc, DIR/sys   what cat /proc/… and cat /sys/… would print; merged caches
                      are links, as on Linux
  DIR/ram.img         physical RAM from address 0, a sparse file
  DIR/symbols.json    address and words of each variable and function of the
                      kernel: {NAME: {"va", "u64": […]}}

Nothing runs while it is written and the kernel allocates nothing, so all files
agree. mmu.json and vmcore come with page tables, which are not there yet.

  replay test/data/traces/fs-walk.trace.gz --stop 60000; export /tmp/moment`,
  async run(_ctx, args) {
    const { plain, flags } = parse_args(args);
    if (flags.size > 0) throw usage_error(this, `export: no option ${[...flags][0]}`);
    const [folder] = plain;
    if (plain.length !== 1 || !folder) throw usage_error(this);
    const obstacle = export_obstacle(folder);
    if (obstacle !== undefined) throw new CommandError(`export: ${folder}: ${obstacle}`);
    await Promise.resolve(); // this command's own kernel entry has ended
    try {
      const figures = export_to(folder);
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
