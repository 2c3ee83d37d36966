/**
 * Kernel state lives in emulated RAM, so no module of hal, mm or kernel owns a mutable variable
 * or container: no module-level `let` or `var`, no Map, Set or array, no object of plain data, no static field.
 *
 * Allowed: tables that say they are constant (`as const`, Object.freeze, or a type that starts with Readonly or
 * readonly), records of functions such as SlabOps, and views on a buffer that exists already. A real exception
 * carries a disable comment with its reason.
 */

const containers = /^(Map|Set|WeakMap|WeakSet|Array|ArrayBuffer|SharedArrayBuffer)$/;
const views = /^(Int|Uint|BigInt|BigUint|Float)\d+(Clamped)?Array$/;
const casts = /^TS(As|Satisfies|NonNull)Expression$|^TSTypeAssertion$/;

/** True if a type annotation, or a cast, promises that nobody changes the value. */
function is_readonly_type(type) {
  if (!type) return false;
  if (type.type === "TSTypeOperator") return type.operator === "readonly";
  const name = type.type === "TSTypeReference" ? type.typeName.name : undefined;
  return name === "const" || (name?.startsWith("Readonly") ?? false);
}

function is_code(property) {
  if (property.type === "SpreadElement") return false;
  const { type } = property.value;
  return property.shorthand || type === "Identifier" || type.endsWith("FunctionExpression");
}

/** What mutable thing `init` makes, in words; undefined if it makes none. */
function container(init) {
  switch (init?.type) {
    case "ArrayExpression":
      return "array";
    case "ObjectExpression":
      return init.properties.some(is_code) ? undefined : "object";
    case "NewExpression": {
      const name = init.callee.name ?? "";
      if (containers.test(name)) return name;
      const first = init.arguments[0];
      const sized = !first || /^(Literal|ArrayExpression|BinaryExpression)$/.test(first.type);
      return views.test(name) && sized ? name : undefined;
    }
    case "CallExpression": {
      const { callee } = init;
      const name = callee.object ? `${callee.object.name}.${callee.property.name}` : callee.name;
      return /^(Array|Array\.(from|of)|Object\.create)$/.test(name) ? name : undefined;
    }
  }
  return undefined;
}

export const no_module_state = {
  meta: {
    type: "problem",
    schema: [],
    messages: {
      variable: "Module-level `{{kind}}` is state of this realm only: keep it in RAM (static_data, per_cpu_data).",
      container: "Module-level {{what}} is mutable: keep it in RAM, or say that it is constant (as const, Readonly…).",
      static: "A static field is state of this realm only: keep it in RAM.",
    },
  },
  create(context) {
    const check = (declaration) => {
      if (declaration?.type !== "VariableDeclaration" || declaration.declare) return;
      const { kind } = declaration;
      if (kind === "let" || kind === "var") {
        context.report({ node: declaration, messageId: "variable", data: { kind } });
        return;
      }
      for (const { id, init: value } of declaration.declarations) {
        let init = value;
        let constant = is_readonly_type(id.typeAnnotation?.typeAnnotation);
        while (init && casts.test(init.type)) {
          constant ||= is_readonly_type(init.typeAnnotation);
          init = init.expression;
        }
        const what = constant ? undefined : container(init);
        if (what) context.report({ node: init, messageId: "container", data: { what } });
      }
    };
    return {
      Program(program) {
        for (const node of program.body) check(node.type === "ExportNamedDeclaration" ? node.declaration : node);
      },
      PropertyDefinition(node) {
        if (node.static && !node.readonly) context.report({ node, messageId: "static" });
      },
    };
  },
};
