// A region that nobody sees and readers of a screen read aloud when it changes.

import { announcement } from "../announcements.js";

export function Announcer() {
  return (
    <p class="hidden" role="status" data-testid="announced">
      {announcement.value}
    </p>
  );
}
