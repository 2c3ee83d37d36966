/**
 * The console device: text goes out through whatever the host plugged in. It keeps nothing; the kernel's own log lies
 * in RAM (kernel/lib/printk.ts).
 */
export type ConsoleSink = (text: string) => void;

const device: { sink: ConsoleSink } = Object.seal({ sink: () => {} });

/** Plugs in the host's end; returns the one that was there. */
export function console_attach(sink: ConsoleSink): ConsoleSink {
  const before = device.sink;
  device.sink = sink;
  return before;
}

export function console_write(text: string): void {
  device.sink(text);
}
