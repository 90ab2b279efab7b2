// Numbers in a range, as texts: digit by digit, so that no number outside of it can even be begun.

import { alternatives, characters, concatenation, type Expression, repeat } from "../expressions.js";

/** A range of numbers. Ends that are absent are 15 digits away, or as many as the other end has. */
export interface NumberRange {
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
}

const digit = characters([0x30, 0x39]);
const farDigits = 15;
/** Digits that may follow those in which the ends of the range are given. */
const furtherDigits = 6;

/** The whole numbers in a range. */
export function integersIn(range: NumberRange): Expression {
  const [low, high] = bounds(range, 0);
  return signed(low, high, 1n, (from, to) => exactly(from, to, 0));
}

/**
 * Numbers in a range, without exponents, with no decimals up to a few more than its ends have. Where an end does not
 * belong to the range, the numbers nearest to it are left out.
 */
export function numbersIn(range: NumberRange): Expression {
  const ends = Object.values(range) as number[];
  const isOpen = range.exclusiveMinimum !== undefined || range.exclusiveMaximum !== undefined;
  const decimals = Math.max(0, ...ends.map(decimalsOf)) + (isOpen ? 2 : 0);
  const parts = Array.from({ length: decimals + 1 }, (_, count) =>
    signed(...bounds(range, count), 1n, (from, to) => exactly(from, to, count)),
  );
  // What has further decimals lies between one unit and the next.
  const [low, high] = bounds(range, decimals);
  const further = (from: bigint, to: bigint) =>
    concatenation(exactly(from, to - 1n, decimals), ...(decimals === 0 ? ["."] : []), repeat(digit, 1, furtherDigits));
  return alternatives([...parts, signed(low, high, 0n, further)]);
}

/** The smallest and the largest number of units in a range; undefined where it has no end. */
function bounds(range: NumberRange, decimals: number): [low: bigint | undefined, high: bigint | undefined] {
  const limit = (inclusive: number | undefined, exclusive: number | undefined, direction: 1 | -1) => {
    const ends = [inclusive, exclusive].map((value, i): bigint | undefined => {
      if (value === undefined) return undefined;
      const { units, decimals: own } = unitsOf(value);
      if (own <= decimals) {
        const exact = units * 10n ** BigInt(decimals - own);
        return i === 1 ? exact + BigInt(direction) : exact;
      }
      // Rounded into the range.
      const unit = 10n ** BigInt(own - decimals);
      const down = units / unit - (units < 0n && units % unit !== 0n ? 1n : 0n);
      if (units % unit === 0n) return i === 1 ? down + BigInt(direction) : down;
      return direction === 1 ? down + 1n : down;
    });
    const [a, b] = ends;
    if (a === undefined || b === undefined) return a ?? b;
    return (direction === 1) === a > b ? a : b;
  };
  return [limit(range.minimum, range.exclusiveMinimum, 1), limit(range.maximum, range.exclusiveMaximum, -1)];
}

function unitsOf(value: number): { units: bigint; decimals: number } {
  const [, sign, whole, fraction = "", exponent = "0"] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/.exec(
    String(value),
  ) as unknown as [string, string, string, string?, string?];
  const shift = Number(exponent) - fraction.length;
  const units = BigInt(sign + whole + fraction) * 10n ** BigInt(Math.max(0, shift));
  return { units, decimals: Math.max(0, -shift) };
}

/** The number of decimals of a number. */
export function decimalsOf(value: number): number {
  return unitsOf(value).decimals;
}

/**
 * Negative and other numbers of a range, whose absolute values are written by `write`.
 *
 * @param leastNegative the least absolute value behind a minus sign, where the range has no lower one
 */
function signed(
  low: bigint | undefined,
  high: bigint | undefined,
  leastNegative: bigint,
  write: (from: bigint, to: bigint) => Expression,
): Expression {
  const far = (value: bigint) => 10n ** BigInt(Math.max(farDigits, String(value).length)) - 1n;
  const parts: Expression[] = [];
  const from = low !== undefined && low > 0n ? low : 0n;
  const to = high ?? far(from);
  if (from <= to) parts.push(write(from, to));
  const negativeFrom = high !== undefined && high < 0n ? -high : leastNegative;
  const negativeTo = low === undefined ? far(negativeFrom) : -low;
  if (negativeFrom <= negativeTo) parts.push(concatenation("-", write(negativeFrom, negativeTo)));
  return alternatives(parts);
}

/** The numbers from one count of units to another, with all their decimals. */
function exactly(from: bigint, to: bigint, decimals: number): Expression {
  const parts: Expression[] = [];
  for (let length = decimals + 1; from <= to && length <= String(to).length + decimals + 1; length++) {
    const smallest = length === decimals + 1 ? 0n : 10n ** BigInt(length - 1);
    const largest = 10n ** BigInt(length) - 1n;
    const low = from > smallest ? from : smallest;
    const high = to < largest ? to : largest;
    if (low > high) continue;
    const text = (value: bigint) => String(value).padStart(length, "0");
    parts.push(digitsBetween(text(low), text(high), length - decimals));
  }
  return alternatives(parts);
}

/** Digits from one text of a length to another, with a point before the digit at `point` unless that is their end. */
function digitsBetween(low: string, high: string, point: number): Expression {
  const { length } = low;
  const place = (i: number, from: string, to: string): Expression => {
    const one = characters([from.charCodeAt(0), to.charCodeAt(0)]);
    return i === point ? concatenation(".", one) : one;
  };
  const rest = (i: number, from: string, to: string): Expression => {
    if (i === length) return concatenation();
    const [first, last] = [from[i] as string, to[i] as string];
    if (first === last) return concatenation(place(i, first, last), rest(i + 1, from, to));
    const nines = "9".repeat(length);
    const zeros = "0".repeat(length);
    let [middleFrom, middleTo] = [first.charCodeAt(0), last.charCodeAt(0)];
    const parts: Expression[] = [];
    if (!/^0*$/.test(from.slice(i + 1))) {
      parts.push(concatenation(place(i, first, first), rest(i + 1, from, nines)));
      middleFrom++;
    }
    if (!/^9*$/.test(to.slice(i + 1))) {
      parts.push(concatenation(place(i, last, last), rest(i + 1, zeros, to)));
      middleTo--;
    }
    if (middleFrom <= middleTo) {
      const [a, b] = [String.fromCharCode(middleFrom), String.fromCharCode(middleTo)];
      parts.push(concatenation(place(i, a, b), rest(i + 1, zeros, nines)));
    }
    return alternatives(parts);
  };
  return rest(0, low, high);
}
