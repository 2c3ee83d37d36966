/**
 * Finds the functions marked "Hot path." in their JSDoc, for the two hot-path rules.
 *
 * The doc comment stands right before the declaration or, for `const f = () => …`, before the `const`; an `export`
 * may lie between. Functions inside a marked one belong to it.
 */

/** The node that a function's doc comment precedes. */
function documented(node) {
  let at = node;
  if (at.parent.type === "VariableDeclarator") at = at.parent.parent;
  else if (["Property", "MethodDefinition", "PropertyDefinition"].includes(at.parent.type)) at = at.parent;
  return /^Export(Named|Default)Declaration$/.test(at.parent.type) ? at.parent : at;
}

function is_hot(node, source) {
  const doc = source.getCommentsBefore(documented(node)).at(-1);
  return doc?.type === "Block" && doc.value.startsWith("*") && /\bHot path\./.test(doc.value);
}

/** Visitors that call `enter(node)` for each outermost marked function and `leave(node)` after its body. */
export function hot_functions(source, enter, leave = () => {}) {
  let hot = null;
  const on_enter = (node) => {
    if (hot || !is_hot(node, source)) return;
    hot = node;
    enter(node);
  };
  const on_leave = (node) => {
    if (hot !== node) return;
    hot = null;
    leave(node);
  };
  const visitors = {};
  for (const type of ["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]) {
    visitors[type] = on_enter;
    visitors[`${type}:exit`] = on_leave;
  }
  return visitors;
}
