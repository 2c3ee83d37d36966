/**
 * `tour`: where 300 bytes come from, in nine steps. Each step runs ordinary commands, as anybody could type them, shows
 * what they print and says in at most two sentences what was seen. The numbers in those come from the commands' answers
 * (their JSON form), so that on another machine the tour tells of that machine.
 *
 * Whatever a step took is given back at the end, or when the reader leaves early.
 */
import { NULL } from "../../hal/addr.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { find_cache, slab_ops } from "../../mm/slab_common.ts";
import type { Place } from "../figures/explain.ts";
import { percent, plural } from "../figures/names.ts";
import type { SlabRow } from "../figures/slab_rows.ts";
import type { SlabFigure } from "../figures/slub.ts";
import { CommandError, parse_args, register, usage_error, type Context, type Result } from "./registry.ts";

const SIZE = 300;
const FORKS = 40;
const STEPS = 9;

interface Shown {
  readonly step: number;
  readonly commands: string[];
  readonly said: string;
}

/** What the steps hand on to one another. */
interface Tour {
  readonly ctx: Context;
  readonly cache: string;
  /** Runs a command, shows it and its text, and returns its JSON. */
  run<T>(command: string): Promise<T>;
  /** Objects in a slab, once step 3 has made the cache. */
  per_slab: number;
  order: number;
  pages: string;
  block: string;
  /** Address of A0. */
  first: string;
  /** Tasks of the last step. */
  pids: number[];
}

/** `212 of 512 (41.4 %)`, kept on one line. */
const unused = (lost: number, given: number, unit = ""): string =>
  `${lost} of ${given}${unit} (${percent(lost, given)} %)`.replaceAll(" ", KEEP);
const KEEP = "\u00a0";

function row(figure: SlabFigure, id: string): SlabRow {
  return figure.slabs.find((slab) => slab.id === id)!;
}

function cpu_part(tour: Tour, figure: SlabFigure): SlabFigure["cpu"][number] {
  return figure.cpu[tour.ctx.cpu]!;
}

async function buddy(tour: Tour): Promise<string> {
  tour.pages = await tour.run<string>("alloc_pages 0");
  const place = await tour.run<Place>(`explain ${tour.pages}`);
  const given = 4096 << place.block!.order;
  return `Asked for ${SIZE} bytes, the buddy allocator gives a page frame, the smallest block it has: ${unused(given - SIZE, given, " bytes unused")}.`;
}

async function by_size(tour: Tour): Promise<string> {
  tour.block = await tour.run<string>(`kmalloc ${SIZE}`);
  const { cache, slot } = await tour.run<Place>(`explain ${tour.block}`);
  return `kmalloc takes a slot of the next size class, ${cache}, and shares the page with others: ${unused(slot! - SIZE, slot!)} are lost.`;
}

async function own_cache(tour: Tour): Promise<string> {
  const made = await tour.run<{ objs_per_slab: number; order: number; lost: number; slab_size: number }>(
    `kmem create ${tour.cache} ${SIZE} flags=SLAB_PANIC cpu_partial=off`,
  );
  tour.per_slab = made.objs_per_slab;
  tour.order = made.order;
  const bytes = 4096 << made.order;
  return `A cache of one's own packs ${made.objs_per_slab} into ${plural(1 << made.order, "page")}: ${unused(made.lost, bytes)} are lost. There is no slab yet.`;
}

async function three(tour: Tour): Promise<string> {
  await tour.run(`kmem alloc ${tour.cache} 3`);
  const figure = await tour.run<SlabFigure>(`slab ${tour.cache}`);
  const { freelist, page } = cpu_part(tour, figure);
  return `The page of CPU ${tour.ctx.cpu} is slab ${page}, with ${row(figure, page!).inuse} of ${figure.objs_per_slab} objects live. Its freelist is ${freelist}, the one that is handed out next.`;
}

async function fill(tour: Tour): Promise<string> {
  await tour.run(`kmem alloc ${tour.cache} ${tour.per_slab - 3}`);
  const figure = await tour.run<SlabFigure>(`slab ${tour.cache}`);
  const { freelist, page } = cpu_part(tour, figure);
  return `All ${row(figure, page!).inuse} objects of ${page} are handed out: freelist is ${freelist ?? "NULL"}. ${page} is still the CPU's page.`;
}

async function one_more(tour: Tour): Promise<string> {
  await tour.run(`kmem alloc ${tour.cache}`);
  const figure = await tour.run<SlabFigure>(`slab ${tour.cache}`);
  const { page } = cpu_part(tour, figure);
  const { id, on, node } = figure.slabs[0]!;
  return `Object ${tour.per_slab + 1} found nothing free: slab ${id} went to the ${on} list of node ${node}, and a new slab ${page} is the CPU's page.`;
}

async function free_first(tour: Tour): Promise<string> {
  await tour.run(`kmem free ${tour.cache} A0`);
  const figure = await tour.run<SlabFigure>(`slab ${tour.cache}`);
  tour.first = row(figure, "A").page;
  const { id, on, free, node } = figure.slabs.find((slab) => slab.free.length > 0 && !slab.on.startsWith("cpu"))!;
  return `${id}${free[0]} was the first object freed of a full slab: ${id} moved to the ${on} list of node ${node}, with ${free.length} free.`;
}

async function again(tour: Tour): Promise<string> {
  const taken = await tour.run<string[]>(`kmem alloc ${tour.cache} ${tour.per_slab}`);
  const figure = await tour.run<SlabFigure>(`slab ${tour.cache}`);
  const { page } = cpu_part(tour, figure);
  const same = taken.at(-1) === tour.first ? "the very address that was freed" : "another address";
  return `The first ${taken.length - 1} filled the second slab; the last took ${page} off the partial list and got ${taken.at(-1)}, ${same}. There are still ${figure.slabs.length} slabs.`;
}

async function tasks(tour: Tour): Promise<string> {
  tour.pids = await tour.run<number[]>(`fork ${FORKS}`);
  const figure = await tour.run<SlabFigure>("slab task_struct");
  const live = figure.slabs.findLast((slab) => slab.inuse > 0)!;
  const index = Array.from({ length: live.objects }, (_, i) => i).findLast((i) => !live.free.includes(i))!;
  const place = await tour.run<Place>(`explain task_struct:${live.id}${index}`);
  await tour.run(`kmem free ${tour.cache} all`);
  const { freed } = await tour.run<{ freed: number }>(`kmem shrink ${tour.cache}`);
  const objects = figure.slabs.reduce((sum, slab) => sum + slab.inuse, 0);
  return `The kernel's own objects lie just so: ${objects} task_structs in ${plural(figure.slabs.length, "slab")}, of which ${place.slab}${place.object} is ${place.owner}. Our cache is empty, and the ${plural(freed << tour.order, "page")} of its ${plural(freed, "slab")} are back in the buddy allocator.`;
}

const PARTS = [buddy, by_size, own_cache, three, fill, one_more, free_first, again, tasks] as const;

/** Lines of at most 78 columns. */
function wrap(text: string): string {
  return text
    .replace(/(.{1,78})( |$)/g, "$1\n")
    .trimEnd()
    .replaceAll(KEEP, " ");
}

/** Shortens a column of addresses, so that a step stays on one screen. */
function shorten(text: string): string {
  const lines = text.split("\n");
  if (lines.length < 6 || !lines.every((address) => /^ffff[0-9a-f]{12}$/.test(address))) return text;
  return [lines[0], `… ${lines.length - 2} more`, lines.at(-1)].join("\n");
}

/** Gives back what the tour took and has not given back by itself. */
async function clean_up(tour: Tour): Promise<void> {
  const run = async (command: string): Promise<void> => void (await tour.ctx.run_line(command));
  if (find_cache(tour.cache) !== NULL) {
    await run(`kmem free ${tour.cache} all`);
    await run(`kmem destroy ${tour.cache}`);
  }
  if (tour.pids.length > 0) await end_tasks(tour);
  if (tour.block !== "") await run(`kfree ${tour.block}`);
  if (tour.pages !== "") await run(`free_pages ${tour.pages} 0`);
}

/** Kills the tasks that step 9 forked and lets the machine run until they are gone. */
async function end_tasks({ ctx, pids }: Tour): Promise<void> {
  const alive = (): number[] => pids.filter((pid) => find_task_by_pid(pid) !== NULL);
  await ctx.run_line(`kill -KILL ${ctx.entry(alive).join(" ")}`);
  for (let turn = 0; turn < MAX_TURNS && ctx.entry(alive).length > 0; turn++) await ctx.control.run_entries(FORKS);
}
const MAX_TURNS = 1000;

async function guide(ctx: Context, in_one_go: boolean): Promise<Result> {
  const lines: string[] = [];
  const shown: Shown[] = [];
  const say = (text: string): void => (in_one_go ? void lines.push(text) : ctx.print(text));
  const name = "my_object_cache";
  const cache = find_cache(name) === NULL ? name : `${name}_tour`;
  let commands: string[] = [];
  const tour: Tour = {
    ctx, cache, per_slab: 0, order: 0, pages: "", block: "", first: "", pids: [],
    async run<T>(command: string): Promise<T> {
      const { text, json } = await ctx.run_line(command, { cpu: ctx.cpu });
      commands.push(command);
      say(`kheap# ${command}\n${shorten(text)}`);
      return json as T;
    },
  }; // prettier-ignore
  try {
    for (const [i, part] of PARTS.entries()) {
      if (ctx.cancelled) break;
      say(`${i === 0 ? "" : "\n"}--- ${i + 1} of ${STEPS} ---`);
      commands = [];
      const said = await part(tour);
      say(wrap(said));
      shown.push({ step: i + 1, commands, said: said.replaceAll(KEEP, " ") });
      if (in_one_go || i + 1 === STEPS) continue;
      const answer = await ctx.ask("(Enter goes on, q leaves) ");
      if (answer === undefined || /^q/i.test(answer.trim())) break;
    }
  } finally {
    await clean_up(tour);
  }
  return { text: lines.join("\n"), json: { steps: shown } };
}

register({
  name: "tour",
  group: "look",
  usage: "tour [--all]",
  summary: "where 300 bytes come from, in nine steps (five minutes)",
  man: `Nine steps from a page frame for 300 bytes to a cache of one's own, its freelist, its full and partial slabs, and the
kernel's task_structs. Each step runs ordinary commands and says what they showed. Enter goes on, q leaves; --all
prints everything in one go. Nothing is left behind.`,
  run(ctx, args) {
    const { plain, named, flags } = parse_args(args);
    flags.delete("--all");
    if (plain.length + named.size + flags.size > 0) throw usage_error(this);
    if (slab_ops().name !== "slub")
      throw new CommandError(
        `tour: it tells of SLUB, and ${slab_ops().name.toUpperCase()} is booted; leave --slab out`,
      );
    if (find_cache("my_object_cache_tour") !== NULL) throw new CommandError("tour: one is under way");
    return guide(ctx, args.includes("--all") || !ctx.terminal || ctx.json);
  },
});
