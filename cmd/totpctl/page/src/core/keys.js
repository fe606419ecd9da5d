// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Keys: age identities, which open, and recipients, which are sealed to.

import { generateHybridIdentity, identityToRecipient } from "age-encryption";
import { asUTF8, binary } from "./bytes.js";
import { Problem } from "./problem.js";

/** Makes a post-quantum key: the identity, its recipient, and both as a file. */
export async function makeKey(now) {
  const identity = await generateHybridIdentity();
  const recipient = await identityToRecipient(identity);
  const created = now.toISOString().replace(/\.\d+Z$/, "Z");
  return { identity, recipient, file: `# created: ${created}\n# public key: ${recipient}\n${identity}\n` };
}

// Both kinds hold 32 bytes. The length is given, since an input of one line runs
// the lines of a pasted file together.
const identityPattern = /AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{58}/g;

/** Whether the input is meant as a key, whole or not. */
export function looksLikeKey(bytes) {
  return /AGE-SECRET-KEY-|AGE-PLUGIN-|PRIVATE KEY-----|PuTTY-User-Key-File-/.test(binary(asUTF8(bytes)));
}

/**
 * Reads the identities of a file or of what was pasted: [{identity, recipient}].
 * Throws a Problem that quotes nothing.
 */
export async function readKeys(bytes) {
  const text = binary(asUTF8(bytes));
  const keys = [];
  for (const identity of new Set(text.match(identityPattern))) {
    try {
      keys.push({ identity, recipient: await identityToRecipient(identity) });
    } catch {
      throw damaged();
    }
  }
  if (keys.length > 0) return keys;
  if (text.trim() === "") throw new Problem("key empty", "There is no key yet.", "Choose the file of your key, or paste it.");
  if (text.includes("AGE-SECRET-KEY-")) throw damaged();
  if (text.includes("PuTTY-User-Key-File-") || text.includes("PRIVATE KEY-----")) {
    throw new Problem("key ssh", "This is an SSH key. This page opens cards that are sealed to an age key.",
      "If the card is sealed to your SSH key, open it with totpctl open.");
  }
  if (text.includes("AGE-PLUGIN-")) {
    throw new Problem("key plugin", "This key is in hardware, or in another program.", "Open the card with age -d, which knows how to ask it.");
  }
  if (text.startsWith("age-encryption.org/v1\n-> scrypt ") || text.includes("BEGIN AGE ENCRYPTED FILE")) {
    throw new Problem("key locked", "This file is sealed itself. If it is your key, it is locked with a passphrase, which this page cannot take off.",
      "Open the card with totpctl open, which asks for the passphrase.");
  }
  if (/\b(?:age1|ssh-)/.test(text)) {
    throw new Problem("key public", "This is a public key. It seals cards, and does not open them.",
      "Take the secret half: the line that begins with AGE-SECRET-KEY-.");
  }
  throw new Problem("key unknown", "This is no key that this page knows.", "A key begins with AGE-SECRET-KEY-.");
}

function damaged() {
  return new Problem("key damaged", "This key is damaged or not whole.", "Copy all of it again, from AGE-SECRET-KEY- to the end of the line.");
}
