/** What the second reader (second_reader.ts) makes of a cache of SLAB: the answer of `slab NAME --json`, from peek alone. */
import { CPU_SHIFT, FLAGS, letter, px, type SecondReader } from "./second_reader.ts";

const LISTS = [["partial", "slabs_partial"], ["full", "slabs_full"], ["free", "slabs_free"]] as const; // prettier-ignore
const MODES = ["in an object", "off the slab", "on the slab"];

export function read_slab(r: SecondReader, name: string): unknown {
  const cache = [...r.caches()].find(([other]) => other === name)![1];
  const own = (field: string): number => r.get("slab_cache", field, cache);
  const common = (field: string): number => r.get("kmem_cache", field, cache);
  const [num, order, size] = [common("oo") & 0xffff, common("oo") >>> 16, common("size")];
  const parts = [...r.nodes()].map(([node]) => [node, r.get("kmem_cache", "node", cache, node)] as const).filter(([, n]) => n !== 0); // prettier-ignore

  const on = new Map<number, string>();
  for (const [, n] of parts)
    for (const [where, field] of LISTS)
      for (const at of r.list(r.at("slab_node", field, n))) on.set(at - r.at("slab_page", "slab_list", 0), where);
  const slabs = [...on.keys()].sort((a, b) => r.get("slab_page", "birth", a) - r.get("slab_page", "birth", b));
  const s_mem = (slab: number): number => r.get("slab_page", "s_mem", slab);
  const object_name = (object: number): string => {
    const slab = slabs.findIndex((s) => object >= r.first_byte(s) && object < r.first_byte(s) + (4096 << order));
    return `${letter(slab)}${(object - s_mem(slabs[slab]!)) / size}`;
  };

  const idle: number[] = [];
  const array = (ac: number) => {
    const avail = r.get("array_cache", "avail", ac);
    const objects = Array.from({ length: avail }, (_, i) => r.word(ac + 16 + 8 * i));
    idle.push(...objects);
    return {
      avail, limit: r.get("array_cache", "limit", ac), touched: r.get("array_cache", "touched", ac) === 1,
      objects: objects.reverse().map(object_name),
    }; // prettier-ignore
  };
  const cpu = Array.from({ length: r.nr_cpus }, (_, number) => {
    const c = own("cpu_cache") + (number << CPU_SHIFT);
    return { cpu: number, ...array(r.at("slab_cpu", "array", c)) };
  });
  const node = parts.map(([number, n]) => {
    const [shared, table] = [r.get("slab_node", "shared", n), r.get("slab_node", "alien", n)];
    const names = (field: string): string[] =>
      [...r.list(r.at("slab_node", field, n))].map((at) =>
        letter(slabs.indexOf(at - r.at("slab_page", "slab_list", 0))),
      );
    const aliens = [...r.nodes()].map(([other]) => [other, table === 0 ? 0 : r.word(table + 8 * other)] as const);
    return {
      node: number,
      partial: names("slabs_partial"),
      full: names("slabs_full"),
      free: names("slabs_free"),
      free_objects: r.get("slab_node", "free_objects", n),
      free_limit: r.get("slab_node", "free_limit", n),
      shared: shared === 0 ? null : array(shared),
      alien: aliens.filter(([, alien]) => alien !== 0).map(([of_node, alien]) => ({ of_node, ...array(r.at("alien_cache", "array", alien)) })), // prettier-ignore
    };
  });
  const rows = slabs.map((slab, i) => {
    const [start, active] = [r.first_byte(slab), r.get("slab_page", "active", slab)];
    const free = Array.from({ length: num - active }, (_, k) => r.byte(r.get("slab_page", "freelist", slab) + active + k)); // prettier-ignore
    const cached = idle.filter((object) => object >= start && object < start + (4096 << order));
    return {
      id: letter(i), page: px(start), node: r.get("slab_page", "zone_node", slab) >>> 4, on: on.get(slab), inuse: active,
      free, objects: num, colour: s_mem(slab) - start,
      cached: cached.map((object) => (object - s_mem(slab)) / size).sort((a, b) => a - b),
    }; // prettier-ignore
  });
  const flags = common("flags");
  return {
    name: r.text("kmem_cache", "name", cache, 64),
    object_size: common("object_size"),
    slab_size: size,
    objs_per_slab: num,
    order,
    flags: FLAGS.filter(([, flag]) => flags & flag).map(([flag]) => flag).join("|"),
    limit: own("limit"),
    batchcount: own("batchcount"),
    shared: own("shared"),
    colour: own("colour"),
    colour_off: own("colour_off"),
    index_arrays: MODES[own("mode")],
    cpu,
    node,
    slabs: rows,
  }; // prettier-ignore
}
