// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Puts a card onto the page. What comes out of an envelope becomes text nodes,
// and one link whose target has been checked, never markup.

import { content, modules, origin, quietZone } from "../core/index.js";

/** An element with text or elements in it. */
export function element(tag, ...children) {
  const e = document.createElement(tag);
  e.append(...children);
  return e;
}

/** Shows a card in the place of whatever is there. */
export function showCard(place, { card, stanzas }) {
  place.replaceChildren(...[...content(card), origin(card, stanzas)].map(section));
}

function section(s) {
  const title = element("h3", s.title);
  title.id = `card-${s.name}`;
  const e = element("section", title, ...s.parts.map(part));
  e.dataset.part = s.name;
  e.setAttribute("aria-labelledby", title.id);
  return e;
}

function part(p) {
  if (p.qr) return qr(p.qr);
  if (p.rows) return element("dl", ...p.rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  if (p.lines) return element("pre", p.lines.join("\n"));
  if (p.link) {
    const a = element("a", p.link);
    a.href = p.link;
    return element("p", a);
  }
  const e = element("p", p.warning ?? p.para);
  if (p.warning) e.className = "warning";
  return e;
}

/** The QR code, black on white whatever the colours of the page. */
function qr(text) {
  const dark = modules(text);
  const size = dark.length + 2 * quietZone;
  const svg = shape("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "QR code of the secret", "shape-rendering": "crispEdges" });
  let path = "";
  dark.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      const from = x;
      while (row[x]) x++;
      if (x > from) path += `M${from + quietZone} ${y + quietZone}h${x - from}v1h${from - x}z`;
    }
  });
  svg.append(shape("rect", { width: size, height: size, fill: "#fff" }), shape("path", { d: path, fill: "#000" }));
  return svg;
}

function shape(tag, attributes) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  return e;
}
