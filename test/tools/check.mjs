/**
 * `npm run check`: every check that CI runs. The steps that only read run two at a time, then the tests alone.
 * All steps run even if one fails; the output of a failed step is printed whole, and the exit code is 1.
 */
import { spawn } from "node:child_process";
import { performance } from "node:perf_hooks";

const readers = ["constants", "types", "lint", "format:check", "deps", "dead", "loc"];
const failed = [];

/** Runs one npm script; a shell is needed only because npm is a .cmd file on Windows. */
function run(script) {
  return new Promise((done) => {
    const begin = performance.now();
    const child = spawn(`npm run --silent ${script}`, {
      shell: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, CI: "1" },
    });
    let output = "";
    child.stdout.on("data", (text) => (output += text));
    child.stderr.on("data", (text) => (output += text));
    child.on("close", (code) => {
      const seconds = ((performance.now() - begin) / 1000).toFixed(1);
      console.log(`${code === 0 ? "ok    " : "FAILED"} ${script.padEnd(14)} ${seconds.padStart(6)} s`);
      if (code !== 0) failed.push(script);
      if (code !== 0 || script === "loc") console.log(output.trimEnd());
      else if (script === "constants")
        console.log(`${output.trimEnd().split("\n").at(-1)} (npm run constants lists them)`);
      done();
    });
  });
}

async function take_turns(queue) {
  for (let script = queue.shift(); script; script = queue.shift()) await run(script);
}

const queue = [...readers];
await Promise.all([take_turns(queue), take_turns(queue)]);
await run("test");
if (failed.length) console.log(`check: ${failed.join(", ")} failed`);
process.exitCode = failed.length ? 1 : 0;
