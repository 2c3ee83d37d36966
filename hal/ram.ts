/**
 * Physical RAM: one shared WebAssembly.Memory, there from the moment this file loads.
 *
 * The address space is 2 GiB, reserved at once and backed by the host page by page as it is touched; which parts of it
 * are RAM is said by the machine's memory map. A shared memory with initial = maximum never moves, so every module may
 * hold a view in a constant of its own, which is what makes the fast path fast:
 *
 *     import { ram32 } from "../hal/ram.ts";
 *     const m = ram32;                        // bound again: an imported binding is no constant to V8
 *     … m[(page + OFFSET) >> 2] …
 *
 * Only whole-block operations (zeroing, copying, strings) go through the functions below, so that an instrument can
 * stand in for them. Nothing may rely on RAM being zero at power-on.
 */
import { realm } from "./host.ts";
import { PAGE_SIZE, type Phys, type Ptr } from "./addr.ts";

const WASM_PAGE = 65536;
const RAM_MAX_BYTES = 0x80000000;

function reserve(): WebAssembly.Memory {
  if (realm.memory) return realm.memory;
  for (let bytes = RAM_MAX_BYTES; ; bytes /= 2) {
    try {
      const pages = bytes / WASM_PAGE;
      return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch (error) {
      if (bytes <= 16 * 1024 * 1024) throw error;
    }
  }
}

/** The memory itself; hand it to a worker to let that attach. */
export const ram: WebAssembly.Memory = reserve();
/** Bytes that can be RAM at most on this host (2 GiB where the host can reserve as much). */
export const ram_limit: number = ram.buffer.byteLength;
export const ram8 = new Uint8Array(ram.buffer);
export const ram16 = new Uint16Array(ram.buffer);
export const ram32 = new Int32Array(ram.buffer);
const m8 = ram8;
const m32 = ram32;
const m64 = new Float64Array(ram.buffer);

const COPIES = Symbol.for("kheap.ram");
const copies = globalThis as Record<symbol, unknown>;
const loaded = copies[COPIES] as { memory: WebAssembly.Memory; url: string } | undefined;
// A second copy of this file on RAM of its own would be a second kernel in one realm: two states, one set of names.
if (loaded && loaded.memory !== ram)
  throw new Error(`two copies of kheap in one realm: ${loaded.url} and ${import.meta.url}`);
copies[COPIES] = { memory: ram, url: import.meta.url };

/** Zeroes `size_bytes` bytes; `ptr` and `size_bytes` are multiples of 8. */
export function ram_zero(ptr: Ptr, size_bytes: number): void {
  if (size_bytes > 256) {
    m8.fill(0, ptr, ptr + size_bytes);
    return;
  }
  for (let i = ptr >> 3, end = (ptr + size_bytes) >> 3; i < end; i++) m64[i] = 0;
}

/** Fills bytes with one value, at any alignment. */
export function ram_fill(ptr: Ptr, value: number, size_bytes: number): void {
  m8.fill(value, ptr, ptr + size_bytes);
}

/** Copies bytes as memmove does. */
export function ram_copy(to: Ptr, from: Ptr, size_bytes: number): void {
  m8.copyWithin(to, from, from + size_bytes);
}

/** Reads a NUL-terminated byte string (Latin-1) of at most `max_bytes`. */
export function ram_read_string(ptr: Ptr, max_bytes: number): string {
  let text = "";
  for (let i = 0; i < max_bytes && m8[ptr + i] !== 0; i++) text += String.fromCharCode(m8[ptr + i]!);
  return text;
}

/** Writes at most `max_bytes - 1` characters and a NUL; zeroes the rest of the field. */
export function ram_write_string(ptr: Ptr, text: string, max_bytes: number): void {
  const length = Math.min(text.length, max_bytes - 1);
  for (let i = 0; i < length; i++) m8[ptr + i] = text.charCodeAt(i) & 0xff;
  m8.fill(0, ptr + length, ptr + max_bytes);
}

/** Copies bytes of the host into RAM. */
export function ram_write_bytes(ptr: Ptr, bytes: Uint8Array): void {
  m8.set(bytes, ptr);
}

/** A host copy of `size_bytes` bytes of RAM. */
export function ram_read_bytes(ptr: Ptr, size_bytes: number): Uint8Array {
  return m8.slice(ptr, ptr + size_bytes);
}

function page_is_zero(start: Phys): boolean {
  for (let i = start >> 3, end = (start + PAGE_SIZE) >> 3; i < end; i++) {
    // A NaN pattern compares unequal to 0 too, so this is exact for all but -0, which the word test below finds.
    if (m64[i] !== 0) return false;
  }
  for (let i = start >> 2, end = (start + PAGE_SIZE) >> 2; i < end; i++) if (m32[i] !== 0) return false;
  return true;
}

/** Power-on of an ordinary machine: clears what a predecessor wrote, and touches nothing else. */
export function ram_clear(size_bytes: number): void {
  for (let start = 0; start < size_bytes; start += PAGE_SIZE)
    if (!page_is_zero(start)) m8.fill(0, start, start + PAGE_SIZE);
}

/** Power-on of a test machine: repeats a block of garbage (whole pages) all over RAM. */
export function ram_fill_garbage(size_bytes: number, block: Uint8Array): void {
  m8.set(block.subarray(0, Math.min(block.length, size_bytes)), 0);
  for (let done = block.length; done < size_bytes; done *= 2) m8.copyWithin(done, 0, Math.min(done, size_bytes - done));
}
