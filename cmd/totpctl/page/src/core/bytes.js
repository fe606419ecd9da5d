// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Bytes and text. Whatever is pasted, dropped or read from a file becomes bytes
// first, so that all of it takes the same way.

import { base64 } from "@scure/base";

/** The text as UTF-8. */
export function utf8(text) {
  return new TextEncoder().encode(text);
}

/** One character for each byte, so that offsets are those of the bytes. */
export function binary(bytes) {
  const step = 1 << 15; // arguments that any browser takes at once
  let s = "";
  for (let i = 0; i < bytes.length; i += step) {
    s += String.fromCharCode.apply(null, bytes.subarray(i, i + step));
  }
  return s;
}

/** The other way round. */
export function fromBinary(s) {
  return Uint8Array.from(s, (c) => c.charCodeAt(0));
}

/**
 * Takes off a byte order mark, and turns UTF-16 into UTF-8: the redirection of
 * Windows PowerShell writes text so.
 */
export function asUTF8(bytes) {
  const [a, b, c] = bytes;
  if (a === 0xef && b === 0xbb && c === 0xbf) return bytes.subarray(3);
  if (a === 0xff && b === 0xfe) return utf8(new TextDecoder("utf-16le").decode(bytes));
  if (a === 0xfe && b === 0xff) return utf8(new TextDecoder("utf-16be").decode(bytes));
  return bytes;
}

/** The text of UTF-8 bytes, or null if they are not UTF-8. */
export function decodeUTF8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** The bytes of standard base64 (RFC 4648), or null if the text is none. */
export function decodeBase64(text) {
  try {
    return base64.decode(text);
  } catch {
    return null;
  }
}

/** Whether both have the same bytes. What is compared so is no secret. */
export function equal(a, b) {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}
