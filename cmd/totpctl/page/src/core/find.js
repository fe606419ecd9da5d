// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Envelopes in whatever somebody pastes: the rules of totpctl open, to which a
// test holds them.

import { sha256 } from "@noble/hashes/sha2.js";
import { armorBegin, armorEnd, debase64, dearmor, intro } from "./agefile.js";
import { asUTF8, binary, fromBinary } from "./bytes.js";
import { decode } from "./console.js";

/**
 * Finds the envelopes in an input of any kind: a binary age file, armored ones
 * amid any text or in one line of JSON, console blocks in a captured log, and, where there is none of
 * these, the bare base64 of channels with little room. One that occurs twice is
 * returned once.
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
  let found = [...findConsole(bytes), ...findArmored(s), ...findRunOn(s)];
  // The lines of a console block hold base64 too, so this comes last.
  if (found.length === 0) found = findBase64(s);
  return distinct(found);
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
    // Another time, say: the base64 has no blanks.
    if (!same) text = text.endsWith(armorEnd) ? armorEnd : text.replace(/^.*[ \t]/s, "");
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
