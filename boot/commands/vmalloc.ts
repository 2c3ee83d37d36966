/**
 * vmalloc memory by hand: `vmalloc`, `vfree`; and what `peek` and `poke` do at addresses of the vmalloc range and the
 * kernel image, which only the MMU can reach.
 */
import { PAGE_SIZE, parse_virt, virt_px, type Virt } from "../../hal/addr.ts";
import { mmu_store8 } from "../../hal/mmu.ts";
import { mmu_probe } from "../../hal/page_walk.ts";
import { read_cr3 } from "../../hal/control_regs.ts";
import { ram_read_bytes } from "../../hal/ram.ts";
import { ksym } from "../../kernel/lib/ksym.ts";
import { KERNEL_IMAGE_BASE, VMALLOC_START } from "../../mm/kernel_map.ts";
import { is_vmalloc_addr, vfree, vmalloc, vmalloc_node } from "../../mm/vmalloc.ts";
import { NODE_DATA, node_state } from "../../mm/zone.ts";
import { plural } from "../figures/names.ts";
import { CommandError, line, parse_args, parse_count, register, usage_error } from "./registry.ts";

/** Whom /proc/vmallocinfo names. */
const console_vmalloc = ksym("console_vmalloc", () => 0);
const MAX_SIZE = 2 ** 31;

/** An address of the vmalloc range or the kernel image; undefined for any other text. */
export function parse_mapped(text: string | undefined): Virt | undefined {
  const va = text === undefined ? NaN : parse_virt(text);
  return is_vmalloc_addr(va) || (va >= KERNEL_IMAGE_BASE && va < 0) ? va : undefined;
}

function not_mapped(what: string, va: Virt): CommandError {
  return new CommandError(`${what}: ${virt_px(va)}: no page is mapped there; pt kernel ${virt_px(va)} shows the walk`);
}

/** Bytes as the page tables find them, without a trace in these. */
export function peek_mapped(va: Virt, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const { pa } = mmu_probe(read_cr3(), va + done);
    if (pa === null) throw not_mapped("peek", va + done);
    const piece = Math.min(length - done, PAGE_SIZE - (pa % PAGE_SIZE));
    bytes.set(ram_read_bytes(pa, piece), done);
    done += piece;
  }
  return bytes;
}

/** Writes bytes as the CPU does, if it may. */
export function poke_mapped(va: Virt, bytes: Uint8Array): void {
  for (let page = va - (va & (PAGE_SIZE - 1)); page < va + bytes.length; page += PAGE_SIZE) {
    const { pa, w } = mmu_probe(read_cr3(), page);
    if (pa === null) throw not_mapped("poke", Math.max(va, page));
    if (!w)
      throw new CommandError(`poke: ${virt_px(page)} is mapped read-only; lkdtm WRITE_KERN shows what becomes of it`);
  }
  for (const [i, byte] of bytes.entries()) mmu_store8(va + i, byte);
}

register({
  name: "vmalloc",
  group: "heap",
  usage: "vmalloc SIZE [node=N]",
  summary: "takes memory that is one piece only by its addresses; prints the first",
  man: `The pages behind it are single ones, from anywhere, mapped one after another; an unmapped guard page follows.
cat /proc/vmallocinfo lists all areas, pt kernel ADDR shows how an address is translated, peek and poke reach the memory.

    vmalloc 10000; cat /proc/vmallocinfo; vfree ffffc90000000000`,
  run(ctx, args) {
    const { plain, named, flags } = parse_args(args);
    if (plain.length !== 1 || flags.size > 0 || [...named.keys()].some((name) => name !== "node"))
      throw usage_error(this);
    const size = parse_count("vmalloc", plain[0], 1, MAX_SIZE);
    const node_text = named.get("node");
    const node = node_text === undefined ? undefined : parse_count("node", node_text, 0, node_state.nr_node_ids - 1);
    if (node !== undefined && NODE_DATA(node) === 0) throw new CommandError(`node: there is no node ${node}`);
    const address = node === undefined ? vmalloc(size, console_vmalloc) : vmalloc_node(size, node, console_vmalloc);
    if (address === 0) throw new CommandError(`vmalloc ${size}: out of memory`);
    ctx.held.add({ kind: "vmalloc", name: plural(size, "byte"), address, release: () => vfree(address) });
    return line(virt_px(address), virt_px(address));
  },
});

register({
  name: "vfree",
  group: "heap",
  usage: "vfree ADDR…",
  summary: "gives vmalloc memory back",
  man: `Takes addresses that vmalloc printed. The pages are free at once; the addresses are used again after the next purge
("unpurged" in /proc/vmallocinfo), when all CPUs have forgotten them.`,
  run(ctx, args) {
    if (args.length === 0) throw usage_error(this);
    const addresses = args.map((text) => {
      const va = parse_virt(text);
      if (Number.isNaN(va))
        throw new CommandError(`vfree: "${text}" is no address: they look like ${virt_px(VMALLOC_START)}`);
      if (ctx.held.find(va)?.kind !== "vmalloc")
        throw new CommandError(`vfree: no area that this console took starts at ${virt_px(va)}`);
      return va;
    });
    if (new Set(addresses).size < addresses.length) throw new CommandError("vfree: an address is given twice");
    for (const address of addresses) {
      ctx.held.remove(address);
      vfree(address);
    }
    return { text: `${plural(addresses.length, "area")} freed`, json: { freed: addresses.length } };
  },
});
