// Draws curves as SVG. A chart is made once and redrawn whenever its curves have grown:
//
//   const chart = makeChart(title, { unit: "s" });
//   document.body.append(chart.element);
//   chart.draw(curves, axis);
//
// `curves` is a list of { name, label, better, points, faint }, where `points` are [step, value] in ascending order and
// a value that is not finite is the text "NaN", "Infinity" or "-Infinity". `axis` describes the horizontal axis:
// { label: "epoch", scale: 23, end: 276 }, where a step is divided by `scale` and `end` is the last planned step.
"use strict";

const HEIGHT = 220;
const MARGIN = { top: 10, right: 14, bottom: 34, left: 54 };
// Pixels between two labels of an axis.
const X_LABEL_EVERY = 64;
const Y_LABEL_EVERY = 38;
// The colors themselves are in the style sheet, one set for each theme. A split has the same color in every chart.
const COLOR_OF = { train: 0, val: 1, test: 2 };
const COLORS = 6;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function html(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// --- numbers

// A value with about four significant digits: 0.0826, 12.5, 1.2e-5.
function formatValue(value) {
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}

// Ticks at 1, 2 or 5 times a power of ten, about `count` of them.
function linearTicks(low, high, count, whole) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  const first = Math.ceil(low / step - 1e-9);
  for (let index = first; index * step <= high + step * 1e-9; index++) ticks.push(index * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return ticks.map((value) => ({ value, text: tickText(value, digits) }));
}

function tickText(value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (digits > 4 || size >= 1e5) return value.toExponential(digits > 4 ? 1 : 0).replace("e+", "e").replace(".0e", "e");
  return value.toFixed(digits);
}

// Ticks at powers of ten, and at 2 and 5 times them if there is room. A range within one power may contain none of
// them, and then gets linear ticks.
function logTicks(low, high, count) {
  const factors = Math.log10(high / low) * 3 <= count * 1.6 ? [1, 2, 5] : [1];
  const ticks = [];
  const every = Math.max(1, Math.ceil(Math.log10(high / low) / count));
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    if (power % every !== 0) continue;
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) {
        const text = power < -3 || power > 4 ? `${factor}e${power}` : String(Number(value.toPrecision(3)));
        ticks.push({ value, text });
      }
    }
  }
  return ticks.length >= 2 ? ticks : linearTicks(low, high, count).filter((tick) => tick.value > 0);
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

// The best point of a curve, if it is known which way is better.
function bestPoint(curve) {
  let best = null;
  for (const point of curve.points) {
    if (!isNumber(point[1]) || !curve.better) continue;
    if (!best || (curve.better === "min" ? point[1] < best[1] : point[1] > best[1])) best = point;
  }
  return best;
}

// The point nearest to a step; points ascend.
function nearest(points, step) {
  let [low, high] = [0, points.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle;
    else high = middle;
  }
  if (high < 0) return null;
  return Math.abs(points[high][0] - step) < Math.abs(points[low][0] - step) ? points[high] : points[low];
}

// --- scales

// The position of values between the bottom and the top, and the ticks there.
function verticalScale(values, height, logarithmic) {
  let [low, high] = extent(values);
  if (low > high) [low, high] = [0, 1];
  const count = Math.max(2, Math.floor(height / Y_LABEL_EVERY));
  if (logarithmic) {
    if (low === high) [low, high] = [low / 2, high * 2];
    const space = (high / low) ** 0.05;
    [low, high] = [low / space, high * space];
    const place = (value) => height - (Math.log(value / low) / Math.log(high / low)) * height;
    return { place, ticks: logTicks(low, high, count) };
  }
  if (low === high) {
    const space = Math.abs(low) * 0.1 || 1;
    [low, high] = [low - space, high + space];
  }
  // A curve that comes close to zero is drawn above zero, so that heights can be compared.
  if (low > 0 && low < high * 0.3) low = 0;
  const space = (high - low) * 0.05;
  const bottom = low === 0 ? 0 : low - space;
  const top = high + space;
  const place = (value) => height - ((value - bottom) / (top - bottom)) * height;
  return { place, ticks: linearTicks(bottom, top, count) };
}

function horizontalScale(curves, axis, width) {
  const [first, last] = extent(curves.flatMap((curve) => curve.points.map((point) => point[0] / axis.scale)));
  let [low, high] = first > last ? [0, 1] : [Math.min(first, 1), last];
  // Until a run is half done, its curves fill the whole width: the first of a thousand steps would be hardly visible.
  if (axis.end && high * 2 >= axis.end / axis.scale) high = Math.max(high, axis.end / axis.scale);
  if (low === high) high = low + 1;
  const place = (step) => ((step / axis.scale - low) / (high - low)) * width;
  const count = Math.max(2, Math.floor(width / X_LABEL_EVERY));
  return { place, step: (x) => (low + (x / width) * (high - low)) * axis.scale, ticks: linearTicks(low, high, count, true), low, high };
}

// --- the chart

function makeChart(title, { unit = "" } = {}) {
  const legend = html("div", { class: "legend" });
  const toggle = html("button", { class: "toggle", type: "button", "aria-pressed": "false" }, "log");
  const heading = html("h3", {}, title);
  if (unit) heading.append(" ", html("span", { class: "unit" }, `(${unit})`));
  const drawing = html("div", { class: "drawing" });
  const tooltip = html("div", { class: "tooltip", hidden: "" });
  const element = html("figure", { class: "chart" }, html("div", { class: "title" }, heading, toggle), legend, drawing, tooltip);
  let logarithmic = false;
  let shown = { curves: [], axis: { label: "step", scale: 1 } };

  toggle.addEventListener("click", () => {
    logarithmic = !logarithmic;
    toggle.setAttribute("aria-pressed", String(logarithmic));
    render();
  });

  function render() {
    const { curves, axis } = shown;
    const full = Math.max(240, drawing.clientWidth || 360);
    const [width, height] = [full - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
    const values = curves.flatMap((curve) => curve.points.map((point) => point[1])).filter(isNumber);
    // Zero and negative values have no logarithm.
    const positive = values.length > 0 && values.every((value) => value > 0);
    toggle.hidden = !positive;
    const y = verticalScale(values, height, logarithmic && positive);
    const x = horizontalScale(curves, axis, width);
    const plot = svg("g", { transform: `translate(${MARGIN.left} ${MARGIN.top})` });
    for (const { value, text } of values.length === 0 ? [] : y.ticks) {
      const at = y.place(value);
      plot.append(
        svg("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }),
        svg("text", { class: "tick", x: -8, y: at, dy: "0.32em", "text-anchor": "end" }, text),
      );
    }
    plot.append(svg("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
    for (const { value, text } of x.ticks) {
      const at = x.place(value * axis.scale);
      plot.append(
        svg("line", { class: "axis", x1: at, x2: at, y1: height, y2: height + 4 }),
        svg("text", { class: "tick", x: at, y: height + 17, "text-anchor": "middle" }, text),
      );
    }
    plot.append(svg("text", { class: "label", x: width, y: height + 31, "text-anchor": "end" }, axis.label));
    if (values.length === 0) {
      const words = curves.some((curve) => curve.points.length > 0) ? "no finite values" : "no values yet";
      plot.append(svg("text", { class: "empty", x: width / 2, y: height / 2, "text-anchor": "middle" }, words));
    }
    for (const curve of curves) plot.append(...drawCurve(curve, x, y, height));
    const cursor = svg("g", { class: "cursor" });
    plot.append(cursor);
    const picture = svg("svg", { viewBox: `0 0 ${full} ${HEIGHT}`, width: full, height: HEIGHT, role: "img", "aria-label": describe(title, curves) }, plot);
    picture.addEventListener("pointermove", (event) => point(event, picture, cursor, x, y, width, height));
    picture.addEventListener("pointerleave", () => {
      cursor.replaceChildren();
      tooltip.hidden = true;
    });
    drawing.replaceChildren(picture);
    legend.replaceChildren(...curves.map((curve) => legendEntry(curve, axis)));
  }

  function point(event, picture, cursor, x, y, width, height) {
    const { curves, axis } = shown;
    const left = event.clientX - picture.getBoundingClientRect().left - MARGIN.left;
    const step = x.step(Math.min(Math.max(left, 0), width));
    const found = curves.map((curve) => ({ curve, near: nearest(curve.points, step) })).filter(({ near }) => near);
    if (found.length === 0) return;
    // The line is placed at the nearest point of any curve; the other curves show their values there.
    const anchor = found.reduce((a, b) => (Math.abs(b.near[0] - step) < Math.abs(a.near[0] - step) ? b : a)).near[0];
    const at = x.place(anchor);
    cursor.replaceChildren(svg("line", { class: "crosshair", x1: at, x2: at, y1: 0, y2: height }));
    tooltip.replaceChildren(html("div", { class: "where" }, placeInWords(anchor, axis)));
    for (const { curve } of found) {
      const near = nearest(curve.points, anchor);
      if (isNumber(near[1]) && !(logarithmic && near[1] <= 0)) {
        cursor.append(svg("circle", { class: `dot color${curve.color}`, cx: x.place(near[0]), cy: y.place(near[1]), r: 3.5 }));
      }
      tooltip.append(html("div", {}, swatch(curve), `${curve.label} `, html("b", {}, formatValue(near[1]))));
    }
    tooltip.hidden = false;
    const room = element.clientWidth - tooltip.offsetWidth - 8;
    const beside = MARGIN.left + at + 14;
    tooltip.style.left = `${Math.max(4, beside > room ? MARGIN.left + at - tooltip.offsetWidth - 14 : beside)}px`;
    tooltip.style.top = `${drawing.offsetTop + MARGIN.top}px`;
  }

  new ResizeObserver(render).observe(drawing);
  return {
    element,
    draw(curves, axis) {
      shown = { curves: colored(curves), axis };
      render();
    },
  };
}

// Gives each curve its own color: that of its split, or the next free one. Faint curves are noise of training.
function colored(curves) {
  const taken = new Set(curves.map((curve) => COLOR_OF[curve.split]).filter((color) => color !== undefined));
  let next = 0;
  return curves.map((curve) => {
    let color = curve.faint ? COLOR_OF.train : COLOR_OF[curve.split];
    if (color === undefined) {
      while (taken.has(next % COLORS) && taken.size < COLORS) next++;
      color = next++ % COLORS;
      taken.add(color);
    }
    return { ...curve, color };
  });
}

// Lines between numbers, a dot for a single number, a cross on the axis for a value that is not finite.
function drawCurve(curve, x, y, height) {
  const drawn = [];
  let path = "";
  let alone = null;
  const endPiece = () => {
    if (alone) drawn.push(svg("circle", { class: `dot color${curve.color}`, cx: alone[0], cy: alone[1], r: 4 }));
    alone = null;
  };
  let within = false;
  for (const [step, value] of curve.points) {
    const at = x.place(step);
    const up = isNumber(value) ? y.place(value) : NaN;
    if (!Number.isFinite(up)) {
      endPiece();
      within = false;
      const cross = `M${at - 3} ${height - 7}l6 6m0 -6l-6 6`;
      drawn.push(svg("path", { class: `cross color${curve.color}`, d: cross }, svg("title", {}, `${curve.name}: ${value}`)));
      continue;
    }
    path += `${within ? "L" : "M"}${at.toFixed(1)} ${up.toFixed(1)}`;
    alone = within ? null : [at, up];
    within = true;
  }
  endPiece();
  drawn.unshift(svg("path", { class: `curve color${curve.color}${curve.faint ? " faint" : ""}`, d: path, "data-curve": curve.name }));
  const best = curve.faint ? null : bestPoint(curve);
  if (best && curve.points.length > 1 && Number.isFinite(y.place(best[1]))) {
    drawn.push(svg("circle", { class: `best color${curve.color}`, cx: x.place(best[0]), cy: y.place(best[1]), r: 4.5 }));
  }
  return drawn;
}

function swatch(curve) {
  const line = svg("line", { class: `curve color${curve.color}${curve.faint ? " faint" : ""}`, x1: 1, x2: 15, y1: 5, y2: 5 });
  return svg("svg", { class: "swatch", viewBox: "0 0 16 10", width: 16, height: 10, "aria-hidden": "true" }, line);
}

function legendEntry(curve, axis) {
  const last = curve.points.at(-1);
  const entry = html("span", { class: "entry" }, swatch(curve), curve.label);
  if (last) entry.append(" ", html("b", {}, formatValue(last[1])));
  const best = curve.faint ? null : bestPoint(curve);
  if (best && curve.points.length > 1) {
    entry.append(" ", html("span", { class: "quiet" }, `best ${formatValue(best[1])} at ${placeInWords(best[0], axis)}`));
  }
  return entry;
}

function placeInWords(step, axis) {
  if (axis.scale === 1) return `step ${step.toLocaleString("en")}`;
  const epoch = step / axis.scale;
  return Number.isInteger(epoch) ? `epoch ${epoch}` : `epoch ${epoch.toFixed(2)} (step ${step.toLocaleString("en")})`;
}

// The description of a chart for screen readers.
function describe(title, curves) {
  const parts = curves.map((curve) => {
    const last = curve.points.at(-1);
    return `${curve.label} ${last ? `${formatValue(last[1])} after ${curve.points.length} values` : "without values"}`.trim();
  });
  return `${title}: ${parts.join(", ") || "no values yet"}`;
}
