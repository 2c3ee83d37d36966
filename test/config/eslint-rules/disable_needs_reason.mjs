/** A comment that disables a rule says why after two hyphens: `// eslint-disable-next-line RULE -- the reason`. */

export const disable_needs_reason = {
  meta: {
    type: "problem",
    schema: [],
    messages: { reason: "Say why: `// eslint-disable-next-line RULE -- the reason`." },
  },
  create(context) {
    return {
      Program() {
        for (const comment of context.sourceCode.getAllComments()) {
          if (!/^\s*eslint-disable/.test(comment.value) || /\s--\s+\S/.test(comment.value)) continue;
          context.report({ loc: comment.loc, messageId: "reason" });
        }
      },
    };
  },
};
