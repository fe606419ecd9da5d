// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// What programs make of text, undone: the rules of cmd/totpctl/views.go, to which a test
// holds them. Strings have one character for each byte.

import { binary, utf8 } from "./bytes.js";

const entityNames = {
  amp: 0x26, lt: 0x3c, gt: 0x3e, quot: 0x22, apos: 0x27, nbsp: 0xa0, plus: 0x2b, sol: 0x2f, equals: 0x3d, NewLine: 0x0a, Tab: 0x09,
};

const jsonNames = { n: 0x0a, r: 0x0d, t: 0x09, b: -1, f: -1 };

const blanks = "\u0085\u00a0\u00ad\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e\u200f" +
  "\u2028\u2029\u202f\u205f\u2060\u3000\ufeff";

// In UTF-8, and the no-break space of Latin-1.
const otherBlanks = new Map([...blanks].map((c) => [binary(utf8(c)), plainChar(c.charCodeAt(0))]));
otherBlanks.set("\xa0", " ");
const otherBlank = new RegExp([...otherBlanks.keys()].join("|"), "g");

/** The ASCII that stands for a code point in an envelope's text. */
function plainChar(code) {
  if (code === 0x09 || code === 0x0a || code === 0x0d || (code >= 0x20 && code <= 0x7e)) return String.fromCharCode(code);
  if (code === 0x85 || code === 0x2028 || code === 0x2029) return "\n";
  const blank = code === 0xa0 || code === 0x1680 || (code >= 0x2000 && code <= 0x200a) || code === 0x202f || code === 0x205f || code === 0x3000;
  return blank ? " " : "";
}

/** Undoes the escapes of JSON and HTML, and makes blanks of what looks like them. */
export function plainText(s) {
  s = s.replace(/\\{1,16}(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|["'/nrtbf])/g, (_, e) => {
    if (/^[ux]/.test(e)) return plainChar(parseInt(e.slice(1), 16));
    return plainChar(jsonNames[e] ?? e.charCodeAt(0));
  });
  s = withoutTags(s).replace(
    /&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos|nbsp|plus|sol|equals|NewLine|Tab);/g,
    (_, e) => {
      if (e[0] !== "#") return plainChar(entityNames[e]);
      return plainChar(/^#[xX]/.test(e) ? parseInt(e.slice(2), 16) : parseInt(e.slice(1), 10));
    },
  );
  return withoutTags(s).replace(otherBlank, (c) => otherBlanks.get(c));
}

function withoutTags(s) {
  return s
    .replace(/<\/?(?:br|BR|p|P|div|DIV|li|LI|tr|TR|pre|PRE)(?:[\t\n\r /][\t\n\r -;=?-~]{0,512})?>[ \t]*\r?\n?/g, "\n")
    .replace(/<\/?[a-zA-Z][\t\n\r -;=?-~]{0,512}>/g, "");
}

/** Decodes RFC 2045, section 6.7. */
export function fromQuotedPrintable(s) {
  return s.replace(/=(?:[ \t]*\r?\n|([0-9a-fA-F]{2}))/g, (_, hex) => (hex ? String.fromCharCode(parseInt(hex, 16)) : ""));
}

const longLine = 60; // characters of base64, which no line of a console block has

/**
 * The long base64 of a text: lines of that length, and the shorter one that ends two or
 * more of them. A regular expression would run out of stack where a line has megabytes.
 */
export function* base64Runs(s) {
  const gap = /[ \t]*\r?\n[ \t]*/y;
  for (let at = 0; at < s.length; ) {
    let end = wordEnd(s, at);
    if (end - at < longLine) {
      at = end + 1;
      continue;
    }
    const begin = at;
    for (let first = true; ; first = false) {
      gap.lastIndex = end;
      if (!gap.test(s)) break;
      const next = gap.lastIndex;
      const nextEnd = wordEnd(s, next);
      const long = nextEnd - next >= longLine;
      if (long || (!first && nextEnd > next)) end = nextEnd;
      if (!long) break;
    }
    yield s.slice(begin, end);
    at = end + 1;
  }
}

/** Where the characters of base64 end that begin at a place. */
function wordEnd(s, at) {
  const other = /[^A-Za-z0-9+/]/g;
  other.lastIndex = at;
  return other.exec(s)?.index ?? s.length;
}
