// The first file of a worker thread that runs TypeScript: registers tsx where it is there (in the built package the
// files are JavaScript already) and the instrument of the realm that the worker is to be, then loads `workerData.entry`,
// a URL.
import { workerData } from "node:worker_threads";

const extension = workerData.entry.endsWith(".ts") ? "ts" : "js";
if (extension === "ts") (await import("tsx/esm/api")).register();
const kind = workerData.kheap_realm?.kind ?? "plain";
if (kind !== "plain") (await import(`./instrument/register.${extension}`)).instrument(kind);
await import(workerData.entry);
