/** `compare`: one workload under several allocators, each in a machine of its own, side by side. */
import { PRESETS, type MachineSpec } from "../../hal/machine.ts";
import { all_workloads, claims, claims_text } from "../compare/claims.ts";
import { compare } from "../compare/compare.ts";
import { config_help, default_configs, parse_config } from "../compare/config.ts";
import { comparison_text } from "../compare/table.ts";
import { BUILT_IN_NAMES, parse_workload } from "../compare/workload.ts";
import { boot_options } from "../start_kernel.ts";
import { CommandError, parse_count, register, usage_error, type Context, type Result } from "./registry.ts";

const USAGE =
  "compare WORKLOAD [CONFIG…] [--machine PRESET] [--timing] [--each-cpu] [--idle SECONDS]\ncompare --claims [FOLDER]";
const IDLE_MAX = 3600;

interface Arguments {
  readonly words: string[];
  readonly machine: MachineSpec;
  readonly timing: boolean;
  readonly each_cpu: boolean;
  readonly claims: boolean;
  readonly idle: number;
}

/** The machine of a preset; without one, this console's. */
function machine_named(name: string | undefined): MachineSpec {
  if (name !== undefined && Object.hasOwn(PRESETS, name)) return PRESETS[name]!;
  throw new CommandError(`compare: --machine ${name ?? ""}: there are ${Object.keys(PRESETS).join(", ")}`);
}

function parse_arguments(args: readonly string[]): Arguments {
  const words: string[] = [];
  let machine = boot_options().machine;
  let [timing, each_cpu, claims, idle] = [false, false, false, 0];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--timing") timing = true;
    else if (arg === "--each-cpu") each_cpu = true;
    else if (arg === "--claims") claims = true;
    else if (arg === "--idle") idle = parse_count("compare: --idle", args[++i], 1, IDLE_MAX);
    else if (arg === "--machine") machine = machine_named(args[++i]);
    else if (arg.startsWith("-")) throw usage_error({ usage: USAGE }, `compare: no option ${arg}`);
    else words.push(arg);
  }
  return { words, machine, timing, each_cpu, claims, idle };
}

/** What this console was booted with, but for the allocator. */
function parameters(): { seed: number; append: string } {
  const { seed = 1, append = "" } = boot_options();
  return { seed, append: append.split(" ").filter((word) => !/^(slab|init)=/.test(word)).join(" ") }; // prettier-ignore
}

async function run_claims(ctx: Context, args: readonly string[]): Promise<Result> {
  const folder = args.filter((arg) => arg !== "--claims");
  if (folder.length > 1 || folder[0]?.startsWith("-")) throw usage_error({ usage: USAGE.split("\n")[1]! });
  await Promise.resolve();
  const found = await claims(ctx, all_workloads(folder[0] ?? "test/data"), parameters().seed);
  return { text: claims_text(found), json: found };
}

async function run_compare(ctx: Context, args: readonly string[]): Promise<Result> {
  const { words, machine, timing, each_cpu, claims: judge, idle } = parse_arguments(args);
  const [name, ...configs] = words;
  if (judge) return run_claims(ctx, args);
  if (name === undefined) throw usage_error({ usage: USAGE });
  const chosen = configs.length === 0 ? default_configs() : configs.map(parse_config);
  const workload = parse_workload(name);
  await Promise.resolve(); // a step of its own: the command's entry has ended
  const copies = each_cpu ? machine.cpus : 1;
  const found = await compare(ctx, { workload, configs: chosen, machine, ...parameters(), copies, timing, idle });
  return {
    text: comparison_text(found),
    json: found,
    failed: found.columns.some(({ died, memory }) => died !== undefined || memory!.findings.length > 0),
  };
}

register({
  name: "compare",
  group: "heap",
  usage: USAGE,
  summary: "runs a workload under several slab allocators, side by side",
  man: `Boots a machine for each CONFIG (slub slab slob buddy, if none is given), each
in a realm of its own, runs WORKLOAD on it, and prints the figures side by side.
The machine at this console is not touched.

WORKLOAD is a file, as replay takes it (the objects of a recording, or a
malloc-lab .rep), or one of
  fork-storm[:N]         N tasks are forked, do a little and exit (500)
  file-walk[:N]          N files are made, listed, read and removed (200)
  producer-consumer[:N]  N messages are made on a CPU of node 0 and freed on
                         one of node 1 (5000)

CONFIG is an allocator, perhaps with options: slub:cpu_partial=off,max_order=0.
buddy is no slab allocator: each object is a block of pages.
${config_help()}

  --machine PRESET  another machine than this console's:
                    ${Object.keys(PRESETS).join(", ")}
  --timing          cycles, misses and lock waits too, by the timing model
  --each-cpu        the workload once for each CPU, all at the same time
  --idle SECONDS    at the end all programs are ended and so much time passes
  --claims          judges what the article behind this project says of the
                    allocators: nine workloads, two machines, some minutes;
                    FOLDER has the recordings (test/data)

The peak is the request after which the most bytes asked for are live: the same
one under every CONFIG. An operation is an allocation, a free or a change of
size. Whole machine means: all caches, the kernel's own among them.
  free pages        in the buddy allocator and on CPUs' lists
  slab pages        that the slab layer holds, whole machine
  internal          slots of the workload's live objects - bytes asked for
  external          bytes of slab pages in no live object's slot (SLOB: block),
                    whole machine
  kept              bytes of free slots that CPUs and arrays keep out of slabs:
                    (active - live objects) * slot, whole machine; at rest: what
                    the workload still had is free too
  metadata          descriptors, CPU and node structures, array caches, index
                    arrays, sheaves, headers of kmalloc; whole machine
  bytes grown       of slab pages that came with the workload, at the peak, for
                    each byte asked for
  list operations   insertions into and removals from the kernel's lists
                    (kernel/lib/list.ts), by whomever
  cycles            of an operation, from the call to its return
  misses            of the whole run, the use of the objects included, for each
                    operation
  lock waits        locks taken whose cache line another CPU had`,
  complete: () => [...BUILT_IN_NAMES],
  run: (ctx, args) => run_compare(ctx, args),
});
