/**
 * numactl: nodes as -H shows them, and commands under a memory policy (mm/mempolicy.ts).
 *
 * The console runs as the idle task of its CPU, between entries, and others do too. So the policy is lent to that task
 * at the start of each entry of the command, and taken back at its end; tasks that the command makes inherit it.
 */
import { NULL } from "../../hal/addr.ts";
import { sysfs_text } from "../../kernel/fs/sysfs.ts";
import { strerror } from "../../kernel/lib/errno.ts";
import { GFP_KERNEL, __GFP_ZERO } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import {
  MPOL_BIND, MPOL_DEFAULT, MPOL_F_NODE, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED, MPOL_PREFERRED_MANY,
  MPOL_WEIGHTED_INTERLEAVE, TaskMempolicy, do_get_mempolicy, do_set_mempolicy, exchange_mempolicy, mpol_to_str, nodes_of,
  type TaskMempolicyPtr,
} from "../../mm/mempolicy.ts"; // prettier-ignore
import { quote } from "./figures.ts";
import { NODE_FILES, fields, online_nodes, parse_list } from "./node_files.ts";
import { CommandError, find_command, register, usage_error, type Context, type Result } from "./registry.ts";

const mb = (kib: number): number => Math.floor(kib / 1024);

function hardware(): Result {
  const all = online_nodes().map((node) => {
    const read = (name: string): string => sysfs_text(`${NODE_FILES}/node${node}/${name}`).trim();
    const memory = fields(read("meminfo"));
    const [size_mb, free_mb] = [mb(memory.get("MemTotal")!), mb(memory.get("MemFree")!)];
    return { node, cpus: parse_list(read("cpulist")), size_mb, free_mb, distances: read("distance").split(" ").map(Number) }; // prettier-ignore
  });
  const online = sysfs_text(`${NODE_FILES}/online`).trim();
  const cell = (value: number): string => `${String(value).padStart(3)} `;
  const lines = [
    `available: ${all.length} nodes (${online})`,
    ...all.flatMap(({ node, cpus, size_mb, free_mb }) => [
      `node ${node} cpus:${cpus.map((cpu) => ` ${cpu}`).join("")}`,
      `node ${node} size: ${size_mb} MB`,
      `node ${node} free: ${free_mb} MB`,
    ]),
    "node distances:",
    `node ${all.map(({ node }) => cell(node)).join("")}`,
    ...all.map(({ node, distances }) => `${String(node).padStart(3)}: ${distances.map(cell).join("")}`),
  ];
  return { text: lines.join("\n"), json: all };
}

const MODES: readonly string[] = [
  "default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted interleave",
]; // prettier-ignore

/** The policy that commands run under here, and what may be used at all. */
function show(): Result {
  const answer = do_get_mempolicy(0, 0) as { policy: number; nodes: number };
  const next = do_get_mempolicy(MPOL_F_NODE, 0);
  const nodes = nodes_of(answer.nodes);
  const online = (file: string): number[] => parse_list(sysfs_text(`devices/system/${file}`));
  const bound = answer.policy === MPOL_BIND ? nodes : online("node/has_memory");
  const mask = (name: string, members: readonly number[]): string => `${name}: ${members.map((n) => `${n} `).join("")}`;
  const preferred =
    typeof next !== "number" ? `${next.policy} (interleave next)`
    : answer.policy === MPOL_PREFERRED_MANY ? `${nodes[0]} (preferred-many)`
    : answer.policy === MPOL_DEFAULT || answer.policy === MPOL_LOCAL ? "current"
    : `${nodes[0]}`; // prettier-ignore
  const lines = [
    `policy: ${MODES[answer.policy]}`,
    `preferred node: ${preferred}`,
    ...(typeof next !== "number" ? [mask("interleavemask", nodes), `interleavenode: ${next.policy}`] : []),
    mask("physcpubind", online("cpu/online")),
    mask("cpubind", online("node/has_cpu")),
    mask("nodebind", online("node/has_cpu")),
    mask("membind", bound),
    mask("preferred", nodes),
  ];
  return { text: lines.join("\n"), json: { policy: mpol_to_str(answer.policy, answer.nodes), membind: bound } };
}

/** Options that name a policy, short and long. */
const POLICIES: Readonly<Record<string, number>> = {
  p: MPOL_PREFERRED, preferred: MPOL_PREFERRED, P: MPOL_PREFERRED_MANY, "preferred-many": MPOL_PREFERRED_MANY,
  m: MPOL_BIND, membind: MPOL_BIND, i: MPOL_INTERLEAVE, interleave: MPOL_INTERLEAVE, l: MPOL_LOCAL,
  localalloc: MPOL_LOCAL, w: MPOL_WEIGHTED_INTERLEAVE, "weighted-interleave": MPOL_WEIGHTED_INTERLEAVE,
}; // prettier-ignore

/** `0,2-3` or `all` as a mask. */
function parse_nodes(text: string): number {
  const there = online_nodes();
  const list = text === "all" ? there : /^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text) ? parse_list(text) : [];
  if (list.length === 0 || list.some((node) => !there.includes(node)))
    throw new CommandError(`numactl: <${text}> is invalid; nodes are ${there.join(",")}, or all`);
  return list.reduce((mask, node) => mask | (1 << node), 0);
}

interface Wanted {
  readonly mode: number;
  readonly nodes: number;
  readonly command: string[];
}

/** `--membind=1 CMD…`, `-m 1 CMD…`, `--localalloc CMD…`. */
function parse_policy(args: readonly string[]): Wanted | undefined {
  const match = /^(?:--([a-z-]+)(?:=(.+))?|-(\w)(.+)?)$/.exec(args[0] ?? "");
  const mode = POLICIES[match?.[1] ?? match?.[3] ?? ""];
  if (mode === undefined) return undefined;
  const given = match![2] ?? match![4];
  if (mode === MPOL_LOCAL) return given === undefined ? { mode, nodes: 0, command: args.slice(1) } : undefined;
  const text = given ?? args[1];
  if (text === undefined) return undefined;
  const nodes = parse_nodes(text);
  if (mode === MPOL_PREFERRED && (nodes & (nodes - 1)) !== 0)
    throw new CommandError(`numactl: one node is wanted, <${text}> was given`);
  return { mode, nodes, command: args.slice(given === undefined ? 2 : 1) };
}

/** A part as a task has, with the policy in it. */
function make_part({ mode, nodes }: Wanted): TaskMempolicyPtr {
  const part: TaskMempolicyPtr = kmalloc(TaskMempolicy.sizeof, GFP_KERNEL | __GFP_ZERO);
  if (part === NULL) throw new CommandError("numactl: out of memory");
  exchange_mempolicy(part);
  const error = do_set_mempolicy(mode, nodes);
  exchange_mempolicy(part);
  if (error === 0) return part;
  kfree(part);
  throw new CommandError(`numactl: set_mempolicy: ${strerror(error)}`);
}

function free_part(part: TaskMempolicyPtr): void {
  exchange_mempolicy(part);
  do_set_mempolicy(MPOL_DEFAULT, 0);
  exchange_mempolicy(part);
  kfree(part);
}

async function run_under(ctx: Context, wanted: Wanted): Promise<Result> {
  const { command } = wanted;
  const mempolicy = make_part(wanted);
  try {
    return await ctx.run_line(command.length === 1 ? command[0]! : command.map(quote).join(" "), { mempolicy });
  } finally {
    ctx.entry(() => free_part(mempolicy));
  }
}

register({
  name: "numactl",
  group: "look",
  usage:
    "numactl -H\nnumactl --show\nnumactl --preferred=N|--preferred-many=NODES|--membind=NODES CMD…\nnumactl --interleave=NODES|--weighted-interleave=NODES|--localalloc CMD…",
  summary: "nodes as numactl prints them; commands under a memory policy",
  man: `-H, --hardware: CPUs of each node, its memory and what of it is free in MiB, and
how far each node is from each (10 is itself), from /sys/devices/system/node.
-s, --show: the policy that a command runs under here.

With a policy: runs CMD with its pages from node N first (-p), from some nodes
first (-P) or only (-m), by turns (-i, -w), or near its CPU (-l). NODES is a list
as 0,2-3, or all. Tasks that CMD makes inherit the policy. What comes by node
(alloc_pages with node=) and objects of slabs that are there do not ask it.

  numactl --membind=1 alloc_pages 3; numactl --interleave=all fork 4; numastat`,
  complete: "command",
  run(ctx, args) {
    const only = args.length === 1 ? args[0]! : "";
    if (["-H", "--hardware"].includes(only)) return hardware();
    if (["-s", "--show"].includes(only)) return show();
    const wanted = parse_policy(args);
    if (!wanted || wanted.command.length === 0) throw usage_error(this);
    if (find_command(wanted.command[0]!)?.name === "poweroff")
      throw new CommandError("numactl: poweroff takes no policy");
    return run_under(ctx, wanted);
  },
});
