/**
 * In a function marked "Hot path.", an imported value may only be called. A view, struct or constant is bound again at
 * module level (`const m = ram32;`): V8 does not treat an imported binding as a constant, and reading one costs two to
 * three times as much.
 */
import { hot_functions } from "./hot_path.mjs";

function is_called(identifier) {
  const { parent } = identifier;
  return (parent.type === "CallExpression" && parent.callee === identifier) || parent.type === "TSTypeQuery";
}

export const hot_path_binds_imports = {
  meta: {
    type: "problem",
    schema: [],
    messages: { bind: "Hot path: bind the imported `{{name}}` to a module-level const and use that." },
  },
  create(context) {
    const source = context.sourceCode;
    const check = (scope) => {
      for (const { identifier, resolved, isTypeReference } of scope.references) {
        const imported = resolved?.defs.some((def) => def.type === "ImportBinding");
        if (!imported || isTypeReference || is_called(identifier)) continue;
        context.report({ node: identifier, messageId: "bind", data: { name: identifier.name } });
      }
      scope.childScopes.forEach(check);
    };
    return hot_functions(source, (node) => check(source.scopeManager.acquire(node)));
  },
};
