/**
 * Memory policies: which nodes a task's pages come from.
 *
 *     task_struct.mempolicy   policy -> mempolicy   mode, nodes        NULL: none, which is MPOL_DEFAULT
 *                             il_prev, il_weight    where interleaving goes on
 *
 *     DEFAULT, LOCAL          the CPU's node, then the others in zonelist order
 *     PREFERRED               the first node of the mask, then the others in its order
 *     PREFERRED_MANY          any node of the mask, without reclaim; else as if there were no policy
 *     BIND                    nodes of the mask only, unless the request wants a zone below the policy zone
 *     INTERLEAVE              one node after the other, an allocation each; each with the others behind it
 *     WEIGHTED_INTERLEAVE     the same, as many allocations in a row as the node's weight says
 *
 * alloc_pages asks the policy of the running task; a request for a node (alloc_pages_node), or with __GFP_THISNODE, asks
 * nobody. A CPU whose task has a policy finds no list for the hot path (`page_fast`, mm/plenty.ts), so tasks without one
 * pay nothing. Interrupts run between entries, as the idle task; that has none, so policies do not reach there. Only
 * while booting it has one, which spreads what lives for ever over the nodes of 16 MiB and more.
 *
 * An area of a program's memory may have a policy of its own: mm/vma_policy.ts. A policy is written once, before anybody
 * can see it, so many may share one: `refcnt`.
 *
 * Locks: none: a task's policy is touched by the task alone, and by its parent while it is made.
 * Unlike Linux: no policies of files, no cpusets, so nothing to rebind.
 */
import { NULL, type NodeId, type Ptr } from "../hal/addr.ts";
import { this_cpu_ptr } from "../hal/cpu.ts";
import { per_cpu_data, static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { format_list } from "../kernel/lib/bitops.ts";
import { EFAULT, EINVAL, ENOMEM, is_err } from "../kernel/lib/errno.ts";
import { pr_err } from "../kernel/lib/printk.ts";
import { GFP_KERNEL, NUMA_NO_NODE } from "./gfp.ts";
import { page_fast, set_cpu_mempolicy } from "./plenty.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from "./slab_common.ts";
import { SLAB_PANIC } from "./slab_layout.ts";
import { MAX_NUMNODES, NODE_DATA, PgData, for_each_online_node, type NodeMask } from "./zone.ts";

export const MPOL_DEFAULT = 0;
export const MPOL_PREFERRED = 1;
export const MPOL_BIND = 2;
export const MPOL_INTERLEAVE = 3;
export const MPOL_LOCAL = 4;
export const MPOL_PREFERRED_MANY = 5;
export const MPOL_WEIGHTED_INTERLEAVE = 6;
const MPOL_MAX = 7;
/** Mode flags: the mask names nodes, or (relative) the how-manieth of those with memory. */
export const MPOL_F_STATIC_NODES = 0x8000;
export const MPOL_F_RELATIVE_NODES = 0x4000;
const MPOL_MODE_FLAGS = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES;
/** What get_mempolicy is asked for: the next node of interleaving; the policy at an address; the nodes allowed. */
export const MPOL_F_NODE = 1;
export const MPOL_F_ADDR = 2;
export const MPOL_F_MEMS_ALLOWED = 4;

const ALL_NODES = 2 ** MAX_NUMNODES - 1;

/** Written once, before anybody can see it; freed with its last reference. */
export const Mempolicy = struct("mempolicy", {
  refcnt: "u32",
  mode: "u16",
  flags: "u16", // MPOL_F_*_NODES
  nodes: "u32", // those of the mask that count
  home_node: "s32", // of BIND and PREFERRED_MANY: from where on; NUMA_NO_NODE: the CPU's node
  user_nodemask: "u32", // the mask as it was given
});
export type PolicyPtr = Ptr<"mempolicy">;

/** A task's part, embedded in its task_struct. */
export const TaskMempolicy = struct("task_mempolicy", {
  policy: "*mempolicy",
  il_prev: "u32", // the node that interleaving took last
  il_weight: "u32", // allocations left for it
});
export type TaskMempolicyPtr = Ptr<"task_mempolicy">;

const state = static_data("mempolicy", { cache: "*kmem_cache", weights: `u8[16]` });
/** The part of the task that each CPU runs. */
const running = per_cpu_data("current_mempolicy", { of: "*task_mempolicy" });
const BOOT_NODE_PAGES = 4096; // 16 MiB

/** Boot: the cache, and every node's weight. */
export function numa_policy_init(): void {
  state.cache = kmem_cache_create("numa_policy", Mempolicy.sizeof, 0, SLAB_PANIC, null);
  for (let node = 0; node < MAX_NUMNODES; node++) state.weights.set(node, 1);
}

/** Boot: until numa_default_policy, a policy that spreads over all nodes that are not tiny. */
export function numa_boot_policy(): void {
  const size = (node: NodeId): number => PgData.node_present_pages.get(NODE_DATA(node));
  const nodes = [...for_each_online_node()];
  const largest = nodes.reduce((best, node) => (size(node) > size(best) ? node : best));
  const mask = mask_of(nodes.filter((node) => size(node) >= BOOT_NODE_PAGES)) || mask_of([largest]);
  if (do_set_mempolicy(MPOL_INTERLEAVE, mask) !== 0) pr_err("numa_boot_policy: interleaving failed");
}

/** Ends the running task's policy. */
export function numa_default_policy(): void {
  do_set_mempolicy(MPOL_DEFAULT, 0);
}

export function mask_of(nodes: Iterable<NodeId>): NodeMask {
  let mask = 0;
  for (const node of nodes) mask |= 1 << node;
  return mask;
}

/** The nodes of a mask, in order. */
export function nodes_of(mask: NodeMask): NodeId[] {
  return Array.from({ length: MAX_NUMNODES }, (_, node) => node).filter((node) => (mask >> node) & 1);
}

/** The node of a mask behind `node`, round and round. */
export function next_node_in(node: NodeId, mask: NodeMask): NodeId {
  const above = mask & (-1 << (node + 1));
  return 31 - Math.clz32((above || mask) & -(above || mask));
}

/** Nodes that have memory. */
function nodes_with_memory(): NodeMask {
  return mask_of([...for_each_online_node()].filter((node) => PgData.node_present_pages.get(NODE_DATA(node)) > 0));
}

/** Weight of a node in WEIGHTED_INTERLEAVE, 1 to 255; 1 unless somebody set another. */
export function node_weight(node: NodeId): number {
  return state.weights.get(node);
}

export function set_node_weight(node: NodeId, weight: number): void {
  state.weights.set(node, weight);
}

/* A task's policy ---------------------------------------------------------------------------------------------------- */

/** Tells this CPU whose policy its requests follow. Context: whoever gives the CPU to another task. */
export function switch_mempolicy(task: TaskMempolicyPtr): void {
  running.of.set(this_cpu_ptr(running.ptr), task);
  set_cpu_mempolicy(TaskMempolicy.policy.get(task));
}

export const current_part = (): TaskMempolicyPtr => running.of.get(this_cpu_ptr(running.ptr));

/** The running task's policy; NULL for none. */
export function task_policy(): PolicyPtr {
  return page_fast.policy.get(this_cpu_ptr(page_fast.ptr));
}

/** set_mempolicy: the running task's policy from now on. 0, -EINVAL or -ENOMEM; then the old one stays. */
export function do_set_mempolicy(mode_and_flags: number, nodes: NodeMask): number {
  const policy = mpol_new(mode_and_flags, nodes);
  if (is_err(policy)) return policy;
  const task = current_part();
  const old = TaskMempolicy.policy.get(task);
  TaskMempolicy.policy.set(task, policy);
  TaskMempolicy.il_prev.set(task, MAX_NUMNODES - 1); // so that the first node is the first of the mask
  TaskMempolicy.il_weight.set(task, 0);
  set_cpu_mempolicy(policy);
  mpol_put(old);
  return 0;
}

/** A policy that nobody has yet; NULL for DEFAULT; -EINVAL or -ENOMEM. */
export function mpol_new(mode_and_flags: number, given: NodeMask): PolicyPtr {
  let mode = mode_and_flags & ~MPOL_MODE_FLAGS;
  const flags = mode_and_flags & MPOL_MODE_FLAGS;
  if (mode < 0 || mode >= MPOL_MAX || flags === MPOL_MODE_FLAGS || (given & ~ALL_NODES) !== 0) return -EINVAL;
  if (mode === MPOL_DEFAULT) return given === 0 ? NULL : -EINVAL;
  if (mode === MPOL_PREFERRED && given === 0) mode = MPOL_LOCAL;
  if (mode === MPOL_LOCAL ? given !== 0 || flags !== 0 : given === 0) return -EINVAL;
  const memory = nodes_with_memory();
  let nodes = (flags & MPOL_F_RELATIVE_NODES) !== 0 ? relative_nodes(given, memory) : given & memory;
  if (mode !== MPOL_LOCAL && nodes === 0) return -EINVAL;
  if (mode === MPOL_PREFERRED) nodes &= -nodes;
  const policy: PolicyPtr = kmem_cache_alloc(state.cache, GFP_KERNEL);
  if (policy === NULL) return -ENOMEM;
  Mempolicy.refcnt.set(policy, 1);
  Mempolicy.mode.set(policy, mode);
  Mempolicy.flags.set(policy, flags);
  Mempolicy.nodes.set(policy, nodes);
  Mempolicy.home_node.set(policy, NUMA_NO_NODE);
  Mempolicy.user_nodemask.set(policy, given);
  return policy;
}

const CONTENTS = [
  Mempolicy.mode, Mempolicy.flags, Mempolicy.nodes, Mempolicy.home_node, Mempolicy.user_nodemask,
] as const; // prettier-ignore

/** A copy that nobody has yet; NULL without memory. */
export function mpol_copy(policy: PolicyPtr): PolicyPtr {
  const copy: PolicyPtr = kmem_cache_alloc(state.cache, GFP_KERNEL);
  if (copy === NULL) return NULL;
  for (const field of CONTENTS) field.set(copy, field.get(policy));
  Mempolicy.refcnt.set(copy, 1);
  return copy;
}

/** True if two policies, or none, say the same. The mask as it was given counts only where it is kept for a flag. */
export function mpol_equal(a: PolicyPtr, b: PolicyPtr): boolean {
  if (a === b || a === NULL || b === NULL) return a === b;
  const kept = Mempolicy.flags.get(a) !== 0 ? CONTENTS : CONTENTS.slice(0, -1);
  return kept.every((field) => field.get(a) === field.get(b));
}

/** Bit n of `given` is the n-th node of `memory`, counted round and round. */
function relative_nodes(given: NodeMask, memory: NodeMask): NodeMask {
  const there = nodes_of(memory);
  return mask_of(nodes_of(given).map((n) => there[n % there.length]!));
}

/** A new task takes the running one's policy over, and goes on interleaving where that stands. Returns 0 or -ENOMEM. */
export function mpol_dup(child: TaskMempolicyPtr): number {
  const parent = current_part();
  const policy = TaskMempolicy.policy.get(parent);
  let copy: PolicyPtr = NULL;
  if (policy !== NULL) {
    copy = mpol_copy(policy);
    if (copy === NULL) return -ENOMEM;
  }
  TaskMempolicy.policy.set(child, copy);
  TaskMempolicy.il_prev.set(child, TaskMempolicy.il_prev.get(parent));
  TaskMempolicy.il_weight.set(child, TaskMempolicy.il_weight.get(parent));
  return 0;
}

/** A task that ends, or was not finished, lets go of its policy. */
export function mpol_put_task_policy(task: TaskMempolicyPtr): void {
  const policy = TaskMempolicy.policy.get(task);
  TaskMempolicy.policy.set(task, NULL);
  if (task === current_part()) set_cpu_mempolicy(NULL);
  mpol_put(policy);
}

/** Exchanges the running task's part for another, in RAM: the console's way of lending a policy to one command. */
export function exchange_mempolicy(other: TaskMempolicyPtr): void {
  const task = current_part();
  for (const field of [TaskMempolicy.policy, TaskMempolicy.il_prev, TaskMempolicy.il_weight]) {
    const mine = field.get(task);
    field.set(task, field.get(other));
    field.set(other, mine);
  }
  set_cpu_mempolicy(TaskMempolicy.policy.get(task));
}

/** Takes a further reference of a policy, if there is one. */
export function mpol_get(policy: PolicyPtr): void {
  if (policy !== NULL) Mempolicy.refcnt.set(policy, Mempolicy.refcnt.get(policy) + 1);
}

/** Drops a reference; the last one frees the policy. */
export function mpol_put(policy: PolicyPtr): void {
  if (policy === NULL) return;
  Mempolicy.refcnt.set(policy, Mempolicy.refcnt.get(policy) - 1);
  if (Mempolicy.refcnt.get(policy) === 0) kmem_cache_free(state.cache, policy);
}

/** Mode with its flags, and mask. */
export interface PolicyInfo {
  readonly policy: number;
  readonly nodes: NodeMask;
}

/**
 * get_mempolicy: the running task's policy, mode with its flags, and mask. With MPOL_F_NODE `policy` is the node that
 * interleaving takes next, with MPOL_F_MEMS_ALLOWED `nodes` are those it may use at all. Or -EINVAL, -EFAULT.
 */
export function do_get_mempolicy(flags: number, address: number): PolicyInfo | number {
  if ((flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED)) !== 0) return -EINVAL;
  if ((flags & MPOL_F_MEMS_ALLOWED) !== 0)
    return flags === MPOL_F_MEMS_ALLOWED ? { policy: 0, nodes: nodes_with_memory() } : -EINVAL;
  if ((flags & MPOL_F_ADDR) !== 0) return -EFAULT; // an address of what memory? do_get_mempolicy_at knows
  if (address !== 0) return -EINVAL;
  const policy = task_policy();
  if (flags === MPOL_F_NODE) return policy === NULL ? -EINVAL : next_interleave_node(policy);
  return describe_policy(policy);
}

/** A policy, or none, as get_mempolicy tells it. */
export function describe_policy(policy: PolicyPtr): PolicyInfo {
  if (policy === NULL) return { policy: MPOL_DEFAULT, nodes: 0 };
  const user = Mempolicy.flags.get(policy) !== 0;
  const nodes = user ? Mempolicy.user_nodemask.get(policy) : Mempolicy.nodes.get(policy);
  return { policy: Mempolicy.mode.get(policy) | Mempolicy.flags.get(policy), nodes };
}

function next_interleave_node(policy: PolicyPtr): PolicyInfo | number {
  const task = current_part();
  const mode = Mempolicy.mode.get(policy);
  if (mode !== MPOL_INTERLEAVE && mode !== MPOL_WEIGHTED_INTERLEAVE) return -EINVAL;
  const [nodes, prev] = [Mempolicy.nodes.get(policy), TaskMempolicy.il_prev.get(task)];
  const stays = mode === MPOL_WEIGHTED_INTERLEAVE && TaskMempolicy.il_weight.get(task) > 0;
  return { policy: stays ? prev : next_node_in(prev, nodes), nodes };
}

const MODE_NAMES: readonly string[] = Object.freeze([
  "default", "prefer", "bind", "interleave", "local", "prefer (many)", "weighted interleave",
]); // prettier-ignore

/** `interleave=static:0-1`: the text form of a policy as get_mempolicy tells it. */
export function mpol_to_str(policy: number, nodes: NodeMask): string {
  const mode = MODE_NAMES[policy & ~MPOL_MODE_FLAGS]!;
  const flag = policy & MPOL_F_STATIC_NODES ? "=static" : policy & MPOL_F_RELATIVE_NODES ? "=relative" : "";
  return mode + flag + (nodes === 0 ? "" : `:${format_list(nodes_of(nodes))}`);
}
