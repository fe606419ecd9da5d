// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Runs the first script of the page, which needs no browser, and answers
// questions, one line of JSON each. See pagetest.go.

import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import vm from "node:vm";

const [, code] = /<script>([\s\S]*?)<\/script>/.exec(readFileSync(process.argv[2], "utf8"));

// What every browser has, and nothing that node has besides.
const context = vm.createContext({
  crypto: globalThis.crypto ?? webcrypto,
  CryptoKey: globalThis.CryptoKey ?? webcrypto.CryptoKey,
  ReadableStream, TransformStream, WritableStream, Response, Blob,
  TextEncoder, TextDecoder, Uint8Array, Uint32Array, ArrayBuffer, DataView, Error,
  atob, btoa,
});
vm.runInContext(code, context);
const totp = vm.runInContext("totp", context);

const bytes = (base64) => new Uint8Array(Buffer.from(base64 ?? "", "base64"));
const texts = (section) => [
  section.title,
  ...section.parts.flatMap((p) => p.rows?.flat() ?? [p.para ?? p.warning ?? p.link ?? p.lines?.join("\n") ?? []].flat()),
];

const answers = {
  find: ({ input }) =>
    totp.find(bytes(input)).map((f) => ({ ...f, file: f.file && Buffer.from(f.file).toString("base64") })),
  async open({ input, keys }) {
    try {
      const read = keys ? await totp.readKeys(bytes(keys)) : [];
      const { opened, failed, forged } = await totp.open(bytes(input), read);
      return {
        opened: opened.map(({ card, stanzas }) => ({
          card,
          stanzas,
          texts: totp.content(card).flatMap(texts),
          origin: texts(totp.origin(card, stanzas)),
          qr: totp.modules(card.otpauth),
        })),
        failed: failed.map((p) => p.code),
        forged,
      };
    } catch (err) {
      if (!(err instanceof totp.Problem)) throw err;
      return { problem: err.code, said: `${err.message} ${err.todo}` };
    }
  },
  parse({ input }) {
    try {
      totp.parseCard(bytes(input));
      return "";
    } catch (err) {
      if (!(err instanceof totp.Problem)) throw err;
      return err.code;
    }
  },
  make: () => totp.makeKey(new Date()),
};

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  process.stdout.write(JSON.stringify(await answers[question.op](question)) + "\n");
}
