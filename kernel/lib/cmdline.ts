/**
 * The kernel command line, kept in RAM: `name`, `name=value`, parted by blanks, values with blanks in double quotes.
 * The last occurrence of a name wins, as for most of Linux's parameters.
 */
import { static_data } from "../../hal/image.ts";

const cmdline = static_data("saved_command_line", { text: "char[2048]" });

/** Stores the command line. Boot does it before anything reads it. */
export function setup_command_line(text: string): void {
  cmdline.text = text;
}

/** The whole text, as /proc/cmdline shows it. */
export function saved_command_line(): string {
  return cmdline.text;
}

/** All parameters in order; `value` is undefined for a bare name. */
export function* cmdline_params(): Generator<{ name: string; value: string | undefined }> {
  for (const [, name, quoted, plain] of cmdline.text.matchAll(/([^\s=]+)(?:=(?:"([^"]*)"|(\S*)))?/g))
    yield { name: name!, value: quoted ?? plain };
}

/** The value of a parameter: undefined if it is absent, "" if it stands bare. */
export function cmdline_param(...names: string[]): string | undefined {
  let found: string | undefined;
  for (const { name, value } of cmdline_params()) if (names.includes(name)) found = value ?? "";
  return found;
}

/** The value of a number parameter (decimal, 0x…; K, M, G suffixes), or `fallback` if it is absent or no number. */
export function cmdline_number(fallback: number, ...names: string[]): number {
  const text = cmdline_param(...names);
  const match = text === undefined ? null : /^(0x[0-9a-f]+|\d+)([kmg]?)$/i.exec(text);
  if (!match) return fallback;
  return Number(match[1]) * { "": 1, k: 1024, m: 1048576, g: 1073741824 }[match[2]!.toLowerCase()]!;
}

/** `on`, `1`, `y` or bare: true; `off`, `0`, `n`: false; absent or else: `fallback`. */
export function cmdline_bool(fallback: boolean, ...names: string[]): boolean {
  const text = cmdline_param(...names);
  if (text === undefined) return fallback;
  if (["", "on", "1", "y", "yes"].includes(text)) return true;
  if (["off", "0", "n", "no"].includes(text)) return false;
  return fallback;
}
