/**
 * A second page-table walk, over RAM as bytes, written from the manual in 64-bit arithmetic and in no hurry: what an
 * export says is checked against it.
 */
export interface Walk {
  readonly pa: bigint | null;
  readonly r: number;
  readonly w: number;
  readonly x: number;
  readonly user: number;
}
const NOTHING: Walk = { pa: null, r: 0, w: 0, x: 0, user: 0 };
const ADDRESS = 0xffffffffff000n; // bits 51..12
const RESERVED = 0xfff0000000000n; // bits 51..40: this machine's addresses have 40

/** What the four levels say of the 64-bit address `va`. */
export function walk_image(ram: Uint8Array, cr3: bigint, va: bigint): Walk {
  const memory = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
  const sign = va >> 47n;
  if (sign !== 0n && sign !== 0x1ffffn) return NOTHING;
  let table = cr3 & ADDRESS;
  let [w, x, user] = [1, 1, 1];
  for (const shift of [39n, 30n, 21n, 12n]) {
    const entry = memory.getBigUint64(Number(table + 8n * ((va >> shift) & 511n)), true);
    if ((entry & 1n) === 0n || (entry & RESERVED) !== 0n) return NOTHING;
    if ((entry & 2n) === 0n) w = 0;
    if ((entry & 4n) === 0n) user = 0;
    if (entry >> 63n) x = 0;
    const large = (entry & 0x80n) !== 0n;
    if (shift === 12n || (large && shift < 39n)) {
      const offset = (1n << shift) - 1n;
      if (shift > 12n && (entry & ADDRESS & offset & ~0x1000n) !== 0n) return NOTHING;
      return { pa: (entry & ADDRESS & ~offset) | (va & offset), r: 1, w, x, user };
    }
    if (large) return NOTHING;
    table = entry & ADDRESS;
  }
  return NOTHING;
}
