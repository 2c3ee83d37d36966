/**
 * What the console's own commands hold: the owner `console` of the leak check. The record lies with the host.
 */
import type { Held, Holding } from "./commands/registry.ts";

/** Makes an empty record. */
export function create_held(): Held {
  const holdings = new Map<number, Holding>();
  return {
    add: (holding) => void holdings.set(holding.address, holding),
    remove(address) {
      const holding = holdings.get(address);
      holdings.delete(address);
      return holding;
    },
    find: (address) => holdings.get(address),
    list: (kind, name) =>
      [...holdings.values()].filter(
        (holding) => (kind ?? holding.kind) === holding.kind && (name ?? holding.name) === holding.name,
      ),
  };
}

/** "cache my_object_cache, object my_object_cache x 3": what is held, in the order in which it was taken. */
export function describe_held(held: Held): string {
  const counts = new Map<string, number>();
  for (const { kind, name } of held.list()) counts.set(`${kind} ${name}`, (counts.get(`${kind} ${name}`) ?? 0) + 1);
  return [...counts].map(([what, count]) => (count === 1 ? what : `${what} x ${count}`)).join(", ");
}

/** Gives everything back, newest first. Context: inside a kernel entry. */
export function release_held(held: Held): void {
  for (const holding of held.list().reverse()) {
    held.remove(holding.address);
    holding.release();
  }
}
