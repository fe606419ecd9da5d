// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// What opens envelopes. It needs no page around it, and touches none.

export { utf8 } from "./bytes.js";
export { account, parseCard } from "./card.js";
export { content, dateTime, origin } from "./content.js";
export { find } from "./find.js";
export { looksLikeKey, makeKey, readKeys } from "./keys.js";
export { open } from "./open.js";
export { Problem } from "./problem.js";
export { modules, quietZone } from "./qr.js";
