/** Error codes, negative where a function returns one. */
export * from "../../lib/errno.ts";
