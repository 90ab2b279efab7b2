// A pickle machine that can do what a state dict needs and nothing else. A pickle is a program: its opcodes push
// values and call functions by name. Here a name is looked up in a short list that the caller passes, and any other
// name is refused, so nothing in a file is ever executed. Opcodes: CPython Lib/pickletools.py (protocols 2 to 5).

import { CheckpointError } from "../errors.js";

/** The function that stands for a name in the pickle. It is called when the pickle calls the name. */
export type PickleGlobal = (args: readonly PickleValue[]) => PickleValue;

/**
 * A value on the pickle machine's stack. Lists and tuples are arrays, dicts are Maps, and objects come from
 * PickleGlobals.
 */
export type PickleValue = unknown;

/** The names that the pickle may use ("module name"), and the meaning of its persistent ids. */
export interface PickleVocabulary {
  readonly globals: ReadonlyMap<string, PickleGlobal>;
  persistentLoad(id: PickleValue): PickleValue;
}

/** The bytes end before the pickle does. The caller may have passed too short a window. */
export class PickleTruncated extends CheckpointError {}

/** The largest pickle that is read, in bytes. A state dict of 1,000 tensors takes about 200 kB. */
export const maxPickleSize = 4 * 2 ** 20;

// A state dict of 1,000 tensors takes about 40,000 operations and 5,000 containers. These bounds keep the values of a
// hostile pickle under 50 MiB.
const maxOperations = 250_000;
const maxContainers = 50_000;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Runs one pickle.
 *
 * @param file the name of the file, for errors
 * @param bytes bytes that start with the pickle; anything after it is ignored
 * @returns the value, and the number of bytes that the pickle took
 * @throws CheckpointError for a global outside the vocabulary, unknown opcodes, damage, or excessive size
 */
export function unpickle(
  file: string,
  bytes: Uint8Array,
  vocabulary: PickleVocabulary,
): { value: PickleValue; length: number } {
  return new Unpickler(file, bytes, vocabulary).run();
}

/** Whether a value came from a PickleGlobal. Such values hold no items; any that the pickle gives them are dropped. */
function isObject(value: PickleValue): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Map);
}

class Unpickler {
  readonly #file: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #vocabulary: PickleVocabulary;
  readonly #memo = new Map<number, PickleValue>();
  readonly #marks: number[] = [];
  #stack: PickleValue[] = [];
  #at = 0;
  #containers = 0;

  constructor(file: string, bytes: Uint8Array, vocabulary: PickleVocabulary) {
    this.#file = file;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#vocabulary = vocabulary;
  }

  run(): { value: PickleValue; length: number } {
    for (let operations = 0; operations < maxOperations; operations++) {
      const opcode = this.#byte();
      if (opcode === 0x2e) return { value: this.#pop(), length: this.#at }; // STOP
      this.#execute(opcode);
    }
    throw this.#error(`more than ${maxOperations} operations`);
  }

  #execute(opcode: number): void {
    switch (opcode) {
      case 0x80: // PROTO
        return this.#protocol();
      case 0x95: // FRAME
        return void this.#take(8);
      case 0x28: // MARK
        return void this.#marks.push(this.#stack.length);
      case 0x30: // POP
        return void this.#pop();
      case 0x31: // POP_MARK
        return void this.#popToMark();
      case 0x32: // DUP
        return this.#push(this.#top());
      case 0x4e: // NONE
        return this.#push(null);
      case 0x88: // NEWTRUE
        return this.#push(true);
      case 0x89: // NEWFALSE
        return this.#push(false);
      case 0x4b: // BININT1
        return this.#push(this.#byte());
      case 0x4d: // BININT2
        return this.#push(this.#view.getUint16(this.#take(2), true));
      case 0x4a: // BININT
        return this.#push(this.#view.getInt32(this.#take(4), true));
      case 0x8a: // LONG1
        return this.#push(this.#long(this.#byte()));
      case 0x8b: // LONG4
        return this.#push(this.#long(this.#view.getInt32(this.#take(4), true)));
      case 0x47: // BINFLOAT
        return this.#push(this.#view.getFloat64(this.#take(8), false));
      case 0x58: // BINUNICODE
        return this.#push(this.#text(this.#view.getUint32(this.#take(4), true)));
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING
        return this.#push(this.#text(this.#byte()));
      case 0x8d: // BINUNICODE8
        return this.#push(this.#text(this.#length()));
      case 0x54: // BINSTRING
        return this.#push(this.#text(this.#view.getInt32(this.#take(4), true)));
      case 0x43: // SHORT_BINBYTES
        return this.#push(this.#slice(this.#byte()));
      case 0x42: // BINBYTES
        return this.#push(this.#slice(this.#view.getUint32(this.#take(4), true)));
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return this.#push(this.#slice(this.#length()));
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        return this.#push(this.#container([]));
      case 0x7d: // EMPTY_DICT
        return this.#push(this.#container(new Map()));
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return this.#push(this.#container(this.#popMany(opcode - 0x84)));
      case 0x74: // TUPLE
      case 0x6c: // LIST
        return this.#push(this.#container(this.#popToMark()));
      case 0x64: // DICT
        return this.#push(this.#setItems(this.#container(new Map()), this.#popToMark()));
      case 0x61: // APPEND
        return this.#append([this.#pop()]);
      case 0x65: // APPENDS
        return this.#append(this.#popToMark());
      case 0x73: // SETITEM
        return this.#setItemsOfTop(this.#popMany(2));
      case 0x75: // SETITEMS
        return this.#setItemsOfTop(this.#popToMark());
      case 0x71: // BINPUT
        return void this.#memo.set(this.#byte(), this.#top());
      case 0x72: // LONG_BINPUT
        return void this.#memo.set(this.#view.getUint32(this.#take(4), true), this.#top());
      case 0x94: // MEMOIZE
        return void this.#memo.set(this.#memo.size, this.#top());
      case 0x68: // BINGET
        return this.#push(this.#recall(this.#byte()));
      case 0x6a: // LONG_BINGET
        return this.#push(this.#recall(this.#view.getUint32(this.#take(4), true)));
      case 0x63: // GLOBAL
        return this.#push(this.#global(this.#line(), this.#line()));
      case 0x93: {
        // STACK_GLOBAL
        const [module, name] = this.#popMany(2);
        return this.#push(this.#global(module, name));
      }
      case 0x52: {
        // REDUCE
        const [callable, args] = this.#popMany(2);
        return this.#push(this.#call(callable, args));
      }
      case 0x81: {
        // NEWOBJ
        const [callable, args] = this.#popMany(2);
        return this.#push(this.#call(callable, args));
      }
      case 0x62: {
        // BUILD sets attributes, such as a state dict's _metadata. Values here have none, so they are dropped.
        this.#pop();
        this.#top();
        return;
      }
      case 0x8f: // EMPTY_SET
        return this.#push(this.#container([]));
      case 0x90: // ADDITEMS
        return this.#append(this.#popToMark());
      case 0x91: // FROZENSET
        return this.#push(this.#container(this.#popToMark()));
      case 0x51: // BINPERSID
        return this.#push(this.#vocabulary.persistentLoad(this.#pop()));
      default:
        throw this.#error(`opcode 0x${opcode.toString(16).padStart(2, "0")} is not one that state dicts use`);
    }
  }

  #protocol(): void {
    const protocol = this.#byte();
    if (protocol > 5) throw this.#error(`expected pickle protocol 2 to 5, found ${protocol}`);
  }

  #global(module: PickleValue, name: PickleValue): PickleGlobal {
    const qualified = `${String(module)} ${String(name)}`.slice(0, 200);
    const found = this.#vocabulary.globals.get(qualified);
    if (!found) {
      throw this.#error(
        `the pickle asks for ${qualified.replace(" ", ".")}, which no state dict needs; it was refused and nothing was ` +
          "executed. " +
          "If you trust the file, save only its weights in Python: torch.save(model.state_dict(), path)",
      );
    }
    return found;
  }

  #call(callable: PickleValue, args: PickleValue): PickleValue {
    if (typeof callable !== "function" || !Array.isArray(args))
      throw this.#error("a call of a value that is not callable");
    return this.#container((callable as PickleGlobal)(args));
  }

  #append(items: readonly PickleValue[]): void {
    const list = this.#top();
    if (isObject(list)) return;
    if (!Array.isArray(list)) throw this.#error("expected a list to append to");
    for (const item of items) list.push(item);
  }

  #setItemsOfTop(items: readonly PickleValue[]): void {
    const dict = this.#top();
    if (isObject(dict)) return;
    if (!(dict instanceof Map)) throw this.#error("expected a dict to set items of");
    this.#setItems(dict, items);
  }

  #setItems(dict: Map<PickleValue, PickleValue>, items: readonly PickleValue[]): Map<PickleValue, PickleValue> {
    if (items.length % 2) throw this.#error("a dict key without a value");
    for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
    return dict;
  }

  #container<T>(value: T): T {
    if (++this.#containers > maxContainers) throw this.#error(`more than ${maxContainers} containers`);
    return value;
  }

  #recall(index: number): PickleValue {
    if (!this.#memo.has(index)) throw this.#error(`memo ${index} was never set`);
    return this.#memo.get(index);
  }

  #push(value: PickleValue): void {
    this.#stack.push(value);
  }

  #top(): PickleValue {
    if (this.#stack.length <= this.#floor()) throw this.#error("stack underflow");
    return this.#stack[this.#stack.length - 1];
  }

  #pop(): PickleValue {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMany(count: number): PickleValue[] {
    if (this.#stack.length - count < this.#floor()) throw this.#error("stack underflow");
    return this.#stack.splice(this.#stack.length - count);
  }

  #popToMark(): PickleValue[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#error("no mark on the stack");
    return this.#stack.splice(mark);
  }

  #floor(): number {
    return this.#marks[this.#marks.length - 1] ?? 0;
  }

  /**
   * Reads a little-endian two's complement integer of `length` bytes, as a number where that is exact, else as a
   * bigint.
   */
  #long(length: number): number | bigint {
    if (length < 0 || length > 16) throw this.#error(`an integer of ${length} bytes`);
    const start = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[start + i] as number);
    if (length > 0 && (this.#bytes[start + length - 1] as number) & 0x80) value -= 1n << BigInt(8 * length);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  /** Reads a length of eight bytes. It may be larger than any file. */
  #length(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  #text(length: number): string {
    return utf8.decode(this.#slice(length));
  }

  #slice(length: number): Uint8Array {
    const start = this.#take(length);
    return this.#bytes.subarray(start, start + length);
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.#truncated();
    const start = this.#at;
    this.#at = end + 1;
    return utf8.decode(this.#bytes.subarray(start, Math.min(end, start + 200)));
  }

  #byte(): number {
    return this.#bytes[this.#take(1)] as number;
  }

  /** Moves past `count` bytes and returns where they start. */
  #take(count: number): number {
    const start = this.#at;
    if (count < 0) throw this.#error(`a length of ${count}`);
    if (start + count > this.#bytes.length) throw this.#truncated();
    this.#at = start + count;
    return start;
  }

  #truncated(): PickleTruncated {
    return new PickleTruncated(this.#file, `pickle is truncated after ${this.#bytes.length} bytes`);
  }

  #error(message: string): CheckpointError {
    return new CheckpointError(this.#file, `pickle, at byte ${this.#at}: ${message}`);
  }
}
