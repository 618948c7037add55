// The first part: what was run, the numbers that matter beside controls, learning curves.

const UNKNOWN = "–";
const TRANSPOSED_ABOVE = 4;

function numberCell(found, strong) {
  if (!found) return UNKNOWN;
  const digits = Math.abs(found.value) >= 100 ? 1 : 3;
  return [
    el(strong ? "strong" : "span", {}, number(found.value, digits)),
    found.low === null ? null : el("span", { class: "interval" }, ` ${interval(found.low, found.high, digits)}`),
    printed(found.published),
  ];
}

/** What others printed for the same number. */
const printed = (known) => (known ? el("small", { class: "published" }, `published ${number(known.value)}`) : null);

function sourcesNote(found) {
  const sources = [...new Set(found.map((one) => one && one.published && one.published.source).filter(Boolean))];
  return sources.length ? el("p", { class: "note" }, `Published: ${sources.join("; ")}. Single runs of others, in other settings of what is not said here: no test compares them with ours.`) : null;
}

const controlsOf = (groups) => [...new Set(groups.flatMap((group) => group.numbers.flatMap((found) => Object.keys(found.controls))))];
const numberOf = (group, key) => group.numbers.find((found) => found.metric === key);
const controlOf = (groups, key, control) => {
  for (const group of groups) {
    const found = numberOf(group, key);
    if (found && control in found.controls) return found.controls[control];
  }
  return null;
};

/** Few groups stand in columns beside the controls; many are rows, the controls below them. */
function keyNumbers(dataName, groups) {
  const keys = [...new Set(groups.flatMap((group) => group.numbers.map((found) => found.metric)))];
  const controls = controlsOf(groups);
  const bests = Object.fromEntries(keys.map((key) => [key, groups.length > 1 ? best(key, groups.map((group) => numberOf(group, key)?.value ?? null)) : NaN]));
  const cell = (group, key) => numberCell(numberOf(group, key), numberOf(group, key)?.value === bests[key]);
  const control = (key, text) => number(controlOf(groups, key, text));
  const caption = `Key numbers on ${dataName}`;
  if (groups.length > TRANSPOSED_ABOVE) {
    const columns = [{ label: "Run", key: (row) => row.label },
      ...keys.map((key) => ({ label: metricText(key), head: help(key), numeric: true, key: (row) => row.values[key] }))];
    const rows = [
      ...groups.map((group) => ({
        label: group.label, cells: [name(group.label), ...keys.map((key) => cell(group, key))],
        values: Object.fromEntries(keys.map((key) => [key, numberOf(group, key)?.value ?? null])),
      })),
      ...controls.map((text) => ({
        label: text, class: "control", cells: [`${text} (control)`, ...keys.map((key) => control(key, text))],
        values: Object.fromEntries(keys.map((key) => [key, controlOf(groups, key, text)])),
      })),
    ];
    const made = table(caption, columns, rows);
    if (keys.length > 4) made.classList.add("several");
    return made;
  }
  const columns = [{ label: "Metric" }, ...groups.map((group) => ({ label: group.label, numeric: true })),
    ...controls.map((text) => ({ label: `${text} (control)`, numeric: true }))];
  const rows = keys.map((key) => ({
    cells: [
      [metric(key), data.metrics[key].meaning ? el("small", {}, data.metrics[key].meaning) : null],
      ...groups.map((group) => cell(group, key)), ...controls.map((text) => control(key, text)),
    ],
  }));
  return table(caption, columns, rows, { sortable: false });
}

function intervalNote(groups) {
  const over = new Set(groups.flatMap((group) => group.numbers.map((found) => found.over)).filter(Boolean));
  const texts = {
    seeds: `In brackets behind a mean over seeds: its 95 % interval over seeds, ${data.interval}.`,
    documents: "In brackets behind the number of a single run: a 95 % interval over its test documents (of a share Wilson's, else of the normal distribution); it says nothing of other seeds.",
  };
  return ["seeds", "documents"].filter((kind) => over.has(kind)).map((kind) => el("p", { class: "note" }, texts[kind]));
}

/** Two runs on the same documents: paired tests, and how far their explanations agree. */
function comparison(found) {
  const [a, b] = found.labels;
  const tests = table(`${b} minus ${a}`, ["Compared", "A", "B", "B − A", "95 % interval", "p", "Test"].map((label, k) => ({ label, numeric: k > 0 && k < 6 })),
    found.paired.map((row) => ({ cells: [row.name, number(row.first, 4), number(row.second, 4), sized(row.difference, 4, true), sizedInterval(row.low, row.high, 4, true) || UNKNOWN, row.p === null ? UNKNOWN : row.p < .001 ? "< .001" : number(row.p, 3), row.test] })), { sortable: false });
  const alike = table("Agreement of their explanations", ["Explanation", "Measure", "Mean", "95 % interval", "Documents"].map((label, k) => ({ label, numeric: k > 1 })),
    found.alike.map((row) => ({ cells: [name(row.explanation), [row.name, el("small", {}, row.meaning)], sized(row.mean), sizedInterval(row.low, row.high) || UNKNOWN, String(row.n)] })), { sortable: false });
  return el("section", { class: "block", id: "comparison" }, el("h2", {}, "The two runs, document by document"),
    el("p", {}, "A is ", name(a), ", B is ", name(b), "."),
    el("ul", {}, found.lines.map((line) => el("li", {}, line))), found.paired.length ? tests : null, found.alike.length ? alike : null,
    el("p", { class: "note" }, `Intervals over documents: ${data.interval}; of the difference of accuracies that of Agresti and Min (2005). The tests say whether these two models differ on such documents, not whether two methods do: that takes several seeds. The documents that flipped: Documents, “disagree”.`));
}

function factsOf(place, open) {
  const run = data.runs[place];
  return el("details", { open }, el("summary", {}, name(run.label)),
    el("dl", { class: "facts" }, run.facts.map(([term, text]) => [el("dt", {}, term), el("dd", {}, name(text))])));
}

/** Learning curves of some runs, one metric at a time. */
function learningCurves(title, series) {
  const host = el("div");
  const block = el("section", { class: "block" }, el("h3", {}, "Learning curves"), host);
  Promise.all(series.map((one) => load(one.curves))).then((curves) => {
    const names = [...new Set(curves.flatMap((found) => Object.keys(found.series)))].sort(compareCurves);
    if (!names.length) { block.remove(); return; }
    const methods = [...new Set(series.map((one) => one.label))];
    const drawing = el("div");
    const draw = (chosen) => drawing.replaceChildren(lines(methods.map((label, place) => {
      const mine = curves.filter((found, k) => series[k].label === label && found.series[chosen]);
      const longest = mine.reduce((most, found) => (found.epochs.length > most.length ? found.epochs : most), []);
      return { label, series: place, x: longest, runs: mine.map((found) => longest.map((epoch) => found.series[chosen][found.epochs.indexOf(epoch)] ?? null)) };
    }).filter((line) => line.runs.length), "epoch", chosen, `${title}: ${chosen} by epoch`));
    // First what chose the epoch that is kept.
    const start = [...curves.map((found) => found.monitor), "val/accuracy"].find((key) => names.includes(key)) || names[0];
    host.replaceChildren(choice(`curve-${title}`, "Metric", names.map((key) => [key, key]), start, draw), drawing, legend(methods));
    draw(start);
  });
  return block;
}

/** What is validated comes before what is trained on. */
const compareCurves = (a, b) => Number(b.startsWith("val/")) - Number(a.startsWith("val/")) || a.localeCompare(b);

/** Links to the files beside the page, the kinds of one name in one line. */
function filesByName() {
  const kinds = new Map();
  for (const path of data.files) {
    const dot = path.lastIndexOf("."), stem = path.slice(0, dot);
    kinds.set(stem, [...(kinds.get(stem) || []), path.slice(dot + 1)]);
  }
  const href = (path) => path.split("/").map(encodeURIComponent).join("/");
  return el("ul", {}, [...kinds].map(([stem, endings]) => el("li", {}, name(stem), endings.map((ending) => [" ", el("a", { href: href(`${stem}.${ending}`), "aria-label": `${stem}, ${ending}` }, ending)]))));
}

function summaryPart(host) {
  const parts = [];
  if (data.notes.length) {
    parts.push(el("section", { class: "notes", "aria-label": "Notes" }, el("h2", {}, "Notes"), el("ul", {}, data.notes.map((text) => el("li", {}, name(text))))));
  }
  for (const dataName of new Set(data.groups.map((group) => group.data))) {
    const groups = data.groups.filter((group) => group.data === dataName);
    const places = groups.flatMap((group) => group.runs);
    const curves = groups.flatMap((group) => group.runs.map((place) => ({ label: group.label, curves: data.runs[place].history }))).filter((one) => one.curves);
    parts.push(el("section", { class: "block" }, el("h2", {}, "Runs on ", name(dataName)),
      keyNumbers(dataName, groups), intervalNote(groups), sourcesNote(groups.flatMap((group) => group.numbers)),
      el("h3", {}, "What was run"), el("div", { class: "cards" }, places.map((place) => factsOf(place, places.length === 1))),
      curves.length ? learningCurves(dataName, curves) : null));
  }
  if (data.comparison) parts.push(comparison(data.comparison));
  for (const study of data.studies) {
    parts.push(el("section", { class: "block" }, el("h2", {}, "Study ", name(study.name)),
      el("p", {}, `${study.methods.length} methods × ${study.data.length} data × ${study.seeds.length} seeds`,
        study.options.length > 1 ? ` × ${study.options.length} sets of options` : "", `: ${study.runs} runs. ${study.time}: ${duration(study.seconds)}.`),
      study.notes.length ? el("ul", { class: "notes" }, study.notes.map((text) => el("li", {}, name(text)))) : null,
      overviews(study), sourcesNote(study.tables.flatMap((one) => one.rows))));
  }
  if (data.files.length) {
    parts.push(el("section", { class: "block" }, el("h2", {}, "Files beside this page"),
      filesByName()));
  }
  host.replaceChildren(...parts);
}
