/** What was measured: per figure and subject one sample a round, each with the L1 of its own process and moment. */
import type { Answer } from "./subject.ts";
import { LIMIT } from "./subjects.ts";

export interface Sample {
  readonly ns: number;
  readonly l1: number;
}

/** Median, least and greatest. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted[sorted.length - 1]! };
}

export class Results {
  /** Figure, subject, round. */
  readonly #samples = new Map<string, Map<string, Sample[]>>();
  readonly #memory = new Map<string, NonNullable<Answer["memory"]>>();
  readonly #findings: string[] = [];

  add(subject: string, round: number, answer: Answer): void {
    for (const [figure, ns] of Object.entries(answer.ns)) {
      const of_figure = this.#samples.get(figure) ?? new Map<string, Sample[]>();
      this.#samples.set(figure, of_figure);
      const samples = of_figure.get(subject) ?? [];
      of_figure.set(subject, samples);
      samples[round] = { ns, l1: answer.l1 };
      if (answer.memory) this.#memory.set(`${figure.replace(/ .*/, "")} ${subject}`, answer.memory);
    }
  }

  /** What was found wrong in a subject's process. */
  findings(subject: string, lines: readonly string[]): void {
    this.#findings.push(...lines.map((line) => `${subject}: ${line}`));
  }

  all_findings(): readonly string[] {
    return this.#findings;
  }

  /** Figures in the order in which they were measured first. */
  figures(): string[] {
    return [...this.#samples.keys()];
  }

  subjects(figure: string): string[] {
    return [...(this.#samples.get(figure)?.keys() ?? [])];
  }

  #of(figure: string, subject: string): readonly Sample[] {
    return this.#samples.get(figure)?.get(subject) ?? [];
  }

  ns(figure: string, subject: string): Spread | undefined {
    return spread(this.#of(figure, subject).map(({ ns }) => ns));
  }

  /** L1 itself, over everything measured. */
  l1(): Spread | undefined {
    const all = [...this.#samples.values()].flatMap((of_figure) => [...of_figure.values()].flat());
    return spread(all.map(({ l1 }) => l1));
  }

  /** In units of L1, each sample by the L1 measured around it. */
  vs_l1(figure: string, subject: string): Spread | undefined {
    return spread(this.#of(figure, subject).map(({ ns, l1 }) => ns / l1));
  }

  /** Against another subject in the same round, both in their own L1. */
  versus(figure: string, subject: string, other: string): Spread | undefined {
    const others = this.#of(figure, other);
    const ratios = this.#of(figure, subject).flatMap((sample, round) => {
      const against = others[round];
      return against === undefined ? [] : [sample.ns / sample.l1 / (against.ns / against.l1)];
    });
    return spread(ratios);
  }

  vs_limit(figure: string, subject: string): Spread | undefined {
    return this.versus(figure, subject, LIMIT);
  }

  /** What W3u, W3l or W4 took in memory; undefined where the subject cannot say. */
  memory(workload: string, subject: string): Answer["memory"] {
    return this.#memory.get(`${workload} ${subject}`);
  }
}
