/**
 * What the workloads ask of a subject: an object of a size, the same back, and its first two words written.
 *
 * A subject passes functions of its own module, in which it calls its allocator as a user of it does. The loops are
 * loaded anew for each (loops.ts), so that V8 inlines them there as it would in the user's own code.
 */

/** `P` is a number (an address) for every subject but plain JavaScript objects. */
export interface Heap<P = number> {
  /** An object of `size` bytes; in W5b, of 2^size pages. */
  readonly alloc: (size: number) => P;
  /** Gives it back. The size is for subjects whose users have to know it. */
  readonly free: (object: P, size: number) => void;
  /** Writes `value` into two words of the object. Returns a number that depends on the object. */
  readonly touch: (object: P, value: number) => number;
  /** Gives everything back at once: where freeing one by one would take minutes. */
  readonly reset?: () => void;
}

/** A heap of whatever kind: the loops take what `alloc` gives back to `free` and `touch` only. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- each subject has one kind of object
export type AnyHeap = Heap<any>;

/** What a workload of the subject's own runs: tasks, files. */
export interface OwnWorkload {
  run(count: number): void;
  /** Operations in one count. */
  readonly per_call?: number;
}

export interface Subject {
  /** The heap for a workload; undefined: this subject has none for it. */
  heap(workload: string): AnyHeap | undefined;
  own?(workload: string): OwnWorkload | undefined;
  /** False for workloads whose allocations `check` does not count. */
  slab_workload?(workload: string): boolean;
  /** What is wrong after so many allocations, all of them given back. */
  check?(allocations: number): string[];
  /** Bytes of memory that the subject holds now; absent where it cannot say. */
  bytes_used?(): number;
  /** Gives up whatever is kept in reserve, so that `bytes_used` is what is in use. */
  compact?(): void;
  /** What freeing everything leaves to be done: collecting garbage. */
  settle?(): void;
}

/** The live objects of W3 and W5b, and what is to come. */
export interface Live {
  readonly slots: number[];
  readonly sizes: Int32Array;
  /** Which slot is replaced, and by which size: 2^n entries, gone round. */
  readonly picks: Int32Array;
  readonly next_sizes: Int32Array;
  at: number;
}
