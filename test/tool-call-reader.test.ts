// Calls of tools in an answer, read while it is being written.

import fc from "fast-check";
import { readToolCalls } from "rwkv";
import { expect, test } from "vitest";
import { ToolCallReader } from "#rwkv/chat/tool-call-reader";

/** What a reader makes of an answer that arrives in pieces. */
function read(pieces: readonly string[]) {
  const reader = new ToolCallReader();
  const calls: { name: string; arguments: string; isWhole: boolean }[] = [];
  let text = "";
  for (const { text: more, calls: parts } of [...pieces.map((piece) => reader.push(piece)), reader.finish()]) {
    text += more;
    for (const { call, name, arguments: values, isLast = false } of parts) {
      if (name !== undefined) calls.push({ name, arguments: "", isWhole: false });
      expect(call).toBe(calls.length - 1);
      calls[call]!.arguments += values;
      calls[call]!.isWhole = isLast;
    }
  }
  return { text, calls };
}

const callText = (name: string, values: string) =>
  `**Tool Call:**\n\`\`\`json\n{"name": ${JSON.stringify(name)}, "arguments": ${values}}\n\`\`\``;

test("calls are the same however the answer was cut, and as the whole answer is read", () => {
  const call = fc.record({ name: fc.string({ minLength: 1 }), values: fc.dictionary(fc.string(), fc.jsonValue()) });
  const text = fc
    .string({ unit: fc.constantFrom("a", " ", "\n", "*", "`", "}", "Tool Call:") })
    .map((one) => one.trim())
    // With the whole marker in it, a text would begin a call.
    .filter((one) => !one.includes("**Tool Call:**"));
  fc.assert(
    fc.property(text, fc.array(call, { maxLength: 3 }), fc.array(fc.nat()), (said, calls, cuts) => {
      const texts = calls.map(({ name, values }) => callText(name, JSON.stringify(values)));
      const answer = [said, ...texts].filter((part) => part !== "").join("\n");
      const at = [0, ...cuts.map((cut) => cut % (answer.length + 1)).sort((a, b) => a - b), answer.length];
      const pieces = at.slice(1).map((end, i) => answer.slice(at[i], end));
      const found = read(pieces);
      expect(found.calls.map((one) => ({ name: one.name, arguments: JSON.parse(one.arguments) }))).toEqual(
        JSON.parse(JSON.stringify(calls.map(({ name, values }) => ({ name, arguments: values })))),
      );
      expect(found.calls.every(({ isWhole }) => isWhole)).toBe(true);
      expect(found.text).toBe(said);
      expect(readToolCalls(answer).toolCalls.length).toBe(calls.length);
    }),
  );
});

test("JSON over several lines is read, too", () => {
  const values = { city: "Paris ```", days: [1, { a: "}" }] };
  const found = read([
    ...`**Tool Call:**\n\`\`\`json\n${JSON.stringify({ name: "f", arguments: values }, null, 2)}\n\`\`\`\n`,
  ]);
  expect(found.calls).toEqual([{ name: "f", arguments: expect.any(String), isWhole: true }]);
  expect(JSON.parse(found.calls[0]!.arguments)).toEqual(values);
});

test("what is cut off is given as far as it goes", () => {
  expect(read(["One moment.\n", '**Tool Call:**\n```json\n{"name": "f", "arguments": {"a": {"b": [1, 2'])).toEqual({
    text: "One moment.",
    calls: [{ name: "f", arguments: '{"a": {"b": [1, 2', isWhole: false }],
  });
  expect(read(["Hm **Tool", " Call:**\n``"])).toEqual({ text: "Hm", calls: [] });
  expect(read(["Hm **Tool"])).toEqual({ text: "Hm **Tool", calls: [] });
});
