// The limits of grammars. What exceeds one is refused by name, so that no schema, grammar or expression, however it was
// made, takes much time or memory.

/** The most characters in the text of a grammar or regular expression, or of a schema as JSON. */
export const maxSourceLength = 1_000_000;

/** How deeply groups, schemas and parts may be nested in what is written. */
export const maxNesting = 200;

/** The most nodes of the automaton that a grammar becomes. */
export const maxNodes = 200_000;

/** The largest number of repetitions that may be asked for. */
export const maxRepetitions = 1_000_000;

/** How deeply rules may call each other in what is generated, calls at the end of a rule not counted. */
export const maxCallDepth = 64;

/** How many readings of one text may be possible at a time. */
export const maxReadings = 4096;
