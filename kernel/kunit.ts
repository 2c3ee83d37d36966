/**
 * KUnit: tests that run in the kernel, against the kernel that runs.
 *
 *     const suite = kunit_test_suite("ring", {
 *       push(test) { KUNIT_EXPECT_EQ(test, ring_push(1), 0); },
 *       sizes: KUNIT_CASE_PARAM([8, 64, 192], (test, size) => { … }),
 *     });
 *     …  kunit_suite_exit(suite)                     a module's, when it goes
 *
 *     kunit_suites ─ kunit_suite [ name | its cases, a record of functions | module ] …
 *
 * An expectation that fails is noted and the case goes on; an assertion ends its case. What a case takes with
 * kunit_kzalloc is freed after it. A case is one kernel entry; who runs them prints KTAP (boot/commands/kunit.ts).
 *
 * Locks: none; suites come and go in one entry.
 */
import { NULL, type Obj, type Ptr } from "../hal/addr.ts";
import { static_data } from "../hal/image.ts";
import { struct } from "../hal/struct.ts";
import { GFP_KERNEL } from "../mm/gfp.ts";
import { kfree, kzalloc } from "../mm/kmalloc.ts";
import { ksym_address, ksym_fn, record_of_running } from "./lib/ksym.ts";
import { ListHead, init_list_head, list_add_tail, list_del, list_next } from "./lib/list.ts";
import { running_line, running_module } from "./lib/owner.ts";
import { Module } from "./module.ts";

/** One run of one case: what it came to. Lives no longer than that. */
export interface Kunit {
  readonly failures: string[];
  /** Why it was left out, if it was. */
  skipped?: string;
  readonly resources: Obj[];
}
/** A case: returns if all is well, or notes what is not. */
export type KunitCase = (test: Kunit) => void;
/** A case for each of some values. */
export interface KunitParamCase<P = unknown> {
  readonly params: readonly P[];
  run(test: Kunit, param: P): void;
}
/** The cases of a suite, by name. */
export type KunitCases = Readonly<Record<string, KunitCase | KunitParamCase>>;

/** Ends a case: an assertion has failed, or it is left out. */
export class KunitAbort extends Error {
  override name = "KunitAbort";
}

export const KunitSuite = struct("kunit_suite", { list: ListHead, cases: "*fn", module: "*module", name: "char[32]" });
export type SuitePtr = Ptr<"kunit_suite">;

const state = static_data("kunit_suites", { list: ListHead });

/** Boot: there are no suites. */
export function kunit_init(): void {
  init_list_head(state.list);
}

/** Makes a suite known. It, or NULL without memory. Give it back with kunit_suite_exit. */
export function kunit_test_suite(name: string, cases: KunitCases): SuitePtr {
  const record = record_of_running(cases);
  const symbol = ksym_address(Object.defineProperty(() => record, "name", { value: `kunit ${name}` }));
  const suite: SuitePtr = kzalloc(KunitSuite.sizeof, GFP_KERNEL);
  if (suite === NULL) return NULL;
  KunitSuite.name.set(suite, name);
  KunitSuite.cases.set(suite, symbol);
  KunitSuite.module.set(suite, running_module());
  list_add_tail(KunitSuite.list.at(suite), state.list);
  return suite;
}

/** Takes a suite back; NULL is ignored. */
export function kunit_suite_exit(suite: SuitePtr): void {
  if (suite === NULL) return;
  list_del(KunitSuite.list.at(suite));
  kfree(suite);
}

/** All suites, oldest first. */
export function* for_each_suite(): Generator<SuitePtr> {
  for (let node = list_next(state.list), next = 0; node !== state.list; node = next) {
    next = list_next(node);
    yield (node - KunitSuite.list.offset) as SuitePtr;
  }
}

/** The cases of a suite, by name, in the order in which they are written. */
export function suite_cases(suite: SuitePtr): KunitCases {
  return ksym_fn(KunitSuite.cases.get(suite))() as KunitCases;
}

/** A case that runs once for each of some values. */
export function KUNIT_CASE_PARAM<P>(params: readonly P[], run: (test: Kunit, param: P) => void): KunitParamCase<P> {
  return { params, run };
}

/* Expectations ------------------------------------------------------------------------------------------------------ */

/** FILE:LINE of the call, where a module makes it. */
function place(): string {
  const module = running_module();
  return module === NULL ? "" : ` at ${Module.file.get(module)}:${running_line()}`;
}

const shown = (value: unknown): string =>
  typeof value === "number" && Number.isInteger(value) ? `${value} (0x${(value >>> 0).toString(16)})` : JSON.stringify(value); // prettier-ignore

function fail(test: Kunit, kind: "EXPECTATION" | "ASSERTION", text: string): void {
  test.failures.push(`${kind} FAILED${place()}\n${text}`);
  if (kind === "ASSERTION") throw new KunitAbort("assertion");
}

type Compare = (a: unknown, b: unknown) => boolean;
const less = (a: unknown, b: unknown): boolean => (a as number) < (b as number);

const binary =
  (kind: "EXPECTATION" | "ASSERTION", sign: string, holds: Compare) =>
  (test: Kunit, left: unknown, right: unknown): void => {
    if (!holds(left, right))
      fail(test, kind, `    Expected left ${sign} right, but\n        left == ${shown(left)}\n        right == ${shown(right)}`); // prettier-ignore
  };

/** Notes a failure unless left === right. */
export const KUNIT_EXPECT_EQ = binary("EXPECTATION", "==", (a, b) => a === b);
/** Notes a failure unless left !== right. */
export const KUNIT_EXPECT_NE = binary("EXPECTATION", "!=", (a, b) => a !== b);
/** Notes a failure unless left < right. */
export const KUNIT_EXPECT_LT = binary("EXPECTATION", "<", less);
/** Notes a failure unless left <= right. */
export const KUNIT_EXPECT_LE = binary("EXPECTATION", "<=", (a, b) => !less(b, a));
/** Notes a failure unless left > right. */
export const KUNIT_EXPECT_GT = binary("EXPECTATION", ">", (a, b) => less(b, a));
/** Notes a failure unless left >= right. */
export const KUNIT_EXPECT_GE = binary("EXPECTATION", ">=", (a, b) => !less(a, b));
/** Notes a failure unless the two read the same. */
export const KUNIT_EXPECT_STREQ = binary("EXPECTATION", "==", (a, b) => String(a) === String(b));
/** Ends the case unless left === right. */
export const KUNIT_ASSERT_EQ = binary("ASSERTION", "==", (a, b) => a === b);
/** Ends the case unless left !== right. */
export const KUNIT_ASSERT_NE = binary("ASSERTION", "!=", (a, b) => a !== b);

const unary =
  (kind: "EXPECTATION" | "ASSERTION", wanted: string, holds: (value: unknown) => boolean) =>
  (test: Kunit, value: unknown): void => {
    if (!holds(value)) fail(test, kind, `    Expected ${wanted}, but it is ${shown(value)}`);
  };

/** Notes a failure unless the value is true. */
export const KUNIT_EXPECT_TRUE = unary("EXPECTATION", "true", Boolean);
/** Notes a failure if the value is true. */
export const KUNIT_EXPECT_FALSE = unary("EXPECTATION", "false", (value) => !value);
/** Notes a failure unless the value is NULL. */
export const KUNIT_EXPECT_NULL = unary("EXPECTATION", "NULL", (value) => value === NULL);
/** Notes a failure if the value is NULL. */
export const KUNIT_EXPECT_NOT_NULL = unary("EXPECTATION", "an address", (value) => value !== NULL);
/** Ends the case unless the value is true. */
export const KUNIT_ASSERT_TRUE = unary("ASSERTION", "true", Boolean);
/** Ends the case if the value is NULL. */
export const KUNIT_ASSERT_NOT_NULL = unary("ASSERTION", "an address", (value) => value !== NULL);

/** Notes a failure. */
export function KUNIT_FAIL(test: Kunit, text: string): void {
  fail(test, "EXPECTATION", `    ${text}`);
}

/** Leaves the case out. */
export function kunit_skip(test: Kunit, why: string): never {
  test.skipped = why;
  throw new KunitAbort(why);
}

/** Zeroed memory that is freed after the case; NULL without memory. */
export function kunit_kzalloc(test: Kunit, size: number, gfp: number): Obj {
  const object = kzalloc(size, gfp);
  if (object !== NULL) test.resources.push(object);
  return object;
}
