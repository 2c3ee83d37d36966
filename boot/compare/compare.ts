/**
 * One comparison: a workload, a machine, some configurations; and what is derived from what their realms found out.
 *
 *     internal    bytes of the slots of the workload's live objects at the peak - bytes asked for them: what rounding costs
 *     external    bytes of slab pages that are in nobody's hands (`unlent` of boot/compare/look.ts), at the peak and end
 *     grown       pages at the peak - pages before the workload
 *     overhead    bytes of the pages grown for each byte asked for at the peak; below 1 where slots were free before
 *     cycles      of an operation: an allocation, a free, a change of size, from the call to its return
 *     misses      of the whole run, for each operation; the workload's own use of its objects is in them
 *     lock waits  spinlocks taken whose line another CPU's cache had
 */
import { PAGE_SIZE } from "../../hal/addr.ts";
import type { MachineSpec } from "../../hal/machine.ts";
import { CommandError, type Context } from "../commands/registry.ts";
import type { Config } from "./config.ts";
import type { Job, Measured, Timed } from "./job.ts";
import { run_jobs, type Answer } from "./run.ts";
import { demand_of, steps, type Demand } from "./script.ts";
import { is_script, type Workload } from "./workload.ts";

/** What is compared, and how. */
export interface Request {
  readonly workload: Workload;
  readonly configs: readonly Config[];
  readonly machine: MachineSpec;
  readonly seed: number;
  readonly append: string;
  readonly copies: number;
  readonly timing: boolean;
  readonly idle: number;
}

/** The figures of one configuration. */
export interface Column {
  readonly config: string;
  readonly allocator: string;
  readonly parameters: string;
  /** Why there are no figures. */
  readonly died?: string;
  readonly memory?: Measured & { readonly internal: number; readonly grown: number; readonly overhead: number };
  readonly timing?: Timed;
}
/** What `compare --json` prints. */
export interface Comparison {
  readonly workload: string;
  readonly machine: string;
  readonly cpus: number;
  readonly nodes: number;
  readonly seed: number;
  /** How many ran it at once. */
  readonly copies: number;
  /** Seconds that the machine idles at the end. */
  readonly idle: number;
  readonly demand: Demand;
  readonly columns: readonly Column[];
}

const SURVEYOR: Config = { name: "survey", allocator: "slub", append: "slab=slub slab_nomerge", sheaf: 0 };

/** What the workloads ask for: scripts are read here, programs are run once each. */
async function survey(ctx: Context, requests: readonly Request[]): Promise<Demand[]> {
  const jobs: Job[] = [];
  const demands = requests.map(({ workload, machine, seed, append, copies }) => {
    if (is_script(workload)) return demand_of(steps(workload, seed, machine, copies));
    jobs.push({ task: "survey", workload, machine, seed, append, copies, config: SURVEYOR, idle: 0, calls: false });
    return undefined;
  });
  const found = await run_jobs(ctx, jobs, true);
  return demands.map((demand, i) => {
    if (demand) return demand;
    const { demand: surveyed, died } = found.shift()!;
    if (surveyed) return surveyed;
    throw new CommandError(`compare: ${requests[i]!.workload.name} on ${requests[i]!.machine.name}: ${died}`);
  });
}

function memory_of(measured: Measured, demand: Demand): Column["memory"] {
  const { peak, before, peak_slots } = measured;
  const grown = peak.pages - before.pages;
  const overhead = demand.peak_bytes === 0 ? 0 : (grown * PAGE_SIZE) / demand.peak_bytes;
  return { ...measured, internal: peak_slots - demand.peak_bytes, grown, overhead: Math.round(overhead * 1e4) / 1e4 };
}

function column(config: Config, demand: Demand, plain: Answer, timed: Answer | undefined): Column {
  const died = plain.died ?? timed?.died;
  return {
    config: config.name,
    allocator: config.allocator,
    parameters: config.append,
    ...(died !== undefined && { died }),
    ...(plain.measured && { memory: memory_of(plain.measured, demand)! }),
    ...(timed?.timed && { timing: timed.timed }),
  };
}

/** Runs one comparison, each configuration in a realm of its own. */
export async function compare(ctx: Context, request: Request): Promise<Comparison> {
  return (await compare_all(ctx, [request], false))[0]!;
}

/** Runs `many` comparisons: realms are booted again and again, and calls are not counted. */
export async function compare_all(ctx: Context, requests: readonly Request[], many = true): Promise<Comparison[]> {
  const demands = await survey(ctx, requests);
  const jobs = requests.flatMap(({ workload, configs, machine, seed, append, copies, timing, idle }, i) =>
    configs.flatMap((config) => {
      const job = { workload, config, machine, seed, append, copies, idle, calls: !many, demand: demands[i]! };
      return (["measure", "time"] as const).slice(0, timing ? 2 : 1).map((task): Job => ({ ...job, task }));
    }),
  );
  const answers = await run_jobs(ctx, jobs, many);
  return requests.map(({ workload, configs, machine, seed, copies, idle, timing }, i) => ({
    workload: workload.name,
    machine: machine.name,
    cpus: machine.cpus,
    nodes: machine.nodes.length,
    seed,
    copies,
    idle,
    demand: demands[i]!,
    columns: configs.map((config) =>
      column(config, demands[i]!, answers.shift()!, timing ? answers.shift() : undefined),
    ),
  }));
}
