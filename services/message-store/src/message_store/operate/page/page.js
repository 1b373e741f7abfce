// The operations page. Whatever is shown goes through textContent: nothing that a person wrote is ever read as HTML.
"use strict";

const EVERY_MS = 2000;
const WINDOW = 30; // snapshots: a minute
const STAGES = ["accept", "store", "publish", "deliver"];
const find = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token");
let snapshots = [];
let rates = [];
let older = null;
let timer = null;

// --- asking ----------------------------------------------------------------------------------------------------------

class Refusal extends Error {}

async function ask(path, method = "GET") {
  const answer = await fetch("/v1/operations" + path, { method, headers: { Authorization: "Bearer " + token } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401 || answer.status === 403) throw new Refusal(body.detail || "this token is not accepted");
  if (!answer.ok) throw new Error(body.detail || "status " + answer.status);
  return body;
}

function say(text, isBad) {
  find("state").textContent = text;
  find("state").className = isBad ? "bad" : "";
}

function leave(reason) {
  token = null;
  sessionStorage.removeItem("token");
  clearTimeout(timer);
  snapshots = [];
  rates = [];
  find("view").hidden = find("leave").hidden = true;
  find("login").hidden = false;
  say(reason, reason !== "not logged in");
}

async function look() {
  clearTimeout(timer);
  try {
    show(await ask(""));
    find("login").hidden = true;
    find("view").hidden = find("leave").hidden = false;
  } catch (error) {
    if (error instanceof Refusal) return leave(error.message);
    say("no answer: " + error.message, true);
  }
  if (token && !document.hidden) timer = setTimeout(look, EVERY_MS); // a page that nobody sees asks nothing
}

async function openLetters() {
  try {
    const page = await ask("/dead-letters");
    older = page.next_before;
    fill("dead", ["place", "when", "msg_id", "from", "cause", "reason", ""], page.items.map(letter));
    find("older").hidden = older === null;
  } catch (error) {
    find("dead").replaceChildren(row("td", ["no answer: " + error.message]));
  }
}

// --- drawing ---------------------------------------------------------------------------------------------------------

function row(kind, cells) {
  const line = document.createElement("tr");
  for (const cell of cells) {
    const place = document.createElement(kind);
    if (cell instanceof Node) place.append(cell);
    else if (cell !== null && typeof cell === "object") {
      place.textContent = cell.text;
      place.className = cell.as;
    } else place.textContent = cell ?? "";
    line.append(place);
  }
  return line;
}

const number = (value, unit = "") => ({ text: value === null ? "–" : value.toLocaleString("en") + unit, as: "number" });
const time = (at) => ({ text: new Date(at).toISOString().replace("T", " ").slice(0, 23), as: "time" });
const span = (seconds) =>
  seconds === null ? "–" : seconds < 1 ? Math.round(seconds * 1000) + " ms" : seconds < 120 ? seconds.toFixed(1) + " s"
    : seconds < 7200 ? Math.round(seconds / 60) + " min" : seconds < 172800 ? Math.round(seconds / 3600) + " h"
      : Math.round(seconds / 86400) + " days";
const bytes = (size) => {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB") return Math.round(size * 10) / 10 + " " + unit;
    size /= 1024;
  }
};

function fill(id, heads, lines) {
  const table = find(id);
  const empty = lines.length ? [] : [row("td", [{ text: "nothing", as: "faint" }])];
  table.replaceChildren(...(heads && lines.length ? [row("th", heads)] : []), ...lines, ...empty);
}

// --- reading samples -------------------------------------------------------------------------------------------------

function* samples(snapshot, name, labels = {}) {
  for (const report of snapshot.reports)
    for (const one of report.samples)
      if (one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value))
        yield { report, labels: one.labels, value: one.value };
}

const total = (snapshot, name, labels) => [...samples(snapshot, name, labels)].reduce((sum, one) => sum + one.value, 0);
const largest = (snapshot, name, labels) => Math.max(0, ...[...samples(snapshot, name, labels)].map((one) => one.value));

// How much counters have grown, instance by instance: one that was started anew began at 0 again. One that gave no answer
// the first time is left out: else all that it counted before would have happened now.
function growth(from, to, name, labels, key) {
  const known = new Set(from.reports.map((report) => report.instance));
  const before = new Map();
  const id = (one) => one.report.instance + "|" + JSON.stringify(one.labels);
  for (const one of samples(from, name, labels)) before.set(id(one), one.value);
  const grown = new Map();
  for (const one of samples(to, name, labels)) {
    if (!known.has(one.report.instance) && one.report.started_at < from.at) continue;
    const more = one.value - (before.get(id(one)) ?? 0);
    grown.set(one.labels[key], (grown.get(one.labels[key]) ?? 0) + Math.max(0, more));
  }
  return grown;
}

function quantile(from, to, q, name, labels) {
  const grown = [...growth(from, to, name + "_bucket", labels, "le")]
    .map(([edge, count]) => [edge === "+Inf" ? Infinity : Number(edge), count]).sort((a, b) => a[0] - b[0]);
  const all = grown.length ? grown[grown.length - 1][1] : 0;
  if (!all) return null;
  let low = 0, below = 0;
  for (const [edge, count] of grown) {
    if (count >= q * all) return edge === Infinity ? low : low + ((edge - low) * (q * all - below)) / (count - below || 1);
    [low, below] = [edge, count];
  }
  return low;
}

// --- the parts -------------------------------------------------------------------------------------------------------

function show(snapshot) {
  const last = snapshots[snapshots.length - 1];
  if (!last || last.at !== snapshot.at) {
    snapshots = [...snapshots, snapshot].slice(-WINDOW);
    showRates(last, snapshot);
  }
  const first = snapshots[0];
  const failing = snapshot.reports.filter((report) => Object.values(report.checks).some((outcome) => outcome !== "ok"));
  const clock = new Date(snapshot.at).toISOString().slice(11, 19) + " UTC";
  say(failing.length ? `${failing.length} of ${snapshot.reports.length} instances are not well · ${clock}` : "all is well · " + clock, failing.length);
  showStages(first, snapshot);
  showWaiting(snapshot);
  showConnections(snapshot);
  showStorage(snapshot);
  fill("instances", ["service", "instance", "version", "since", "role", "state"], snapshot.reports.map(instance));
  const errors = snapshot.reports.flatMap((report) => report.errors.map((one) => ({ ...one, report })));
  errors.sort((a, b) => b.at - a.at);
  fill("errors", ["when", "service", "level", "what", "detail"], errors.slice(0, 50).map((one) =>
    row("td", [time(one.at), one.report.service, { text: one.level, as: one.level === "warning" ? "" : "bad" }, one.event,
      Object.entries(one.detail).map(([key, value]) => `${key}=${value}`).join(" ")])));
  const count = largest(snapshot, "tlim_stream_messages", { stream: "TLIM_DEAD" });
  if (find("dead-count").textContent !== String(count)) {
    find("dead-count").textContent = count;
    openLetters();
  }
}

function showRates(last, snapshot) {
  if (!last) return find("rate").replaceChildren("–");
  const seconds = (snapshot.at - last.at) / 1000;
  const grown = growth(last, snapshot, "tlim_message_store_stored_total", {}, "msg_type");
  const kinds = [...grown].map(([kind, count]) => [kind, count / seconds]).filter(([, rate]) => rate > 0);
  const now = kinds.reduce((sum, [, rate]) => sum + rate, 0);
  rates = [...rates, now].slice(-WINDOW * 2);
  const figure = document.createElement("strong");
  figure.textContent = now.toFixed(1);
  const parts = document.createElement("span");
  parts.textContent = kinds.sort((a, b) => b[1] - a[1]).map(([kind, rate]) => `${kind} ${rate.toFixed(1)}`).join(" · ");
  find("rate").replaceChildren(figure, curve(rates), parts);
}

function curve(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 420 56");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const top = Math.max(1, ...values);
  line.setAttribute("points", values.map((value, at) => `${(at * 420) / (WINDOW * 2 - 1)},${54 - (52 * value) / top}`).join(" "));
  svg.append(line);
  return svg;
}

function showStages(first, snapshot) {
  const of = (name, labels) => [0.5, 0.99].map((q) => ({ text: span(quantile(first, snapshot, q, name, labels)), as: "number" }));
  const head = ["", { text: "median", as: "number" }, { text: "99 %", as: "number" }];
  fill("stages", head, [
    ...STAGES.map((stage) => row("td", [stage, ...of("tlim_message_stage_duration_seconds", { stage })])),
    row("td", ["stanza to stanza", ...of("tlim_message_end_to_end_duration_seconds", {})]),
  ]);
}

function showWaiting(snapshot) {
  const lags = [...samples(snapshot, "tlim_consumer_lag_messages")];
  const waitingFor = (service) => lags.filter((one) => one.labels.consumer.startsWith(service + "-")).reduce((sum, one) => sum + one.value, 0);
  fill("waiting", null, [
    row("td", ["to be stored", number(waitingFor("message-store"))]),
    row("td", ["to be published", number(total(snapshot, "tlim_message_store_publication_lag_messages"))]),
    row("td", ["to be delivered", number(waitingFor("xmpp-bridge"))]),
    row("td", ["to be found by search", number(total(snapshot, "tlim_message_store_search_lag_messages"))]),
    row("td", ["catch-ups", number(total(snapshot, "tlim_bridge_catch_ups_waiting"))]),
    row("td", ["events in outboxes", number(total(snapshot, "tlim_outbox_rows", { state: "waiting" }))]),
  ]);
}

function showConnections(snapshot) {
  const certificate = [...samples(snapshot, "tlim_certificate_expiry_timestamp_seconds")].map((one) => one.value);
  const ends = certificate.length ? Math.min(...certificate) - snapshot.at / 1000 : null;
  fill("connections", null, [
    row("td", ["people present", number(total(snapshot, "tlim_bridge_people_present"))]),
    row("td", ["bridges with XMPP", number(total(snapshot, "tlim_xmpp_connection_up"))]),
    row("td", ["shards with a bridge", number(total(snapshot, "tlim_bridge_shards"))]),
    row("td", ["messages in flight", number(total(snapshot, "tlim_bridge_in_flight"))]),
    row("td", ["certificate ends in", { text: span(ends), as: ends !== null && ends < 14 * 86400 ? "number bad" : "number" }]),
  ]);
}

function showStorage(snapshot) {
  const backup = largest(snapshot, "tlim_backup_last_success_timestamp_seconds");
  const sizes = new Map();
  for (const one of samples(snapshot, "tlim_database_size_bytes")) sizes.set(one.report.service, Math.max(one.value, sizes.get(one.report.service) ?? 0));
  const streams = [...samples(snapshot, "tlim_stream_bytes")].map((one) => {
    const limit = largest(snapshot, "tlim_stream_limit_bytes", one.labels);
    return row("td", [one.labels.stream, { text: `${bytes(one.value)} of ${bytes(limit)}`, as: one.value > 0.8 * limit ? "number bad" : "number" }]);
  });
  fill("storage", null, [
    ...[...sizes].filter(([, size]) => size).map(([service, size]) => row("td", ["database of " + service, { text: bytes(size), as: "number" }])),
    ...streams,
    row("td", ["mailboxes", number(largest(snapshot, "tlim_message_store_mailbox_rows"))]),
    row("td", ["last backup", { text: backup ? span(snapshot.at / 1000 - backup) + " ago" : "never", as: "number" }]),
  ]);
}

function instance(report) {
  const one = { reports: [report] };
  const shards = [...samples(one, "tlim_bridge_shards")].filter((sample) => sample.value).map((sample) => sample.labels.shard);
  const stores = total(one, "tlim_message_store_groups") + " of 8 groups" + (total(one, "tlim_message_store_upkeep") ? ", upkeep" : "");
  const role = report.service === "message-store" ? stores : report.service === "xmpp-bridge" ? "shards " + (shards.join(" ") || "none") : "";
  const troubles = [...Object.entries(report.checks).filter(([, outcome]) => outcome !== "ok"), ...Object.entries(report.warnings)];
  const state = troubles.length ? { text: troubles.map(([name, reason]) => `${name}: ${reason}`).join("; "), as: "bad" } : { text: "ok", as: "good" };
  return row("td", [report.service, report.instance, report.version, time(report.started_at), role, state]);
}

function letter(one) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "re-drive";
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await ask(`/dead-letters/${one.seq}/redrive`, "POST");
      button.textContent = "sent again";
    } catch (error) {
      button.textContent = error.message;
    }
  });
  return row("td", [one.seq, time(one.at), one.msg_id ?? "–", one.subject, one.cause, one.reason, button]);
}

async function follow(msgId) {
  const place = find("way");
  place.replaceChildren("looking …");
  try {
    const way = await ask("/messages/" + encodeURIComponent(msgId));
    const rows = document.createElement("table"), steps = document.createElement("table");
    rows.append(row("th", ["seq", "from", "type", "conversation", "stored", "received by", "read by"]), ...way.rows.map((one) =>
      row("td", [one.seq, one.sender, one.msg_type, one.conversation_id, time(one.stored_at), one.received, one.read])));
    const start = way.steps.length ? way.steps[0].at : 0;
    steps.append(row("th", ["step", "when", "after", "where", ""]), ...way.steps.map((one) =>
      row("td", [one.step, time(one.at), number(one.at - start, " ms"), `${one.service} ${one.instance}`, one.detail])));
    place.replaceChildren();
    if (way.rows.length) place.append(rows);
    if (way.steps.length) place.append(steps);
    if (!way.rows.length && !way.steps.length) place.textContent = "nobody knows this msg_id";
    else if (!way.steps.length) place.append("no instance remembers its steps any more");
  } catch (error) {
    place.textContent = "no answer: " + error.message;
  }
}

// --- the beginning ---------------------------------------------------------------------------------------------------

find("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  sessionStorage.setItem("token", token);
  find("token").value = "";
  look();
});
find("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  follow(find("msg").value.trim());
});
find("leave").addEventListener("click", () => leave("not logged in"));
find("older").addEventListener("click", async () => {
  const page = await ask("/dead-letters?before=" + older);
  older = page.next_before;
  find("dead").append(...page.items.map(letter));
  find("older").hidden = older === null;
});
document.addEventListener("visibilitychange", () => token && !document.hidden && look());
document.querySelector("#login button").disabled = false; // before this script has run, it would load the page anew
if (token) look();
