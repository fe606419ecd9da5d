// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// What goes wrong, in words for the person in front of the page. No problem
// quotes a key, or anything that was in an envelope.

/** A problem has a code for programs and tests, a sentence, and what to do. */
export class Problem extends Error {
  constructor(code, text, todo = "") {
    super(text);
    this.code = code;
    this.todo = todo;
  }
}
