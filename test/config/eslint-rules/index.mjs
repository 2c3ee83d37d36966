/** The project's own ESLint rules, as a plugin named `kheap`. Tests: test/config/eslint_rules.test.ts. */
import { disable_needs_reason } from "./disable_needs_reason.mjs";
import { hot_path_binds_imports } from "./hot_path_binds_imports.mjs";
import { hot_path_no_garbage } from "./hot_path_no_garbage.mjs";
import { no_module_state } from "./no_module_state.mjs";

/** @type {Record<string, import("eslint").Rule.RuleModule>} */
export const kheap_rules = {
  "disable-needs-reason": disable_needs_reason,
  "hot-path-binds-imports": hot_path_binds_imports,
  "hot-path-no-garbage": hot_path_no_garbage,
  "no-module-state": no_module_state,
};
