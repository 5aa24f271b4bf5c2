// The live page: gets the updates of the run and sends the requests of its buttons.
"use strict";

// As the server reads it: a plus sign is no space.
const token = new URLSearchParams(location.search).get("token")?.replaceAll(" ", "+");
const known = { facts: null, progress: null, curves: {}, groups: [] };
const LINES = 300;
const isOver = () => known.progress && known.progress.state !== "running";

function apply(update) {
  if (update.facts) {
    known.facts = update.facts;
    showModel(update.facts.model);
    showSettings(update.facts);
  }
  if (update.progress) known.progress = update.progress;
  for (const [name, { from, points, ...curve }] of Object.entries(update.curves ?? {})) {
    const before = known.curves[name]?.points.slice(0, from) ?? [];
    known.curves[name] = { ...curve, points: before.concat(points) };
  }
  if (update.progress) showProgress(known.facts, known.progress);
  if (update.curves) showCurves(known.facts, known.curves);
  if (update.matrices) showMatrices(known.facts, update.matrices);
  if (update.times) showTimes(update.times, known.progress.elapsed);
  if (update.artifacts) showArtifacts(update.artifacts);
  if (update.lines) showLines(update.lines);
  if (update.groups) showGroups(update.groups);
  if (update.notice) notify(update.notice.text);
  if (isOver()) {
    stream.close();
    for (const control of byId("controls").elements) control.disabled = true;
  }
}

function notify(text) {
  byId("notice").textContent = text;
}

// --- the console

// Escape sequences are for terminals.
const plain = (text) => text.replace(/\u001b\[[0-9;]*m/g, "");

function showLines(lines) {
  const list = byId("console");
  list.closest("section").hidden = false;
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  for (const { time, text } of lines) {
    const at = new Date(time * 1000);
    const clock = html("time", { datetime: at.toISOString() }, at.toLocaleTimeString("en-GB"));
    const isWarning = /^\s*(WARN|ERROR|warning|error)\b/.test(text);
    list.append(html("li", isWarning ? { class: "warning" } : {}, clock, html("span", {}, plain(text))));
  }
  while (list.children.length > LINES) list.firstChild.remove();
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

// --- the buttons

function showGroups(groups) {
  known.groups = groups.filter((group) => "learning_rate" in group.values);
  const select = byId("group");
  const names = known.groups.map((group) => group.name);
  if (names.join("\n") !== [...select.options].slice(1).map((option) => option.value).join("\n")) {
    select.replaceChildren(html("option", { value: "" }, "all groups"), ...names.map((name) => html("option", { value: name }, name)));
  }
  select.hidden = names.length < 2;
  showRate();
}

function showRate() {
  const chosen = byId("group").value;
  const group = known.groups.find((group) => group.name === chosen) ?? known.groups[0];
  if (!group) return;
  byId("rate").placeholder = formatValue(group.values.learning_rate);
  const owner = group.owners.learning_rate;
  byId("rate").title = owner ? `set by ${owner}, regardless of the schedule` : "set by the schedule, until you set it";
}

async function ask(path, body) {
  try {
    const answer = await fetch(path, { method: "POST", headers: { authorization: `Bearer ${token}` }, body });
    notify((await answer.text()).trim());
    return answer.ok;
  } catch {
    notify("the run does not answer");
    return false;
  }
}

byId("group").addEventListener("change", showRate);

byId("controls").addEventListener("submit", async (event) => {
  event.preventDefault();
  const value = Number(byId("rate").value.trim().replace(",", "."));
  if (byId("rate").value.trim() === "" || !(value >= 0 && Number.isFinite(value))) {
    return notify("a learning rate must be 0 or more");
  }
  const group = byId("group").value || null;
  if (await ask("/learning-rate", JSON.stringify({ group, value }))) byId("rate").value = "";
});

// Must be pressed twice, so that a slip does not end three days of training.
byId("stop").addEventListener("click", () => {
  const button = byId("stop");
  if (button.classList.toggle("armed")) {
    button.textContent = "Press again to stop";
    setTimeout(disarm, 4000);
  } else {
    disarm();
    ask("/stop");
  }
});

function disarm() {
  byId("stop").classList.remove("armed");
  byId("stop").textContent = "Stop the run";
}

// --- the stream

const stream = new EventSource(`/events?token=${encodeURIComponent(token)}`);
stream.addEventListener("message", (event) => apply(JSON.parse(event.data)));
stream.addEventListener("error", () => {
  if (isOver()) return;
  byId("state").textContent = "no connection";
  byId("state").className = "state failed";
});
stream.addEventListener("open", () => {
  // A new stream sends everything from the start.
  known.curves = {};
  byId("console").replaceChildren();
});
