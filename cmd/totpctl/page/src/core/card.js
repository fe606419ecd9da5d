// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// The card of an opened envelope: the last line of its text, checked field by
// field as the Go package secrets/card does, so that a card somebody forged
// cannot put on the page what it likes. A test holds the two together.

import { sha256 } from "@noble/hashes/sha2.js";
import { base64 } from "@scure/base";
import { binary, decodeBase64, decodeUTF8 } from "./bytes.js";
import { Problem } from "./problem.js";

/** The size in bytes up to which a card is read. */
const maxSize = 64 << 10;

/**
 * Reads the card of a text that was sealed. The card has the fields of its JSON
 * object; "compact" tells whether it had the short form, which names neither
 * host nor issuer. Throws a Problem of code "no card", "newer card" or "bad card".
 */
export function parseCard(plaintext) {
  const line = lastLine(plaintext);
  let o;
  try {
    o = JSON.parse(line);
  } catch {
    throw noCard();
  }
  if (typeof o.u === "string" && o.u !== "") return parseCompact(o);
  if (o.v !== 1 || o.type !== "totp-enrollment") {
    throw new Problem("newer card", "The card is of a kind that this page does not know.", "A newer page may read it.");
  }
  const c = {
    compact: false,
    id: text(o, "id"),
    generation: number(o, "generation"),
    supersedes: text(o, "supersedes"),
    token: text(o, "token"),
    instance_id: text(o, "instance_id"),
    hostname: text(o, "hostname"),
    user: text(o, "user"),
    issuer: text(o, "issuer"),
    created: text(o, "created"),
    otpauth: text(o, "otpauth"),
    secret: text(o, "secret"),
    algorithm: text(o, "algorithm"),
    digits: number(o, "digits"),
    period: number(o, "period"),
    backup_codes: list(o, "backup_codes"),
    host_keys: list(o, "host_keys"),
    recipients: list(o, "recipients"),
    escrow: list(o, "escrow"),
    agent: text(o, "agent"),
  };
  validate(c);
  return c;
}

function parseCompact(o) {
  if (o.v !== 1) throw new Problem("newer card", "The card is of a kind that this page does not know.", "A newer page may read it.");
  const c = {
    compact: true,
    id: text(o, "id"),
    generation: 0,
    supersedes: "",
    token: text(o, "tok"),
    instance_id: text(o, "iid"),
    hostname: "",
    user: text(o, "u"),
    issuer: "",
    created: "",
    secret: text(o, "sec"),
    algorithm: "SHA1",
    digits: 6,
    period: 30,
    backup_codes: list(o, "bak"),
    host_keys: [text(o, "hk")].filter((s) => s !== ""),
    recipients: [],
    escrow: [],
    agent: "",
  };
  c.otpauth = `otpauth://totp/${account(c)}?secret=${c.secret}`;
  validate(c);
  return c;
}

/** user@host, or what there is of it: the label in the authenticator app. */
export function account(c) {
  if (!c.compact) return `${c.user}@${c.hostname}`;
  return c.instance_id === "" ? c.user : `${c.user}@${cleanHostname(c.instance_id)}`;
}

/** The parts of a host key: type, fingerprint and, or "", the key itself. */
export function splitHostKey(entry) {
  const m = /^([A-Za-z0-9@.-]{1,40}) (SHA256:([A-Za-z0-9+/]{43}))(?: ([A-Za-z0-9+/]+={0,2}))?$/.exec(entry);
  if (!m || !decodeBase64(m[3] + "=")) return null;
  const [, type, fingerprint, , blob = ""] = m;
  if (blob === "") return { type, fingerprint, blob };
  const bytes = decodeBase64(blob);
  if (!bytes || bytes.length < 4 || bytes.length > 4096) return null;
  const n = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const whole = n < bytes.length - 4 && binary(bytes.subarray(4, 4 + n)) === type;
  const sum = base64.encode(sha256(bytes)).replace(/=+$/, "");
  return whole && fingerprint === "SHA256:" + sum ? { type, fingerprint, blob } : null;
}

function noCard() {
  return new Problem("no card", "The envelope was opened, but there is no card in it.", "Ask for it again.");
}

function bad(name) {
  return new Problem("bad card", `The envelope was opened, but its card is not as it must be: ${name}.`,
    "No server of ours makes such a card. Do not use it, and ask your provider.");
}

function lastLine(plaintext) {
  if (plaintext.length > maxSize) throw noCard();
  const text = binary(plaintext).replace(/[ \t\r\n]+$/, "");
  const line = plaintext.subarray(text.lastIndexOf("\n") + 1, text.length);
  const decoded = decodeUTF8(line);
  if (decoded === null || !decoded.startsWith("{")) throw noCard();
  return decoded;
}

// A field that is not there is empty, as it is to Go.

function text(o, name) {
  const value = o[name] ?? "";
  if (typeof value !== "string") throw bad(name);
  return value;
}

function number(o, name) {
  const value = o[name] ?? 0;
  if (typeof value !== "number") throw bad(name);
  return value;
}

function list(o, name) {
  const value = (o[name] ?? []).map?.((s) => s ?? "");
  if (!Array.isArray(value) || !value.every((s) => typeof s === "string")) throw bad(name);
  return value;
}

const maxURI = 425; // what a QR code of 69 modules holds
const maxCodes = 10;
const maxHostKeys = 16;
const maxRecipients = 64;

function validate(c) {
  const rules = [
    ["id", validID(c.id)],
    ["supersedes", c.supersedes === "" || (validID(c.supersedes) && c.supersedes !== c.id)],
    ["token", c.token === "" || /^[A-Za-z0-9_-]{43}$/.test(c.token)],
    ["instance_id", /^(?:[ !#-[\]-~]{0,128})$/.test(c.instance_id) && c.instance_id === c.instance_id.trim()],
    ["user", /^[a-z_][a-z0-9_.-]{0,31}$/.test(c.user)],
    ["secret", /^[A-Z2-7]{32}$/.test(c.secret)],
    ["algorithm", c.algorithm === "SHA1"],
    ["digits", c.digits === 6],
    ["period", c.period === 30],
    ["backup_codes", c.backup_codes.length <= maxCodes && c.backup_codes.every((s) => /^[1-9][0-9]{7}$/.test(s))],
    ["host_keys", c.host_keys.length <= maxHostKeys && c.host_keys.every((s) => splitHostKey(s) !== null)],
  ];
  if (!c.compact) {
    rules.push(
      ["generation", Number.isInteger(c.generation) && c.generation >= 1 && c.generation < 2 ** 31],
      ["hostname", /^[A-Za-z0-9._-]{1,64}$/.test(c.hostname) && c.hostname === cleanHostname(c.hostname)],
      ["issuer", validIssuer(c.issuer)],
      ["created", validTime(c.created)],
      ["recipients", c.recipients.length >= 1 && c.recipients.length <= maxRecipients && c.recipients.every((s) => /^sha256:[0-9a-f]{16}$/.test(s))],
      ["escrow", c.escrow.length <= maxRecipients && c.escrow.every((s) => /^(?=.{1,76}$)[ -~]*…?[ -~]*$/.test(s))],
      ["agent", /^[ -~]{1,64}$/.test(c.agent)],
    );
  }
  rules.push(["otpauth", validURI(c)]); // last, since it repeats other fields
  for (const [name, ok] of rules) {
    if (!ok) throw bad(name);
  }
}

function validID(s) {
  return /^[a-z2-7]{26}$/.test(s);
}

// Letters, marks, numbers, punctuation, symbols and the plain blank: what Go
// calls printable. Characters that change the direction of text are not.
function validIssuer(s) {
  return /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,64}$/u.test(s) && !s.includes(":");
}

function validTime(s) {
  const m = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d+)?(?:Z|[+-]\d{2}:\d{2})$/.exec(s);
  if (!m || !(Date.parse(s) > Date.parse("0001-01-01T00:00:00Z"))) return false;
  // A day that the month has not would be taken for one of the next month.
  return new Date(m[1] + "Z").toISOString().startsWith(m[1]);
}

// Reads the URI instead of comparing it, since the same label can be escaped in
// more than one way.
function validURI(c) {
  if (c.otpauth.length > maxURI) return false;
  const [scheme, rest] = c.otpauth.split(/:(.*)/s);
  const m = /^\/\/totp\/([!-"$->@-~]*)\?([!-"$-~]+)$/.exec(rest ?? "");
  if (!m || scheme.toLowerCase() !== "otpauth") return false;
  const want = { secret: c.secret, issuer: c.issuer, algorithm: "SHA1", digits: "6", period: "30" };
  const seen = new Set();
  for (const pair of m[2].split("&")) {
    const [key, value] = pair.split(/=(.*)/s);
    if (!Object.hasOwn(want, key) || seen.has(key) || unescape(value ?? "", true) !== want[key]) return false;
    seen.add(key);
  }
  const label = c.compact ? account(c) : `${c.issuer}:${account(c)}`;
  return seen.has("secret") && (c.compact || seen.has("issuer")) && unescape(m[1], false) === label;
}

function unescape(s, plus) {
  try {
    return decodeURIComponent(plus ? s.replaceAll("+", " ") : s);
  } catch {
    return null;
  }
}

function cleanHostname(name) {
  const s = name.slice(0, 64).replace(/[^A-Za-z0-9._-]/g, "-");
  return /^[-.]*$/.test(s) ? "unnamed" : s;
}
