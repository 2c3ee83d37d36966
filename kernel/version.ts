/** The release, as the command line, uname and /proc/version show it; package.json has the same. */
export const VERSION = "0.1.0";
