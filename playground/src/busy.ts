// Whether a text is being written, a model trained, or one measured: what loading another model would end, or share its machine with.

import { computed, signal } from "@preact/signals";

const works = signal(0);

export const isBusy = computed(() => works.value > 0);

/** Counts work until it has ended. */
export async function busyWith<T>(work: Promise<T>): Promise<T> {
  works.value++;
  try {
    return await work;
  } finally {
    works.value--;
  }
}
