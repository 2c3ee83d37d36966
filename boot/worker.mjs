// The first file of a worker thread that runs TypeScript: registers tsx where it is there (in the built package the
// files are JavaScript already), then loads `workerData.entry`, a URL.
import { workerData } from "node:worker_threads";

if (workerData.entry.endsWith(".ts")) (await import("tsx/esm/api")).register();
await import(workerData.entry);
