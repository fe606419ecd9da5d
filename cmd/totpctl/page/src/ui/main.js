// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// What the person in front of the page does, and what the page then does.

import { account, dateTime, find, looksLikeKey, makeKey, open, Problem, readKeys, utf8 } from "../core/index.js";
import { element, showCard } from "./show.js";

const $ = (id) => document.getElementById(id);

const maxFile = 64 << 20; // the log of a console that has run for years

let keys = []; // what opens
let made = null; // the new key, until the page is closed
let unsaved = false; // whether it is nowhere else yet
let dropped = null; // bytes of an envelope that came as a file
let opened = []; // the cards of the last envelope
let shown = null; // the one that is on the page
let turn = 0; // of those that open at the same time, the last one counts

// The key

$("key").addEventListener("input", () => useKey(utf8($("key").value)));
$("key-file").addEventListener("change", (e) => readFile(e.target, useKey));

async function useKey(bytes) {
  const mine = ++turn;
  let problem = null;
  let read = [];
  try {
    read = await readKeys(bytes);
  } catch (err) {
    problem = asProblem(err);
  }
  if (mine !== turn) return;
  keys = read;
  hideCard();
  say($("key-status"), "");
  say($("problem"), "");
  $("key").toggleAttribute("aria-invalid", problem !== null && problem.code !== "key empty");
  if (problem) {
    if (problem.code !== "key empty") tell($("key-status"), problem);
    return;
  }
  say($("key-status"), keys.length === 1 ? `This is the key whose public half is ${short(keys[0].recipient)}.` : `These are ${keys.length} keys.`);
  await tryOpen({ quiet: true });
}

function short(recipient) {
  return recipient.length > 24 ? `${recipient.slice(0, 12)}…${recipient.slice(-4)}` : recipient;
}

$("make").addEventListener("click", async () => {
  if (unsaved && !confirm("The key that you have just made is not saved yet. Make another one in its place?")) return;
  made = await makeKey(new Date());
  unsaved = true;
  keys = [made];
  $("key").value = "";
  $("key").removeAttribute("aria-invalid");
  $("recipient").value = made.recipient;
  say($("new-status"), "");
  say($("key-status"), `A new key is in use. Its public half is ${short(made.recipient)}.`);
  $("new").hidden = false;
  hideCard();
  $("new-title").focus();
});

$("save-key").addEventListener("click", () => {
  save("totp-key.txt", made.file);
  kept("The key went to the file totp-key.txt in your downloads. Keep a copy of it in a safe place.");
});
$("copy-key").addEventListener("click", async () => {
  if (await copy(made.identity, $("new-status"))) kept("The key is copied. Paste it into your password manager now.");
});
$("copy-recipient").addEventListener("click", async () => {
  if (await copy(made.recipient, $("new-status"))) say($("new-status"), "The public half is copied.");
});
$("save-recipient").addEventListener("click", () => {
  save("totp-public-key.txt", made.recipient + "\n");
  say($("new-status"), "The public half went to the file totp-public-key.txt in your downloads.");
});

function kept(text) {
  unsaved = false;
  say($("new-status"), text);
}

window.addEventListener("beforeunload", (e) => {
  if (unsaved) e.preventDefault();
});

// The envelope

$("envelope").addEventListener("input", (e) => {
  dropped = null;
  // Who types letter by letter is told what is wrong when asking for it.
  tryOpen({ quiet: e.inputType === "insertText" });
});
$("envelope-file").addEventListener("change", (e) => readFile(e.target, useEnvelope));
$("open").addEventListener("click", () => tryOpen({}));

async function useEnvelope(bytes, name) {
  dropped = bytes;
  $("envelope").value = "";
  $("envelope").placeholder = `from the file ${name}`;
  await tryOpen({});
}

async function tryOpen({ quiet = false }) {
  const mine = ++turn;
  const input = dropped ?? utf8($("envelope").value);
  hideCard();
  say($("problem"), "");
  $("envelope").removeAttribute("aria-invalid");
  if (quiet && find(input).length === 0) return;
  let result = { opened: [], failed: [] };
  let problem = null;
  try {
    result = await open(input, keys);
  } catch (err) {
    problem = asProblem(err);
  }
  if (mine !== turn) return;
  if (problem) {
    if (problem.code !== "no key") $("envelope").setAttribute("aria-invalid", "true");
    tell($("problem"), problem);
    return;
  }
  opened = result.opened;
  $("result").hidden = false;
  if (result.failed.length > 0) {
    say($("problem"), `${result.failed.length === 1 ? "One envelope" : `${result.failed.length} envelopes`} in this text could not be opened with your key.`);
  }
  choose(result.forged);
}

/** Shows the only card, or asks which. Two QR codes at once would be scanned wrongly. */
function choose(forged) {
  $("others").replaceChildren();
  if (opened.length > 1) {
    const buttons = element("div", ...opened.map(choice));
    buttons.className = "row";
    $("others").append(element("p", `There are ${opened.length} cards in this text. Which do you want to see?`), buttons);
    if (forged) {
      tell($("problem"), new Problem("forged", "Two cards in this text have the same number and are not the same: one of them is forged.",
        "Use neither, nor the host keys on them, before you know which one your server has made. Ask your provider, or for a new card."));
    }
    $("card").replaceChildren();
    show(null);
    $("result-title").focus();
    return;
  }
  show(opened[0]);
}

function choice(o) {
  const b = element("button", [account(o.card), o.card.created && `made ${dateTime(o.card.created)} UTC`, `card ${o.card.id.slice(0, 8)}`].filter((s) => s).join(", "));
  b.type = "button";
  b.addEventListener("click", () => show(o));
  return b;
}

function show(o) {
  shown = o;
  for (const id of ["print", "print-codes", "copy-secret"]) $(id).hidden = o === null;
  say($("card-status"), "");
  if (o === null) return;
  showCard($("card"), o);
  document.title = `Card of ${account(o.card)}`;
  $("result-title").focus();
}

function hideCard() {
  opened = [];
  shown = null;
  $("result").hidden = true;
  $("card").replaceChildren();
  $("others").replaceChildren();
  document.title = title;
}

const title = document.title;

// What can be done with a card

$("print").addEventListener("click", () => window.print());
$("print-codes").addEventListener("click", () => {
  document.body.classList.add("codes");
  window.print();
});
window.addEventListener("afterprint", () => document.body.classList.remove("codes"));
$("copy-secret").addEventListener("click", async () => {
  if (await copy(shown.card.secret, $("card-status"))) say($("card-status"), "The secret is copied.");
});
$("close").addEventListener("click", () => {
  forget();
  $("top").focus();
});
// The browser keeps pages that one has left, to go back to them.
window.addEventListener("pagehide", forget);

function forget() {
  turn++;
  hideCard();
  keys = [];
  made = null;
  unsaved = false;
  dropped = null;
  for (const id of ["key", "envelope", "recipient", "key-file", "envelope-file"]) $(id).value = "";
  for (const id of ["key-status", "new-status", "problem"]) say($(id), "");
  $("envelope").placeholder = "";
  $("new").hidden = true;
}

// Files: chosen, or dropped anywhere

async function readFile(input, use) {
  const [file] = input.files;
  if (file) await take(file, use);
  input.value = ""; // so that the same file can be chosen again
}

async function take(file, use) {
  if (file.size > maxFile) {
    tell($("problem"), new Problem("too large", "This file is too large.", "An envelope has a few kilobytes, and the log of a console at most a few megabytes."));
    return;
  }
  await use(new Uint8Array(await file.arrayBuffer()), file.name);
}

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (e) => {
    e.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (e) => {
  if (!e.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", async (e) => {
  document.body.classList.remove("dropping");
  e.preventDefault();
  const text = e.dataTransfer.getData("text/plain");
  for (const file of [...e.dataTransfer.files]) await take(file, useEither);
  if (text !== "") await useEither(utf8(text), "that was dropped");
});

async function useEither(bytes, name) {
  if (looksLikeKey(bytes) && find(bytes).length === 0) await useKey(bytes);
  else await useEnvelope(bytes, name);
}

// Helpers

function say(place, text) {
  place.className = "";
  place.textContent = text;
}

function tell(place, problem) {
  const todo = element("span", problem.todo);
  todo.className = "todo";
  place.className = "warning";
  place.replaceChildren(problem.message, " ", todo);
}

/** Whatever else goes wrong is a fault of the page, and says nothing of what was in it. */
function asProblem(err) {
  if (err instanceof Problem) return err;
  return new Problem("fault", "This page has failed at that, and it is the page's fault.", "Open the envelope with totpctl open.");
}

function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const a = element("a");
  a.href = url;
  a.download = name;
  a.click();
  URL.revokeObjectURL(url);
}

async function copy(text, status) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    tell(status, new Problem("copy", "Your browser does not let this page copy.", "Save it as a file, or mark it and copy it by hand."));
    return false;
  }
}
