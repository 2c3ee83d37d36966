/** What must not be. */
export { BUG, BUG_ON, WARN_ON, panic } from "../../lib/bug.ts";
