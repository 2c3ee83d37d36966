/** A machine in this realm, as the package's users have it (boot/index.ts). */
import { console_attach } from "../hal/console.ts";
import { events, type KernelEvents } from "../hal/events.ts";
import { KERN_NOTICE } from "../kernel/lib/printk.ts";
import { KheapError, type BootOptions, type Leftover, type Machine } from "./api.ts";
import { machine_of } from "./machine_option.ts";
import { UsageError } from "./options.ts";
import { create_session, type Host } from "./session.ts";
import { boot } from "./start_kernel.ts";

// Host side: one machine a realm.
let running = false;

/** The command-line options that mean the same; `undefined` ones are left out. */
function as_options({ machine, mem, nodes, cpus, distance }: BootOptions): Parameters<typeof machine_of>[0] {
  const text = { machine, mem, nodes: nodes?.toString(), cpus: cpus?.toString(), distance };
  return text as Parameters<typeof machine_of>[0];
}

/** Boots. Throws KheapError. */
export function start_machine(options: BootOptions): Machine {
  if (running) throw new KheapError("a machine runs in this realm: power it off first, or give worker: true");
  let spec;
  try {
    spec = machine_of(as_options(options));
  } catch (error) {
    if (error instanceof UsageError) throw new KheapError(error.message.replaceAll(/--(\w+)/g, "$1"));
    throw error;
  }
  const { log = () => {}, seed = 1, append = "", slab, timing } = options;
  const parameters = [append, slab === undefined ? "" : `slab=${slab}`, timing ? "timing=on" : ""].filter((part) => part !== ""); // prettier-ignore
  console_attach(log);
  boot({ machine: spec, seed, append: parameters.join(" "), loglevel: KERN_NOTICE + 1 });
  running = true;
  return new LocalMachine();
}

class LocalMachine implements Machine {
  private readonly said = { json: false, out: "", err: "" };
  private readonly session;
  private busy: Promise<unknown> = Promise.resolve();

  constructor() {
    const { said } = this;
    const host: Host = {
      terminal: false,
      get json() {
        return said.json;
      },
      width: () => 80,
      height: () => 24,
      write: (text) => void (said.out += text),
      write_error: (text) => void (said.err += text),
      ask: () => Promise.resolve(undefined),
      watching: () => {},
    };
    this.session = create_session(host);
  }

  /** Lines wait for each other. */
  private async say(line: string, json: boolean): Promise<string> {
    const turn = this.busy.then(async () => {
      if (this.session.ended()) throw new KheapError("the machine is off");
      Object.assign(this.said, { json, out: "", err: "" });
      const succeeded = await this.session.run(line);
      if (!succeeded) throw new KheapError((this.said.out + this.said.err).trimEnd());
      return this.said.out.replace(/\n$/, "");
    });
    this.busy = turn.catch(() => {});
    return turn;
  }

  run(line: string): Promise<string> {
    return this.say(line, false);
  }

  async json(line: string): Promise<unknown> {
    const values = (await this.say(line, true))
      .split("\n")
      .map((text) => (text === "" ? null : JSON.parse(text)) as unknown);
    return values.length === 1 ? values[0] : values;
  }

  on<E extends keyof KernelEvents>(name: E, listener: KernelEvents[E]): () => void {
    events.on(name, listener as never);
    return () => void events.off(name, listener as never);
  }

  async power_off(): Promise<Leftover> {
    const left = (await this.json("poweroff")) as Leftover;
    running = false;
    return left;
  }
}
