/**
 * The programs in /usr/bin, where /bin leads, and how each is called. The disc holds a file for each (kernel/fs/discfs.ts)
 * whose one line, `#!program NAME`, is what exec looks for; the programs stand in the files beside this one.
 */
export const BIN: Readonly<Record<string, string>> = Object.freeze({
  cat: "cat [FILE…]",
  cowtest: "cowtest",
  echo: "echo TEXT… [> FILE | >> FILE]",
  false: "false",
  forkbomb: "forkbomb",
  grep: "grep [-c] [-v] TEXT [FILE…]",
  head: "head [-n LINES] [FILE…]",
  kill: "kill [-SIGNAL] PID…",
  ln: "ln [-s] FILE NAME",
  ls: "ls [-l] [PATH…]",
  memhog: "memhog [MIB]",
  mkdir: "mkdir [-p] DIR…",
  mv: "mv FILE NAME",
  pwd: "pwd",
  rm: "rm [-r] FILE…",
  rmdir: "rmdir DIR…",
  sh: "sh [-c COMMANDS | FILE]",
  sleep: "sleep [SECONDS]",
  stat: "stat FILE…",
  touch: "touch FILE…",
  true: "true",
  usertests: "usertests [NAME]",
  wc: "wc [FILE…]",
  yes: "yes [TEXT…]",
});

/** What the file of a program says. */
export function bin_text(name: string): string {
  return `#!program ${name}\n`;
}
