/**
 * `npm run clients`: programs that people use on Linux read an export, and have to show our figures.
 *
 *     kheap replays a recording half-way and exports            the console's own tools run at the same moment, each in
 *     a private mount namespace puts the files over the real    a run of its own: the same seed gives the same run
 *     ones, and each client runs in it                          what a client prints is compared with that
 *
 * A line a client: ok, FAILED (with the lines that differ), or that it is not installed here. Exit code 1 if one failed.
 * It needs Linux and the right to make mount namespaces (root, or user namespaces); options go to kheap: `-- --nodes 4`.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MOMENT = "replay test/data/traces/fs-walk.trace.gz --stop 60000 > /replayed";
const PORT = 19000 + (process.pid % 1000);
const kheap_options = process.argv.slice(2);

/** Standard output of a program; undefined if it failed. */
function run(program, args, env = {}) {
  const child = spawnSync(program, args, { encoding: "utf8", env: { ...process.env, LC_ALL: "C", ...env } });
  return child.status === 0 ? child.stdout : undefined;
}

/** What a console command prints at the moment of the export. */
function kheap(command) {
  const args = ["--import", "tsx", "boot/main.ts", ...kheap_options, "--quiet", "--exec", `${MOMENT}; ${command}`];
  const out = run(process.execPath, args);
  if (out === undefined) throw new Error(`kheap: ${command} failed`);
  return out.replace(/^note: .*\n/gm, "").replace(/(given back first.*\n)?power off: .*\n$/, "");
}

const folder = mkdtempSync(join(tmpdir(), "kheap-clients-"));
const exported = (path) => readFileSync(join(folder, path), "utf8");
/** Mounts the export's files over the real ones, then becomes the program. */
const ENTER = `mount --bind "$1/sys" /sys || exit 99
for f in $2; do mount --bind "$1/proc/$f" "/proc/$f" || exit 99; done
shift 2; exec "$@"`;

function namespace(program, args) {
  const is_file = (name) => existsSync(`/proc/${name}`) && lstatSync(`/proc/${name}`).isFile();
  const files = readdirSync(join(folder, "proc")).filter(is_file);
  const flags = process.getuid() === 0 ? ["-m"] : ["-r", "-m"];
  return ["unshare", [...flags, "sh", "-c", ENTER, "sh", folder, files.join(" "), program, ...args]];
}

const lines_of = (text) => text.split("\n").map((line) => line.trimEnd()).filter((line) => line !== ""); // prettier-ignore
/** Lines of one that the other has not; the order is not compared. */
function differing(theirs, ours) {
  const missing = ours.filter((line) => !theirs.includes(line)).map((line) => `  ours   ${line}`);
  const more = theirs.filter((line) => !ours.includes(line)).map((line) => `  theirs ${line}`);
  return [...missing, ...more];
}

/** The console's command of the same name prints the same lines. */
const like_console = (command, keep = () => true) => (theirs) =>
  differing(lines_of(theirs).filter(keep), lines_of(kheap(command)).filter(keep)); // prettier-ignore

function node_list() {
  const names = readdirSync(join(folder, "sys/devices/system/node"));
  return names.filter((name) => /^node\d+$/.test(name)).sort().map((name) => ({ name, number: name.slice(4) })); // prettier-ignore
}

/** `0-2,5` and `0,1,2,5` as one and the same. */
function spelled_out(list) {
  const parts = list.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  return parts.join();
}

/** CPUs, which are online, and which are whose. */
function lscpu_lines(text) {
  const theirs = new Map(lines_of(text).map((row) => row.trim().split(/: */)));
  const nodes = node_list();
  const cpus = readdirSync(join(folder, "sys/devices/system/cpu")).filter((name) => /^cpu\d+$/.test(name));
  const counts = [["CPU(s)", cpus.length], ["NUMA node(s)", nodes.length]]; // prettier-ignore
  const lists = [
    ["On-line CPU(s) list", exported("sys/devices/system/cpu/online")],
    ...nodes.map(({ name, number }) => [`NUMA node${number} CPU(s)`, exported(`sys/devices/system/node/${name}/cpulist`)]),
  ]; // prettier-ignore
  const wrong = [
    ...counts.filter(([label, count]) => theirs.get(label) !== String(count)),
    ...lists.filter(([label, list]) => spelled_out(theirs.get(label) ?? "") !== spelled_out(list.trim())),
  ];
  return wrong.map(([label, value]) => `  ${label}: ours ${value}, theirs ${theirs.get(label)}`);
}

/** Memory of each node and the logical numbers of its CPUs. */
function lstopo_lines(text) {
  return node_list().flatMap(({ name, number }) => {
    const kib = Number(/MemTotal: +(\d+)/.exec(exported(`sys/devices/system/node/${name}/meminfo`))[1]);
    const mib = Math.floor(kib / 1024 + 0.5);
    const found = new RegExp(`P#${number} (\\d+)MB`).exec(text)?.[1];
    return Math.abs(Number(found) - mib) <= 1 ? [] : [`  node ${number}: ours ${mib}MB, theirs ${found}MB`];
  });
}

/** Every sample of the exporter that has a figure of ours: meminfo, node meminfo, vmstat, buddyinfo, slabinfo, zoneinfo. */
function expected_samples() {
  const samples = new Map();
  const clean = (label) => label.replace(/\(/, "_").replace(/\)/, "");
  for (const [, label, value, unit] of exported("proc/meminfo").matchAll(/^(\S+): +(\d+)( kB)?$/gm))
    samples.set(`node_memory_${clean(label)}${unit ? "_bytes" : ""}`, Number(value) * (unit ? 1024 : 1));
  for (const { name, number } of node_list()) {
    for (const [, label, value, unit] of exported(`sys/devices/system/node/${name}/meminfo`).matchAll(
      /^Node \d+ (\S+): +(\d+)( kB)?$/gm,
    ))
      // prettier-ignore
      samples.set(`node_memory_numa_${clean(label)}{node="${number}"}`, Number(value) * (unit ? 1024 : 1));
    for (const [, label, value] of exported(`sys/devices/system/node/${name}/numastat`).matchAll(/^(\S+) (\d+)$/gm))
      samples.set(`node_memory_numa_${label}_total{node="${number}"}`, Number(value));
  }
  for (const [, label, value] of exported("proc/vmstat").matchAll(/^(\S+) (\d+)$/gm))
    samples.set(`node_vmstat_${label}`, Number(value));
  for (const line of exported("proc/buddyinfo").trimEnd().split("\n")) {
    const [, node, zone, counts] = /^Node (\d+), zone +(\S+) +(.*?) *$/.exec(line);
    for (const [order, count] of counts.split(/ +/).entries())
      samples.set(`node_buddyinfo_blocks{node="${node}",size="${order}",zone="${zone}"}`, Number(count));
  }
  for (const line of exported("proc/slabinfo").trimEnd().split("\n").slice(2)) {
    const [name, ...figures] = line.split(/ +/);
    const labels = ["active_objects", "objects", "object_size_bytes", "objects_per_slab", "pages_per_slab"];
    for (const [i, label] of labels.entries())
      samples.set(`node_slabinfo_${label}{slab="${name}"}`, Number(figures[i]));
  }
  for (const block of exported("proc/zoneinfo").split(/^(?=Node )/m)) {
    const [, node, zone] = /^Node (\d+), zone +(\S+)/.exec(block);
    for (const label of ["min", "low", "high", "spanned", "present", "managed"])
      samples.set(`node_zoneinfo_${label}_pages{node="${node}",zone="${zone}"}`, Number(new RegExp(`^ +${label} +(\\d+)$`, "m").exec(block)[1])); // prettier-ignore
  }
  return samples;
}

function check_samples(text) {
  const found = new Map([...text.matchAll(/^(node_\S+?(?:\{.*\})?) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)])); // prettier-ignore
  const wrong = [...expected_samples()].filter(([name, value]) => found.get(name) !== value);
  return wrong.map(([name, value]) => `  ${name}: ours ${value}, theirs ${found.get(name)}`);
}

/** Starts the exporter, fetches /metrics as soon as it answers, and ends it. */
async function scrape(program) {
  const collectors = ["meminfo", "meminfo_numa", "vmstat", "buddyinfo", "slabinfo", "zoneinfo", "cpu", "stat"];
  const args = [
    `--web.listen-address=127.0.0.1:${PORT}`,
    "--collector.disable-defaults",
    "--collector.vmstat.fields=.*",
  ];
  const child = spawn(...namespace(program, [...args, ...collectors.map((name) => `--collector.${name}`)]), { stdio: "ignore" }); // prettier-ignore
  try {
    for (let i = 0; i < 100; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      const answer = await fetch(`http://127.0.0.1:${PORT}/metrics`).catch(() => undefined);
      if (answer) return await answer.text();
    }
    return undefined;
  } finally {
    child.kill();
  }
}

const is_row = (line) => !/^Cache +Num/.test(line);
/** Program, its Debian package, arguments, what it must show. */
const CLIENTS = [
  ["slabtop", "procps", ["-o"], () => like_console("slabtop -o")],
  ["vmstat", "procps", [], () => like_console("vmstat")],
  ["vmstat", "procps", ["-m"], () => like_console("vmstat -m", is_row)],
  ["free", "procps", [], () => like_console("free")],
  ["numactl", "numactl", ["-H"], () => like_console("numactl -H")],
  ["numastat", "numactl", [], () => like_console("numastat")],
  ["lscpu", "util-linux", [], () => lscpu_lines],
  ["lstopo-no-graphics", "hwloc", ["--of", "console"], () => lstopo_lines],
];

const is_installed = (program) => run("sh", ["-c", `command -v ${program}`]) !== undefined;
let failed = 0;

function say(name, differences) {
  if (differences.length > 0) failed++;
  console.log(`${differences.length === 0 ? "ok     " : "FAILED "} ${name}`);
  for (const line of differences.slice(0, 20)) console.log(line);
}

const exporter = ["prometheus-node-exporter", "node_exporter"].find(is_installed);
try {
  kheap(`export ${folder}`);
  if (run(...namespace("sh", ["-c", ":"])) === undefined) {
    console.log(
      "clients: no private mount namespace could be made here (Linux with unshare, as root): nothing was run",
    );
    failed++;
  } else {
    for (const [program, debian, args, check] of CLIENTS) {
      const name = [program, ...args].join(" ");
      if (!is_installed(program)) console.log(`absent  ${name} (Debian package ${debian})`);
      else {
        // hwloc asks the CPU itself too, unless it is told to believe the files.
        const out = run(...namespace(program, args), { HWLOC_COMPONENTS: "linux,stop" });
        say(name, out === undefined ? ["  it failed"] : check()(out));
      }
    }
    if (!exporter) console.log("absent  prometheus-node-exporter (Debian package of that name)");
    else {
      const text = await scrape(exporter);
      say(exporter, text === undefined ? ["  it did not answer"] : check_samples(text));
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed > 0 ? 1 : 0;
