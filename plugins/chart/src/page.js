// The parts of a page about a run, for the report and the live page. Each shows a part of the data of `chart::Run` in
// Rust, in the element of that name.
"use strict";

const byId = (id) => document.getElementById(id);

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

// 3.2 s, 41 ms, 7 µs: at most three digits.
function duration(seconds) {
  if (seconds >= 100) return clock(seconds);
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= size) return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  }
  return seconds === 0 ? "0 s" : "< 1 µs";
}

const count = (number) => number.toLocaleString("en");
const plural = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;

// A table; `columns` are [heading, "number" | "long" | ""], a cell is a text or an element.
function table(columns, rows) {
  const of = (index) => (columns[index][1] ? { class: columns[index][1] } : {});
  const head = html("tr", {}, ...columns.map(([name], index) => html("th", { scope: "col", ...of(index) }, name)));
  const body = rows.map((row) => html("tr", {}, ...row.map((cell, index) => html("td", of(index), cell))));
  return html("div", { class: "scroll" }, html("table", {}, html("thead", {}, head), html("tbody", {}, ...body)));
}

function show(id, ...content) {
  byId(id).replaceChildren(...content);
  byId(id).closest("section").hidden = content.length === 0;
}

// --- progress of the run

const STATES = { running: "running", paused: "paused", finished: "finished", stopped: "stopped", failed: "failed", interrupted: "interrupted" };

function showProgress(facts, progress) {
  document.title = `${facts.name} · ${progress.state}`;
  byId("name").textContent = facts.name;
  const state = byId("state");
  state.textContent = progress.doing && progress.state === "running" ? progress.doing : progress.state;
  state.className = `state ${STATES[progress.state] ?? ""}`;
  const share = facts.total_steps ? Math.min(1, progress.step / facts.total_steps) : null;
  byId("bar").hidden = share === null;
  byId("bar").value = share ?? 0;
  const words = [
    facts.epochs ? `epoch ${progress.epoch}/${facts.epochs}` : `epoch ${progress.epoch}`,
    facts.total_steps ? `step ${count(progress.step)}/${count(facts.total_steps)}` : `step ${count(progress.step)}`,
  ];
  if (share !== null) words.push(`${Math.floor(share * 100)} %`);
  words.push(`${clock(progress.elapsed)} elapsed`);
  if (isNumber(progress.time_left) && progress.state === "running") words.push(`${clock(progress.time_left)} left`);
  if (isNumber(progress.rate)) words.push(`${formatValue(progress.rate)} steps/s`);
  byId("progress").replaceChildren(...words.map((word) => html("span", {}, word)));
  byId("reason").textContent = progress.reason;
}

// --- curves

// Curves of one metric belong together, one for each split: `train_loss` and `val_loss`.
function groupsOf(curves, splits) {
  const groups = new Map();
  for (const [name, curve] of Object.entries(curves)) {
    const split = splits.find((split) => name.startsWith(`${split}_`));
    const metric = split ? name.slice(split.length + 1) : curve.chart ?? name;
    if (!groups.has(metric)) groups.set(metric, []);
    // A single curve needs no name other than its chart's.
    groups.get(metric).push({ ...curve, name, split, label: split ?? (name === metric ? "" : name) });
  }
  // Losses first, then other measurements, then the host's own figures.
  const isHosts = (metric) => /^learning_rate|^gradient_norm$|^loss_scale$|_seconds$/.test(metric);
  const rank = (metric) => (metric === "loss" ? 0 : metric.endsWith("_seconds") ? 3 : isHosts(metric) ? 2 : 1);
  const splitRank = (curve) => (curve.faint ? 99 : curve.split ? splits.indexOf(curve.split) : 98);
  const sorted = [...groups].sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1));
  return sorted.map(([metric, curves]) => [metric, curves.sort((a, b) => splitRank(a) - splitRank(b))]);
}

const charts = new Map();

function unitOf(metric) {
  return metric.endsWith("_seconds") ? "s" : "";
}

function showCurves(facts, curves) {
  const groups = groupsOf(curves, splitsOf(facts));
  const inEpochs = facts.steps_per_epoch > 0 && facts.epochs !== 1;
  const axis = { label: inEpochs ? "epoch" : "step", scale: inEpochs ? facts.steps_per_epoch : 1, end: facts.total_steps };
  const found = groups.map(([metric, curves]) => {
    if (!charts.has(metric)) charts.set(metric, makeChart(metric, { unit: unitOf(metric) }));
    return { chart: charts.get(metric), curves };
  });
  // Charts that stay in place keep their tooltips and scroll positions.
  const elements = found.map(({ chart }) => chart.element);
  const container = byId("curves");
  if (elements.length !== container.children.length || elements.some((element, index) => element !== container.children[index])) {
    container.replaceChildren(...elements);
  }
  container.closest("section").hidden = elements.length === 0;
  for (const { chart, curves } of found) chart.draw(curves, axis);
  showBest(groups, axis);
}

const splitsOf = (facts) => ["train", "val", "test", ...Object.keys(facts.splits)].filter((split, index, all) => all.indexOf(split) === index);

// Measurements on data that is not used for training.
function showBest(groups, axis) {
  const measured = groups.flatMap(([, curves]) => curves).filter((curve) => curve.split && curve.split !== "train" && bestPoint(curve));
  const tiles = measured.map((curve) => {
    const [step, value] = bestPoint(curve);
    const where = html("div", { class: "quiet" }, `${curve.better === "min" ? "lowest" : "highest"}, ${placeInWords(step, axis)}`);
    return html("div", { class: "tile" }, html("div", {}, curve.name), html("strong", {}, formatValue(value)), where);
  });
  show("best", ...tiles);
}

// --- confusion matrices

// Of more classes, the most frequent errors are shown.
const MOST_CLASSES = 40;
const MOST_ERRORS = 20;

function showMatrices(facts, matrices) {
  const inEpochs = facts.steps_per_epoch > 0 && facts.epochs !== 1;
  const cards = matrices.map((matrix) => {
    const where = inEpochs ? `epoch ${count(matrix.epoch)}` : `step ${count(matrix.step)}`;
    const title = html("div", { class: "title" }, html("h3", {}, matrix.name), html("span", { class: "quiet" }, where));
    return html("figure", { class: "chart matrix" }, title, matrix.classes.length > MOST_CLASSES ? errorsOf(matrix) : gridOf(matrix));
  });
  show("matrices", ...cards);
}

// Rows are the true classes, columns the predicted ones; the shade is the share of the row.
function gridOf({ classes, counts }) {
  const rowOf = (index) => counts.slice(index * classes.length, (index + 1) * classes.length);
  const head = html("tr", {}, html("th", {}, "true \\ predicted"), ...classes.map((name) => html("th", { scope: "col", class: "number" }, name)));
  const body = classes.map((name, index) => {
    const row = rowOf(index);
    const sum = row.reduce((sum, count) => sum + count, 0);
    const cells = row.map((number, column) => {
      const cell = html("td", { class: column === index ? "number right" : "number wrong", title: `${name} predicted as ${classes[column]}` }, count(number));
      cell.style.setProperty("--share", `${sum > 0 ? Math.round((number / sum) * 100) : 0}%`);
      return cell;
    });
    return html("tr", {}, html("th", { scope: "row" }, name), ...cells);
  });
  return html("div", { class: "scroll" }, html("table", {}, html("thead", {}, head), html("tbody", {}, ...body)));
}

function errorsOf({ classes, counts }) {
  const errors = counts.map((number, place) => [Math.floor(place / classes.length), place % classes.length, number]);
  const largest = errors.filter(([row, column, number]) => row !== column && number > 0).sort((a, b) => b[2] - a[2]).slice(0, MOST_ERRORS);
  const rows = largest.map(([row, column, number]) => [classes[row], classes[column], count(number)]);
  const words = html("p", { class: "quiet" }, `${count(classes.length)} classes; the most frequent errors`);
  return html("div", {}, words, table([["true class"], ["predicted as"], ["samples", "number"]], rows));
}

// --- tables

function showTimes(times, elapsed) {
  if (times.length === 0) return show("times");
  const longest = Math.max(...times.map((time) => time.seconds + time.background));
  const rows = times.map((time) => {
    const share = (part) => `${longest > 0 ? (part / longest) * 100 : 0}%`;
    const bar = html("div", { class: "cost" }, html("i", {}), html("i", { class: "background" }));
    bar.children[0].style.width = share(time.seconds);
    bar.children[1].style.width = share(time.background);
    const ofRun = elapsed > 0 ? `${((time.seconds / elapsed) * 100).toFixed(1)} %` : "";
    const most = time.hooks[0] ? `${time.hooks[0].hook}, ${plural(time.hooks[0].calls, "call")}` : "";
    return [time.plugin, bar, duration(time.seconds), ofRun, time.background ? duration(time.background) : "", most];
  });
  const columns = [["plugin"], [""], ["in the loop", "number"], ["of the run", "number"], ["background", "number"], ["mostly in"]];
  show("times", table(columns, rows));
}

function showModel(model) {
  if (model.layers.length === 0) return show("model");
  const rows = model.layers.map((layer) => [layer.name, layer.operator, layer.reads, layer.shape, layer.parameters ? count(layer.parameters) : ""]);
  const columns = model.is_graph
    ? [["node"], ["operator"], ["reads"], ["shape"], ["parameters", "number"]]
    : [["tensor"], [""], [""], ["shape"], ["parameters", "number"]];
  show("model", html("p", { class: "quiet" }, `${plural(model.parameters, "parameter")}; shapes are those of one sample`), table(columns, rows));
}

function showSettings(facts) {
  const rows = facts.settings.map(([key, value]) => [key, value]);
  const general = [["device", facts.device], ["host", facts.host_version], ["run folder", facts.folder]];
  if (facts.previous_end) general.push(["the last process", facts.previous_end]);
  if (facts.resumed_from) general.push(["resumed from", facts.resumed_from]);
  for (const [split, samples] of Object.entries(facts.splits)) general.push([`data: ${split}`, plural(samples, "sample")]);
  show("settings", table([["setting"], ["value", "long"]], [...general, ...rows]));
}

function showArtifacts(artifacts) {
  if (artifacts.length === 0) return show("artifacts");
  const words = { best_checkpoint: "best checkpoint", last_checkpoint: "last checkpoint" };
  const rows = artifacts.map(({ kind, path, epoch, step }) => [words[kind] ?? kind, path, count(epoch), count(step)]);
  show("artifacts", table([["what"], ["where"], ["epoch", "number"], ["step", "number"]], rows));
}
