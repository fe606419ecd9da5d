// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Envelopes in a captured console log: the reading half of the Go package
// internal/deliver/console, rule by rule, which says there what the rules are
// for. A test holds the two together.

import { sha256 } from "@noble/hashes/sha2.js";
import { binary, decodeBase64, equal, fromBinary } from "./bytes.js";

const lineBytes = 36;
const chunkLen = (lineBytes / 3) * 4;
const hashLen = 32;

/** The largest age file that is printed, in bytes. */
const maxSealed = 64 << 10;
const maxHeader = 255;
const maxLines = lineCount("TOTP-ENVELOPE ".length + 80 + maxSealed + hashLen);

// Bounds on what a hostile log can make decode do.
const maxBlocks = 1024;
const maxBroken = 50000;
const maxTries = 1 << 20;

// How many lines after its beginning a broken line may end, and in how many
// pieces.
const reach = 16;
const maxPieces = 4;

/**
 * Finds the envelopes in a log, in the order in which they first appear. Those
 * that are not complete are returned as well: {id, user, sealed, complete,
 * lines, missing}.
 */
export function decode(log) {
  const d = new Decoder(clean(log).split("\n"));
  for (let i = 0; i < d.lines.length; i++) d.scan(i);
  let { found, whole } = d.assemble();
  if (whole) return found;
  for (const { line, at } of d.broken) d.splice(line, at);
  ({ found } = d.assemble());
  return found;
}

/** The log as lines of printable ASCII. */
function clean(log) {
  const s = binary(log).replace(
    // CSI; OSC and other strings; two-character sequences
    /\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]/g,
    "",
  );
  return s.replace(/\r/g, "\n").replace(/[^\n -~]/g, "");
}

const beginMark = /-----BEGIN TOTP ENVELOPE ([a-z2-7]{8}) ([a-z_][a-z0-9_.-]{0,31}) ([0-9]{1,4})-----/;
const endMark = /-----END TOTP ENVELOPE ([a-z2-7]{26})-----/;

class Decoder {
  blocks = new Map(); // by the first eight characters of the ID
  broken = []; // where numbered lines begin that are not whole
  tries = 0;

  constructor(lines) {
    this.lines = lines;
  }

  block(id8) {
    let b = this.blocks.get(id8);
    if (!b) {
      b = { id: "", user: "", total: 0, highest: 0, chunks: new Map() };
      if (this.blocks.size < maxBlocks) this.blocks.set(id8, b);
    }
    return b;
  }

  /** Takes what a line has whole, and notes what it has of broken ones. */
  scan(i) {
    const line = this.lines[i];
    if (line.includes("TOTP ENVELOPE")) {
      let m = beginMark.exec(line);
      if (m) {
        const b = this.block(m[1]);
        b.user = m[2];
        const n = Number(m[3]);
        if (n > 0 && n <= maxLines) b.total = n;
      }
      m = endMark.exec(line);
      if (m) this.block(m[1].slice(0, 8)).id = m[1];
    }
    for (let at = 0; at < line.length; at++) {
      at = line.indexOf("T", at);
      if (at < 0) return;
      const rest = line.slice(at);
      const n = this.take(rest);
      if (n > 0) {
        at += n - 1;
      } else if (mayBegin(rest) && this.broken.length < maxBroken) {
        this.broken.push({ line: i, at });
      }
    }
  }

  /** Takes the numbered line that s begins with; returns its length, or 0. */
  take(s) {
    for (const width of [3, 4]) {
      const n = lineLen(width);
      if (s.length < n || fit(s, width) < n) continue;
      const id8 = s.slice(5, 13);
      const number = s.slice(14, 14 + width);
      const chunk = s.slice(24 + width, n);
      if (parseInt(s.slice(15 + width, 23 + width), 16) !== crc32(`${id8} ${number} ${chunk}`)) continue;
      const num = Number(number);
      if (num < 1 || num > maxLines) return n;
      const b = this.block(id8);
      if (!b.chunks.has(num)) {
        b.chunks.set(num, chunk);
        b.highest = Math.max(b.highest, num);
      }
      return n;
    }
    return 0;
  }

  /** What has been found so far, and whether all of it is whole. */
  assemble() {
    const found = [];
    const marks = [];
    let whole = true;
    for (const [id8, b] of this.blocks) {
      const f = assemble(b, id8);
      if (b.chunks.size === 0) {
        marks.push(f);
        continue;
      }
      whole &&= f.complete;
      found.push(f);
    }
    return found.length > 0 ? { found, whole } : { found: marks, whole: false };
  }

  /** Tries to put a broken line together from its pieces. */
  splice(i, at) {
    let last = i;
    while (last < i + reach && last + 1 < this.lines.length && !begins(rests(this.lines[last + 1], at))) last++;
    for (const width of [3, 4]) {
      const first = this.lines[i].slice(at);
      const f = fit(first, width);
      for (const cut of [f, f - 1]) {
        if (cut > 0) this.extend(first.slice(0, cut), i + 1, last, at, width, 2);
      }
      for (let j = i + 1; j <= last; j++) {
        for (const rest of rests(this.lines[j], at)) {
          const cut = lineLen(width) - rest.length;
          if (cut > 0 && cut <= f && this.try()) this.take(first.slice(0, cut) + rest);
        }
      }
    }
  }

  /** Looks for the pieces that follow head, in lines from to last. */
  extend(head, from, last, at, width, piece) {
    const need = lineLen(width) - head.length;
    for (let j = from; j <= last; j++) {
      for (const rest of rests(this.lines[j], at)) {
        if (!this.try()) return;
        if (rest.length >= need) this.take(head + rest);
        if (piece === maxPieces) continue;
        const f = fit(head + rest, width) - head.length;
        for (const cut of [f, f - 1]) {
          if (cut > 0 && cut < need) this.extend(head + rest.slice(0, cut), j + 1, last, at, width, piece + 1);
        }
      }
    }
  }

  try() {
    return ++this.tries <= maxTries;
  }
}

function assemble(b, id8) {
  const f = { id: b.id || id8, user: b.user, sealed: null, complete: false, lines: Math.max(b.total, b.highest), missing: [] };
  const h = header(b);
  if (h && h.id.slice(0, 8) !== id8) return f;
  if (h) {
    f.id = h.id;
    f.user = h.user;
    f.lines = lineCount(h.size + h.length + hashLen);
  }
  let stream = "";
  for (let n = 1; n <= f.lines; n++) {
    if (b.chunks.has(n)) stream += decodeChunk(b.chunks.get(n));
    else f.missing.push(n);
  }
  if (!h || f.missing.length > 0) return f;
  const bytes = fromBinary(stream);
  const end = h.size + h.length;
  if (equal(sha256(bytes.subarray(0, end)), bytes.subarray(end, end + hashLen))) {
    f.complete = true;
    f.sealed = bytes.slice(h.size, end);
  }
  return f;
}

/** Reads the header of package frame from the first lines, if they are there. */
function header(b) {
  let s = "";
  for (let n = 1; s.length <= maxHeader && b.chunks.has(n); n++) {
    s += decodeChunk(b.chunks.get(n));
    const end = s.indexOf("\n");
    if (end < 0) continue;
    const m = /^TOTP-ENVELOPE 1 ([a-z2-7]{26}) ([a-z_][a-z0-9_.-]{0,31}) ([1-9][0-9]{0,5})$/.exec(s.slice(0, end));
    const length = m ? Number(m[3]) : 0;
    return m && length <= maxSealed ? { id: m[1], user: m[2], length, size: end + 1 } : null;
  }
  return null;
}

/** Decodes what fit has checked. */
function decodeChunk(chunk) {
  return binary(decodeBase64(chunk));
}

function lineCount(bytes) {
  return Math.ceil(bytes / lineBytes);
}

/** The length of a numbered line whose number has so many digits. */
function lineLen(width) {
  return "TOTP ".length + 8 + 1 + width + 1 + 8 + 1 + chunkLen;
}

function begins(list) {
  return list.some((s) => s.startsWith("TOTP "));
}

/**
 * What of a line may belong to a broken one: all of it, or what follows a prefix
 * as long as the one before the broken line's beginning.
 */
function rests(line, at) {
  return at > 0 && at < line.length ? [line.slice(at), line] : [line];
}

/** Whether s, which is not a whole line, may begin with a piece of one. */
function mayBegin(s) {
  if (s.startsWith("TOTP ")) return true;
  const n = fit(s, 3);
  return n > 0 && (n === s.length || s[n] === "[" || s.startsWith("  ", n));
}

/** How many characters of s are as in a numbered line with so many digits. */
function fit(s, width) {
  const n = Math.min(s.length, lineLen(width));
  for (let i = 0; i < n; i++) {
    if (!fits(s.charCodeAt(i), i, width)) return i;
  }
  return n;
}

const head = "TOTP ";

/** Whether the character may be at position i of a numbered line. */
function fits(c, i, width) {
  const digit = c >= 0x30 && c <= 0x39;
  const lower = c >= 0x61 && c <= 0x7a;
  if (i < 5) return c === head.charCodeAt(i);
  if (i < 13) return lower || (c >= 0x32 && c <= 0x37);
  if (i === 13 || i === 14 + width || i === 23 + width) return c === 0x20;
  if (i < 14 + width) return digit;
  if (i < 23 + width) return digit || (c >= 0x61 && c <= 0x66);
  return digit || lower || (c >= 0x41 && c <= 0x5a) || c === 0x2b || c === 0x2f;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** CRC-32 (IEEE 802.3) of ASCII. */
function crc32(s) {
  let c = 0xffffffff;
  for (let i = 0; i < s.length; i++) c = crcTable[(c ^ s.charCodeAt(i)) & 0xff] ^ (c >>> 8);
  return ~c >>> 0;
}
