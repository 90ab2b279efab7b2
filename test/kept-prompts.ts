// Prompts for tests of kept states: long enough to be kept, with a beginning that they share, and how their answers are sampled.

const beginning = "Once upon a time there lived in a great forest, far from the nearest town and from the king who";
export const longPrompt = (what: string) => `${beginning} ruled it, ${beginning} had never been there, ${what}`;
export const sampling = {
  temperature: 1,
  top_p: 0.9,
  presence_penalty: 0,
  frequency_penalty: 0,
  seed: 5,
  max_tokens: 8,
};
