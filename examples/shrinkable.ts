// A cache of answers that gives them back when memory is short: what it knows it can work out again.
import { ENOMEM } from "kheap/linux/errno";
import { INIT_LIST_HEAD, ListHead, list_add, list_del, list_empty, list_prev } from "kheap/linux/list";
import { MODULE_DESCRIPTION, MODULE_LICENSE, module_exit, module_init, module_param } from "kheap/linux/module";
import { proc_create, proc_remove } from "kheap/linux/proc_fs";
import { SHRINK_EMPTY, shrinker_alloc, shrinker_free, shrinker_register } from "kheap/linux/shrinker";
import {
  GFP_KERNEL,
  KMEM_CACHE,
  SLAB_RECLAIM_ACCOUNT,
  kmem_cache_alloc,
  kmem_cache_destroy,
  kmem_cache_free,
} from "kheap/linux/slab";
import { NULL, static_data, struct, type Ptr } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("a cache that shrinks under memory pressure");

const answer = struct("answer", { lru: ListHead, question: "u32", value: "u32" });
type AnswerPtr = Ptr<"answer">;
const known = static_data("known", {
  cache: "*kmem_cache",
  lru: ListHead,
  count: "u32",
  shrunk: "u32",
  shrinker: "*shrinker",
  proc: "*kernfs_node",
});
const fill = module_param("fill", "uint", 1000, { max: 1_000_000 });

/** Notes an answer, the newest first. 0 or -ENOMEM. */
function remember(question: number): number {
  const item: AnswerPtr = kmem_cache_alloc(known.cache, GFP_KERNEL);
  if (item === NULL) return -ENOMEM;
  answer.question.set(item, question);
  answer.value.set(item, question * question);
  list_add(answer.lru.at(item), known.lru);
  known.count = known.count + 1;
  return 0;
}

/** Forgets the oldest answers; how many. */
function forget(most: number): number {
  let freed = 0;
  for (; freed < most && !list_empty(known.lru); freed++) {
    const oldest: AnswerPtr = list_prev(known.lru) - answer.lru.offset;
    list_del(answer.lru.at(oldest));
    kmem_cache_free(known.cache, oldest);
  }
  known.count = known.count - freed;
  return freed;
}

module_init(() => {
  INIT_LIST_HEAD(known.lru);
  known.cache = KMEM_CACHE(answer, SLAB_RECLAIM_ACCOUNT);
  known.shrinker = shrinker_alloc(0);
  known.proc = proc_create("shrinkable", { show: () => `${known.count} known, ${known.shrunk} given back\n` });
  if (known.cache === NULL || known.shrinker === NULL || known.proc < 0) {
    stop();
    return -ENOMEM;
  }
  const count = (): number => known.count || SHRINK_EMPTY;
  const scan = (_: number, sc: { nr_to_scan: number }): number => {
    const freed = forget(sc.nr_to_scan);
    known.shrunk = known.shrunk + freed;
    return freed;
  };
  shrinker_register(known.shrinker, count, scan, NULL);
  for (let question = 0; question < fill.value; question++) if (remember(question) < 0) break;
  return 0;
});

function stop(): void {
  proc_remove(known.proc);
  shrinker_free(known.shrinker);
  forget(Infinity);
  kmem_cache_destroy(known.cache);
}
module_exit(stop);
