/**
 * Forbids what allocates on the JS heap, and `try`, in a function marked "Hot path.":
 * literals of objects and arrays, spread and rest, `new`, closures, template strings, array destructuring, for…of,
 * generators, `.subarray()` and `.slice()`.
 */
import { hot_functions } from "./hot_path.mjs";

const forbidden = {
  ArrayExpression: "an array literal",
  ArrayPattern: "array destructuring",
  ArrowFunctionExpression: "a closure",
  AwaitExpression: "await",
  ClassDeclaration: "a class",
  ClassExpression: "a class",
  ForOfStatement: "for…of",
  FunctionDeclaration: "a closure",
  FunctionExpression: "a closure",
  NewExpression: "new",
  ObjectExpression: "an object literal",
  RestElement: "a rest parameter or pattern",
  SpreadElement: "spread",
  TemplateLiteral: "a template string",
  TryStatement: "try",
  YieldExpression: "yield",
};

export const hot_path_no_garbage = {
  meta: {
    type: "problem",
    schema: [],
    messages: { garbage: "Hot path: {{what}} allocates or slows the function; do this in a slow path." },
  },
  create(context) {
    let hot = null;
    const report = (node, what) => context.report({ node, messageId: "garbage", data: { what } });
    const visitors = hot_functions(
      context.sourceCode,
      (node) => (hot = node),
      () => (hot = null),
    );
    const listeners = {
      CallExpression(node) {
        const name = node.callee.property?.name;
        if (hot && (name === "subarray" || name === "slice")) report(node, `.${name}()`);
      },
    };
    for (const [type, what] of Object.entries(forbidden)) {
      listeners[type] = (node) => {
        if (hot && node !== hot) report(node, what);
        visitors[type]?.(node);
      };
      if (visitors[`${type}:exit`]) listeners[`${type}:exit`] = visitors[`${type}:exit`];
    }
    return listeners;
  },
};
