/** What /proc says of the machine and the kernel. */
import { HZ, NSEC_PER_SEC, local_clock } from "../../hal/clock.ts";
import { cpu_is_online, cpu_to_node, nr_cpu_ids } from "../../hal/cpu.ts";
import { iomem_resources } from "../../mm/e820.ts";
import { vmallocinfo_text } from "../../mm/vmallocinfo.ts";
import { saved_command_line } from "../lib/cmdline.ts";
import { cpu_ticks, get_avenrun, nr_context_switches, nr_running } from "../sched.ts";
import { TASK_UNINTERRUPTIBLE, TaskStruct, for_each_process, tasklist } from "../task.ts";
import { VERSION } from "../version.ts";
import { Mount, sb_type } from "./fs.ts";
import { d_path, for_each_filesystem, for_each_mount } from "./namespace.ts";
import { modules_text } from "./module_files.ts";
import { proc_create, proc_symbol } from "./procfs.ts";

/** Hundredths of a second, "12.34". */
const centiseconds = (hundredths: number): string =>
  `${Math.floor(hundredths / 100)}.${String(Math.floor(hundredths) % 100).padStart(2, "0")}`;
const cpus = (): number[] => Array.from({ length: nr_cpu_ids() }, (_, i) => i).filter((cpu) => cpu_is_online(cpu));
/** Ticks of the kernel as ticks of user space: 100 a second. */
const jiffies_to_clock_t = (ticks: number): number => Math.floor((ticks * 100) / HZ);
const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0);

function uptime(): string {
  const idle = sum(cpus().map((cpu) => cpu_ticks(cpu).idle));
  return `${centiseconds(local_clock() / (NSEC_PER_SEC / 100))} ${centiseconds(jiffies_to_clock_t(idle))}\n`;
}

/** 11 bits of fraction, rounded to hundredths. */
function load(value: number): string {
  const hundredths = Math.floor(((value + 2048 / 200) * 100) / 2048);
  return centiseconds(hundredths);
}

function loadavg(): string {
  const pids = [...for_each_process()].map((task) => TaskStruct.pid.get(task));
  const last = Math.max(0, ...pids);
  return `${get_avenrun().map(load).join(" ")} ${nr_running()}/${tasklist.nr_threads} ${last}\n`;
}

const NR_SOFTIRQS = 10;

function stat(): string {
  const line = (name: string, busy: number, idle: number): string =>
    `${name} 0 0 ${jiffies_to_clock_t(busy)} ${jiffies_to_clock_t(idle)} 0 0 0 0 0 0\n`;
  const ticks = cpus().map((cpu) => ({ cpu, ...cpu_ticks(cpu) }));
  const blocked = [...for_each_process()].filter((task) => TaskStruct.state.get(task) & TASK_UNINTERRUPTIBLE).length;
  return (
    line("cpu ", sum(ticks.map((t) => t.busy)), sum(ticks.map((t) => t.idle))) +
    ticks.map((t) => line(`cpu${t.cpu}`, t.busy, t.idle)).join("") +
    `intr 0\nctxt ${nr_context_switches()}\nbtime 0\nprocesses ${tasklist.total_forks}\n` +
    `procs_running ${nr_running()}\nprocs_blocked ${blocked}\nsoftirq${" 0".repeat(1 + NR_SOFTIRQS)}\n`
  );
}

/** As Linux prints it; what this CPU has no figure for says 0. */
function cpuinfo(): string {
  const one = (cpu: number): string => {
    const same = cpus().filter((other) => cpu_to_node(other) === cpu_to_node(cpu));
    const fields: readonly (readonly [string, string | number])[] = [
      ["processor\t", cpu], ["vendor_id\t", "kheap"], ["cpu family\t", 6], ["model\t\t", 0],
      ["model name\t", "kheap emulated x86-64"], ["stepping\t", 0], ["cpu MHz\t\t", "1000.000"],
      ["physical id\t", cpu_to_node(cpu)], ["siblings\t", same.length], ["core id\t\t", same.indexOf(cpu)],
      ["cpu cores\t", same.length], ["apicid\t\t", cpu], ["initial apicid\t", cpu], ["fpu\t\t", "yes"],
      ["fpu_exception\t", "yes"], ["cpuid level\t", 13], ["wp\t\t", "yes"],
      ["flags\t\t", "fpu pse tsc msr pae pge nx pdpe1gb lm pcid smep smap"], ["bugs\t\t", ""], ["bogomips\t", "2000.00"],
      ["clflush size\t", 64], ["cache_alignment\t", 64], ["address sizes\t", "46 bits physical, 48 bits virtual"],
      ["power management", ""],
    ]; // prettier-ignore
    return fields.map(([name, value]) => `${name}:${value === "" ? "" : ` ${value}`}\n`).join("") + "\n";
  };
  return cpus().map(one).join("");
}

function iomem(): string {
  const hex = (value: number): string => value.toString(16).padStart(8, "0");
  let text = "";
  for (const { start, end, name, depth } of iomem_resources())
    text += `${"  ".repeat(depth)}${hex(start)}-${hex(end)} : ${name}\n`;
  return text;
}

function mounts(): string {
  let text = "";
  for (const mnt of for_each_mount()) {
    const { name, read_folio } = sb_type(Mount.mnt_sb.get(mnt));
    const source = name === "ramfs" ? "none" : name;
    const access = read_folio ? "ro" : "rw"; // what can be read again cannot be written here
    text += `${source} ${d_path({ mnt, dentry: Mount.mnt_root.get(mnt) })} ${name} ${access} 0 0\n`;
  }
  return text;
}

function filesystems(): string {
  return [...for_each_filesystem()].map(({ name, nodev }) => `${nodev ? "nodev" : ""}\t${name}\n`).join("");
}

const FILES = Object.freeze([
  ["cmdline", () => `${saved_command_line()}\n`],
  ["version", () => `kheap version ${VERSION} (as Linux 6.18) #1 SMP\n`],
  ["uptime", uptime],
  ["loadavg", loadavg],
  ["stat", stat],
  ["cpuinfo", cpuinfo],
  ["iomem", iomem],
  ["mounts", mounts],
  ["filesystems", filesystems],
  ["modules", modules_text],
] as const);
const SYMBOLS = Object.freeze(FILES.map(([path, show]) => [path, proc_symbol(path, show)] as const));

const vmallocinfo_symbol = proc_symbol("vmallocinfo", vmallocinfo_text);

/** Boot: makes the files. */
export function proc_misc_init(): void {
  for (const [path, show] of SYMBOLS) proc_create(path, { show });
  proc_create("vmallocinfo", { mode: 0o400, show: vmallocinfo_symbol });
}
