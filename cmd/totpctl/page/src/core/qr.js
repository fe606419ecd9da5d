// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// The QR code of a text.

import { encode } from "uqr";

/** The light border that ISO/IEC 18004 wants around a code, in modules. */
export const quietZone = 4;

/**
 * The modules of the code without border, rows of true for dark. It has the
 * lowest level of error correction: a screen has no scratches, and modules as
 * large as possible are read more easily.
 */
export function modules(text) {
  return encode(text, { ecc: "L", border: 0 }).data;
}
