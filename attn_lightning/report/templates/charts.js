// Small charts in SVG: dots, points with intervals, lines. They are drawn anew when their place changes its width.

const SHAPES = [
  "M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-6L5.5 4.5H-5.5Z", "M0-6.5L6 0L0 6.5L-6 0Z",
  "M-5.5-4.5H5.5L0 6Z", "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", "M-5-2L-2-5L0-2.5L2-5L5-2L2.5 0L5 2L2 5L0 2.5L-2 5L-5 2L-2.5 0Z",
  "M-6 0L5-5.5V5.5Z", "M6 0L-5-5.5V5.5Z",
];

/** A marker of the series with this number: colour and shape both tell it apart. */
const marker = (series, x, y, size = 1) => svg("path", {
  class: `mark s${series % 9}`, d: SHAPES[series % SHAPES.length], transform: `translate(${x} ${y}) scale(${size})`,
});

/** A chart: `draw(width)` gives the SVG for a width in pixels. */
function chart(label, draw) {
  const host = el("div", { class: "chart", role: "img", "aria-label": label });
  let width = 0;
  const redraw = () => {
    const wanted = Math.floor(host.clientWidth);
    if (!wanted || wanted === width) return;
    width = wanted;
    host.replaceChildren(draw(width));
  };
  new ResizeObserver(redraw).observe(host);
  return host;
}

function legend(names) {
  return el("ul", { class: "legend" }, names.map((text, series) => el("li", {},
    svg("svg", { width: 16, height: 16, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, marker(series, 0, 0)), name(text))));
}

/** Round numbers across a range, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? power * 10;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

const tickText = (value) => Number(value.toPrecision(4)).toLocaleString("en-US", { maximumFractionDigits: 6 });

/** From values to pixels, with a little room at both ends. */
function scale(values, from, to) {
  const known = values.filter(Number.isFinite);
  let low = Math.min(...known), high = Math.max(...known);
  if (!known.length) [low, high] = [0, 1];
  if (low === high) { const room = Math.abs(low) * 0.05 || 0.5; low -= room; high += room; }
  const room = (high - low) * 0.05;
  [low, high] = [low - room, high + room];
  const place = (value) => from + ((value - low) / (high - low)) * (to - from);
  return Object.assign(place, { low, high });
}

function axes(x, y, box, labelX, labelY) {
  // Half an epoch is no number that a reader looks for.
  const across = ticks(x.low, x.high, Math.max(2, Math.floor((box.right - box.left) / 80))).filter((value) => labelX !== "epoch" || Math.abs(value - Math.round(value)) < 1e-9);
  const down = y ? ticks(y.low, y.high, Math.max(2, Math.floor((box.bottom - box.top) / 40))) : [];
  return svg("g", { class: "axes" },
    across.map((value) => [
      svg("line", { x1: x(value), x2: x(value), y1: box.top, y2: box.bottom }),
      svg("text", { x: x(value), y: box.bottom + 15, "text-anchor": "middle" }, tickText(value))]),
    down.map((value) => [
      svg("line", { x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
      svg("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value))]),
    svg("text", { class: "label", x: (box.left + box.right) / 2, y: box.bottom + 32, "text-anchor": "middle" }, labelX),
    labelY ? svg("text", { class: "label", x: 2, y: box.top - 8 }, labelY) : null);
}

const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const picture = (width, height, ...children) => svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...children);
const polyline = (points, attributes) => svg("path", { fill: "none", d: points.map(([x, y], k) => `${k ? "L" : "M"}${x} ${y}`).join(""), ...attributes });

/**
 * Runs as dots, a line of the chart per method, the same seed joined across them, mean and interval above.
 * @param rows `{label, values: {seed: value}, mean, low, high}`.
 */
function dots(rows, axis, label) {
  const seeds = [...new Set(rows.flatMap((row) => Object.keys(row.values)))];
  return chart(label, (width) => {
    const step = 40, left = Math.min(190, width * 0.34), box = { left, right: width - 12, top: 8, bottom: 8 + step * rows.length };
    const every = rows.flatMap((row) => [...Object.values(row.values), row.mean, row.low, row.high]);
    const x = scale(every.filter((value) => value !== null), box.left + 6, box.right);
    const middle = (place) => box.top + step * (place + 0.5);
    return picture(width, box.bottom + 40,
      rows.map((_, place) => (place % 2 ? null : svg("rect", { class: "stripe", x: 0, y: box.top + step * place, width, height: step }))),
      axes(x, null, box, axis),
      seeds.map((seed) => {
        const points = rows.map((row, place) => [row.values[seed], place])
          .filter(([value]) => Number.isFinite(value)).map(([value, place]) => [x(value), middle(place) + 6]);
        return points.length > 1 ? polyline(points, { class: "seed" }) : null;
      }),
      rows.map((row, place) => svg("g", {},
        svg("text", { x: 0, y: middle(place) + 4 }, svg("title", {}, row.label), shortened(row.label, Math.floor(left / 7))),
        row.low === null || row.low === undefined ? null
          : svg("line", { class: `interval s${place % 9}`, x1: x(row.low), x2: x(row.high), y1: middle(place) - 9, y2: middle(place) - 9 }),
        row.mean === null ? null
          : svg("path", { class: "mean", d: `M${x(row.mean)} ${middle(place) - 14}v10` }),
        Object.entries(row.values).filter(([, value]) => Number.isFinite(value)).map(([seed, value]) => {
          const dot = marker(place, x(value), middle(place) + 6, 0.75);
          dot.append(svg("title", {}, `${row.label}, seed ${seed}: ${number(value, 4)}`));
          return dot;
        }))));
  });
}

/**
 * Methods as points over two metrics, sized by cost, with the line of those that no other beats in both.
 * @param points `{label, x, y, size, xs: [low, high], ys: [low, high]}`.
 * @param better `[higher is better on x, on y]`, null where neither is.
 */
function scatter(points, better, axisX, axisY, label) {
  const known = points.map((point, series) => ({ ...point, series })).filter((point) => Number.isFinite(point.x) && Number.isFinite(point.y));
  const largest = Math.max(...known.map((point) => point.size || 0), 1e-9);
  const front = better.includes(null) ? [] : paretoFront(known, better);
  return chart(label, (width) => {
    const box = { left: 52, right: width - 16, top: 24, bottom: Math.min(360, Math.max(240, width * 0.6)) };
    const x = scale(known.flatMap((point) => [point.x, ...point.xs]).filter(Number.isFinite), box.left, box.right);
    const y = scale(known.flatMap((point) => [point.y, ...point.ys]).filter(Number.isFinite), box.bottom, box.top);
    const sizes = known.map((point) => 0.8 + 1.2 * Math.sqrt((point.size || 0) / largest));
    // A name over the marker of another method would be read as its name.
    const taken = known.map((point, k) => ({ left: x(point.x) - 6 * sizes[k], width: 12 * sizes[k], height: y(point.y) + 4, reach: 6 * sizes[k] + 6 }));
    const names = [];
    const shapes = known.map((point, k) => {
      const at = [x(point.x), y(point.y)], size = sizes[k];
      const dot = marker(point.series, ...at, size);
      dot.append(svg("title", {}, `${point.label}: ${axisX} ${number(point.x, 4)}, ${axisY} ${number(point.y, 4)}`));
      const text = shortened(point.label, 24), beyond = at[0] > box.right - 8 * text.length;
      const from = at[0] + (beyond ? -10 : 10) * Math.max(1, size * 0.8);
      const height = free(taken, beyond ? from - 7 * text.length : from, 7 * text.length, at[1] - 8);
      names.push(svg("text", { class: "name", x: from, y: height, "text-anchor": beyond ? "end" : "start" }, text));
      return svg("g", {},
        Number.isFinite(point.xs[0]) ? svg("line", { class: `whisker s${point.series % 9}`, x1: x(point.xs[0]), x2: x(point.xs[1]), y1: at[1], y2: at[1] }) : null,
        Number.isFinite(point.ys[0]) ? svg("line", { class: `whisker s${point.series % 9}`, x1: at[0], x2: at[0], y1: y(point.ys[0]), y2: y(point.ys[1]) }) : null,
        dot);
    });
    return picture(width, box.bottom + 40,
      axes(x, y, box, axisX, axisY),
      front.length > 1 ? polyline(front.map((point) => [x(point.x), y(point.y)]), { class: "front" }) : null,
      shapes, names);
  });
}

/** The height nearest to the wanted one at which a name covers no marker and no name that was placed before. */
function free(taken, left, width, wanted) {
  const covers = (height) => taken.some((one) => Math.abs(one.height - height) < (one.reach ?? 13) && left < one.left + one.width && one.left < left + width);
  const heights = [...Array(12).keys()].flatMap((k) => [wanted - 13 * k, wanted + 13 * k]);
  const height = heights.find((one) => !covers(one)) ?? wanted;
  taken.push({ left, width, height });
  return height;
}

/** The points that no other equals or beats in both metrics, from left to right. */
function paretoFront(points, better) {
  const signs = better.map((higher) => (higher ? 1 : -1));
  const beats = (a, b) => signs[0] * a.x >= signs[0] * b.x && signs[1] * a.y >= signs[1] * b.y && (a.x !== b.x || a.y !== b.y);
  return points.filter((point) => !points.some((other) => beats(other, point))).sort((a, b) => a.x - b.x);
}

/**
 * Lines over a number: the mean of a method bold, its runs thin.
 * @param lines `{label, series, x: [...], runs: [[...], ...]}`, null where a run has no value.
 */
function lines(list, axisX, axisY, label) {
  return chart(label, (width) => {
    const box = { left: 52, right: width - 16, top: 24, bottom: Math.min(300, Math.max(200, width * 0.5)) };
    const x = scale(list.flatMap((line) => line.x), box.left, box.right);
    const y = scale(list.flatMap((line) => line.runs.flat()).filter((value) => value !== null), box.bottom, box.top);
    const drawn = (line, values) => line.x.map((at, k) => [x(at), values[k] === null ? NaN : y(values[k])]).filter((point) => Number.isFinite(point[1]));
    return picture(width, box.bottom + 40,
      axes(x, y, box, axisX, axisY),
      list.map((line) => svg("g", { class: `s${line.series % 9}` },
        line.runs.length > 1 ? line.runs.map((run) => polyline(drawn(line, run), { class: "thin" })) : null,
        polyline(drawn(line, means(line)), { class: "bold", "stroke-dasharray": ["", "7 3", "2 3"][Math.floor(line.series / 3) % 3] || null }),
        drawn(line, means(line)).filter((_, k, all) => all.length <= 15 || k === all.length - 1).map((point) => marker(line.series, ...point, 0.7)))));
  });
}

function means(line) {
  return line.x.map((_, k) => {
    const known = line.runs.map((run) => run[k]).filter((value) => value !== null && value !== undefined && Number.isFinite(value));
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  });
}
