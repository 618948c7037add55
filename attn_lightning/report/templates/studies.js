// The third part: the tables of studies, their runs as dots, trade-offs, and curves.

const tablesOf = (study, group) => study.tables.filter((one) => one.data === group.data && one.options === group.options && one.condition === group.condition);

/** Data, options and condition, which tables of several metrics share. */
function groupsOf(study) {
  const found = new Map();
  for (const { data: kind, options, condition } of study.tables) {
    const text = [kind, options, condition && `runs with ${condition} alone`].filter(Boolean).join(", ");
    found.set(text, { text, data: kind, options, condition });
  }
  return [...found.values()];
}

const rowOf = (one, method) => one && one.rows.find((row) => row.method === method);
const methodsOf = (list) => [...new Set(list.flatMap((one) => one.rows.map((row) => row.method)))];
const significant = (row) => row && row.comparison && row.comparison.p_holm !== null && row.comparison.p_holm < 0.05;

function meanCell(row, strong) {
  if (!row || row.mean === null) return UNKNOWN;
  const digits = Math.abs(row.mean) >= 100 ? 1 : 3;
  return [el(strong ? "strong" : "span", {}, number(row.mean, digits)), significant(row) ? "*" : "",
    row.low === null ? null : el("span", { class: "interval" }, ` ${interval(row.low, row.high, digits)}`), printed(row.published)];
}

/** Methods over several tables: those of one kind of data by metric, or those of one metric by data. */
function pivot(caption, list, head) {
  const columns = [{ label: "Method", key: (row) => row.label },
    ...list.map((one, k) => ({ ...head(one), numeric: true, key: (row) => row.values[k] }))];
  const bests = list.map((one) => best(one.metric, one.rows.filter((row) => !row.control).map((row) => row.mean)));
  const rows = methodsOf(list).map((method) => {
    const found = list.map((one) => rowOf(one, method));
    return {
      label: method, class: found.some((row) => row && row.control) ? "control" : null,
      cells: [name(method), ...found.map((row, k) => meanCell(row, row && row.mean === bests[k] && !row.control))],
      values: found.map((row) => (row ? row.mean : null)),
    };
  });
  const made = table(caption, columns, rows);
  if (list.length > 4) made.classList.add("several");
  return made;
}

/** One table per group for the summary: every metric beside the others. */
function overviews(study) {
  return groupsOf(study).map((group) => pivot(group.text, tablesOf(study, group), (one) => ({ label: metricText(one.metric), head: help(one.metric) })));
}

/** All that is known of one metric: intervals, paired differences, tests. */
function detailed(one, study) {
  const part = (key) => (row) => (row.row.comparison ? row.row.comparison[key] : null);
  const columns = [
    { label: "Method", key: (row) => row.row.method }, { label: "Seeds" },
    { label: "Mean", numeric: true, key: (row) => row.row.mean }, { label: "SD", numeric: true, key: (row) => row.row.std }, { label: "95 % interval", numeric: true },
    ...(study.baseline === null ? [] : [
      { label: `Difference to ${study.baseline}`, numeric: true, key: part("difference") }, { label: "95 % interval of it", numeric: true },
      { label: "Effect", numeric: true, key: part("effect") }, { label: "p", numeric: true, key: part("p") }, { label: "p (Holm)", numeric: true, key: part("p_holm") },
      { label: "Seeds needed", numeric: true, key: part("seeds_needed") }]),
  ];
  const rows = one.rows.map((row) => {
    const c = row.comparison;
    const compared = c ? [number(c.difference, 4, true), interval(c.low, c.high, 4, true) || UNKNOWN, number(c.effect, 2, true), number(c.p, 3), number(c.p_holm, 3), c.seeds_text] : Array(6).fill(UNKNOWN);
    return { row, class: row.control ? "control" : null,
      cells: [name(row.method), row.seeds, [number(row.mean, 4), printed(row.published)], number(row.std, 4), interval(row.low, row.high, 4) || UNKNOWN, ...(study.baseline === null ? [] : compared)] };
  });
  return table(`${metricText(one.metric)}, method by method`, columns, rows);
}

function trade(study, group, metrics) {
  const list = tablesOf(study, group), state = { x: metrics[0], y: metrics[Math.min(1, metrics.length - 1)] };
  const wanted = ["comprehensiveness", "auprc", "token_f1", "mass", "ftpt", "kendall"].map((part) => metrics.find((key) => key.includes(part))).find(Boolean);
  if (wanted) state.y = wanted;
  const drawing = el("div");
  const at = (key, method) => rowOf(list.find((one) => one.metric === key), method) || {};
  const draw = () => {
    const methods = methodsOf(list).filter((method) => !(at(state.x, method).control || at(state.y, method).control));
    const points = methods.map((method) => {
      const [x, y] = [at(state.x, method), at(state.y, method)];
      return { label: method, x: x.mean ?? NaN, y: y.mean ?? NaN, xs: [x.low ?? NaN, x.high ?? NaN], ys: [y.low ?? NaN, y.high ?? NaN], size: x.cost };
    });
    drawing.replaceChildren(
      scatter(points, [state.x, state.y].map((key) => data.metrics[key].higher), metricText(state.x), metricText(state.y),
        `${data.metrics[state.y].name} against ${data.metrics[state.x].name}, a point per method`), legend(methods));
  };
  const select = (axis, text) => choice(`trade-${axis}-${data.studies.indexOf(study)}`, text, metrics.map((key) => [key, data.metrics[key].name]), state[axis], (key) => { state[axis] = key; draw(); });
  draw();
  return el("section", { class: "block" }, el("h3", {}, "Trade-off"),
    el("p", { class: "note" }, `A point is the mean of a method with its interval; its size: ${study.time}; the line joins the methods that no other beats in both.`),
    el("div", { class: "bar" }, select("x", "Across"), select("y", "Up")), drawing);
}

function robustness(study, group) {
  const panels = study.curves.filter((one) => one.data === group.data && one.options === group.options);
  if (!panels.length) return null;
  return el("section", { class: "block" }, el("h3", {}, "Robustness"),
    panels.map((panel) => el("figure", {}, el("figcaption", {}, panel.title),
      lines(panel.lines.map((line, series) => ({ label: line.method, series, x: line.x, runs: line.runs })), panel.axis, "accuracy", `Accuracy under ${panel.title}`))),
    legend(panels[0].lines.map((line) => line.method)));
}

function studyPart(study, position) {
  const groups = groupsOf(study), metrics = [...new Set(study.tables.map((one) => one.metric))];
  const state = { group: groups[0], metric: metrics[0] };
  const host = el("div");
  const draw = () => {
    const { group } = state, list = tablesOf(study, group), one = list.find((found) => found.metric === state.metric);
    const across = groups.filter((other) => other.options === group.options && other.condition === group.condition)
      .map((other) => tablesOf(study, other).find((found) => found.metric === state.metric)).filter(Boolean);
    const shown = one.rows.filter((row) => !row.control);
    const histories = study.histories.filter((run) => run.data === group.data && run.options === group.options).map((run) => ({ label: run.method, curves: run.curves }));
    put(host,
      el("h3", {}, metric(state.metric)),
      across.length > 1 ? pivot(`${data.metrics[state.metric].name}, method by data`, across, (found) => ({ label: found.data })) : null,
      detailed(one, study), el("p", { class: "note" }, study.note),
      el("section", { class: "block" }, el("h3", {}, "Runs"),
        el("p", { class: "note" }, "A dot is a run; thin lines join runs of the same seed; the bar above is the 95 % interval of the mean, the stroke on it."),
        dots(shown.map((row) => ({ label: row.method, values: row.values, mean: row.mean, low: row.low, high: row.high })), metricText(state.metric), `${data.metrics[state.metric].name} of every run by method`)),
      metrics.length > 1 ? trade(study, group, metrics) : null,
      robustness(study, group),
      histories.length ? learningCurves(study.name, histories) : null);
  };
  draw();
  return el("section", { class: "block" }, el("h2", {}, name(study.name)),
    el("div", { class: "bar" },
      groups.length > 1 ? choice(`group-${position}`, "Data", groups.map((group, k) => [k, group.text]), 0, (k) => { state.group = groups[k]; draw(); }) : null,
      choice(`metric-${position}`, "Metric", metrics.map((key) => [key, metricText(key)]), state.metric, (key) => { state.metric = key; draw(); })),
    host);
}

function studiesPart(host) {
  host.replaceChildren(...data.studies.map(studyPart));
}
