// Writes the pickle of a state dict in protocol 2, as torch.save does: text, integers, tuples, tensors, one ordered
// dict.

import { type ElementType, elementCount } from "../dtypes.js";
import { contiguousStrides } from "./checkpoint.js";
import { storageClasses } from "./torch-objects.js";

/** Appends opcodes to a pickle. The unpickler says what each does. */
export class PickleWriter {
  readonly #bytes: number[] = [0x80, 2];

  /** Writes an OrderedDict, whose keys and values `items` writes in alternation. */
  orderedDict(items: () => void): void {
    this.#global("collections", "OrderedDict");
    this.#bytes.push(0x29, 0x52, 0x28); // EMPTY_TUPLE REDUCE MARK
    items();
    this.#bytes.push(0x75); // SETITEMS
  }

  text(value: string): void {
    const utf8 = new TextEncoder().encode(value);
    this.#bytes.push(0x58, ...uint32(utf8.length)); // BINUNICODE
    for (const byte of utf8) this.#bytes.push(byte); // not spread: a name may be longer than a call may have arguments
  }

  integer(value: number): void {
    if (value >= 0 && value < 256)
      this.#bytes.push(0x4b, value); // BININT1
    else if (value >= 0 && value < 2 ** 31)
      this.#bytes.push(0x4a, ...uint32(value)); // BININT
    else {
      const wide = new Uint8Array(8);
      new DataView(wide.buffer).setBigInt64(0, BigInt(value), true);
      this.#bytes.push(0x8a, 8, ...wide); // LONG1
    }
  }

  /** Writes a contiguous tensor that is the whole of the storage `key`. */
  tensor(key: string, dtype: ElementType, shape: readonly number[]): void {
    const storageClass = Object.entries(storageClasses).find(([, candidate]) => candidate === dtype)?.[0] as string;
    this.#global("torch._utils", "_rebuild_tensor_v2");
    this.#tuple(() => {
      this.#tuple(() => {
        this.text("storage");
        this.#global("torch", storageClass);
        this.text(key);
        this.text("cpu");
        this.integer(elementCount(shape));
      });
      this.#bytes.push(0x51); // BINPERSID
      this.integer(0);
      this.#tuple(() => shape.forEach((dimension) => this.integer(dimension)));
      this.#tuple(() => contiguousStrides(shape).forEach((stride) => this.integer(stride)));
      this.#bytes.push(0x89); // NEWFALSE: requires_grad
      this.#global("collections", "OrderedDict");
      this.#bytes.push(0x29, 0x52); // EMPTY_TUPLE REDUCE: no backward hooks
    });
    this.#bytes.push(0x52); // REDUCE
  }

  finish(): Uint8Array {
    this.#bytes.push(0x2e); // STOP
    return Uint8Array.from(this.#bytes);
  }

  #tuple(items: () => void): void {
    this.#bytes.push(0x28); // MARK
    items();
    this.#bytes.push(0x74); // TUPLE
  }

  #global(module: string, name: string): void {
    this.#bytes.push(0x63, ...new TextEncoder().encode(`${module}\n${name}\n`)); // GLOBAL
  }
}

function uint32(value: number): number[] {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
}
