/** The processes of the subjects: start, ask for one run of a workload, end. */
import { fork, spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { l1 } from "./l1.ts";
import { glibc_program } from "./peers.ts";
import type { Answer } from "./subject.ts";
import type { SubjectInfo } from "./subjects.ts";
import { time } from "./time.ts";

const entry = fileURLToPath(new URL("subject.ts", import.meta.url));
const L1_COUNT = 1_000_000;

export interface Process {
  readonly info: SubjectInfo;
  /** Runs a workload once. Undefined: the subject has none of that name. */
  run(key: string): Promise<Answer | undefined>;
  /** Ends the process. What its last check found. */
  end(): Promise<string[]>;
}

export function start(info: SubjectInfo): Promise<Process> {
  return info.file === "glibc.c" ? start_c(info) : start_node(info);
}

/** The next message of a child; an Error if it ends instead. */
function next_message<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      child.off("message", on_message);
      child.off("exit", on_exit);
    };
    const on_message = (message: unknown): void => {
      done();
      resolve(message as T);
    };
    const on_exit = (code: number | null): void => {
      done();
      reject(new Error(`its process ended with status ${code}`));
    };
    child.on("message", on_message);
    child.on("exit", on_exit);
  });
}

async function start_node(info: SubjectInfo): Promise<Process> {
  const flags = ["--import", "tsx", "--expose-gc", ...(process.env.BENCH_NODE_FLAGS?.split(" ") ?? [])];
  const child = fork(entry, [info.file, JSON.stringify(info.kheap ?? {})], { execArgv: flags });
  const ask = <T>(request: object): Promise<T> => {
    const answer = next_message<T>(child);
    child.send(request);
    return answer;
  };
  await next_message(child);
  return {
    info,
    async run(key) {
      const answer = await ask<Partial<Answer>>({ run: key });
      return answer.ns ? (answer as Answer) : undefined;
    },
    end: async () => (await ask<{ findings: string[] }>({ end: true })).findings,
  };
}

/** L1 beside a program that is not JavaScript: in this process, just before and after it runs. */
const l1_here = (): number => time(() => l1(L1_COUNT)) / L1_COUNT;

function start_c(info: SubjectInfo): Promise<Process> {
  const child = spawn(glibc_program, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  for (let i = 0; i < 5; i++) l1_here();
  return Promise.resolve({
    info,
    async run(key) {
      const before = l1_here();
      child.stdin.write(`${key}\n`);
      const { value } = await lines.next();
      const { ns } = JSON.parse(value as string) as Answer;
      return { ns, l1: (before + l1_here()) / 2 };
    },
    end() {
      child.stdin.end();
      return Promise.resolve([]);
    },
  });
}
