/**
 * The layer rules, checked by `npm run deps`. Type-only imports count too, except for cycles.
 *
 *   hal  <-  kernel/lib  <-  mm  <-  kernel  <-  boot  <-  test, labs, examples     (yourself and what is to your left)
 *
 * Change the rules here; never silence one.
 */
const layers = ["^hal/", "^kernel/lib/", "^mm/", "^kernel/(?!lib/)", "^boot/", "^(test|labs|examples)/"];

const upward = layers.slice(0, -1).map((layer, i) => ({
  name: `not-upward-from-${["hal", "kernel-lib", "mm", "kernel", "boot"][i]}`,
  comment: "A layer imports only itself and the layers to its left; upward calls go through slots.",
  severity: "error",
  from: { path: layer },
  to: { path: layers.slice(i + 1) },
}));

/** A runtime package and the one folder that may use it. */
const package_only_in = (name, folder) => ({
  name: `${name}-only-in-${folder}`,
  comment: "Each runtime package has one folder; a further one needs a reason in the commit.",
  severity: "error",
  from: { pathNot: `^${folder}/` },
  to: { path: `^node_modules/${name}/` },
});

/** The files of a slab allocator: nobody in mm/ but they themselves import them, so each can be left out. */
const allocators = {
  slub: "^mm/(slub|sheaf)[a-z_]*\\.ts$",
  slab: "^mm/slab(_(node|page|geometry|tune|cache|reap|check))?\\.ts$",
  slob: "^mm/slob[a-z_]*\\.ts$",
};
const apart = Object.entries(allocators).map(([name, files]) => ({
  name: `${name}-by-itself`,
  comment: "Slab allocators share mm/slab_common.ts and nothing of each other; boot/ chooses one.",
  severity: "error",
  from: { path: "^mm/", pathNot: files },
  to: { path: files },
}));

module.exports = {
  forbidden: [
    ...upward,
    ...apart,
    {
      name: "timing-plugs-in",
      comment: "The timing model is written into the kernel's code as it loads (boot/instrument): no line of it knows.",
      severity: "error",
      from: { path: "^(mm|kernel)/" },
      to: { path: "^hal/(timing|timing_model|cache_model)\\.ts$" },
    },
    package_only_in("eventemitter3", "hal"),
    package_only_in("commander", "boot"),
    package_only_in("tsx", "boot"),
    package_only_in("acorn", "boot/(instrument|modules)"),
    package_only_in("acorn-walk", "boot/(instrument|modules)"),
    package_only_in("magic-string", "boot/(instrument|modules)"),
    package_only_in("@jridgewell/remapping", "boot/instrument"),
    package_only_in("@swc/wasm-typescript", "boot/modules"),
    {
      name: "no-other-packages",
      comment:
        "The product uses eventemitter3, commander, tsx, and what boot/instrument and boot/modules rewrite code with, nothing else.",
      severity: "error",
      from: { path: "^(hal|mm|kernel|boot)/" },
      to: {
        path: "^node_modules/",
        pathNot:
          "^node_modules/(eventemitter3|commander|tsx|acorn|acorn-walk|magic-string|@jridgewell/remapping|@swc/wasm-typescript|@types/node)/",
      },
    },
    {
      name: "no-parser-behind-boot",
      comment:
        "Loading commander slows every hot path of a realm by a fifth: whoever boots from a program goes without.",
      severity: "error",
      from: { path: "^boot/(start_kernel|attach)\\.ts$" },
      to: { path: "^node_modules/commander/", reachable: true },
    },
    {
      name: "node-only-in-host",
      comment: "hal, mm and kernel also run in a browser: node:* only in hal/host.ts, boot and test.",
      severity: "error",
      from: { path: "^(hal|mm|kernel)/", pathNot: "^hal/host\\.ts$" },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "no-cycles",
      comment: "A cycle of values makes load order matter; one of types alone is harmless.",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "no-orphans",
      comment: "A file that imports nothing and that nobody imports is forgotten. Entry points are exempt.",
      severity: "error",
      from: { orphan: true, path: "^(hal|mm|kernel|boot)/", pathNot: ["^boot/main\\.ts$", "\\.mjs$", "\\.d\\.ts$"] },
      to: {},
    },
    {
      name: "tests-are-leaves",
      comment: "What two tests share lies in test/lib/ or in a file without .test or .long in its name.",
      severity: "error",
      from: {},
      to: { path: "\\.(test|long|timing)\\.ts$" },
    },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    exclude: { path: ["^(dist|coverage|\\.git)/", "^test/bench/node_modules/"] },
    doNotFollow: { path: "^node_modules/" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      conditionNames: ["kheap-source", "import", "node", "default", "types"],
      exportsFields: ["exports"],
      extensions: [".ts", ".mjs", ".cjs", ".js", ".json", ".d.ts"],
    },
  },
};
