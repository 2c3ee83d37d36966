/**
 * Tab completion: names of commands, then what the command says of its arguments (caches, paths).
 */
import { KmemCache, SlabAlias, for_each_alias, for_each_cache } from "../mm/slab_common.ts";
import { command_names, find_command } from "./commands/registry.ts";
import { list_directory } from "./host_files.ts";
import { BIN } from "../kernel/programs/bin.ts";
import type { Session } from "./session.ts";

/** All names of caches, aliases too. */
function cache_names(): string[] {
  const caches = [...for_each_cache()].map((cache) => KmemCache.name.get(cache));
  return [...caches, ...[...for_each_alias()].map((alias) => SlabAlias.name.get(alias))];
}

function paths(word: string): string[] {
  const folder = word.slice(0, word.lastIndexOf("/") + 1);
  const entries = list_directory(folder === "" ? "/" : folder);
  return entries.map(({ name, is_directory }) => `${folder}${name}${is_directory ? "/" : ""}`);
}

function candidates(words: readonly string[]): string[] {
  const [name, ...args] = words;
  const word = args.at(-1);
  if (word === undefined) return [...new Set([...command_names(), ...Object.keys(BIN)])];
  const how = find_command(name!)?.complete ?? (Object.hasOwn(BIN, name!) ? "path" : undefined);
  if (how === "cache") return cache_names();
  if (how === "path") return paths(word);
  if (how === "command") return command_names();
  return typeof how === "function" ? how(args) : [];
}

/** What readline asks: the candidates, and the word they are for. A folder gets no blank behind it. */
export function complete_line(session: Session, line: string): [string[], string] {
  const part = line.slice(Math.max(...[";", ">", "<", "|", "&"].map((sign) => line.lastIndexOf(sign))) + 1).trimStart();
  const words = /[<>]\s*\S*$/.test(line) ? ["cat", part] : part.split(/\s+/);
  const word = words.at(-1)!;
  try {
    const all = session.entry(() => candidates(words));
    const hits = all.filter((candidate) => candidate.startsWith(word)).sort();
    return [hits.map((hit) => (hits.length > 1 || hit.endsWith("/") ? hit : `${hit} `)), word];
  } catch {
    return [[], word]; // a path that is not there
  }
}
