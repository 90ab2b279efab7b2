// What may be wider than the screen: it scrolls by itself, also by the keyboard.

import type { ComponentChildren } from "preact";

export function Scrolled({ label, children }: { readonly label: string; readonly children: ComponentChildren }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: without it the keyboard cannot scroll
    <section class="scrolled" tabIndex={0} aria-label={label}>
      {children}
    </section>
  );
}
