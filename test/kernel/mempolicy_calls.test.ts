/** Memory policies of a program and of areas of its memory; node 0 has 32 MiB, node 1 has 8 MiB. */
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../hal/addr.ts";
import { numa_node_id } from "../../hal/cpu.ts";
import { errno_name } from "../../kernel/lib/errno.ts";
import { register_syscall, type SystemCall } from "../../kernel/syscall.ts";
import { u } from "../../kernel/user_memory.ts";
import { set_fail_nth } from "../../mm/fault_inject.ts";
import {
  MPOL_BIND, MPOL_DEFAULT, MPOL_F_ADDR, MPOL_F_NODE, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED, MPOL_PREFERRED_MANY,
  MPOL_WEIGHTED_INTERLEAVE, set_node_weight,
} from "../../mm/mempolicy.ts"; // prettier-ignore
import { MPOL_MF_MOVE, MPOL_MF_STRICT } from "../../mm/vma_policy.ts";
import { reports, test_init, with_tasks } from "./tasks.ts";

const P = PAGE_SIZE;
const NODE_AT = MPOL_F_NODE | MPOL_F_ADDR;
interface Info {
  policy: number;
  nodes: number;
}
/** A part of a program. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what a call returns depends on the call
type Part<T> = Generator<SystemCall, T, any>;
/** A result as text: an errno by its name. */
const said = (value: number): string => (value < 0 ? errno_name(value) : String(value));

register_syscall("t_weight", "nn", (node: number, weight: number) => (set_node_weight(node, weight), 0));
register_syscall("t_node", "", numa_node_id);
register_syscall("t_policy_fail_nth", "n", (n: number) => (set_fail_nth(n), 0));

// Touches eight pages in an order that is nobody's, under policies of the area.
const places = test_init("t_places", function* (sys) {
  const each = function* (va: number): Part<string> {
    for (const n of [5, 0, 7, 2, 6, 1, 4, 3]) u.store8(va + n * P, n);
    let nodes = "";
    for (let n = 0; n < 8; n++) {
      const { policy }: Info = yield sys.get_mempolicy(NODE_AT, va + n * P);
      nodes += policy;
    }
    return nodes;
  };
  const policies: [number, number][] = [
    [MPOL_DEFAULT, 0], [MPOL_BIND, 2], [MPOL_PREFERRED, 2], [MPOL_PREFERRED_MANY, 2], [MPOL_LOCAL, 0],
    [MPOL_INTERLEAVE, 3], [MPOL_WEIGHTED_INTERLEAVE, 3],
  ]; // prettier-ignore
  yield { call: "t_weight", args: [0, 3] };
  yield sys.syslog(`here ${yield { call: "t_node", args: [] }}`);
  for (const [mode, nodes] of policies) {
    // From an address that is a multiple of 8 pages, so that page 0 of the area begins a round of either kind.
    const map: number = yield sys.mmap(15 * P);
    const va = Math.ceil(map / (8 * P)) * 8 * P;
    const error: number = yield sys.mbind(va, 8 * P, mode, nodes);
    yield sys.syslog(`${mode} ${said(error)} ${yield* each(va)}`);
    yield sys.munmap(map, 15 * P);
  }
  // The task's own policy goes by place too.
  yield sys.set_mempolicy(MPOL_INTERLEAVE, 3);
  const map: number = yield sys.mmap(15 * P);
  yield sys.syslog(`task ${yield* each(Math.ceil(map / (8 * P)) * 8 * P)}`);
  yield sys.set_mempolicy(MPOL_DEFAULT);
});

test("the pages of an area lie where its policy says; interleaving goes by place, whoever touches what first", () => {
  with_tasks(places, () => {
    const here = reports()[0]!.slice(-1).repeat(8);
    expect(reports().slice(1)).toEqual([
      `0 0 ${here}`, "2 0 11111111", "1 0 11111111", "5 0 11111111", `4 0 ${here}`, "3 0 01010101", "6 0 00010001",
      "task 01010101",
    ]); // prettier-ignore
  });
});

// Cuts and joins areas by their policies, and shows them.
const cuts = test_init("t_cuts", function* (sys) {
  const va: number = yield sys.mmap(8 * P);
  const show = function* (what: string): Part<void> {
    const fd: number = yield sys.open("/proc/1/numa_maps");
    const text: string = yield sys.read(fd, 4096);
    yield sys.close(fd);
    const lines = text.split("\n").filter((line) => line !== "" && !line.includes("stack"));
    const told = lines.map((line) => `${(parseInt(line, 16) - va) / P} ${line.replace(/^\w+ /, "")}`);
    yield sys.syslog(`${what}: ${told.join("; ")}`);
  };
  yield sys.syslog(`here ${yield { call: "t_node", args: [] }}`);
  yield* show("one");
  yield sys.mbind(va + 2 * P, 2 * P, MPOL_BIND, 2);
  u.memset(va + P, 1, 2 * P);
  u.load8(va); // the zero page is no page of its own
  yield* show("cut");
  yield sys.mbind(va + 4 * P, P, MPOL_BIND, 2);
  yield* show("joined");
  const kinds: Info[] = [yield sys.get_mempolicy(MPOL_F_ADDR, va + 3 * P), yield sys.get_mempolicy(MPOL_F_ADDR, va)];
  yield sys.syslog(kinds.map(({ policy, nodes }) => `${policy}:${nodes}`).join(" "));
  yield sys.set_mempolicy(MPOL_PREFERRED, 2);
  yield* show("under the task's");
  yield sys.set_mempolicy(MPOL_DEFAULT);
  if ((yield sys.fork()) === 0) {
    const inherited: Info = yield sys.get_mempolicy(MPOL_F_ADDR, va + 3 * P);
    return inherited.policy === MPOL_BIND ? 0 : 1;
  }
  const { status }: { status: number } = yield sys.wait();
  yield sys.mbind(va, 8 * P, MPOL_DEFAULT);
  yield* show(`child ${status}, no policy`);
});

test("mbind cuts areas, joins those of one policy, and a child has them too; numa_maps shows it", () => {
  with_tasks(cuts, () => {
    const page = (pages: number, node: number): string => ` anon=${pages} dirty=${pages} active=0 N${node}=${pages} kernelpagesize_kB=4`; // prettier-ignore
    const here = Number(reports()[0]!.slice(-1));
    expect(reports().slice(1)).toEqual([
      "one: 0 default",
      `cut: 0 default${page(1, here)}; 2 bind:1${page(1, 1)}; 4 default`,
      `joined: 0 default${page(1, here)}; 2 bind:1${page(1, 1)}; 5 default`,
      "2:2 0:0",
      `under the task's: 0 prefer:1${page(1, here)}; 2 bind:1${page(1, 1)}; 5 prefer:1`,
      // Since the fork pages of the two are under two anon_vmas, so they stay apart.
      `child 0, no policy: 0 default${page(1, here)}; 2 default${page(1, 1)}`,
    ]);
  });
});

// What the calls refuse.
const refused = test_init("t_refused", function* (sys) {
  const va: number = yield sys.mmap(4 * P);
  yield sys.mbind(va, P, MPOL_BIND, 1);
  u.store8(va, 1); // on node 0
  yield sys.mbind(va, P, MPOL_DEFAULT);
  const mbind: [number, number, number, number, number][] = [
    [va + 1, P, MPOL_BIND, 2, 0], [va, P, 99, 2, 0], [va, P, MPOL_BIND, 0, 0], [va, P, MPOL_BIND, 4, 0], [va, P, MPOL_BIND, 2, 8],
    [va, -1, MPOL_BIND, 2, 0], [va, 0, MPOL_BIND, 2, 0], [va, 5 * P, MPOL_BIND, 1, 0], [va - P, P, MPOL_DEFAULT, 0, 0], [va - P, 2 * P, MPOL_DEFAULT, 0, 0],
    [va, P, MPOL_BIND, 2, MPOL_MF_STRICT], [va + P, P, MPOL_BIND, 2, MPOL_MF_STRICT], [va, P, MPOL_BIND, 2, MPOL_MF_MOVE],
    [va, P, MPOL_BIND, 2, MPOL_MF_MOVE | MPOL_MF_STRICT],
  ]; // prettier-ignore
  let text = "";
  for (const args of mbind) text += ` ${said(yield sys.mbind(...args))}`;
  yield sys.syslog(`mbind${text}`);
  text = "";
  for (const [flags, at] of [[MPOL_F_ADDR, 0], [MPOL_F_NODE, 0], [0, va], [8, 0]] as const) {
    const info: number | Info = yield sys.get_mempolicy(flags, at);
    text += ` ${typeof info === "number" ? said(info) : "info"}`;
  } // prettier-ignore
  yield sys.syslog(`get_mempolicy${text}`);
  yield sys.mbind(va, 4 * P, MPOL_DEFAULT);
  text = ` ${said(yield sys.set_mempolicy_home_node(va, P, 1))}`; // no policy there
  yield sys.mbind(va, 2 * P, MPOL_INTERLEAVE, 3);
  const homes: [number, number, number][] = [[va, P, 1], [va + 1, P, 1], [va, P, 2], [va, P, -1], [va, 0, 1]]; // prettier-ignore
  for (const args of homes) text += ` ${said(yield sys.set_mempolicy_home_node(...args))}`;
  yield sys.syslog(`set_mempolicy_home_node${text}`);
  text = "";
  for (let n = 1, error = -1; error < 0; n++) {
    yield { call: "t_policy_fail_nth", args: [n] };
    error = yield sys.mbind(va + P, P, MPOL_BIND, 2);
    yield { call: "t_policy_fail_nth", args: [0] };
    text += ` ${said(error)}`;
    yield sys.mbind(va, 4 * P, MPOL_DEFAULT);
  }
  yield sys.syslog(`without memory${text}`);
});

test("what the calls refuse", () => {
  with_tasks(refused, () => {
    expect(reports()).toEqual([
      "mbind EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL 0 EFAULT EFAULT 0 EIO 0 0 EIO",
      "get_mempolicy EFAULT EINVAL EINVAL EINVAL",
      "set_mempolicy_home_node ENOENT EOPNOTSUPP EINVAL EINVAL EINVAL 0",
      expect.stringMatching(/^without memory( ENOMEM){3,} 0$/),
    ]);
  });
});

// BIND to both nodes begins at the CPU's node; with a home node there.
const home = test_init("t_home", function* (sys) {
  const va: number = yield sys.mmap(2 * P);
  yield sys.mbind(va, 2 * P, MPOL_BIND, 3);
  const here: number = yield { call: "t_node", args: [] };
  const error: number = yield sys.set_mempolicy_home_node(va + P, P, 1 - here);
  u.memset(va, 1, 2 * P);
  const nodes: Info[] = [yield sys.get_mempolicy(NODE_AT, va), yield sys.get_mempolicy(NODE_AT, va + P)];
  yield sys.syslog(`${said(error)} ${nodes.map((info) => (info.policy === here ? "here" : "there")).join(" ")}`);
});

test("a home node is where BIND and PREFERRED_MANY begin to look", () => {
  with_tasks(home, () => expect(reports()).toEqual(["0 here there"]));
});
