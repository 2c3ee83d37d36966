/**
 * `npm run build`: what is published. Empties dist/, compiles hal, mm, kernel and boot into it
 * (test/config/tsconfig.build.json) and checks that the file behind the `kheap` command is there.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("../..", import.meta.url)));
rmSync("dist", { recursive: true, force: true });

const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
const { status } = spawnSync(process.execPath, [tsc, "-p", "test/config/tsconfig.build.json"], { stdio: "inherit" });
if (status !== 0) process.exit(1);

const command = JSON.parse(readFileSync("package.json", "utf8")).bin.kheap;
if (!existsSync(command) || !readFileSync(command, "utf8").startsWith("#!/usr/bin/env node\n")) {
  console.error(`build: ${command} is missing or does not begin with #!/usr/bin/env node`);
  process.exit(1);
}
chmodSync(command, 0o755);
