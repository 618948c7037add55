// Elements without markup: every text goes through `visible` into a text node, so that no text can be more than text.

const $ = (id) => document.getElementById(id);

// What would change how the rest of a line is shown, or show nothing at all. Joiners (U+200C, U+200D) stay, because
// emoji and several scripts need them.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** The text with characters that cannot be seen shown by their numbers, and line ends as one newline. */
function visible(text) {
  return String(text)
    .replace(/\r\n?/g, "\n")
    .replace(UNSEEN, (c) => `[U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, action] of Object.entries(value)) node.addEventListener(event, action);
    else node.setAttribute(name, value === true ? "" : visible(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
  return node;
}

/** An element with attributes, listeners under `on`, and children; strings become text. */
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** The same for SVG. */
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** Put these children, instead of all others, into a node. */
function put(host, ...children) {
  host.replaceChildren();
  return fill(host, {}, children);
}

/** A name that others chose: kept apart from the direction of the text around it. */
const name = (text) => el("bdi", {}, text);

/** A labelled choice; `choices` are [value, text]. */
function choice(id, label, choices, chosen, changed) {
  const select = el("select", { id, on: { change: () => changed(select.value) } },
    choices.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text)));
  return el("label", { class: "field", for: id }, el("span", {}, label), select);
}

/** A number for people; a dash where it is undefined. What rounds to zero has no minus sign. */
function number(value, digits = 3, sign = false) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size >= 1000 ? Math.round(size).toLocaleString("en-US") : size >= 100 ? size.toFixed(1) : size.toFixed(digits);
  const sunk = size < 1 && Number(text) === 0;
  return (value < 0 && !sunk ? "−" : sign ? "+" : "") + text;
}

/** The same, with the size of a number that would be rounded to zero. */
function sized(value, digits = 3, sign = false) {
  const size = Math.abs(value ?? 0);
  return size === 0 || size >= 0.5 * 10 ** -digits ? number(value, digits, sign) : (value < 0 ? "−" : sign ? "+" : "") + size.toExponential(1).replace("-", "−");
}

const interval = (low, high, digits = 3, sign = false) =>
  low === null || low === undefined ? "" : `[${number(low, digits, sign)}, ${number(high, digits, sign)}]`;
const sizedInterval = (low, high, digits = 3, sign = false) =>
  low === null || low === undefined ? "" : `[${sized(low, digits, sign)}, ${sized(high, digits, sign)}]`;

function duration(seconds) {
  if (seconds < 90) return `${seconds.toFixed(1)} s`;
  return seconds < 5400 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

// --- help -------------------------------------------------------------------------------------------------------

const tip = $("tip");
let tipOwner = null;

function hideTip() {
  tip.hidden = true;
  if (tipOwner) tipOwner.removeAttribute("aria-describedby");
  tipOwner = null;
}

function showTip(owner, content) {
  hideTip();
  tipOwner = owner;
  owner.setAttribute("aria-describedby", "tip");
  tip.replaceChildren(...content);
  tip.hidden = false;
  const place = owner.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const below = place.bottom + 6;
  const fits = below + tip.offsetHeight < window.innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${fits ? below : Math.max(8, place.top - tip.offsetHeight - 6)}px`;
}

window.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
document.addEventListener("click", (event) => { if (tipOwner && !tipOwner.contains(event.target)) hideTip(); });

/** The button that says what a metric means, in which range it is, and what is better. */
function help(key) {
  const known = data.metrics[key];
  const content = () => [
    el("strong", {}, known.name),
    known.meaning ? el("p", {}, known.meaning) : null,
    el("p", {}, `Range ${known.range}; better: ${known.better === "-" ? "neither" : known.better}.`),
    el("code", {}, key),
  ].filter(Boolean);
  const button = el("button", {
    type: "button", class: "help", "aria-label": `What is ${known.name}?`,
    on: {
      click: () => showTip(button, content()), focus: () => showTip(button, content()), blur: hideTip,
      mouseenter: () => showTip(button, content()), mouseleave: hideTip,
    },
  }, "?");
  return button;
}

/** `↑`, `↓` or nothing. */
const arrow = (key) => ({ true: " ↑", false: " ↓" })[String(data.metrics[key].higher)] || "";
const metricText = (key) => data.metrics[key].name + arrow(key);
const metric = (key) => el("span", { class: "metric" }, metricText(key), " ", help(key));
