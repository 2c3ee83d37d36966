/** What the figures of virtual memory say together: the price of a TLB hit, of a page, of a larger number of areas. */
import { TLB_HIT_GOAL, met } from "./goals.ts";
import { digits } from "./report.ts";
import type { Results } from "./results.ts";
import { VM } from "./subjects.ts";

const ns = (results: Results, figure: string): number | undefined => results.ns(figure, VM.name)?.median;

/** The ratio of two figures, in the L1 of their moments. */
function ratio(results: Results, figure: string, base: string): number | undefined {
  const [value, of] = [results.vs_l1(figure, VM.name), results.vs_l1(base, VM.name)];
  return value && of && value.median / of.median;
}

function hit_line(results: Results): string[] {
  const hit = ratio(results, "V1 hit", "V1 RAM");
  if (hit === undefined) return [];
  return [`  TLB hit: ${digits(hit)} × a load from RAM, goal ≤ ${TLB_HIT_GOAL}: ${met(hit, TLB_HIT_GOAL, false)}`];
}

/** What a page adds to a fork, from one size to the next. */
function fork_lines(results: Results): string[] {
  const sizes = [10, 1000, 100_000];
  return sizes.slice(1).flatMap((pages, i) => {
    const [less, more] = [ns(results, `V3 ${sizes[i]!}`), ns(results, `V3 ${pages}`)];
    if (less === undefined || more === undefined) return [];
    return [`  fork, ${sizes[i]!} to ${pages} pages: ${digits((more - less) / (pages - sizes[i]!))} ns a page`];
  });
}

function area_lines(results: Results): string[] {
  return [1000, 10_000].flatMap((areas) => {
    const growth = ratio(results, `V4 ${areas}`, "V4 100");
    return growth === undefined ? [] : [`  munmap and mmap among ${areas} areas: ${digits(growth)} × among 100`];
  });
}

export function vm_text(results: Results): string {
  const lines = [...hit_line(results), ...fork_lines(results), ...area_lines(results)];
  return lines.length === 0 ? "" : ["Virtual memory:", ...lines].join("\n");
}
