// What values of options, and of fields of files, are checked by.

/** Says in words what is expected of a value that is not it. */
export type Check = (value: unknown) => string | undefined;

export const whole =
  (low: number, high: number): Check =>
  (value) =>
    Number.isInteger(value) && (value as number) >= low && (value as number) <= high
      ? undefined
      : `a whole number from ${low} to ${high}`;
export const between =
  (low: number, high: number): Check =>
  (value) =>
    typeof value === "number" && value >= low && value <= high ? undefined : `a number from ${low} to ${high}`;
export const oneOf =
  (...values: readonly unknown[]): Check =>
  (value) =>
    values.includes(value) ? undefined : values.join(" or ");
export const path: Check = (value) =>
  typeof value === "string" && value !== "" && !value.includes("\0") ? undefined : "a path";
export const orNull =
  (check: Check): Check =>
  (value) =>
    value === null ? undefined : check(value);
export const flag = oneOf(true, false);
export const smallest = Number.MIN_VALUE;
