/**
 * L1, the unit: a pop and a push on a LIFO list whose head and links lie in an Int32Array over a shared memory. It is
 * measured in the process of every subject, before and after each of its figures, since the host's speed changes from
 * one moment to the next.
 */
const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
const m = new Int32Array(memory.buffer);
const HEAD = 16;
const SLOTS = 1000;
const SLOT_BYTES = 64;
const FIRST = 4096;

for (let i = 0; i < SLOTS; i++) m[(FIRST + i * SLOT_BYTES) >> 2] = i === SLOTS - 1 ? 0 : FIRST + (i + 1) * SLOT_BYTES;
m[HEAD] = FIRST;

export function l1(count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const object = m[HEAD]!;
    m[HEAD] = m[object >> 2]!;
    sum ^= object;
    m[object >> 2] = m[HEAD]!;
    m[HEAD] = object;
  }
  return sum;
}
