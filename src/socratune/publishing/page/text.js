"use strict";
// Elements, numbers and texts. Whatever a model or a person wrote reaches the page through textContent alone.

const FIRST_CHARACTERS = 3000;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const $ = (id) => document.getElementById(id);
const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const words = (name) => String(name).replaceAll("_", " ");
const count = (value) => Number(value).toLocaleString("en-US");
const plural = (value, one, many = one + "s") => `${count(value)} ${value === 1 ? one : many}`;
const rounded = (value, digits) => // as Python rounds, so that page, screen and card agree
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits, roundingMode: "halfEven" });
const percent = (share, digits = 1) => `${rounded(100 * share, digits)}%`;
const signed = (share) => `${share < 0 ? "−" : "+"}${rounded(Math.abs(100 * share), 1)}`;
const usd = (value) => (value == null ? "not known" : `$${value === 0 || value >= 1 ? value.toFixed(2) : value.toPrecision(2)}`);

const homeLink = (address) => (address ? [el("a", { href: address }, "All runs")] : []);

function figure(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return count(value);
  return Math.abs(value) >= 1 ? value.toLocaleString("en-US", { maximumFractionDigits: 2 }) : String(+value.toPrecision(3));
}

function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// Controls, direction marks and invisible characters, which could hide or reorder what is read.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

function escaped(character) {
  const code = character.codePointAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/** Nodes for a text; what cannot be seen stands there as an escape. */
function visible(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (found.index > from) nodes.push(document.createTextNode(text.slice(from, found.index)));
    const mark = el("span", { class: "unseen", title: "an invisible character" });
    mark.textContent = escaped(found[0]);
    nodes.push(mark);
    from = found.index + found[0].length;
  }
  if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

/** The first line of a text, for a list. */
function firstLine(value) {
  const text = typeof value === "string" ? value : (value?.cut ?? "");
  return visible(text.slice(0, 300).replace(/\s+/g, " ").trim());
}

function whole(text, length) {
  const last = text.charCodeAt(length - 1);
  return last >= 0xd800 && last <= 0xdbff ? length - 1 : length;
}

/** A block with a text; a long one begins short, says its length and can be seen on. */
function textBlock(value, fileName) {
  const text = typeof value === "string" ? value : (value?.cut ?? (value == null ? "" : JSON.stringify(value)));
  const isCut = value?.cut !== undefined, length = isCut ? value.length : text.length;
  const box = el("div", { class: "text", dir: "auto" });
  if (!text) return el("div", { class: "text empty" }, "empty");
  let end = 0;
  const more = el("button", { type: "button", class: "more" });
  const note = el("p", { class: "cut" });
  function grow() {
    const next = whole(text, Math.min(text.length, end ? 4 * end : FIRST_CHARACTERS));
    box.append(...visible(text.slice(end, next)));
    end = next;
    more.hidden = end >= text.length;
    more.textContent = `Show more (${count(Math.min(3 * end, text.length - end))} characters)`;
    note.hidden = end >= text.length && !isCut;
    note.textContent = `${count(end)} of ${count(length)} characters are shown.`;
    if (end >= text.length && isCut) note.textContent += ` The rest is in ${fileName}.`;
  }
  more.addEventListener("click", grow);
  grow();
  return el("div", { class: "text-block" }, box, note, more);
}

function startTheme() {
  const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => void ($("theme").textContent = dark() ? "Light" : "Dark");
  try { const kept = localStorage.getItem("theme"); if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept; } catch { /* a page from disk may have no storage */ }
  $("theme").addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* as above */ }
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}
