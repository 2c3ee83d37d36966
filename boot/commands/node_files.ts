/** What /sys/devices/system/node says, for the tools that read it. */
import { sysfs_text } from "../../kernel/fs/sysfs.ts";

export const NODE_FILES = "devices/system/node";

/** `name value` or `name: value` lines as numbers by name. */
export function fields(text: string): Map<string, number> {
  return new Map([...text.matchAll(/(\S+?):?\s+(\d+)(?: kB)?$/gm)].map(([, name, value]) => [name!, Number(value)])); // prettier-ignore
}

/** `0-2,5` as [0, 1, 2, 5]. */
export function parse_list(text: string): number[] {
  const parts = text
    .trim()
    .split(",")
    .filter((part) => part !== "");
  return parts.flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number) as [number, number?];
    return Array.from({ length: last! - first + 1 }, (_, i) => first + i);
  });
}

export const online_nodes = (): number[] => parse_list(sysfs_text(`${NODE_FILES}/online`));
