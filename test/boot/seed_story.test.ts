/** The story of the two tables, as every account of SLUB tells it, word for word, read from `slab NAME --json`. */
import { expect, it } from "vitest";
import type { SlabFigure } from "../../boot/figures/slub.ts";
import { with_console } from "../lib/heap_console.ts";

const NAME = "my_object_cache";

/** Objects of 300 bytes on the default machine; `where` is the list that a slab with one free object is found on. */
async function story(create: string, append: string, where: "node" | "cpu"): Promise<void> {
  await with_console({ append }, async ({ text, json }) => {
    const slab = (): Promise<SlabFigure> => json<SlabFigure>(`slab ${NAME}`);
    await text(create);
    const fresh = await slab();
    expect(fresh).toMatchObject({ object_size: 300, slab_size: 304, objs_per_slab: 26, order: 1, slabs: [] });

    // After 26 allocations CPU 0's freelist is NULL and page is slab A.
    const first = await json<string[]>(`kmem alloc ${NAME} 26`);
    expect((await slab()).cpu[0]).toEqual({ cpu: 0, freelist: null, page: "A", partial: [] });
    expect((await slab()).node[0]).toEqual({ node: 0, partial: [], full: [] });

    // The 27th puts A on full and takes a new slab B.
    await text(`kmem alloc ${NAME}`);
    const two = await slab();
    expect(two.cpu[0]).toEqual({ cpu: 0, freelist: "B1", page: "B", partial: [] });
    expect(two.node[0]).toEqual({ node: 0, partial: [], full: ["A"] });

    // Freeing A's object 0 puts A on partial.
    expect(two.slabs[0]!.page).toBe(first[0]);
    await text(`kmem free ${NAME} A0`);
    const freed = await slab();
    expect(freed.node[0]).toEqual({ node: 0, partial: where === "node" ? ["A"] : [], full: [] });
    expect(freed.cpu[0]).toEqual({ cpu: 0, freelist: "B1", page: "B", partial: where === "cpu" ? ["A"] : [] });
    expect(freed.slabs[0]).toMatchObject({ id: "A", inuse: 25, free: [0] });

    // 25 more fill B.
    await text(`kmem alloc ${NAME} 25`);
    const filled = await slab();
    expect(filled.cpu[0]).toMatchObject({ freelist: null, page: "B" });
    expect(filled.slabs[1]).toMatchObject({ id: "B", inuse: 26, free: [] });

    // The next puts B on full, takes A off partial and returns the very address that was freed. No third slab.
    expect(await json(`kmem alloc ${NAME}`)).toEqual([first[0]]);
    const last = await slab();
    expect(last.cpu[0]).toEqual({ cpu: 0, freelist: null, page: "A", partial: [] });
    expect(last.node[0]).toEqual({ node: 0, partial: [], full: ["B"] });
    expect(last.slabs.map(({ id }) => id)).toEqual(["A", "B"]);
  });
}

it("a full slab that gets an object back goes to the node's partial list (cpu_partial=off)", () =>
  story(`kmem create ${NAME} 300 flags=SLAB_PANIC cpu_partial=off`, "", "node"));

it("the same with slub_cpu_partial=off at boot", () =>
  story(`kmem create ${NAME} 300 flags=SLAB_PANIC`, "slub_cpu_partial=off", "node"));

it("with CPU partial lists, the default, it goes to CPU 0's, and all else is equal", () =>
  story(`kmem create ${NAME} 300 flags=SLAB_PANIC`, "", "cpu"));

it("is the same where full slabs are not tracked", () =>
  story(`kmem create ${NAME} 300 flags=SLAB_PANIC cpu_partial=off`, "slab_full=off", "node"));

it("slabs get letters in the order of their birth, on whichever node they are born", async () => {
  await with_console({}, async ({ text, json }) => {
    await text(`kmem create ${NAME} 300 flags=SLAB_NO_MERGE`);
    for (const cpu of [2, 0, 3]) await text(`on ${cpu} kmem alloc ${NAME}`);
    const { slabs } = await json<SlabFigure>(`slab ${NAME}`);
    expect(slabs.map(({ id, node }) => [id, node])).toEqual([["A", 1], ["B", 0], ["C", 1]]); // prettier-ignore
  });
});
