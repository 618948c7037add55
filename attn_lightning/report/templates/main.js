// Tabs, theme, keys: what holds the parts together.

const PARTS = { summary: "Summary", documents: "Documents", studies: "Studies" };
// A page of one's own texts has documents alone.
const PRESENT = { summary: data.groups.length || data.studies.length || data.notes.length, documents: true, studies: data.studies.length };
const present = Object.keys(PARTS).filter((part) => PRESENT[part]);

function open(part, focus = false) {
  for (const other of Object.keys(PARTS)) $(other).hidden = other !== part;
  for (const other of present) {
    const tab = $(`tab-${other}`), chosen = other === part;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) tab.focus();
  }
  if (part === "documents" && view.left) drawList();
  hideTip();
}

const tabs = present.map((part) => el("button", {
  type: "button", role: "tab", id: `tab-${part}`, "aria-controls": part,
  on: {
    click: () => open(part),
    keydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) open(present[(present.indexOf(part) + by + present.length) % present.length], true);
    },
  },
}, PARTS[part]));

const THEMES = ["auto", "light", "dark"];

function remembered() {
  // A browser may refuse to keep anything for a file; then the page follows the system.
  try { return localStorage.getItem("attn-lightning-theme"); } catch { return null; }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[theme];
  $("theme").setAttribute("aria-label", `Colours: ${theme}; change`);
  try { localStorage.setItem("attn-lightning-theme", theme); } catch { /* see `remembered` */ }
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]);
}

const KEYS = [
  ["j, ↓ / k, ↑", "next or previous document"], ["Page Down, Page Up, Home, End", "go further in the list"], ["1 to 9", "the explanation of the left run"],
  ["e", "mistakes only, or all"], ["d", "documents on which the runs disagree, or all"], ["f", "fold or unfold a long text"],
  ["/", "search"], ["s, o, u", "summary, documents, studies"], ["t", "colours"], ["?", "this list"],
];

const dialog = el("dialog", { id: "keys", "aria-label": "Keys" }, el("h2", {}, "Keys"),
  el("dl", {}, KEYS.map(([keys, text]) => [el("dt", {}, keys), el("dd", {}, text)])),
  el("button", { type: "button", on: { click: () => dialog.close() } }, "Close"));

const toggleShow = (show) => {
  view.show = view.show === show || (SHOWS[show].pair && !view.right) ? "all" : show;
  drawBar();
  refresh(false);
};

const PAGE_KEYS = {
  "?": () => dialog.showModal(), t: nextTheme, s: () => { if (present.includes("summary")) open("summary"); }, o: () => open("documents"),
  u: () => { if (present.includes("studies")) open("studies"); },
};
const DOCUMENT_KEYS = {
  ...LIST_KEYS, j: () => move(1), k: () => move(-1), e: () => toggleShow("wrong"), d: () => toggleShow("differ"), f: toggleFold,
  "/": () => $("query").focus(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "Escape" && event.target.id === "query") $("list").focus();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const inDocuments = !$("documents").hidden && view.left;
  let action = PAGE_KEYS[event.key];
  // Arrows scroll a table or go through the tabs where the focus is on one.
  const free = !event.target.closest("[role=tab], .scroll, button, summary") || !(event.key in LIST_KEYS);
  if (inDocuments && event.key in DOCUMENT_KEYS && free) action = DOCUMENT_KEYS[event.key];
  if (inDocuments && /^[1-9]$/.test(event.key)) {
    const explainer = view.left.docs.explanations[Number(event.key) - 1];
    action = explainer ? () => setExplainer("left", explainer) : undefined;
  }
  if (action) { event.preventDefault(); action(); }
});

$("title").textContent = visible(data.title);
$("tabs").replaceChildren(...tabs);
$("theme").addEventListener("click", nextTheme);
document.querySelector("header").append(el("button", { type: "button", "aria-label": "Keys", on: { click: () => dialog.showModal() } }, "⌨"));
document.body.append(dialog);
setTheme(THEMES.includes(remembered()) ? remembered() : "auto");
summaryPart($("summary"));
if (data.studies.length) studiesPart($("studies"));
open(data.groups.length || data.studies.length ? "summary" : "documents");
documentsPart($("documents")).catch((error) => {
  $("documents").replaceChildren(el("p", { role: "alert" }, `The documents cannot be unpacked: ${error.message}`));
}).finally(() => { document.documentElement.dataset.ready = "true"; });
