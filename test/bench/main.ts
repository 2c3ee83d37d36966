/**
 * `npm run bench`: what the heap costs, beside what else a program can use. README.md says how to read it.
 *
 *     npm run bench                              everything, 15 rounds: some minutes
 *     npm run bench -- W1 W5a                    these workloads; W2 is all three of it; also growth, boot
 *     npm run bench -- --subject kheap           subjects with "kheap" in their names (limit comes along)
 *     npm run bench -- --rounds 5 --json         one JSON object instead of tables
 *     npm run bench -- --markdown                the medians as a table for README.md
 *     npm run bench -- --install                 installs the peers and ends
 */
import { parseArgs } from "node:util";
import { boot_figures, type BootFigures } from "./boot.ts";
import { install_peers, missing } from "./peers.ts";
import { start, type Process } from "./processes.ts";
import { create_progress } from "./progress.ts";
import { boot_text, growth_text, json_text, markdown_text, summary_text, workloads_text } from "./report.ts";
import { Results } from "./results.ts";
import { GROWTH, LIMIT, SUBJECTS, SYSTEM, VM, type SubjectInfo } from "./subjects.ts";
import { vm_text } from "./vm.ts";
import { SYSTEM_WORKLOADS, VM_WORKLOADS, WORKLOADS, type Workload } from "./workloads.ts";

const ROUNDS = 15;
const BOOT_ROUNDS = 5;
const SECTIONS = ["growth", "boot"];
const ALL = [...WORKLOADS, ...SYSTEM_WORKLOADS, ...VM_WORKLOADS];

const say = (line: string): void => void process.stderr.write(`${line}\n`);

interface Request {
  readonly json: boolean;
  readonly markdown: boolean;
  readonly rounds: number;
  readonly subjects: readonly string[];
  readonly workloads: readonly Workload[];
  readonly sections: readonly string[];
}

function fail(line: string): never {
  say(`bench: ${line}`);
  process.exit(2);
}

/** The workloads that a word means: that of this name, or all whose names begin so. */
function named(word: string): readonly Workload[] {
  const lower = word.toLowerCase();
  const names = (workload: Workload): string[] => [workload.key, ...workload.figures].map((name) => name.toLowerCase());
  const exact = ALL.filter((workload) => names(workload).includes(lower));
  const found =
    exact.length > 0 ? exact : ALL.filter((workload) => names(workload).some((name) => name.startsWith(lower)));
  if (found.length === 0)
    fail(`no workload ${word}; there are: ${ALL.map((w) => w.key).join(", ")}, ${SECTIONS.join(", ")}`);
  return found;
}

function read_request(argv: string[]): Request {
  const options = {
    json: { type: "boolean" },
    markdown: { type: "boolean" },
    install: { type: "boolean" },
    rounds: { type: "string" },
    subject: { type: "string", multiple: true },
  } as const;
  let parsed;
  try {
    parsed = parseArgs({ args: argv, options, allowPositionals: true });
  } catch (error) {
    fail((error as Error).message);
  }
  const { values, positionals } = parsed;
  if (values.install) process.exit(install_peers(say) ? 0 : 1);
  const rounds = Number(values.rounds ?? ROUNDS);
  if (!Number.isInteger(rounds) || rounds < 1) fail(`--rounds ${values.rounds}: give a whole number from 1`);
  const subjects = values.subject ?? [];
  for (const part of subjects)
    if (!SUBJECTS.some(({ name }) => name.includes(part)))
      fail(`no subject ${part}; there are: ${SUBJECTS.map(({ name }) => name).join("; ")}`);
  const words = positionals.filter((word) => !SECTIONS.includes(word));
  const everything = positionals.length === 0;
  const workloads = everything ? (subjects.length > 0 ? WORKLOADS : ALL) : words.flatMap(named);
  const sections =
    everything && subjects.length === 0 ? SECTIONS : positionals.filter((word) => SECTIONS.includes(word));
  return { json: values.json ?? false, markdown: values.markdown ?? false, rounds, subjects, workloads, sections };
}

/** Runs each workload on each subject that has it, round by round; another subject comes first each time. */
async function measure(
  subjects: readonly SubjectInfo[],
  workloads: readonly Workload[],
  rounds: number,
  results: Results,
): Promise<void> {
  if (workloads.length === 0) return;
  const progress = create_progress(say);
  const processes: Process[] = [];
  for (const info of subjects) {
    progress.show(`starting ${info.name}`);
    const why = await missing(info, (line) => progress.say(line));
    if (why !== undefined) progress.say(`bench: ${info.name} is left out: ${why}`);
    else await start(info).then((up) => processes.push(up), (error: Error) => results.findings(info.name, [error.message])); // prettier-ignore
  }
  const total = rounds * workloads.length * processes.length;
  let done = 0;
  for (let round = 0; round < rounds; round++)
    for (const workload of workloads)
      for (let i = 0; i < processes.length; i++) {
        const subject = processes[(i + round) % processes.length]!;
        progress.show(`round ${round + 1} of ${rounds}: ${workload.key}, ${subject.info.name}`, done++, total);
        const answer = await subject.run(workload.key);
        if (answer) results.add(subject.info.name, round, answer);
      }
  for (const subject of processes) results.findings(subject.info.name, await subject.end());
  progress.end();
}

const request = read_request(process.argv.slice(2));
const { rounds, workloads, sections } = request;
const wanted = SUBJECTS.filter(
  ({ name }) => name === LIMIT || request.subjects.length === 0 || request.subjects.some((part) => name.includes(part)),
);
const results = new Results();
await measure(wanted, workloads.filter((w) => WORKLOADS.includes(w)), rounds, results); // prettier-ignore
await measure([SYSTEM], workloads.filter((w) => SYSTEM_WORKLOADS.includes(w)), rounds, results); // prettier-ignore
await measure([VM], workloads.filter((w) => VM_WORKLOADS.includes(w)), rounds, results); // prettier-ignore
const growth = new Results();
if (sections.includes("growth")) await measure(GROWTH, named("W1"), rounds, growth);
const boots: BootFigures[] = sections.includes("boot") ? await boot_figures(Math.min(rounds, BOOT_ROUNDS), say) : [];

if (request.json) process.stdout.write(`${json_text(results, growth, boots)}\n`);
else if (request.markdown) process.stdout.write(`${markdown_text(results)}\n`);
else {
  const parts = [
    workloads_text(results),
    growth_text(growth),
    boot_text(boots),
    vm_text(results),
    summary_text(results, growth, boots),
  ];
  process.stdout.write(`${parts.filter((part) => part !== "").join("\n\n")}\n`);
}
for (const line of [...results.all_findings(), ...growth.all_findings()]) say(`bench: ${line}`);
process.exitCode = results.all_findings().length + growth.all_findings().length > 0 ? 1 : 0;
