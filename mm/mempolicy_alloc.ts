/**
 * Where pages come from under a memory policy (mm/mempolicy.ts): the node that a request starts from, and the nodes that
 * will do.
 *
 *     a task's requests          alloc_pages            interleaving takes turns: TaskMempolicy.il_prev
 *     pages of an area           mm/vma_policy.ts       interleaving goes by place: page n of the area is always on the
 *                                                       same node, whoever touches it first
 *     many pages at once         mm/page_bulk.ts        interleaving gives each node its share in one go
 */
import { NULL, type NodeId } from "../hal/addr.ts";
import { numa_node_id } from "../hal/cpu.ts";
import {
  GFP_KERNEL, NUMA_NO_NODE, ZONE_MOVABLE, ZONE_NORMAL, __GFP_DIRECT_RECLAIM, __GFP_NOFAIL, __GFP_NOWARN,
  __GFP_THISNODE, gfp_zone,
} from "./gfp.ts"; // prettier-ignore
import {
  MPOL_BIND, MPOL_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE, Mempolicy, TaskMempolicy,
  current_part, mask_of, next_node_in, node_weight, nodes_of, type PolicyPtr, type TaskMempolicyPtr,
} from "./mempolicy.ts"; // prettier-ignore
import { page_to_nid, type PagePtr } from "./page.ts";
import {
  NODE_DATA, NUMA_INTERLEAVE_HIT, PgData, Zone, ZoneRef, for_each_online_node, local_memory_node, node_state, page_zone,
  type NodeMask,
} from "./zone.ts"; // prettier-ignore
import { __alloc_pages, first_zoneref } from "./zonelist.ts";

/** INTERLEAVE: the node whose turn it is. */
function interleave_nodes(task: TaskMempolicyPtr, mask: NodeMask): NodeId {
  const node = next_node_in(TaskMempolicy.il_prev.get(task), mask);
  TaskMempolicy.il_prev.set(task, node);
  return node;
}

/** WEIGHTED_INTERLEAVE: the same; a node's turn lasts as many allocations as its weight says. */
function weighted_interleave_nodes(task: TaskMempolicyPtr, mask: NodeMask): NodeId {
  const { il_prev, il_weight } = TaskMempolicy;
  if (il_weight.get(task) === 0 || ((mask >> il_prev.get(task)) & 1) === 0)
    il_weight.set(task, node_weight(interleave_nodes(task, mask)));
  il_weight.set(task, il_weight.get(task) - 1);
  return il_prev.get(task);
}

/** Nodes that have memory of an ordinary zone. */
function nodes_with_normal_memory(): NodeMask {
  const has_normal = (node: NodeId): boolean => {
    for (let zone = 0; zone <= ZONE_NORMAL; zone++)
      if (Zone.present_pages.get(PgData.node_zones.at(NODE_DATA(node), zone)) > 0) return true;
    return false;
  };
  return mask_of([...for_each_online_node()].filter(has_normal));
}

/** True if BIND holds for a request: small zones that few nodes have are exempt. */
function apply_policy_zone(mask: NodeMask, zone: number): boolean {
  return zone >= ((mask & nodes_with_normal_memory()) !== 0 ? node_state.policy_zone : ZONE_MOVABLE);
}

/** Stands for "whoever's turn it is" where a place in memory says which node interleaving takes. */
const NO_INTERLEAVE_INDEX = -1;

/** INTERLEAVE by place: page `index` of the memory is on this node, whenever it is asked for. */
function interleave_nid(mask: NodeMask, index: number): NodeId {
  const nodes = nodes_of(mask);
  return nodes[index % nodes.length]!;
}

/** WEIGHTED_INTERLEAVE by place. */
function weighted_interleave_nid(mask: NodeMask, index: number): NodeId {
  const nodes = nodes_of(mask);
  let left = index % nodes.reduce((sum, node) => sum + node_weight(node), 0);
  return nodes.find((node) => (left -= node_weight(node)) < 0)!;
}

/** The node that a request starts from. */
function policy_node(policy: PolicyPtr, index: number): NodeId {
  const mask = Mempolicy.nodes.get(policy);
  const by_turns = index === NO_INTERLEAVE_INDEX;
  switch (Mempolicy.mode.get(policy)) {
    case MPOL_PREFERRED:
      return next_node_in(-1, mask);
    case MPOL_PREFERRED_MANY:
    case MPOL_BIND: {
      const home = Mempolicy.home_node.get(policy);
      return home === NUMA_NO_NODE ? numa_node_id() : home;
    }
    case MPOL_INTERLEAVE:
      return by_turns ? interleave_nodes(current_part(), mask) : interleave_nid(mask, index);
    case MPOL_WEIGHTED_INTERLEAVE:
      return by_turns ? weighted_interleave_nodes(current_part(), mask) : weighted_interleave_nid(mask, index);
    default:
      return numa_node_id();
  }
}

/** The nodes that will do for a request; 0: any. */
function policy_nodemask(policy: PolicyPtr, gfp: number): NodeMask {
  const mask = Mempolicy.nodes.get(policy);
  switch (Mempolicy.mode.get(policy)) {
    case MPOL_PREFERRED_MANY:
      return mask;
    case MPOL_BIND:
      return apply_policy_zone(mask, gfp_zone(gfp)) ? mask : 0;
    default:
      return 0;
  }
}

function interleaves(policy: PolicyPtr): boolean {
  const mode = Mempolicy.mode.get(policy);
  return mode === MPOL_INTERLEAVE || mode === MPOL_WEIGHTED_INTERLEAVE;
}

/** How PREFERRED_MANY asks its own nodes: it neither waits nor complains. */
const gently = (gfp: number): number => (gfp | __GFP_NOWARN) & ~(__GFP_DIRECT_RECLAIM | __GFP_NOFAIL);

/**
 * alloc_pages under a policy. `index`: the place of the pages in their memory, by which interleaving chooses; without
 * one it takes turns. Context: as alloc_pages.
 */
export function alloc_pages_mpol(policy: PolicyPtr, gfp: number, order: number, index = NO_INTERLEAVE_INDEX): PagePtr {
  if (index === NO_INTERLEAVE_INDEX && (gfp & __GFP_THISNODE) !== 0) return __alloc_pages(gfp, order, numa_node_id());
  const node = policy_node(policy, index);
  const nodemask = policy_nodemask(policy, gfp);
  if (Mempolicy.mode.get(policy) === MPOL_PREFERRED_MANY) {
    const page = __alloc_pages(gently(gfp), order, node, nodemask);
    return page !== NULL ? page : __alloc_pages(gfp, order, node);
  }
  const page = __alloc_pages(gfp, order, node, nodemask);
  if (page !== NULL && interleaves(policy) && page_to_nid(page) === node) {
    const zone = page_zone(page);
    Zone.numa_event.set(zone, NUMA_INTERLEAVE_HIT, Zone.numa_event.get(zone, NUMA_INTERLEAVE_HIT) + 1);
  }
  return page;
}

/** A part of a request for many pages: so many from this node on, of these nodes. */
export interface BulkShare {
  readonly node: NodeId;
  readonly count: number;
  readonly gfp: number;
  readonly nodemask: NodeMask;
}

/** How a request for many single pages is shared out under a policy, part after part. */
export function* bulk_shares(policy: PolicyPtr, gfp: number, nr_pages: number): Generator<BulkShare> {
  const mask = Mempolicy.nodes.get(policy);
  const share = (node: NodeId, count: number): BulkShare => ({ node, count, gfp, nodemask: 0 });
  switch (Mempolicy.mode.get(policy)) {
    case MPOL_INTERLEAVE: {
      // Every node has its turn, and the first ones a page more; also where that makes none for the others.
      const nodes = nodes_of(mask).length;
      for (let i = 0; i < nodes; i++)
        yield share(
          interleave_nodes(current_part(), mask),
          Math.floor(nr_pages / nodes) + (i < nr_pages % nodes ? 1 : 0),
        );
      return;
    }
    case MPOL_WEIGHTED_INTERLEAVE:
      for (const [node, count] of weighted_shares(current_part(), mask, nr_pages)) yield share(node, count);
      return;
    case MPOL_PREFERRED_MANY:
      yield { ...share(numa_node_id(), nr_pages), gfp: gently(gfp), nodemask: mask };
      yield share(numa_node_id(), nr_pages);
      return;
    default:
      yield { ...share(policy_node(policy, NO_INTERLEAVE_INDEX), nr_pages), nodemask: policy_nodemask(policy, gfp) };
  }
}

/** WEIGHTED_INTERLEAVE: the rest of the turn that is on, then whole rounds and a part of one, each node in one go. */
function* weighted_shares(task: TaskMempolicyPtr, mask: NodeMask, nr_pages: number): Generator<[NodeId, number]> {
  const { il_prev, il_weight } = TaskMempolicy;
  const [last, turn] = [il_prev.get(task), il_weight.get(task)];
  let left = nr_pages;
  if (turn > 0 && ((mask >> last) & 1) !== 0) {
    yield [last, Math.min(left, turn)];
    il_weight.set(task, Math.max(turn - left, 0));
    if (left <= turn) return;
    left -= turn;
  }
  const behind = mask & (-1 << (last + 1));
  const nodes = [...nodes_of(behind), ...nodes_of(mask & ~behind)];
  const total = nodes.reduce((sum, node) => sum + node_weight(node), 0);
  const rounds = Math.floor(left / total);
  let rest = left % total;
  let [resume, weight_left] = [nodes[0]!, node_weight(nodes[0]!)];
  for (const node of nodes) {
    const more = Math.min(rest, node_weight(node));
    if (more > 0 && more === rest) [resume, weight_left] = [node, node_weight(node) - more];
    rest -= more;
    if (rounds + more > 0) yield [node, node_weight(node) * rounds + more];
  }
  il_prev.set(task, resume);
  il_weight.set(task, weight_left);
}

/** The node from which the slab layer looks for slabs of other nodes. Context: any. */
export function mempolicy_slab_node(): NodeId {
  const here = local_memory_node(numa_node_id());
  const task = current_part();
  const policy = task === NULL ? NULL : TaskMempolicy.policy.get(task);
  if (policy === NULL) return here;
  const mask = Mempolicy.nodes.get(policy);
  switch (Mempolicy.mode.get(policy)) {
    case MPOL_PREFERRED:
      return next_node_in(-1, mask);
    case MPOL_INTERLEAVE:
      return interleave_nodes(task, mask);
    case MPOL_WEIGHTED_INTERLEAVE:
      return weighted_interleave_nodes(task, mask);
    case MPOL_BIND:
    case MPOL_PREFERRED_MANY: {
      const zone = ZoneRef.zone.get(first_zoneref(here, GFP_KERNEL, gfp_zone(GFP_KERNEL), mask));
      return zone === NULL ? here : Zone.node.get(zone);
    }
    default:
      return here;
  }
}
