/** Memory policies, on two nodes: 0 with 32 MiB in three zones, 1 with 8 MiB, one CPU each. */
import { describe, expect, test } from "vitest";
import type { NodeId } from "../../hal/addr.ts";
import { on_cpu } from "../../hal/cpu.ts";
import { sysfs_text } from "../../kernel/fs/sysfs.ts";
import { find_task_by_pid } from "../../kernel/pid.ts";
import { spawn } from "../../kernel/program.ts";
import { SIGKILL, do_kill } from "../../kernel/signal.ts";
import { TaskStruct, type TaskPtr } from "../../kernel/task.ts";
import { echo } from "../kernel/fs/files.ts";
import { printk_records } from "../../kernel/lib/printk.ts";
import { EFAULT, EINVAL, ENOMEM } from "../../kernel/lib/errno.ts";
import { get_fail_nth, set_fail_nth } from "../../mm/fault_inject.ts";
import { GFP_ATOMIC, GFP_DMA, GFP_KERNEL, NUMA_NO_NODE, __GFP_NOWARN, __GFP_THISNODE } from "../../mm/gfp.ts";
import { kfree, kmalloc } from "../../mm/kmalloc.ts";
import {
  MPOL_BIND, MPOL_DEFAULT, MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED, MPOL_F_NODE, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES,
  MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED, MPOL_PREFERRED_MANY, MPOL_WEIGHTED_INTERLEAVE, do_get_mempolicy,
  do_set_mempolicy, TaskMempolicy, mpol_to_str, set_node_weight,
} from "../../mm/mempolicy.ts"; // prettier-ignore
import { mempolicy_slab_node } from "../../mm/mempolicy_alloc.ts";
import { alloc_pages_bulk_mempolicy } from "../../mm/page_bulk.ts";
import { __free_pages, alloc_pages, alloc_pages_node } from "../../mm/page_alloc.ts";
import { page_to_nid, page_zonenum, virt_to_page, type PagePtr } from "../../mm/page.ts";
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_destroy, kmem_cache_free } from "../../mm/slab_common.ts";
import { SLAB_NO_MERGE } from "../../mm/slab_layout.ts";
import { validate_pages } from "../../mm/validate_pages.ts";
import { sum_zone_numa_event_state } from "../../mm/vmstat.ts";
import { vfree, vmalloc } from "../../mm/vmalloc.ts";
import {
  NUMA_FOREIGN, NUMA_HIT, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER,
} from "../../mm/zone.ts"; // prettier-ignore
import { with_machine } from "../lib/machine.ts";

/** On a machine with tasks, under a policy of CPU 0's idle task, which ends with the test. */
function under(mode: number, nodes: number, fn: () => void): void {
  with_machine({ until: "kernel" }, () => {
    expect(do_set_mempolicy(mode, nodes)).toBe(0);
    fn();
    expect(validate_pages()).toEqual([]);
    expect(do_set_mempolicy(MPOL_DEFAULT, 0)).toBe(0);
  });
}

/** Nodes of `count` pages, one request each; the pages go back. */
function nodes_of_pages(count: number, gfp = GFP_KERNEL, order = 0): NodeId[] {
  const pages = Array.from({ length: count }, () => alloc_pages(gfp, order));
  const nodes = pages.map((page) => (page === 0 ? -1 : page_to_nid(page)));
  for (const page of pages) if (page !== 0) __free_pages(page, order);
  return nodes;
}

/** Takes single pages until there are no more, runs `fn`, gives them back. */
function exhausted(gfp: number, fn: (pages: readonly PagePtr[]) => void): void {
  const pages: PagePtr[] = [];
  for (let page = alloc_pages(gfp | __GFP_NOWARN, 0); page !== 0; page = alloc_pages(gfp | __GFP_NOWARN, 0))
    pages.push(page);
  fn(pages);
  for (const page of pages) __free_pages(page, 0);
}

const counters = (node: NodeId): number[] =>
  [NUMA_HIT, NUMA_MISS, NUMA_FOREIGN, NUMA_INTERLEAVE_HIT, NUMA_LOCAL, NUMA_OTHER].map((item) =>
    sum_zone_numa_event_state(node, item),
  );
/** What `fn` adds to a node's counters: hit, miss, foreign, interleave, local, other. */
function counted(node: NodeId, fn: () => void): number[] {
  const before = counters(node);
  fn();
  return counters(node).map((count, i) => count - before[i]!);
}

describe("where pages come from", () => {
  test("PREFERRED starts at its node and goes on to others when that is short", () => {
    under(MPOL_PREFERRED, 0b10, () => {
      expect(nodes_of_pages(3)).toEqual([1, 1, 1]);
      expect(nodes_of_pages(1, GFP_KERNEL, 3)).toEqual([1]);
      exhausted(GFP_KERNEL, (pages) => {
        const nodes = pages.map(page_to_nid);
        expect(nodes.indexOf(0)).toBeGreaterThan(1000);
        expect(nodes.slice(0, nodes.indexOf(0))).not.toContain(0);
        expect(nodes.filter((node) => node === 0).length).toBeGreaterThan(5000);
      });
    });
  });

  test("PREFERRED without nodes, and LOCAL, mean the CPU's node", () => {
    under(MPOL_PREFERRED, 0, () => expect(on_cpu(1, () => nodes_of_pages(2))).toEqual([1, 1]));
    under(MPOL_LOCAL, 0, () => {
      expect(nodes_of_pages(2)).toEqual([0, 0]);
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_LOCAL, nodes: 0 });
    });
  });

  test("BIND gives pages of its nodes or none; the report names the mask and shows these nodes alone", () => {
    under(MPOL_BIND, 0b10, () => {
      exhausted(GFP_KERNEL, (pages) => {
        expect(new Set(pages.map(page_to_nid))).toEqual(new Set([1]));
        const elsewhere = alloc_pages_node(0, GFP_KERNEL, 0);
        expect(page_to_nid(elsewhere)).toBe(0);
        __free_pages(elsewhere, 0);
        expect(alloc_pages(GFP_KERNEL, 0)).toBe(0);
      });
      const texts = [...printk_records()].map(({ text }) => text);
      const at = texts.findIndex((text) => text.includes("page allocation failure"));
      expect(texts[at]).toContain("nodemask=1,cpuset=/,mems_allowed=0-1");
      expect(texts.slice(at).some((text) => text.startsWith("Node 0 "))).toBe(false);
      expect(texts.slice(at).some((text) => text.startsWith("Node 1 Normal free:"))).toBe(true);
    });
  });

  test("BIND does not hold for a zone below the policy zone, nor for who may not wait once the nodes are empty", () => {
    under(MPOL_BIND, 0b10, () => {
      const page = alloc_pages(GFP_KERNEL | GFP_DMA, 0);
      expect([page_to_nid(page), page_zonenum(page)]).toEqual([0, 0]);
      __free_pages(page, 0);
      exhausted(GFP_ATOMIC, (pages) => {
        const nodes = pages.map(page_to_nid);
        expect(nodes[0]).toBe(1);
        expect(nodes.at(-1)).toBe(0);
      });
    });
  });

  test("PREFERRED_MANY takes its nodes while they last, then any, and reports nothing in between", () => {
    under(MPOL_PREFERRED_MANY, 0b10, () => {
      exhausted(GFP_KERNEL, (pages) => {
        const nodes = pages.map(page_to_nid);
        const first = nodes.indexOf(0);
        expect(first).toBeGreaterThan(1000);
        expect(nodes.slice(first)).not.toContain(1);
      });
      expect([...printk_records()].some(({ text }) => text.includes("allocation failure"))).toBe(false);
    });
  });

  test("INTERLEAVE takes turns by request, from the first node of the mask on", () => {
    under(MPOL_INTERLEAVE, 0b11, () => {
      expect(nodes_of_pages(5)).toEqual([0, 1, 0, 1, 0]);
      expect(nodes_of_pages(2, GFP_KERNEL, 2)).toEqual([1, 0]);
      expect(do_get_mempolicy(MPOL_F_NODE, 0)).toEqual({ policy: 1, nodes: 0b11 });
    });
  });

  test("WEIGHTED_INTERLEAVE takes as many in a row as a node's weight says", () => {
    with_machine({ until: "kernel" }, () => {
      set_node_weight(0, 3);
      expect(do_set_mempolicy(MPOL_WEIGHTED_INTERLEAVE, 0b11)).toBe(0);
      expect(nodes_of_pages(9)).toEqual([0, 0, 0, 1, 0, 0, 0, 1, 0]);
      expect(do_get_mempolicy(MPOL_F_NODE, 0)).toEqual({ policy: 0, nodes: 0b11 });
      do_set_mempolicy(MPOL_DEFAULT, 0);
    });
  });

  test("a request for a node, or with THISNODE, does not ask the policy", () => {
    under(MPOL_BIND, 0b10, () => {
      for (const gfp of [GFP_KERNEL, GFP_KERNEL | __GFP_THISNODE])
        for (const node of [0, NUMA_NO_NODE]) {
          const page = alloc_pages_node(node, gfp, 0);
          expect(page_to_nid(page)).toBe(0);
          __free_pages(page, 0);
        }
      expect(nodes_of_pages(1, GFP_KERNEL | __GFP_THISNODE)).toEqual([0]);
    });
  });

  test("another CPU's requests follow its own task", () => {
    under(MPOL_PREFERRED, 0b01, () => {
      expect(on_cpu(1, () => nodes_of_pages(1))).toEqual([1]);
      on_cpu(1, () => do_set_mempolicy(MPOL_PREFERRED, 0b01));
      expect(on_cpu(1, () => nodes_of_pages(1))).toEqual([0]);
      on_cpu(1, () => do_set_mempolicy(MPOL_DEFAULT, 0));
      expect(on_cpu(1, () => nodes_of_pages(1))).toEqual([1]);
    });
  });
});

describe("many pages at once", () => {
  /** How many of `count` pages came from each node. */
  const bulk = (count: number): number[] => {
    const pages: PagePtr[] = [];
    expect(alloc_pages_bulk_mempolicy(GFP_KERNEL, count, pages)).toBe(count);
    const nodes = pages.map(page_to_nid);
    for (const page of pages) __free_pages(page, 0);
    const runs = nodes.filter((node, i) => node !== nodes[i - 1]).length;
    expect(runs).toBeLessThanOrEqual(3); // each share in one go
    return [0, 1].map((node) => nodes.filter((other) => other === node).length);
  };

  test("INTERLEAVE: each node its share, the first ones a page more; the next turn is where it would be", () => {
    under(MPOL_INTERLEAVE, 0b11, () => {
      expect(bulk(10)).toEqual([5, 5]);
      expect(bulk(7)).toEqual([4, 3]);
      expect(bulk(1)).toEqual([1, 0]); // both nodes have had a turn
      expect(nodes_of_pages(2)).toEqual([0, 1]);
      expect(nodes_of_pages(1)).toEqual([0]);
      expect(bulk(5)).toEqual([2, 3]); // the turn was node 1's
      expect(counted(1, () => bulk(8))).toEqual([4, 0, 0, 0, 0, 4]); // no interleave hits, as in Linux
    });
  });

  test("WEIGHTED_INTERLEAVE: the rest of a turn, whole rounds, a part of one", () => {
    with_machine({ until: "kernel" }, () => {
      set_node_weight(0, 3);
      do_set_mempolicy(MPOL_WEIGHTED_INTERLEAVE, 0b11);
      expect(nodes_of_pages(1)).toEqual([0]); // two of node 0's turn are left
      expect(bulk(2)).toEqual([2, 0]);
      expect(bulk(10)).toEqual([7, 3]); // from node 1 on: two rounds of 1 + 3, then 1 + 1 of the third
      expect(do_get_mempolicy(MPOL_F_NODE, 0)).toEqual({ policy: 0, nodes: 0b11 });
      expect(bulk(3)).toEqual([2, 1]); // two of node 0's turn were left
      do_set_mempolicy(MPOL_DEFAULT, 0);
    });
  });

  test("BIND, PREFERRED and PREFERRED_MANY: from their nodes; a task without a policy from its own", () => {
    under(MPOL_BIND, 0b10, () => expect(bulk(20)).toEqual([0, 20]));
    under(MPOL_PREFERRED, 0b10, () => expect(bulk(20)).toEqual([0, 20]));
    under(MPOL_PREFERRED_MANY, 0b10, () => expect(bulk(20)).toEqual([0, 20]));
    with_machine({ until: "kernel" }, () => expect(bulk(20)).toEqual([20, 0]));
  });

  test("vmalloc asks so", () => {
    under(MPOL_INTERLEAVE, 0b11, () => {
      const hits = counted(1, () => vfree(vmalloc(20 * 4096)));
      expect(hits[0]).toBeGreaterThanOrEqual(10);
    });
  });
});

describe("counters", () => {
  test("interleaving counts hits where the page came from the chosen node, by request", () => {
    under(MPOL_INTERLEAVE, 0b11, () => {
      const both = (): number[][] => {
        const ones: number[][] = [];
        const zeros = counted(0, () => void ones.push(counted(1, () => void nodes_of_pages(4, GFP_KERNEL, 2))));
        return [zeros, ...ones];
      };
      expect(both()).toEqual([
        [2, 0, 0, 2, 2, 0],
        [2, 0, 0, 2, 0, 2],
      ]);
    });
  });

  test("BIND to a distant node is a hit there, by another node's CPU; no interleave hit", () => {
    under(MPOL_BIND, 0b10, () => {
      expect(counted(1, () => void nodes_of_pages(4))).toEqual([4, 0, 0, 0, 0, 4]);
    });
  });

  test("interleaving to a node that is full is no interleave hit, but its neighbour's miss", () => {
    with_machine({ until: "kernel" }, () => {
      do_set_mempolicy(MPOL_BIND, 0b10);
      exhausted(GFP_KERNEL, () => {
        do_set_mempolicy(MPOL_INTERLEAVE, 0b10);
        const full = counted(1, () => expect(nodes_of_pages(3)).toEqual([0, 0, 0]));
        expect(full).toEqual([0, 0, 3, 0, 0, 0]);
      });
      do_set_mempolicy(MPOL_DEFAULT, 0);
    });
  });

  test("boot spreads what it makes over the nodes of 16 MiB and more, until init runs", () => {
    with_machine({ until: "kernel" }, () => {
      expect(counters(0)[3]).toBeGreaterThan(0);
      expect(counters(1)[3]).toBe(0); // 8 MiB
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_DEFAULT, nodes: 0 });
    });
  });
});

describe("slabs", () => {
  test("new slabs and large blocks follow the policy; slabs that are there do not ask", () => {
    under(MPOL_INTERLEAVE, 0b11, () => {
      const node_of = (p: number): NodeId => page_to_nid(virt_to_page(p));
      const blocks = Array.from({ length: 4 }, () => kmalloc(20000, GFP_KERNEL));
      expect(blocks.map(node_of)).toEqual([0, 1, 0, 1]);
      const cache = kmem_cache_create("policy_test", 2048, 0, SLAB_NO_MERGE, null);
      const objects = Array.from({ length: 64 }, () => kmem_cache_alloc(cache, GFP_KERNEL));
      const nodes = objects.map(node_of);
      for (let i = 0; i < 64; i += 16) expect(new Set(nodes.slice(i, i + 16)).size).toBe(1);
      // The look at other nodes' slabs takes a turn too, as in Linux: with two nodes, new slabs get every other one.
      expect([nodes[0], nodes[16], nodes[32], nodes[48]]).toEqual([1, 1, 1, 1]);
      for (const object of objects) kmem_cache_free(cache, object);
      kmem_cache_destroy(cache);
      for (const block of blocks) kfree(block);
    });
  });

  test("slabs of other nodes are looked for from the policy's node on", () => {
    under(MPOL_PREFERRED, 0b10, () => expect(mempolicy_slab_node()).toBe(1));
    under(MPOL_BIND, 0b10, () => expect(mempolicy_slab_node()).toBe(1));
    under(MPOL_BIND, 0b11, () => expect(mempolicy_slab_node()).toBe(0));
    under(MPOL_INTERLEAVE, 0b11, () => expect([mempolicy_slab_node(), mempolicy_slab_node()]).toEqual([0, 1]));
    under(MPOL_WEIGHTED_INTERLEAVE, 0b10, () => expect(mempolicy_slab_node()).toBe(1));
    under(MPOL_LOCAL, 0, () => expect(on_cpu(1, mempolicy_slab_node)).toBe(1));
  });
});

describe("set_mempolicy and get_mempolicy", () => {
  test("what is refused, and that the old policy stays then", () => {
    under(MPOL_BIND, 0b10, () => {
      const refused: [number, number][] = [
        [7, 1], [-1, 1], [MPOL_DEFAULT, 1], [MPOL_LOCAL, 1], [MPOL_LOCAL | MPOL_F_STATIC_NODES, 0], [MPOL_BIND, 0],
        [MPOL_INTERLEAVE, 0], [MPOL_PREFERRED_MANY, 0], [MPOL_PREFERRED | MPOL_F_RELATIVE_NODES, 0],
        [MPOL_BIND | MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES, 1], [MPOL_BIND, 0b100], [MPOL_BIND, 1 << 16],
      ]; // prettier-ignore
      for (const [mode, nodes] of refused)
        expect([mode, nodes, do_set_mempolicy(mode, nodes)]).toEqual([mode, nodes, -EINVAL]);
      set_fail_nth(1);
      expect(do_set_mempolicy(MPOL_BIND, 0b01)).toBe(-ENOMEM);
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_BIND, nodes: 0b10 });
    });
  });

  test("get_mempolicy tells mode, flags and the mask as it was given with a flag", () => {
    with_machine({ until: "kernel" }, () => {
      expect(do_set_mempolicy(MPOL_BIND, 0b110)).toBe(0); // node 2 is not there
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_BIND, nodes: 0b10 });
      expect(do_set_mempolicy(MPOL_PREFERRED, 0b11)).toBe(0);
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_PREFERRED, nodes: 0b01 });
      expect(do_set_mempolicy(MPOL_BIND | MPOL_F_STATIC_NODES, 0b110)).toBe(0);
      expect(do_get_mempolicy(0, 0)).toEqual({ policy: MPOL_BIND | MPOL_F_STATIC_NODES, nodes: 0b110 });
      expect(do_set_mempolicy(MPOL_BIND | MPOL_F_RELATIVE_NODES, 0b1000)).toBe(0); // the 4th of two: node 1
      expect(nodes_of_pages(2)).toEqual([1, 1]);
      expect(do_get_mempolicy(MPOL_F_MEMS_ALLOWED, 0)).toEqual({ policy: 0, nodes: 0b11 });
      for (const flags of [8, MPOL_F_NODE, MPOL_F_MEMS_ALLOWED | MPOL_F_NODE])
        expect(do_get_mempolicy(flags, 0)).toBe(-EINVAL);
      expect(do_get_mempolicy(0, 4096)).toBe(-EINVAL);
      expect(do_get_mempolicy(MPOL_F_ADDR, 4096)).toBe(-EFAULT);
      do_set_mempolicy(MPOL_DEFAULT, 0);
      expect(do_get_mempolicy(MPOL_F_NODE, 0)).toBe(-EINVAL);
    });
  });

  test("text forms", () => {
    const forms: [number, number, string][] = [
      [MPOL_DEFAULT, 0, "default"], [MPOL_LOCAL, 0, "local"], [MPOL_PREFERRED, 1, "prefer:0"],
      [MPOL_PREFERRED_MANY, 3, "prefer (many):0-1"], [MPOL_BIND, 2, "bind:1"],
      [MPOL_INTERLEAVE | MPOL_F_STATIC_NODES, 3, "interleave=static:0-1"],
      [MPOL_WEIGHTED_INTERLEAVE | MPOL_F_RELATIVE_NODES, 5, "weighted interleave=relative:0,2"],
    ]; // prettier-ignore
    for (const [policy, nodes, text] of forms) expect(mpol_to_str(policy, nodes)).toBe(text);
  });
});

test("fork passes the policy on, also to the child's child; what is not finished lets go of it", () => {
  with_machine({ until: "init" }, () => {
    const spawned = (): TaskPtr => spawn(find_task_by_pid(1), "sleep", []);
    const policy_of = (task: TaskPtr): number => TaskMempolicy.policy.get(TaskStruct.mempolicy.at(task));
    expect(policy_of(find_task_by_pid(1))).toBe(0);
    do_set_mempolicy(MPOL_BIND, 0b10);
    const task = spawned();
    for (let n = 1; n < 30; n++) {
      set_fail_nth(n);
      const other = spawned();
      const failed = other < 0;
      if (!failed) do_kill(TaskStruct.pid.get(other), SIGKILL);
      if (get_fail_nth() > 0) break; // passed untouched
      expect(failed).toBe(true);
    }
    set_fail_nth(0);
    do_set_mempolicy(MPOL_DEFAULT, 0);
    expect(policy_of(task)).toBeGreaterThan(0);
    do_kill(TaskStruct.pid.get(task), SIGKILL);
  });
});

test("weights are files of sysfs: 1 to 255", () => {
  with_machine({ until: "kernel" }, () => {
    const file = "kernel/mm/mempolicy/weighted_interleave/node1";
    expect(sysfs_text(file)).toBe("1\n");
    expect(echo("7", `/sys/${file}`, 0)).toBe(1);
    expect(sysfs_text(file)).toBe("7\n");
    for (const bad of ["0", "256", "x", "-1"]) expect(echo(bad, `/sys/${file}`, 0)).toBe(-EINVAL);
  });
});
