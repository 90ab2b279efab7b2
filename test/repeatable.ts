// Properties are tried with the same values each time that `npm test` runs, so that a change is what makes it fail; the long tests
// try others each time.

import fc from "fast-check";

fc.configureGlobal({ seed: 1 });
