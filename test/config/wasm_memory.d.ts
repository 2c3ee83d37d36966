/**
 * The one part of WebAssembly that the machine uses (its shared memory is our RAM).
 *
 * TypeScript has it in lib.dom only, and @types/node 20 leaves it out. The whole DOM library stays out: its global
 * types (Cache, Node, Range, …) would hide a forgotten import of ours.
 */
declare namespace WebAssembly {
  interface MemoryDescriptor {
    initial: number;
    maximum?: number;
    shared?: boolean;
  }
  interface Memory {
    readonly buffer: ArrayBuffer | SharedArrayBuffer;
    grow(delta: number): number;
  }
  const Memory: { prototype: Memory; new (descriptor: MemoryDescriptor): Memory };
}
