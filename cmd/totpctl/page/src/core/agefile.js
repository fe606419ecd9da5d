// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// The forms of an age file (https://age-encryption.org/v1) that the channels
// carry, and what its header tells everybody.

import { armor } from "age-encryption";
import { binary, decodeBase64, decodeUTF8, fromBinary } from "./bytes.js";

/** The first line of a binary age file. */
export const intro = "age-encryption.org/v1";

export const armorBegin = "-----BEGIN AGE ENCRYPTED FILE-----";
export const armorEnd = "-----END AGE ENCRYPTED FILE-----";

/** The size in bytes up to which envelopes are opened. A card has about 6 KiB. */
export const maxSize = 1 << 20;

/**
 * The binary age file of an armored one, or of a binary one itself. Null means
 * that it is damaged.
 */
export function dearmor(bytes) {
  const s = binary(bytes);
  if (s.startsWith(intro + "\n")) return bytes;
  const from = s.indexOf(armorBegin);
  const to = s.indexOf(armorEnd);
  if (from < 0 || to < from) return null;
  const body = s
    .slice(from + armorBegin.length, to)
    .replaceAll("\xc2\xa0", " ") // the no-break space that web pages have
    .split("\n")
    .map((line) => line.replace(/^[ \t\v\f\r]+|[ \t\v\f\r]+$/g, ""))
    .join(""); // lines that a terminal has broken are whole again
  try {
    return armor.decode([armorBegin, ...(body.match(/[^]{1,64}/g) ?? []), armorEnd].join("\n"));
  } catch {
    return null;
  }
}

/** The binary age file of its base64, whose end may be cut off. */
export function debase64(text) {
  text = text.replace(/[\r\n]/g, "").split("=", 1)[0];
  // What is over at the end is less than a byte.
  text = text.slice(0, text.length - (text.length % 4 === 1 ? 1 : 0));
  const whole = text.length - (text.length % 4);
  const tail = text.slice(whole);
  const bytes = decodeBase64(text.slice(0, whole));
  if (tail === "") return bytes;
  const last = binaryTail(tail);
  return fromBinary(binary(bytes) + last);
}

/** The one or two bytes of two or three characters, bits that are over dropped. */
function binaryTail(tail) {
  const bytes = decodeBase64(tail.padEnd(4, "A"));
  return binary(bytes).slice(0, tail.length - 1);
}

/** How many recipients an envelope has at most: 64 that a card names, and as many for escrow. */
export const maxRecipients = 128;

/** How many recipients a binary age file is sealed to. */
export function countRecipients(file) {
  const [header] = binary(file.subarray(0, maxSize)).split("\n--- ", 1);
  return header.split("\n-> ").length - 1;
}

/** The types of the recipients of a binary age file, one for each. */
export function stanzaTypes(file) {
  const end = binary(file.subarray(0, maxSize)).indexOf("\n--- ");
  const text = end < 0 ? null : decodeUTF8(file.subarray(0, end));
  if (text === null) return [];
  return text
    .split("\n")
    .filter((line) => line.startsWith("-> "))
    .map((line) => line.split(" ")[1]);
}
