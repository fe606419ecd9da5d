// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Opens what was found, and says why where it cannot.

import { Decrypter } from "age-encryption";
import { armorBegin, countRecipients, maxRecipients, maxSize, stanzaTypes } from "./agefile.js";
import { binary } from "./bytes.js";
import { parseCard } from "./card.js";
import { find } from "./find.js";
import { contradict, replaces, same } from "./forged.js";
import { looksLikeKey } from "./keys.js";
import { Problem } from "./problem.js";

// How often a key is tried on a recipient, for one input. A try takes a millisecond or two.
const maxTrials = 4096;

/**
 * Opens the envelopes in an input with the identities of readKeys. Returns the
 * cards, those left out that a later one replaces, as opened: [{card, stanzas}],
 * the problems of the envelopes that were not opened as failed, and whether two
 * of the cards contradict each other as forged. Throws a Problem where there is
 * no card to show.
 */
export async function open(input, keys) {
  const found = find(input);
  if (found.length === 0) throw nothingFound(input);
  if (keys.length === 0 && found.some((f) => f.fault === "")) {
    throw new Problem("no key", "The envelope is here. To open it, your key is needed.", "Choose the file of your key, or paste it, above.");
  }
  let opened = [];
  const failed = [];
  let left = maxTrials;
  const untried = [];
  for (const f of found) {
    // One that needs few tries may have them where another one needs too many.
    const n = trials(f, keys);
    if (n > left) {
      untried.push(f);
      continue;
    }
    left -= n;
    try {
      const o = await openOne(f, keys);
      // The same card may be there twice, sealed twice or in two forms.
      if (!opened.some((p) => same(p.card, o.card))) opened.push(o);
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      failed.push(named(f, err));
    }
  }
  if (untried.length > 0) {
    failed.push(new Problem("not tried", untried.length === 1 ? "One envelope was not tried: the text has too many recipients." : `${untried.length} envelopes were not tried: the text has too many recipients.`, "Paste a smaller part of the text."));
  }
  if (opened.length === 0) throw noneOpened(failed);
  const cards = opened.map((o) => o.card);
  opened = opened.filter((o) => !cards.some((later) => replaces(later, o.card)));
  return { opened, failed, forged: contradict(opened.map((o) => o.card)) };
}

/** How many tries it may take to open a finding. What is refused before takes none. */
function trials(f, keys) {
  if (f.fault !== "" || f.file.length > maxSize) return 0;
  const n = countRecipients(f.file);
  return n > maxRecipients ? 0 : n * keys.length;
}

async function openOne(f, keys) {
  if (f.fault !== "") throw fault(f);
  if (f.file.length > maxSize) throw new Problem("too large", "The envelope is too large to hold a card.");
  if (countRecipients(f.file) > maxRecipients) throw new Problem("too many recipients", "The envelope has more recipients than a card can have.");
  const types = stanzaTypes(f.file);
  const d = new Decrypter();
  for (const k of keys) d.addIdentity(k.identity);
  let text;
  try {
    text = await d.decrypt(f.file);
  } catch (err) {
    if (err instanceof Error && err.message.startsWith("no identity matched")) throw wrongKey(types);
    throw damaged();
  }
  const card = parseCard(text);
  if (f.id !== "" && (f.id !== card.id || f.user !== card.user)) {
    throw new Problem("other card", "The envelope holds another card than the marks in the log say.", "Somebody has changed the log. Ask your provider.");
  }
  return { card, stanzas: types.length };
}

function fault(f) {
  switch (f.fault) {
    case "cut off":
      return new Problem("cut off", "The envelope is cut off: its last line, -----END AGE ENCRYPTED FILE-----, is missing.", "Copy all of it.");
    case "incomplete":
      if (f.missing.length === 0) break;
      return new Problem("incomplete", `The envelope is not whole: ${f.missing.length} of its ${f.lines} lines are missing or damaged in both copies.`,
        "Get the whole log. A console keeps its last lines only, and what is copied from a screen may lack some.");
  }
  return damaged();
}

function damaged() {
  return new Problem("damaged", "The envelope is damaged: it was cut short or altered on its way.", "Get it again, whole. If it comes the same way a second time, ask for another way.");
}

/** The header of an envelope tells everybody what kind of key it wants. */
function wrongKey(types) {
  const todo = {
    "ssh-ed25519": "It is sealed to an SSH key: open it with totpctl open.",
    "ssh-rsa": "It is sealed to an SSH key: open it with totpctl open.",
    p256tag: "It is sealed to a key in hardware: open it with age -d.",
    mlkem768p256tag: "It is sealed to a key in hardware: open it with age -d.",
    mlkem768x25519: "It is sealed to a post-quantum key, which begins with AGE-SECRET-KEY-PQ-1.",
    X25519: "It is sealed to a key that begins with AGE-SECRET-KEY-1.",
    scrypt: "It is sealed to a passphrase, as servers never do.",
  };
  const known = types.find((t) => Object.hasOwn(todo, t));
  return new Problem("wrong key", "The envelope is sealed to another key than yours.", known ? `${todo[known]} Is it the key whose public half you gave to your provider?` : "Is it the key whose public half you gave to your provider?");
}

function named(f, err) {
  if (f.user !== "") err.message = err.message.replace("The envelope", `The envelope of ${f.user}`);
  return err;
}

function noneOpened(failed) {
  if (failed.length === 1) return failed[0];
  const text = [...new Set(failed.map((p) => p.message))].slice(0, 5).join(" ");
  const todo = [...new Set(failed.map((p) => p.todo))].slice(0, 5).join(" ");
  return new Problem(failed[0].code, `None of the ${failed.length} envelopes in this text could be opened. ${text}`, todo);
}

/** Tells apart the inputs in which people look for envelopes in vain. */
function nothingFound(input) {
  const text = binary(input);
  if (text.trim() === "") return new Problem("empty", "There is no envelope yet.", "Paste the text that your provider gave you, or choose the file.");
  if (looksLikeKey(input)) return new Problem("is key", "This is a key, not an envelope.", "It belongs into the field for your key.");
  if (text.includes('"totp-enrollment"')) return new Problem("is card", "This is a card that has been opened already.");
  if (/^\s*(?:age1|ssh-)/.test(text)) return new Problem("is public key", "This is a public key, which servers seal to.", "Paste the envelope that your server has sealed.");
  return new Problem("nothing", "There is no envelope in this.", `An envelope begins with ${armorBegin}, or with -----BEGIN TOTP ENVELOPE in the log of a console.`);
}
