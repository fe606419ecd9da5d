// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// What the page says of a card: the sentences of the Go package secrets/card
// (content.go), which totpctl open --html writes. A test holds the two together.

import { account, splitHostKey } from "./card.js";

/**
 * The sections of a card: {name, title, parts}. A part is one of {para}, {rows},
 * a table of names and values, {lines}, to be copied as they stand, {link}, the
 * same for the one line that is a link, and {qr}, the text of the QR code.
 */
export function content(c) {
  return [head(c), scan(c), backup(c), login(c), refused()];
}

function head(c) {
  const rows = [
    ["Server", c.hostname],
    ["Instance", c.instance_id],
    ["User", c.user],
    ["Run by", c.issuer],
  ];
  if (c.created !== "") rows.push(["Made", `${dateTime(c.created)} UTC, by the server's clock`]);
  rows.push(["Card", c.id]);
  if (c.generation > 1) rows.push(["Number", `${c.generation}; the codes of all cards before are dead`]);
  rows.push(["Replaces", c.supersedes]);
  const parts = [{ rows: rows.filter(([, value]) => value !== "") }];
  if (c.escrow.length === 0) {
    parts.push({ para: "Keep this card to yourself: who has it can make your codes. It was sealed so that you can read it and nobody else." });
  } else {
    parts.push(
      { para: "Keep this card to yourself: who has it can make your codes. It was sealed so that you can read it, and these as well:" },
      { lines: c.escrow },
    );
  }
  return { name: "head", title: `ENROLLMENT CARD for ${account(c)}`, parts };
}

function scan(c) {
  return {
    name: "scan",
    title: "1. Put the secret into your authenticator app",
    parts: [
      { para: "Scan this with Google Authenticator, Microsoft Authenticator, Authy or another app for one-time codes:" },
      { qr: c.otpauth },
      { para: "If the app does not see the code, type the secret in by hand:" },
      {
        rows: [
          ["Account", account(c)],
          ["Secret", c.secret.match(/.{4}/g).join(" ")],
          ["Kind", "time-based (TOTP), SHA1, 6 digits, every 30 seconds"],
        ],
      },
      { para: "The same for a password manager:" },
      { link: c.otpauth },
    ],
  };
}

function backup(c) {
  const title = "2. Keep the backup codes";
  if (c.backup_codes.length === 0) {
    return { name: "backup", title, parts: [{ para: "This card has none. If the app is lost, the way in is the server's console." }] };
  }
  const lines = [];
  for (let i = 0; i < c.backup_codes.length; i += 5) lines.push(c.backup_codes.slice(i, i + 5).join("   "));
  return {
    name: "backup",
    title,
    parts: [
      { para: "Each of these works once in place of a code from the app, for the day the phone is lost. Keep them elsewhere than on the phone." },
      { lines },
    ],
  };
}

function login(c) {
  const parts = [
    { para: "With the server's name or IP address for ADDRESS, and your SSH key as always:" },
    { lines: [`ssh ${c.user}@ADDRESS`] },
    { para: `In PuTTY: ${c.user}@ADDRESS as the host name, and the key file under Connection, SSH, Auth.` },
  ];
  if (c.host_keys.length === 0) {
    parts.push({ para: "The server had no host keys when this card was made. Ask for their fingerprints before you trust the one of the first connection." });
  } else {
    parts.push(
      { para: "The first connection asks whether the server's key is right. Say yes only if it shows one of these fingerprints; if it shows another, stop: that is not your server." },
      { lines: c.host_keys.map(splitHostKey).map((k) => `${k.type} ${k.fingerprint}`) },
    );
  }
  parts.push(
    { para: "Then the server asks for the code:" },
    { lines: ["Verification code: "] },
    { para: "Type the six digits that the app shows now; nothing appears while you type. A code works once: for another login, wait until the app shows the next." },
  );
  return { name: "login", title: "3. Log in", parts };
}

function refused() {
  return {
    name: "refused",
    title: "4. If you are refused",
    parts: [
      { para: "Asked for the code, then refused: it was mistyped or used before, or the phone's clock is wrong (let the phone set it by itself). Wait for the next code. If every code is refused, a newer card has replaced this one, or you are not enrolled." },
      { para: 'Not asked, "Permission denied (keyboard-interactive)": there were too many tries. Wait 30 seconds, or 300 where the limit is strict, and do not try in between: every try starts the wait again.' },
      { para: 'Not asked, "Permission denied (publickey)": the server does not know your SSH key, or the user name is wrong.' },
    ],
  };
}

/**
 * What opening the envelope has proven of it, and what not. An envelope with
 * more recipients than its card names can be read by somebody whom the card
 * conceals.
 */
export function origin(c, stanzas) {
  const parts = [
    { para: "Proven: the card is whole and unaltered, and it was sealed to your key." },
    { para: "Not proven: who sealed it. Anybody who has your public key can make a card. A false card does not let anybody into your server, but its fingerprints may lead you to a false one: if what you are logging in to matters, have your provider confirm a fingerprint by another way, by telephone or in the panel." },
  ];
  if (c.compact) {
    parts.push({ para: `This is the short form of a card, which does not say who else can read it. ${readers(stanzas)}` });
  } else if (stanzas > c.recipients.length) {
    parts.push({ warning: `Careful: the card says that ${plural(c.recipients.length)} can open it, but ${stanzas} can. Somebody else may be reading along. Ask your provider before you use it.` });
  } else {
    parts.push({ para: readers(stanzas) });
  }
  return { name: "origin", title: "What is proven, and what is not", parts };
}

function readers(stanzas) {
  return stanzas === 1 ? "The envelope can be opened with one key, which is yours." : `The envelope can be opened with ${stanzas} keys, yours among them.`;
}

function plural(n) {
  return n === 1 ? "one key" : `${n} keys`;
}

/** A time as cards have it, in UTC. */
export function dateTime(created) {
  return new Date(created).toISOString().slice(0, 19).replace("T", " ");
}
