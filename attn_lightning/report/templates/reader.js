// One document: its text with an explanation as highlight, beside the same document in another run.

const LONG = 150;
const AROUND = 8;
const TOP = 10;

/** Ten degrees of highlight; what is above zero has at least the first. */
const level = (step) => (step === 0 ? 0 : Math.max(1, Math.round((Math.abs(step) / FULL) * 10)));

/** The tokens from one place to another with what is between them, as text nodes and marks. */
function highlighted(docs, i, explainer, tokens, from, until) {
  const text = docs.text(i), steps = docs.steps(i, explainer), marks = docs.marksOf(i);
  const part = document.createDocumentFragment();
  let at = from < tokens.length ? tokens[from][0] : 0;
  if (from === 0) at = 0;
  for (let t = from; t < until; t++) {
    const [start, end] = tokens[t];
    const inside = marks && marks[t] && t > from && marks[t - 1];
    if (start > at) part.append(inside ? el("u", {}, text.slice(at, start)) : document.createTextNode(visible(text.slice(at, start))));
    // A token without text, such as one that the data puts before every document, is shown by its place.
    const shown = end > start ? text.slice(start, end) : `‹${t + 1}› `;
    const degree = steps ? level(steps[t]) : 0, classes = [];
    if (degree) classes.push("w", `w${degree}`, steps[t] < 0 ? "against" : "");
    if (marks && marks[t]) classes.push("rationale");
    if (classes.length) {
      const title = steps && degree ? `${explainer} ${weightText(docs, i, explainer, steps[t])}${marks && marks[t] ? ", in the rationale" : ""}` : "in the rationale";
      part.append(el("mark", { class: classes.filter(Boolean).join(" "), title }, shown));
    } else part.append(document.createTextNode(visible(shown)));
    at = Math.max(at, end);
  }
  if (until === tokens.length && at < text.length) part.append(document.createTextNode(visible(text.slice(at))));
  return part;
}

const weightText = (docs, i, explainer, step) => number(step * docs.scale(i, explainer), 4);

/** The tokens that a folded text keeps: those near the ones with the most weight, and rationales. */
function kept(panes, count) {
  const keep = new Uint8Array(count);
  const around = (t) => keep.fill(1, Math.max(0, t - AROUND), Math.min(count, t + AROUND + 1));
  for (const { docs, explainer, i } of panes) {
    const steps = docs.steps(i, explainer);
    if (steps && steps.length === count) topTokens(steps).forEach(around);
  }
  keep.fill(1, 0, Math.min(count, AROUND));
  return keep;
}

/** The places of the largest weights, the largest first. */
function topTokens(steps) {
  return [...steps.keys()].sort((a, b) => Math.abs(steps[b]) - Math.abs(steps[a]) || a - b).slice(0, TOP).filter((t) => steps[t] !== 0);
}

/** The text in parts: what is kept, and buttons in the place of what is folded away. */
function foldedText(docs, i, explainer, tokens, keep) {
  const parts = [];
  let from = 0;
  while (from < tokens.length) {
    let until = from + 1;
    while (until < tokens.length && keep[until] === keep[from]) until++;
    if (keep[from]) parts.push(highlighted(docs, i, explainer, tokens, from, until), " ");
    else {
      const [a, b] = [from, until];
      const button = el("button", { type: "button", class: "more", on: { click: () => button.replaceWith(highlighted(docs, i, explainer, tokens, a, b)) } },
        `… ${b - a} words …`);
      parts.push(button, " ");
    }
    from = until;
  }
  return parts;
}

const BARS = 5;

/** The likeliest classes, the label wherever it stands among them, and what is not drawn in words. */
function bars(docs, i) {
  const all = [...Array(docs.classes).keys()], impossible = all.filter((c) => !docs.possible(i, c));
  const ranked = all.filter((c) => docs.possible(i, c)).sort((a, b) => docs.probability(i, b) - docs.probability(i, a));
  const label = docs.labelled(i) ? docs.labels[i] : -1, place = ranked.indexOf(label);
  const shown = place < BARS ? ranked.slice(0, BARS) : [...ranked.slice(0, BARS), label];
  const rest = ranked.filter((c) => !shown.includes(c));
  const bar = (one) => {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${100 * docs.probability(i, one)}%`;
    const mark = one !== label ? "" : place < BARS ? "label" : `label, #${place + 1}`;
    return el("li", {}, el("span", { class: "what", title: docs.className(one) }, name(docs.className(one))), el("span", { class: "track", "aria-hidden": "true" }, fill),
      number(docs.probability(i, one), 3), el("span", { class: "gold" }, mark));
  };
  return [
    el("ul", { class: "bars" }, shown.map(bar)),
    rest.length ? el("p", { class: "others" }, `${rest.length} more, ${number(docs.probability(i, rest[0]), 3)} at most`) : null,
    impossible.length ? el("p", { class: "others" }, "Not candidates: ",
      impossible.slice(0, 2 * BARS).map((one, k) => [k ? ", " : "", name(docs.className(one))]), impossible.length > 2 * BARS ? ` and ${impossible.length - 2 * BARS} more` : "") : null,
  ];
}

function explainerButtons(side, { docs, explainer }) {
  return el("div", { class: "chips", role: "group", "aria-label": "Explanation" }, docs.explanations.map((one, place) =>
    el("button", { type: "button", "aria-pressed": String(one === explainer), title: place < 9 && side === "left" ? `key ${place + 1}` : null,
      on: { click: () => setExplainer(side, one) } }, one)));
}

function topTable(docs, i, tokens) {
  const explainer = docs.explanations.filter((one) => docs.steps(i, one));
  const text = docs.text(i);
  const rows = topTokens(docs.steps(i, explainer[0]) || new Int8Array(0)).map((t) => ({
    cells: [name(text.slice(...tokens[t]) || `‹${t + 1}›`), ...explainer.map((one) => weightText(docs, i, one, docs.steps(i, one)[t]))],
    word: text.slice(...tokens[t]), values: explainer.map((one) => docs.steps(i, one)[t]),
  }));
  return el("details", {}, el("summary", {}, docs.run.documents.segments ? "Segments with the most attention, in numbers" : "Words with the most attention, in numbers"),
    table("Weights", [{ label: docs.run.documents.segments ? "Segment" : "Word", key: (row) => row.word }, ...explainer.map((one, k) => ({ label: one, numeric: true, key: (row) => row.values[k] }))], rows));
}

function paneOf(side, { docs, explainer, i }, panes) {
  const tokens = docs.tokens(i), steps = docs.steps(i, explainer);
  const fold = tokens.length > LONG && !view.unfolded;
  const sameLength = panes.every((one) => one.docs.lengths[one.i] === tokens.length);
  const body = fold
    ? foldedText(docs, i, explainer, tokens, kept(sameLength ? panes : panes.filter((one) => one.docs === docs), tokens.length))
    : highlighted(docs, i, explainer, tokens, 0, tokens.length);
  return el("section", { class: "pane", "aria-label": docs.run.label },
    el("h3", {}, name(docs.run.label)),
    el("p", {}, verdict(docs, i)),
    bars(docs, i),
    explainerButtons(side, { docs, explainer }),
    el("p", { class: "scale" }, steps ? [el("span", { class: "ramp", "aria-hidden": "true" }), ` 0 to ${number(docs.scale(i, explainer) * FULL, 3)}`] : `${explainer} was not stored for this document`,
      docs.marksOf(i) ? [" · ", el("mark", { class: "rationale" }, "rationale")] : null),
    el("p", { class: "text", dir: "auto" }, body),
    tokens.length > LONG ? el("button", { type: "button", class: "fold", on: { click: toggleFold } }, fold ? `Show all ${tokens.length} words` : "Fold") : null,
    topTable(docs, i, tokens));
}

function toggleFold() {
  view.unfolded = !view.unfolded;
  drawReader();
}

/** Draw the chosen document. */
function drawReader() {
  const reader = $("reader"), i = view.chosen;
  if (i === null) {
    reader.replaceChildren(el("p", { class: "empty" }, "No document is chosen."));
    return;
  }
  const { docs } = view.left, j = partner(i), place = view.order.indexOf(i);
  const panes = [{ ...view.left, i }];
  if (j !== undefined) panes.push({ ...view.right, i: j });
  reader.replaceChildren(
    el("div", { class: "head" },
      el("h2", {}, `Document ${docs.rows[i]}`, docs.labelled(i) ? [", label ", name(docs.className(docs.labels[i]))] : null),
      el("span", { class: "steps" },
        el("button", { type: "button", "aria-label": "Previous document", disabled: place <= 0, on: { click: () => move(-1) } }, "‹"),
        ` ${place + 1} / ${view.order.length} `,
        el("button", { type: "button", "aria-label": "Next document", disabled: place >= view.order.length - 1, on: { click: () => move(1) } }, "›"))),
    ...(docs.questions ? [el("p", { class: "question" }, el("span", {}, "Second text: "), name(docs.question(i)))] : []),
    el("div", { class: panes.length > 1 ? "panes two" : "panes" }, panes.map((one, k) => paneOf(k ? "right" : "left", one, panes))));
}
