// The second part: a list of documents that draws only the rows in sight, and what decides which are in it.

const ROW = 84;
const view = {
  left: null, right: null, show: "all", label: "any", away: 0, query: "", sort: "different",
  order: [], chosen: null, unfolded: false,
};
const memo = new Map();
const folded = new Map();

/** Numbers that a list is sorted and filtered by, of all documents at once, worked out when first asked for. */
function ofAll(kind, key, value) {
  const full = `${kind} ${key}`;
  if (!memo.has(full)) memo.set(full, Float64Array.from({ length: view.left.docs.count }, (_, i) => value(i)));
  return memo.get(full);
}

const paneKey = (pane) => `${pane.docs.place}/${pane.explainer}`;

/** The same document in the other run; undefined if it has none. */
const partner = (i) => (view.right ? view.right.docs.byText.get(view.left.docs.texts[i]) : undefined);

/** How different what is shown is: left from right, or, of one run alone, attention from gradient. */
function difference() {
  const { left, right } = view;
  if (!right) return fromGradient();
  return ofAll("between", `${paneKey(left)} ${paneKey(right)}`, (i) => {
    const j = partner(i);
    if (j === undefined || !left.docs.sameTokens(i, right.docs, j)) return NaN;
    return distance(left.docs.steps(i, left.explainer), right.docs.steps(j, right.explainer));
  });
}

function fromGradient() {
  const docs = view.left.docs;
  return ofAll("gradient", String(docs.place), (i) => distance(docs.steps(i, "attention"), docs.steps(i, "gradient")));
}

/** The class of the right run that this class of the left one is: by name, for a run may have them in another order. */
function sameClass(label) {
  const { left, right } = view, named = left.docs.run.classes[label], others = right.docs.run.classes;
  return named === undefined || !others.length ? label : others.indexOf(named);
}

/** Change of the probability of the label, or of what the left run predicts where there is none. */
function change() {
  const { left, right } = view;
  if (!right) return new Float64Array(left.docs.count).fill(NaN);
  return ofAll("change", `${left.docs.place} ${right.docs.place}`, (i) => {
    const j = partner(i), label = left.docs.labelled(i) ? left.docs.labels[i] : left.docs.predictions[i];
    const other = sameClass(label);
    return j === undefined || other < 0 || other >= right.docs.classes ? NaN : Math.abs(left.docs.probability(i, label) - right.docs.probability(j, other));
  });
}

const ofLabel = (i) => (view.left.docs.labelled(i) ? view.left.docs.probability(i, view.left.docs.labels[i]) : NaN);

const SORTS = {
  different: { text: "Most different first", by: difference, falling: true },
  change: { text: "Largest change of probability", by: change, falling: true, pair: true },
  gradient: { text: "Attention farthest from gradient", by: fromGradient, falling: true },
  mistakes: { text: "Worst mistakes first", by: () => ofAll("label", String(view.left.docs.place), ofLabel) },
  unsure: { text: "Least certain first", by: () => ofAll("certain", String(view.left.docs.place), (i) => view.left.docs.confidence(i)) },
  split: { text: "Order of the split", by: () => view.left.docs.rows },
};

const disagree = (i) => {
  const j = partner(i);
  return j !== undefined && view.left.docs.className(view.left.docs.predictions[i]) !== view.right.docs.className(view.right.docs.predictions[j]);
};
const SHOWS = {
  all: { text: "All", test: () => true },
  wrong: { text: "Wrong", test: (i) => view.left.docs.wrong(i) },
  right: { text: "Right", test: (i) => view.left.docs.labelled(i) && !view.left.docs.wrong(i) },
  differ: { text: "The runs disagree", pair: true, test: disagree },
  left: { text: "Only the left is wrong", pair: true, test: (i) => disagree(i) && view.left.docs.wrong(i) && !view.right.docs.wrong(partner(i)) },
  onlyright: { text: "Only the right is wrong", pair: true, test: (i) => disagree(i) && !view.left.docs.wrong(i) && view.right.docs.wrong(partner(i)) },
};

/** The texts, second ones too, without regard to case, made once for the first search. */
function lowered(docs) {
  if (!folded.has(docs.corpus)) {
    folded.set(docs.corpus, docs.strings.map((text, k) => (docs.questions ? `${text}\n${docs.questions[k]}` : text).toLowerCase()));
  }
  return folded.get(docs.corpus);
}

/** Apply filters and order, then show the list from its beginning. */
function refresh(keepChosen = true) {
  const { docs } = view.left;
  const wanted = view.query.trim().toLowerCase();
  const texts = wanted ? lowered(docs) : null;
  const away = view.away > 0 ? fromGradient() : null;
  const test = SHOWS[view.show].test;
  const kept = [];
  for (let i = 0; i < docs.count; i++) {
    if (view.label !== "any" && docs.labels[i] !== Number(view.label)) continue;
    if (away && !(away[i] >= view.away)) continue;
    if (view.right && partner(i) === undefined) continue;
    if (texts && !texts[docs.texts[i]].includes(wanted)) continue;
    if (test(i)) kept.push(i);
  }
  const { by, falling } = SORTS[view.sort];
  const keys = by();
  kept.sort((a, b) => compare(keys[a], keys[b], Boolean(falling)) || docs.rows[a] - docs.rows[b]);
  view.order = kept;
  $("count").textContent = `${kept.length.toLocaleString("en-US")} of ${docs.count.toLocaleString("en-US")} documents`;
  $("inner").style.height = `${kept.length * ROW}px`;
  if (!keepChosen || !kept.includes(view.chosen)) {
    view.chosen = kept.length ? kept[0] : null;
    $("list").scrollTop = 0;
  }
  drawList(true);
  drawReader();
}

const drawn = new Map();

/** Draw the rows that can be seen, and a few beyond them; those that were drawn before stay, unless all are to change. */
function drawList(anew = false) {
  const list = $("list");
  const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 3);
  const until = Math.min(view.order.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 3);
  if (anew) { drawn.clear(); $("inner").replaceChildren(); }
  for (const [place, row] of drawn) if (place < from || place >= until) { row.remove(); drawn.delete(place); }
  for (let place = from; place < until; place++) {
    if (!drawn.has(place)) { drawn.set(place, listRow(place)); $("inner").append(drawn.get(place)); }
    drawn.get(place).setAttribute("aria-selected", String(view.order[place] === view.chosen));
  }
  if (!view.order.length) $("inner").replaceChildren(el("p", { class: "empty" }, "No document passes these filters."));
  const active = view.order.indexOf(view.chosen);
  if (active >= from && active < until) list.setAttribute("aria-activedescendant", `row-${active}`);
  else list.removeAttribute("aria-activedescendant");
}

function listRow(place) {
  const i = view.order[place], { docs, explainer } = view.left;
  const j = partner(i);
  const differs = difference()[i];
  const row = el("div", {
    class: "row", id: `row-${place}`, role: "option",
    "aria-posinset": place + 1, "aria-setsize": view.order.length,
    on: { click: () => choose(place) },
  },
  el("div", { class: "head" },
    el("span", { class: "id" }, `#${docs.rows[i]}`), verdict(docs, i, j !== undefined),
    j === undefined ? null : verdict(view.right.docs, j, true),
    Number.isFinite(differs) ? el("span", { class: "differs" }, `Δ ${differs.toFixed(2)}`) : null),
  el("div", { class: "excerpt", dir: "auto" }, docs.questions ? el("span", { class: "question" }, name(docs.question(i)), " ") : null, excerpt(docs, i, explainer)));
  row.style.top = `${place * ROW}px`;
  return row;
}

/** Label and prediction in few words; the sign does not depend on colour. */
function verdict(docs, i, short = false) {
  const said = name(docs.className(docs.predictions[i])), sure = number(docs.confidence(i), 2);
  const sign = docs.labelled(i) ? (docs.wrong(i) ? "✗" : "✓") : "";
  const state = docs.labelled(i) ? (docs.wrong(i) ? "wrong" : "right") : "";
  return el("span", { class: `verdict ${state}` },
    sign ? el("span", { role: "img", "aria-label": state }, sign) : null, " ", said, ` ${sure}`,
    !short && docs.wrong(i) ? [" (is ", name(docs.className(docs.labels[i])), ")"] : null);
}

const BEFORE = 6, SHOWN = 60;

/** The words around the one with the most weight. */
function excerpt(docs, i, explainer) {
  const steps = docs.steps(i, explainer), count = docs.lengths[i];
  let top = 0;
  if (steps) for (let t = 1; t < count; t++) if (Math.abs(steps[t]) > Math.abs(steps[top])) top = t;
  const from = top <= 2 * BEFORE ? 0 : top - BEFORE;
  return [from ? "… " : "", highlighted(docs, i, explainer, docs.tokens(i), from, Math.min(count, from + SHOWN))];
}

/** Choose the document at this place of the list. */
function choose(place) {
  if (!view.order.length) return;
  const at = Math.max(0, Math.min(view.order.length - 1, place));
  view.chosen = view.order[at];
  view.unfolded = false;
  const list = $("list");
  if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
  else if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
  drawList();
  drawReader();
}

const move = (by) => choose(view.order.indexOf(view.chosen) + by);
const page = () => Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);

const LIST_KEYS = {
  ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(page()), PageUp: () => move(-page()),
  Home: () => choose(0), End: () => choose(view.order.length - 1),
};

// --- the bar above the list -------------------------------------------------------------------------------------

const withDocuments = () => data.runs.map((run, place) => ({ run, place })).filter(({ run }) => run.documents);

async function pane(place, wanted) {
  const docs = await Documents.of(Number(place));
  const explainer = docs.explanations.includes(wanted) ? wanted : docs.explanations[0];
  await docs.need(explainer);
  return { docs, explainer };
}

/** Put a run on a side; `null` on the right shows the left alone. */
async function setPane(side, place) {
  const before = view[side];
  view[side] = place === null ? null : await pane(place, before ? before.explainer : view.left ? view.left.explainer : "attention");
  if (view.right && view.right.docs.corpus !== view.left.docs.corpus) view.right = null;
  if (!view.right && SHOWS[view.show].pair) view.show = "all";
  if (!view.right && SORTS[view.sort].pair) view.sort = "different";
  if (side === "left") { memo.clear(); view.label = "any"; }
  drawBar();
  refresh(side === "right");
}

/** Show another explanation on a side. */
async function setExplainer(side, explainer) {
  const changed = view[side];
  changed.wanted = explainer;
  await changed.docs.need(explainer);
  // A later click may have been faster, where its explanation was unpacked before.
  if (changed.wanted !== explainer) return;
  changed.explainer = explainer;
  refresh();
}

function drawBar() {
  const { left, right } = view, runs = withDocuments();
  const others = runs.filter(({ run, place }) => run.documents.corpus === left.docs.corpus && place !== left.docs.place);
  const usable = (kinds) => Object.entries(kinds).filter(([, kind]) => right || !kind.pair).map(([key, kind]) => [key, kind.text]);
  const labels = [...new Set(left.docs.labels)].sort((a, b) => a - b).map((label) => [label, left.docs.className(label)]);
  const query = el("input", { id: "query", type: "search", placeholder: "words", value: view.query, autocomplete: "off", spellcheck: "false",
    on: { input: () => { view.query = query.value; clearTimeout(view.waiting); view.waiting = setTimeout(refresh, 150); } } });
  const awayText = el("output", { for: "away" }, view.away.toFixed(2));
  const away = el("input", { id: "away", type: "range", min: 0, max: 1, step: 0.05, value: view.away,
    on: { input: () => { view.away = Number(away.value); awayText.textContent = view.away.toFixed(2); refresh(); } } });
  $("bar").replaceChildren(
    choice("left", "Run", runs.map(({ run, place }) => [place, run.label]), left.docs.place, (place) => setPane("left", place)),
    choice("right", "Beside it", [["", "nothing"], ...others.map(({ run, place }) => [place, run.label])], right ? right.docs.place : "",
      (place) => setPane("right", place === "" ? null : place)),
    choice("show", "Show", usable(SHOWS), view.show, (show) => { view.show = show; refresh(false); }),
    // One's own texts have no label, and no gradient to be away from.
    labels.some(([label]) => label >= 0) ? choice("label", "Label", [["any", "any"], ...labels], view.label, (label) => { view.label = label; refresh(false); }) : "",
    choice("sort", "Order", usable(SORTS), view.sort, (sort) => { view.sort = sort; refresh(false); }),
    el("label", { class: "field", for: "query" }, el("span", {}, "Search"), query),
    left.docs.explanations.includes("gradient") ? el("label", { class: "field", for: "away" }, el("span", {}, "Attention away from gradient, at least ", awayText), away) : "");
}

async function documentsPart(host) {
  const runs = withDocuments();
  if (!runs.length) {
    host.replaceChildren(el("p", {}, "None of these runs has stored its documents."));
    return;
  }
  host.replaceChildren(
    el("h2", { class: "unseen" }, "Documents"),
    el("div", { id: "bar", class: "bar", role: "group", "aria-label": "Which documents are shown" }),
    el("p", { id: "count", role: "status" }, "Unpacking the documents …"),
    el("div", { class: "split" },
      el("div", { id: "list", class: "list", role: "listbox", tabindex: 0, "aria-label": "Documents",
        on: { scroll: () => requestAnimationFrame(() => drawList()) } }, el("div", { id: "inner" })),
      el("article", { id: "reader", "aria-label": "The chosen document" })));
  const second = runs.find(({ run, place }) => place !== runs[0].place && run.documents.corpus === runs[0].run.documents.corpus);
  [view.left, view.right] = await Promise.all([pane(runs[0].place, "attention"), second ? pane(second.place, "attention") : null]);
  drawBar();
  new ResizeObserver(() => drawList()).observe($("list"));
  refresh(false);
}
