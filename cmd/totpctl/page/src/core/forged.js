// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Anybody who has a recipient can seal a card to it, with an ID, a user and an
// instance-id that are on every console. So a card is believed little about other
// cards: it may be shown beside them, but not in their place. The rules are those
// of totpctl open, to which a test holds them.

import { splitHostKey } from "./card.js";

/**
 * Whether a card takes the place of another: that of the same user on the same
 * instance, of a later generation. All cards of one user there have the same
 * token, or none.
 */
export function replaces(later, c) {
  return later.supersedes === c.id && later.generation > c.generation &&
    ["user", "instance_id", "token"].every((name) => later[name] === c[name]);
}

/**
 * Whether two cards say the same. The short form says less than the full one, so
 * what both say is compared.
 */
export function same(a, b) {
  const form = a.compact === b.compact ? JSON.stringify : short;
  return form(a) === form(b);
}

function short(c) {
  const key = c.host_keys.find((k) => k.startsWith("ssh-ed25519 ")) ?? c.host_keys[0];
  const { type, fingerprint } = key ? splitHostKey(key) : {};
  return JSON.stringify([c.id, c.token, c.instance_id, c.user, c.secret, c.backup_codes, type, fingerprint]);
}

/** Whether two different cards have the same ID. */
export function contradict(cards) {
  return new Set(cards.map((c) => c.id)).size < cards.length;
}
