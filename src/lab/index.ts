// The public API of the lab: a look into a model, for pages and for Node.

export { type Explanation, explain } from "./explain.js";
export type { DeltaRuleExplanation, LayerExplanation, Prediction, RecurrenceExplanation } from "./explained-layer.js";
