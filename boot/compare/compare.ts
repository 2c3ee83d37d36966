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
import { demand_of, steps, times, type Demand } from "./script.ts";
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
  /** Of these configurations, by name, only the memory or only the time is wanted. */
  readonly only?: Readonly<Record<string, Task>>;
  readonly idle: number;
}
type Task = "measure" | "time";

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

/** What the workloads ask for: each script is read here, once; programs are run once for each request. */
async function survey(ctx: Context, requests: readonly Request[]): Promise<Demand[]> {
  const scripts = new Map<string, Demand>();
  const jobs: Job[] = [];
  const demands = requests.map(({ workload, machine, seed, append, copies }) => {
    if (is_script(workload)) {
      const key = `${seed} ${workload.name}`;
      const one = scripts.get(key) ?? demand_of(steps(workload, seed, machine, 1));
      scripts.set(key, one);
      return times(one, copies);
    }
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

/** What is to be run for one configuration of a request. */
function tasks({ timing, only }: Request, { name }: Config): readonly Task[] {
  const wanted = only?.[name];
  if (wanted) return [wanted];
  return timing ? ["measure", "time"] : ["measure"];
}

function column(config: Config, demand: Demand, answers: readonly Answer[]): Column {
  const { died, measured, timed }: Answer = Object.assign({}, ...answers);
  return {
    config: config.name,
    allocator: config.allocator,
    parameters: config.append,
    ...(died !== undefined && { died }),
    ...(measured && { memory: memory_of(measured, demand)! }),
    ...(timed && { timing: timed }),
  };
}

/** Runs one comparison, each configuration in a realm of its own. */
export async function compare(ctx: Context, request: Request): Promise<Comparison> {
  return (await compare_all(ctx, [request], false))[0]!;
}

/** Runs `many` comparisons: realms are booted again and again, and calls are not counted. */
export async function compare_all(ctx: Context, requests: readonly Request[], many = true): Promise<Comparison[]> {
  const demands = await survey(ctx, requests);
  const jobs = requests.flatMap((request, i) => {
    const { workload, machine, seed, append, copies, idle } = request;
    const base = { workload, machine, seed, append, copies, idle, calls: !many, demand: demands[i]! };
    return request.configs.flatMap((config) => tasks(request, config).map((task): Job => ({ ...base, config, task })));
  });
  const answers = await run_jobs(ctx, jobs, many);
  return requests.map((request, i) => {
    const { workload, configs, machine, seed, copies, idle } = request;
    return {
      workload: workload.name,
      machine: machine.name,
      cpus: machine.cpus,
      nodes: machine.nodes.length,
      seed,
      copies,
      idle,
      demand: demands[i]!,
      columns: configs.map((one) => column(one, demands[i]!, answers.splice(0, tasks(request, one).length))),
    };
  });
}
