// As how many texts a request counts that turns many into vectors.

/** How many texts of a request are read at once. They share passes, which have enough rows by then. */
export const textsAtOnce = 8;
