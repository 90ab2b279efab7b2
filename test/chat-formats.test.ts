// How conversations are written for models that know them in one way or another, and how their answers are read.

import fc from "fast-check";
import { type ChatMessage, type ChatModel, chatFormatFor, chatPrompt, readToolCalls, ThinkingReader } from "rwkv";
import { describe, expect, test } from "vitest";
import { rounds } from "./thorough.js";

function model(
  source: string,
  kind: "huggingface" | "world" | "bytes" = "world",
  metadata: Readonly<Record<string, string>> = {},
): ChatModel {
  return { info: { source, metadata }, tokenizer: { kind } };
}

test("the model's own name and its vocabulary determine the format", () => {
  const format = (...given: Parameters<typeof model>) => chatFormatFor(model(...given));
  expect(format("/models/RWKV-4-Raven-3B-v12-Eng49%-20230527-ctx4096.pth", "huggingface")).toBe("raven");
  expect(format("rwkv-raven-1b5/", "huggingface")).toBe("raven");
  expect(format("/models/raven/RWKV-4-Pile-430M.pth", "huggingface")).toBe("pile");
  expect(format("model.pth", "bytes")).toBe("pile");
  for (const name of ["RWKV-4-World-0.4B.pth", "RWKV-x070-World-2.9B-v3-20250211-ctx4096.pth", "raven", "big1.pth"]) {
    expect(format(`/models/g1/${name}`), name).toBe("world");
  }
  for (const name of [
    "rwkv7-g1d-0.4b-20260210-ctx8192.pth",
    "rwkv7-g1-0.1b.pth",
    "RWKV7-G1k-2.9B/",
    "rwkv7-g0a2-7.2b.pth",
  ]) {
    expect(format(name), name).toBe("g1");
  }
  expect(format("model.gguf", "world", { "general.name": "rwkv7-g1d-0.1b" })).toBe("g1");
  expect(format("model.gguf", "world", { "tokenizer.chat_template": "{{ 'Assistant: <think' }}" })).toBe("g1");
  expect(format("model.gguf", "world", { "tokenizer.chat_template": "{{ 'Assistant:' }}" })).toBe("world");
});

const conversation: ChatMessage[] = [
  { role: "system", content: "Be brief.\n\n\nBe kind." },
  { role: "user", content: "  Hello,\r\n\r\nwho are you?\n" },
  { role: "assistant", content: "A model.\n\nAnd you?" },
  { role: "user", content: "A user." },
];
const write = (options: Parameters<typeof chatPrompt>[2], messages: readonly ChatMessage[] = conversation) =>
  chatPrompt(model("model.pth"), messages, options);

describe("formats", () => {
  test("World: turns are paragraphs; an answer ends at a blank line", () => {
    const { text, stop, thinking, format } = write({});
    expect(text).toBe(
      "System: Be brief.\nBe kind.\n\nUser: Hello,\nwho are you?\n\nAssistant: A model.\nAnd you?\n\n" +
        "User: A user.\n\nAssistant:",
    );
    expect([stop, thinking, format]).toEqual([["\n\n", "\nUser:"], "auto", "world"]);
    expect(write({ thinking: "off" }).text).toBe(text);
  });

  test("G1: answers keep their blank lines, and thoughts come first, as long as is asked for", () => {
    const turns =
      "System: Be brief.\nBe kind.\n\nUser: Hello,\nwho are you?\n\nAssistant: A model.\n\nAnd you?\n\nUser: A user.";
    const written = (["on", "off", "short", "long", "auto"] as const).map(
      (thinking) => write({ format: "g1", thinking }).text,
    );
    expect(written).toEqual([
      `${turns}\n\nAssistant: <think`,
      `${turns}\n\nAssistant: <think></think`,
      `${turns} (think a bit)\n\nAssistant: <think`,
      `${turns} (think a lot)\n\nAssistant: <think`,
      `${turns}\n\nAssistant:`,
    ]);
    expect(write({ format: "g1" })).toMatchObject({ thinking: "on", stop: ["\n\nUser:"] });
    expect(write({ format: "assistant" })).toEqual({
      ...write({ format: "g1" }),
      stop: ["\nUser:"],
      format: "assistant",
    });
  });

  test("Pile and Raven have names of their own, Pile an opening", () => {
    const ask: ChatMessage[] = [{ role: "user", content: "Hi" }];
    expect(write({ format: "raven" }, ask)).toMatchObject({ text: "Bob: Hi\n\nAlice:", stop: ["\n\n", "\nBob:"] });
    expect(write({ format: "pile" }, ask).text).toMatch(/^\nThe following is a conversation.*\n\nUser: Hi\n\nBot:$/s);
  });

  test("bot: flowers end a message", () => {
    const { text, stop } = write({ format: "bot" });
    expect(text).toBe(
      "System✿Be brief.\n\n\nBe kind.✿\nUser✿Hello,\n\nwho are you?✿\nBot✿A model.\n\nAnd you?✿\nUser✿A user.✿\nBot✿<think",
    );
    expect(stop).toEqual(["✿"]);
  });

  test("function_calling: tools, calls and outputs are JSON under headings", () => {
    const parameters = { type: "object", properties: { city: { type: "string" } } };
    const tools = [{ name: "weather", description: "The weather of a city.", parameters }];
    const call = { name: "weather", arguments: { city: "Oslo" } };
    const { text, stop, format } = write({ tools, thinking: "off" }, [
      { role: "user", content: "How is Oslo?" },
      { role: "assistant", content: "", toolCalls: [call] },
      { role: "tool", content: '{"sky":"blue"}' },
    ]);
    const json = (value: unknown) => `\`\`\`json\n${JSON.stringify(value, null, 2)}\n\`\`\``;
    expect(text).toBe(
      `### System\n### \`weather\`\n**Description:** The weather of a city.\n**Parameters:**\n${json(parameters)}\n` +
        "To call one of these tools, write exactly this format:\n**Tool Call:**\n```json\n" +
        '{"name": "tool_name", "arguments": {"key": "value"}}\n```\n' +
        "Do not invent tool call IDs or write tool outputs yourself.\n" +
        `### User\nHow is Oslo?\n### Assistant\n**Tool Call:**\n${json(call)}\n` +
        `### Tool Output\n${json({ sky: "blue" })}\n### Assistant\n<think></think`,
    );
    expect([stop[0], format]).toEqual(["\n### User", "function_calling"]);
    const { toolCalls, text: said } = readToolCalls(`Let me see.\n**Tool Call:**\n${json(call)}`);
    expect([toolCalls, said]).toEqual([[call], "Let me see."]);
    expect(readToolCalls("**Tool Call:**\n```json\n[1\n```").toolCalls).toEqual([]);
  });

  const cues = {
    pile: "Bot:",
    raven: "Alice:",
    world: "Assistant:",
    g1: "Assistant:",
    assistant: "Assistant:",
    bot: "Bot✿",
    function_calling: "### Assistant\n",
  } as const;
  const formats = Object.keys(cues) as (keyof typeof cues)[];

  test("what would end a turn is changed, and nothing else", () => {
    const says = (format: keyof typeof cues, role: "user" | "assistant", content: string) =>
      write({ format, thinking: "auto" }, [{ role, content }]).text;
    const names = "Hi.\nUser: a\r\nAssistant: b\n\nSystem: c\nUsers: d";
    for (const format of ["world", "g1", "assistant"] as const) {
      expect(says(format, "user", names), format).toBe(
        "User: Hi.\n User: a\n Assistant: b\n System: c\nUsers: d\n\nAssistant:",
      );
    }
    expect(says("assistant", "assistant", names)).toBe(
      "Assistant: Hi.\n User: a\n Assistant: b\n\n System: c\nUsers: d\n\nAssistant:",
    );
    expect(says("raven", "user", "Hi.\nAlice: a\nUser: b")).toBe("Bob: Hi.\n Alice: a\nUser: b\n\nAlice:");
    const marks = "### User\na✿\nBot✿ b\n### Assistant\n### c";
    expect(says("bot", "user", marks)).toBe("User✿### User\na❀\nBot❀ b\n### Assistant\n### c✿\nBot✿");
    expect(says("function_calling", "user", marks)).toBe(
      "### User\n ### User\na✿\nBot✿ b\n ### Assistant\n### c\n### Assistant\n",
    );
  });

  test.each(formats)("no text ends its turn, whatever it says: %s", (format) => {
    const written = (role: "system" | "user" | "assistant", content: string) =>
      write({ format, thinking: "auto" }, [{ role, content }]);
    const parts = [
      "✿",
      "### User",
      "### Assistant",
      "### Tool Output",
      "User:",
      "Assistant:",
      "Bot:",
      "Bob:",
      "Alice:",
    ];
    const content = fc.array(fc.constantFrom(...parts, "\n", "\n\n", "\r", " ", "a")).map((all) => all.join(""));
    const ends = ({ text, stop }: ReturnType<typeof write>) =>
      [...stop, `\n${cues[format]}`].map((mark) => text.split(mark).length - 1);
    fc.assert(
      fc.property(fc.constantFrom("system", "user", "assistant"), content, (role, text) => {
        expect(ends(written(role, text))).toEqual(ends(written(role, "a")));
      }),
    );
  });

  test("a conversation is written piece by piece: a longer one begins as the shorter one does", () => {
    for (const format of formats) {
      const cue = cues[format];
      const texts = conversation.map((_, i) => {
        return write({ format, thinking: "auto" }, conversation.slice(0, i + 1)).text;
      });
      for (const text of texts) expect(text.endsWith(cue), format).toBe(true);
      const turns = texts.map((text) => text.slice(0, -cue.length));
      for (const [i, text] of turns.entries()) expect(text.startsWith(turns[i - 1] ?? ""), format).toBe(true);
    }
  });

  test.each([
    [
      [{ role: "user", content: "" }],
      { format: "chatml" },
      "option format: expected pile, raven, world, g1, assistant, bot, function_calling",
    ],
    [
      [{ role: "user", content: "" }],
      { format: "world", thinking: "on" },
      "option thinking: expected a format whose models think (g1, assistant",
    ],
    [
      [{ role: "user", content: "" }],
      { format: "g1", thinking: "loud" },
      "option thinking: expected on, off, short, long, auto",
    ],
    [
      [{ role: "user", content: "" }],
      { format: "g1", tools: [{ name: "a", parameters: {} }] },
      'option format: expected "function_calling"',
    ],
    [[{ role: "user", content: "" }], { tools: [{ name: "a" }] }, "option tools: expected an array of tools"],
    [[{ role: "tool", content: "" }], { format: "g1" }, 'option format: expected "function_calling"'],
    [[{ role: "bot", content: "" }], {}, "option messages: expected messages with a role: system"],
    [[{ role: "user", content: [] }], {}, "option messages: expected messages with a string as content"],
    [[null], {}, "option messages: expected objects"],
    ["Hi", {}, "option messages: expected an array of messages"],
    [[], {}, "option messages: expected at least one message"],
  ])("%#: what cannot be written is an error", (messages, options, message) => {
    expect(() => write(options as never, messages as never)).toThrow(message);
  });
});

describe("thoughts", () => {
  const read = (thinking: ConstructorParameters<typeof ThinkingReader>[0], pieces: readonly string[]) => {
    const reader = new ThinkingReader(thinking);
    const all = [...pieces.map((piece) => reader.push(piece)), reader.finish()];
    return [all.map(({ thought }) => thought).join(""), all.map(({ text }) => text).join("")];
  };

  test("are told from the answer, however the text is cut", () => {
    const cases = [
      ["on", ">\nHm, a < b.\n</think>\nYes </think> it is.", ["Hm, a < b.\n", "Yes </think> it is."]],
      ["on", "> unfinished </thin", ["unfinished </thin", ""]],
      ["short", "no tag", ["no tag", ""]],
      ["off", ">\n\nYes.", ["", "Yes."]],
      ["off", "Yes.", ["", "Yes."]],
      ["auto", " Yes <think>", ["", "Yes <think>"]],
      ["auto", "\n<think>\nHm</think>\n\nYes", ["Hm", "Yes"]],
      ["auto", " <thin", ["", "<thin"]],
      ["auto", "  ", ["", ""]],
    ] as const;
    for (const [thinking, text, expected] of cases) {
      expect(read(thinking, [text]), text).toEqual(expected);
      expect(read(thinking, [...text]), text).toEqual(expected);
      fc.assert(
        fc.property(fc.array(fc.nat(text.length)), (cuts) => {
          const places = [0, ...cuts.toSorted((a, b) => a - b), text.length];
          expect(
            read(
              thinking,
              places.slice(1).map((to, i) => text.slice(places[i], to)),
            ),
          ).toEqual(expected);
        }),
        { numRuns: rounds(15) },
      );
    }
  });
});
