// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Envelopes in whatever somebody pastes: the rules of totpctl open, to which a
// test holds them.

import { sha256 } from "@noble/hashes/sha2.js";
import { armorBegin, armorEnd, debase64, dearmor, intro } from "./agefile.js";
import { asUTF8, binary, fromBinary } from "./bytes.js";
import { decode } from "./console.js";
import { base64Runs, fromQuotedPrintable, plainText } from "./views.js";

/**
 * Finds the envelopes in an input of any kind: a binary age file, armored ones
 * amid any text or in one line of JSON, console blocks in a captured log, and, where there is none of
 * these, the bare base64 of channels with little room; all of them also inside JSON,
 * HTML, quoted-printable and base64. One that occurs twice is returned once.
 *
 * A finding is {form, line, id, user, file, fault}: the form is "age file",
 * "armored", "base64" or "console block"; id and user are what the marks on a
 * console say; file is the binary age file, or null with a fault, which is
 * "cut off", "incomplete" (with missing and lines) or "damaged".
 */
export function find(input) {
  const bytes = asUTF8(input);
  const s = binary(bytes);
  const start = s.search(/[^ \t\r\n]/);
  if (start >= 0 && s.startsWith(intro + "\n", start)) {
    return [finding("age file", 0, { file: bytes.slice(start) })];
  }
  return findText(s, nestedLevels);
}

const nestedLevels = 2; // of base64 in base64
const maxNested = 64; // that are looked into on each level

/**
 * The envelopes in a text as it is. If it has more of them once its escapes are
 * undone, they are found there. Then come those in long base64 inside it.
 */
function findText(s, levels) {
  const raw = search(s);
  let best = raw;
  const plain = plainText(s);
  const printed = plainText(fromQuotedPrintable(s));
  for (const view of [plain, printed]) {
    if (view === s) continue;
    const found = search(view);
    if (better(found, best)) best = withoutLines(found);
  }
  if (better(best, raw)) {
    // Bare base64 has no end mark, and may have been joined with what follows.
    const bareOnly = !best.some(isWhole);
    best = distinct([...best, ...raw.filter((f) => isWhole(f) || (f.form === "base64" && bareOnly))]);
  }
  if (levels === 0) return distinct(best);
  let nested = findNested(plain, levels - 1);
  if (printed !== plain) {
    const found = findNested(printed, levels - 1);
    if (better(found, nested)) nested = found;
  }
  return distinct([...best, ...nested]);
}

/** The envelopes in the long base64 of a text. */
function findNested(s, levels) {
  const found = [];
  let runs = 0;
  for (const text of base64Runs(s)) {
    if (++runs > maxNested) break;
    if (text.startsWith(base64Intro)) continue; // an envelope itself
    found.push(...withoutLines(findText(binary(debase64(text.replace(/[ \t]/g, ""))), levels)));
  }
  return distinct(found);
}

/** The envelopes in a text as it is. */
function search(s) {
  let found = [...findConsole(fromBinary(s)), ...findArmored(s), ...findRunOn(s)];
  // The lines of a console block hold base64 too, so this comes last.
  if (found.length === 0) found = findBase64(s);
  return distinct(found);
}

/** Whether there are more envelopes, or more of those in bare base64. */
function better(found, other) {
  const whole = found.filter(isWhole).length - other.filter(isWhole).length;
  return whole > 0 || (whole === 0 && bareBytes(found) > bareBytes(other));
}

function bareBytes(found) {
  return found.reduce((n, f) => n + (f.form === "base64" ? f.file.length : 0), 0);
}

/**
 * Whether a finding is an age file, as far as can be told without a key. Of bare
 * base64 that cannot be told: it has no end.
 */
function isWhole(f) {
  return f.fault === "" && f.form !== "base64" && f.file !== null && binary(f.file.subarray(0, intro.length)) === intro;
}

/** Forgets where findings begin: it is not a line of the input. */
function withoutLines(found) {
  return found.map((f) => ({ ...f, line: 0 }));
}

function finding(form, line, more) {
  return { form, line, id: "", user: "", file: null, fault: "", ...more };
}

function findConsole(bytes) {
  return decode(bytes).map((b) =>
    finding("console block", 0, {
      id: b.id,
      user: b.user,
      file: b.sealed,
      fault: b.complete ? "" : "incomplete",
      missing: b.missing,
      lines: b.lines,
    }),
  );
}

/**
 * What stands before the first mark on its line (an indentation, a mail's quote
 * marks, the bars of PuTTY's banner) is taken off the lines of the block.
 */
function findArmored(s) {
  const found = [];
  let block = null;
  const cutOff = () => found.push(finding("armored", block.line, { fault: "cut off" }));
  s.split("\n").forEach((line, i) => {
    let text = line.replace(/[ \t\r]+$/, "");
    if (text.endsWith(armorBegin)) {
      if (block) cutOff();
      block = { line: i + 1, prefix: text.slice(0, -armorBegin.length), lines: [armorBegin] };
      return;
    }
    if (!block) return;
    const same = text.startsWith(block.prefix);
    if (same) text = text.slice(block.prefix.length);
    text = text.replace(/^[ \t]+/, "");
    if (text.includes(armorEnd)) text = armorEnd; // without the quotes or tags that may follow
    else if (!same) text = text.replace(/^.*[ \t]/s, ""); // another time, say: the base64 has no blanks
    block.lines.push(text);
    if (text !== armorEnd) return;
    const raw = fromBinary(block.lines.join("\n"));
    const file = dearmor(raw);
    found.push(finding("armored", block.line, { file, fault: file ? "" : "damaged", raw }));
    block = null;
  });
  if (block) cutOff();
  return found;
}

// How any base64 of an age file begins.
const base64Intro = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx";

// What stands for a character of an envelope, or for the end of its line, in a
// string of JSON, and in one inside another: some programs write "/" and "+" so
// as well.
const escape = String.raw`\\+(?:[nrt/]|u00(?:0[aAdD]|2[bBfF]|3[dD]))`;

/** Puts the characters in the place of their escapes, and nothing in that of line ends. */
function unescape(text) {
  return text.replace(new RegExp(escape, "g"), (e) => {
    if (/[/fF]$/.test(e)) return "/";
    if (/[bB]$/.test(e)) return "+";
    return /3[dD]$/.test(e) ? "=" : "";
  });
}

/**
 * Armored age files whose lines have become one, or others: a body of JSON as it
 * was sent to an HTTP server, or text that a program has filled anew.
 */
function findRunOn(s) {
  const begin = new RegExp(`${armorBegin}(?:[ \\t]|${escape})*${base64Intro}`, "g");
  return Array.from(s.matchAll(begin), (m) => {
    const line = lineOf(s, m.index);
    const [body] = s.slice(m.index + armorBegin.length).split(armorBegin, 1);
    const end = body.indexOf(armorEnd);
    if (end < 0) return finding("armored", line, { fault: "cut off" });
    const text = unescape(body.slice(0, end)).replace(/[ \t\v\f\r\n]|\xc2\xa0/g, "");
    const raw = fromBinary([armorBegin, text, armorEnd].join("\n"));
    const file = dearmor(raw);
    return finding("armored", line, { file, fault: file ? "" : "damaged", raw });
  });
}

function findBase64(s) {
  // Where no "=" ends it, the next line may be another one.
  const all = s.matchAll(new RegExp(`${base64Intro}(?:(?!${base64Intro})(?:[A-Za-z0-9+/\\r\\n]|${escape}))*={0,2}`, "g"));
  return Array.from(all, (m) => finding("base64", lineOf(s, m.index), { file: debase64(unescape(m[0])) }));
}

function lineOf(s, at) {
  return s.slice(0, at).split("\n").length;
}

function distinct(found) {
  const seen = new Set();
  return found.filter((f) => {
    const bytes = f.file ?? f.raw;
    if (!bytes) return true;
    const sum = binary(sha256(bytes));
    return !seen.has(sum) && seen.add(sum);
  });
}
