/** `kheap new module NAME`: a module to start from, and a test of it that passes. */
import { existsSync, writeFileSync } from "node:fs";
import { UsageError } from "./options.ts";

const HELP = `Usage: kheap new module NAME

Writes NAME.ts, a kernel module with a cache, a parameter and a file in /proc, and NAME.test.mjs, a test for Node's own
runner, into the current folder. Nothing that is there is replaced.
`;

const module_text = (name: string): string => `import { ENOMEM } from "kheap/linux/errno";
import { MODULE_DESCRIPTION, MODULE_LICENSE, module_exit, module_init, module_param, pr_info } from "kheap/linux/module";
import { proc_create, proc_remove } from "kheap/linux/proc_fs";
import { GFP_KERNEL, KMEM_CACHE, SLAB_NO_MERGE, kmem_cache_alloc, kmem_cache_destroy, kmem_cache_free } from "kheap/linux/slab";
import { NULL, static_data, struct, type Ptr } from "kheap/linux/types";

MODULE_LICENSE("MIT");
MODULE_DESCRIPTION("says what it does");

/** What the module keeps in RAM: a struct's layout, and its own variables. JavaScript variables keep nothing. */
const item = struct("${name}_item", { id: "u32", next: "*${name}_item" });
type ItemPtr = Ptr<"${name}_item">;
const my = static_data("${name}", { cache: "*kmem_cache", head: "*${name}_item", proc: "*kernfs_node" });
const count = module_param("count", "uint", 3, { max: 1000 });

function add(id: number): number {
  const one: ItemPtr = kmem_cache_alloc(my.cache, GFP_KERNEL);
  if (one === NULL) return -ENOMEM;
  item.id.set(one, id);
  item.next.set(one, my.head);
  my.head = one;
  return 0;
}

function free_all(): void {
  for (let one = my.head, next = NULL; one !== NULL; one = next) {
    next = item.next.get(one);
    kmem_cache_free(my.cache, one);
  }
  my.head = NULL;
}

function show(): string {
  let text = "";
  for (let one = my.head; one !== NULL; one = item.next.get(one)) text += \`\${item.id.get(one)}\\n\`;
  return text;
}

module_init(() => {
  my.cache = KMEM_CACHE(item, SLAB_NO_MERGE); // a cache that /proc/slabinfo shows by its own name
  if (my.cache === NULL) return -ENOMEM;
  for (let id = 0; id < count.value; id++) if (add(id) < 0) break;
  my.proc = proc_create("${name}", { show });
  pr_info("${name}: loaded");
  return 0;
});

module_exit(() => {
  proc_remove(my.proc);
  free_all();
  kmem_cache_destroy(my.cache);
});
`;

const test_text = (name: string): string => `// node --test ${name}.test.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { boot } from "kheap";

const file = fileURLToPath(new URL("./${name}.ts", import.meta.url));

test("${name} is loaded, shows its items, and leaves nothing behind", async () => {
  const machine = await boot({ mem: "64M" });
  await machine.run(\`insmod "\${file}" count=2\`);
  assert.equal(await machine.run("cat /proc/${name}"), "1\\n0");
  await machine.run("rmmod ${name}"); // fails, and says what, if anything is not given back
  assert.deepEqual(await machine.power_off(), { pages: 0, objects: 0, locks: 0 });
});
`;

/** Carries out `kheap new …`; the exit status. Throws UsageError. */
export function new_command([what, name, ...more]: readonly string[]): number {
  if (what === "--help" || name === "--help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (what !== "module" || name === undefined || more.length > 0)
    throw new UsageError(`new ${[what, name, ...more].join(" ").trim()}: the form is kheap new module NAME`);
  if (!/^[a-z]\w{0,29}$/i.test(name))
    throw new UsageError(`new module ${name}: a name has 1 to 30 letters, digits and _, and starts with a letter`);
  const files = [[`${name}.ts`, module_text(name)], [`${name}.test.mjs`, test_text(name)]] as const; // prettier-ignore
  const there = files.find(([file]) => existsSync(file));
  if (there) throw new UsageError(`new module ${name}: ${there[0]} is there already; choose another name`);
  for (const [file, text] of files) writeFileSync(file, text);
  process.stdout
    .write(`${name}.ts        the module: kheap --exec "insmod ./${name}.ts; cat /proc/${name}; rmmod ${name}"
${name}.test.mjs  its test:   node --test ${name}.test.mjs
`);
  return 0;
}
