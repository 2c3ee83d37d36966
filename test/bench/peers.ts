/**
 * The peers: packages in test/bench/node_modules (npm ci in this folder), and what is built there once: dlmalloc,
 * linked from the wasi-libc of the package @yowasp/clang, and a C program for the host's malloc, if it has a compiler.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { SubjectInfo } from "./subjects.ts";

const here = new URL("./", import.meta.url);
const folder = fileURLToPath(here);
const built = fileURLToPath(new URL("node_modules/.kheap-bench/", here));
const dlmalloc = `${built}dlmalloc.wasm`;
const glibc = `${built}glibc`;
const glibc_source = fileURLToPath(new URL("subjects/glibc.c", here));
const C_COMPILERS = ["gcc", "cc", "clang"];

/** What each subject takes from a package. */
const PACKAGES: Readonly<Record<string, string>> = { thi_ng: "@thi.ng/malloc", dlmalloc: "@yowasp/clang" };

function is_installed(name: string): boolean {
  return existsSync(`${folder}node_modules/${name}/package.json`);
}

/** Installs the peers. False, after a line, if that fails. */
export function install_peers(say: (line: string) => void): boolean {
  say("bench: installing the peers into test/bench/node_modules (about 110 MB, once)");
  const npm = spawnSync("npm ci --no-audit --no-fund --ignore-scripts", { cwd: folder, shell: true, encoding: "utf8" });
  if (npm.status === 0) return true;
  say(`bench: npm ci in test/bench failed: ${npm.stderr.trim().split("\n")[0]}`);
  return false;
}

/** Why a subject cannot be measured here; undefined if it can. Installs and builds what it needs. */
export async function missing(info: SubjectInfo, say: (line: string) => void): Promise<string | undefined> {
  if (info.file === "glibc.c") return build_glibc();
  const name = PACKAGES[info.file];
  if (name === undefined) return undefined;
  if (!is_installed(name) && !install_once(say)) return `${name} is not installed (npm run bench -- --install)`;
  if (info.file !== "dlmalloc") return undefined;
  try {
    await build_dlmalloc();
    return undefined;
  } catch (error) {
    return `dlmalloc did not link: ${error instanceof Error ? error.message : String(error)}`;
  }
}

let tried = false;
function install_once(say: (line: string) => void): boolean {
  if (tried) return false;
  tried = true;
  return install_peers(say);
}

/** The module of an installed package. */
export async function load_peer<T>(name: string): Promise<T> {
  const path = createRequire(`${folder}package.json`).resolve(name);
  return (await import(pathToFileURL(path).href)) as T;
}

interface Toolchain {
  readonly commands: Record<
    string,
    (args: string[], files: object, options: object) => Promise<Record<string, Uint8Array>>
  >;
}

/** wasm of dlmalloc with 512 MiB of memory from the start: memory that grows would slow every typed array of the realm. */
export async function build_dlmalloc(): Promise<Uint8Array<ArrayBuffer>> {
  if (!existsSync(dlmalloc)) {
    const { commands } = await load_peer<Toolchain>("@yowasp/clang");
    const flags = ["--no-entry", "--strip-all", "--initial-memory=536870912", "--export=malloc", "--export=free"];
    const libc = "/usr/lib/wasm32-wasip1/libc.a"; // in the package's own file system
    const quiet = { stdout: null, stderr: null, fetchProgress: () => {} };
    const files = await commands["wasm-ld"]!([...flags, "-o", "out.wasm", libc], {}, quiet);
    mkdirSync(built, { recursive: true });
    writeFileSync(dlmalloc, files["out.wasm"]!);
  }
  return new Uint8Array(readFileSync(dlmalloc));
}

/** Compiles the C program if it is not there or older than its source. Why not, if it cannot be. */
function build_glibc(): string | undefined {
  if (existsSync(glibc) && statSync(glibc).mtimeMs > statSync(glibc_source).mtimeMs) return undefined;
  mkdirSync(built, { recursive: true });
  const flags = ["-O2", "-fno-builtin-malloc", "-fno-builtin-free", "-o", glibc, glibc_source];
  for (const compiler of C_COMPILERS) if (spawnSync(compiler, flags).status === 0) return undefined;
  return `no C compiler (${C_COMPILERS.join(", ")})`;
}

/** The compiled C program. */
export const glibc_program = glibc;
