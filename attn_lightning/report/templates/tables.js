// Tables that sort by a click on a column.

/**
 * A table.
 * @param caption text above it, or null.
 * @param columns `{head, label, numeric, key}`: nodes of the header, its name, whether numbers stand in it, and
 *     `key(row)`, by which it sorts; a column without `key` cannot be sorted.
 * @param rows `{cells, ...}`: a list of cells (nodes or texts, one per column) and whatever the keys need.
 */
function table(caption, columns, rows, { sortable = true } = {}) {
  const body = el("tbody");
  let sorted = null, falling = false;
  const heads = columns.map((column, index) => el("th", { scope: "col", class: column.numeric ? "number" : null },
    sortable && column.key
      ? el("button", { type: "button", class: "sort", on: { click: () => sort(index) } }, column.label)
      : column.label,
    column.head));

  function show(list) {
    body.replaceChildren(...list.map((row) => el("tr", { class: row.class }, row.cells.map((cell, index) =>
      index === 0
        ? el("th", { scope: "row" }, cell)
        : el("td", { class: columns[index].numeric ? "number" : null }, cell)))));
  }

  function sort(index) {
    falling = sorted === index ? !falling : Boolean(columns[index].numeric);
    sorted = index;
    heads.forEach((head, place) => {
      if (place === index) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const key = columns[index].key;
    show([...rows].sort((a, b) => compare(key(a), key(b), falling)));
  }

  show(rows);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, caption ? el("caption", {}, caption) : null, el("thead", {}, el("tr", {}, heads)), body));
}

/** Order of two keys; what is undefined comes last in either direction. */
function compare(a, b, falling) {
  const [undefinedA, undefinedB] = [a, b].map((key) => key === null || key === undefined || Number.isNaN(key));
  if (undefinedA || undefinedB) return undefinedA - undefinedB;
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return falling ? -order : order;
}

/** The best of some values of a metric, NaN where neither direction is better. */
function best(key, values) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  const higher = data.metrics[key].higher;
  if (!known.length || higher === null) return NaN;
  return higher ? Math.max(...known) : Math.min(...known);
}
