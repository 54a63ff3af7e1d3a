// The fleet, live. Everything that devices said is written as text, never as markup.
"use strict";

const HISTORY = 60; // points of a sparkline
const SVG = "http://www.w3.org/2000/svg";
const WHY = { bye: "stopped", "last-will": "connection lost", silence: "silent" };

const devices = new Map(); // id -> device, as the API has it
const latencies = new Map(); // id -> p95 in ms, oldest first
const rows = new Map(); // id -> <tr>
const view = { find: "", show: "all" };
let status = null;
let ahead = 0; // the controller's clock minus ours, in ms
let lastEvent = 0;
let events = null;

const at = (id) => document.getElementById(id);

/** An element with attributes and children; children that are not elements become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// What numbers look like.

const bytes = (n) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${n >= 100 || at === 0 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
};
const ms = (n) => `${n >= 100 ? Math.round(n) : n >= 10 ? n.toFixed(1) : n.toFixed(2)} ms`;
const span = (n) => {
  const s = Math.max(0, Math.round(n / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
};
const rough = (n) => span(n).split(" ").slice(0, 2).join(" ");
const now = () => Date.now() + ahead;
const since = (date) => now() - Date.parse(date);
const ago = (date) => (since(date) < 1500 ? "now" : `${rough(since(date))} ago`);
const whole = (n) => n.toLocaleString("en");

/** The slowest task's p95 in ms, of tasks that were asked. */
function p95(device) {
  const tasks = (device.health?.tasks ?? []).filter((task) => task.inferences > 0);
  return tasks.length === 0 ? null : Math.max(...tasks.map((task) => task.p95_us)) / 1000;
}

// What comes in.

function take(device) {
  const known = devices.get(device.id);
  devices.set(device.id, device);
  const value = p95(device);
  const isNews = !known || known.health?.uptime_ms !== device.health?.uptime_ms;
  if (value !== null && isNews) {
    const values = latencies.get(device.id) ?? [];
    values.push(value);
    if (values.length > HISTORY) values.shift();
    latencies.set(device.id, values);
  }
}

async function takeFleet(list) {
  ahead = Date.parse(list.now) - Date.now();
  const before = new Set(devices.keys());
  let part = list;
  while (part) {
    for (const device of part.devices) { take(device); before.delete(device.id); }
    part = part.next ? await (await fetch(`/api/v1/devices?after=${encodeURIComponent(part.next)}`)).json() : null;
  }
  for (const gone of before) { devices.delete(gone); latencies.delete(gone); }
  show();
}

function connect() {
  events = new EventSource("/api/v1/events");
  const on = (name, act) => events.addEventListener(name, (event) => {
    lastEvent = Date.now();
    act(JSON.parse(event.data));
  });
  on("fleet", takeFleet);
  on("device", (device) => { take(device); showDevice(device); });
  on("status", (news) => { status = news; ahead = Date.parse(news.now) - Date.now(); showStatus(); });
  events.onerror = () => {
    banner();
    // The browser tries again by itself, unless the answer was an error.
    if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(connect, 3000); }
  };
}

// What is shown.

function banner() {
  const element = at("banner");
  const isLost = lastEvent === 0 ? events?.readyState !== EventSource.OPEN : Date.now() - lastEvent > 6000;
  const isMute = status !== null && !status.broker_connected;
  const isFull = status !== null && !status.registry_writable;
  element.classList.toggle("late", !isLost && isMute);
  element.hidden = !(isLost || isMute || isFull) || (lastEvent === 0 && document.readyState !== "complete");
  if (isLost) {
    const when = lastEvent === 0 ? "" : ` Shown is what was known at ${new Date(lastEvent).toLocaleTimeString()}.`;
    element.textContent = `Connection to the controller lost, trying again.${when}`;
  } else if (isFull) {
    element.textContent = "The controller cannot write its registry: check its disk. New devices are not acknowledged.";
  } else if (isMute) {
    element.textContent = `The controller has lost its broker at ${status.broker}: devices cannot be heard.`;
  }
}

function showStatus() {
  const refused = Object.values(status.refused).reduce((sum, n) => sum + n, 0);
  at("refused").textContent = whole(refused);
  at("refused").className = refused > 0 ? "warn" : "";
  at("refused").title = Object.entries(status.refused).filter(([, n]) => n > 0)
    .map(([reason, n]) => `${reason}: ${n}`).join(", ") || "Messages refused since the controller started";
  at("broker").textContent = status.broker;
  at("version").textContent = `holdfast-fleet ${status.version}, broker ${status.broker}, up ${span(now() - Date.parse(status.started))}`;
  tally();
  banner();
}

function tally() {
  const all = [...devices.values()];
  const online = all.filter((device) => device.state === "online").length;
  at("online").textContent = whole(online);
  at("offline").textContent = whole(all.length - online);
  at("offline").className = all.length > online ? "bad" : "";
  at("waiting").textContent = whole(all.reduce((sum, device) => sum + (device.health?.queue_waiting ?? 0), 0));
  document.title = all.length === 0 ? "Holdfast fleet" : `${online}/${all.length} online – Holdfast fleet`;
}

function pill(device) {
  if (device.state === "online") return make("span", { class: "pill good" }, "online");
  const tone = device.reason === "bye" ? "still" : "bad";
  return make("span", { class: `pill ${tone}` }, WHY[device.reason] ?? "offline");
}

/** A line of values; the lower edge is zero. */
function spark(values, label, isLarge = false) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", isLarge ? "spark large" : "spark");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
  };
  draw("line", { x1: 0, y1: 100, x2: 100, y2: 100 });
  if (values.length > 1) {
    const top = Math.max(...values) * 1.15 || 1;
    const from = HISTORY - values.length;
    const x = (n) => (((from + n) / (HISTORY - 1)) * 100).toFixed(2);
    const points = values.map((value, n) => `${x(n)},${(100 - (value / top) * 100).toFixed(2)}`).join(" ");
    draw("polygon", { points: `${x(0)},100 ${points} 100,100` });
    draw("polyline", { points });
  }
  return svg;
}

function cells(device) {
  const health = device.health;
  const values = latencies.get(device.id) ?? [];
  const late = p95(device);
  const cell = (label, content, kind = "") => make("td", { "data-label": label, class: kind }, content);
  const models = device.models.map((model) => make("div", { class: "model" }, model.name, " ",
    make("span", { class: "quiet" }, `${model.version} ${model.variant}`)));
  const isHere = device.state === "online";
  const tone = (kind) => (isHere ? kind : "");
  const name = make("td", { "data-label": "Device" },
    make("a", { class: "name", href: `#/${device.id}` }, device.id), make("small", {}, device.board));
  const latency = late === null ? "–"
    : make("div", { class: "latency" }, spark(values, `Latency of ${device.id}, now ${ms(late)}`), ms(late));
  const hot = health?.temperature_celsius;
  const temperature = hot === null || hot === undefined ? "–"
    : make("span", { class: tone(hot >= 80 ? "bad" : hot >= 70 ? "warn" : "") }, `${hot.toFixed(1)} °C`);
  const waiting = health?.queue_waiting ?? 0;
  return [
    name,
    cell("State", pill(device)),
    cell("Models", models.length === 0 ? "–" : make("div", {}, ...models)),
    cell("Queue", health ? make("span", { class: tone(waiting > 0 ? "warn" : "") }, whole(waiting)) : "–", "number"),
    cell("Latency, p95", latency),
    cell("Temperature", temperature, "number"),
    cell("Memory", health ? bytes(health.memory_rss_bytes) : "–", "number"),
    cell("Last seen", make("span", { "data-ago": device.last_seen }, ago(device.last_seen)), "number"),
  ];
}

function fits(device) {
  if (view.show !== "all" && device.state !== view.show) return false;
  const text = [device.id, device.board, ...device.models.map((model) => `${model.name} ${model.version}`)].join(" ");
  return text.toLowerCase().includes(view.find);
}

function showRow(device) {
  let row = rows.get(device.id);
  if (!row) {
    row = make("tr");
    row.addEventListener("click", (event) => { if (!event.target.closest("a")) location.hash = `#/${device.id}`; });
    rows.set(device.id, row);
  }
  row.className = device.state === "online" ? "" : "is-away";
  row.hidden = !fits(device);
  // A link that has the focus is not taken away under the user's hands.
  const hadFocus = row.contains(document.activeElement);
  row.replaceChildren(...cells(device));
  if (hadFocus) row.querySelector("a").focus();
  return row;
}

function showList() {
  const ids = [...devices.keys()].sort();
  for (const [id, row] of rows) if (!devices.has(id)) { row.remove(); rows.delete(id); }
  at("rows").replaceChildren(...ids.map((id) => showRow(devices.get(id))));
  noneFits();
}

function noneFits() {
  at("nothing").hidden = devices.size === 0 || [...rows.values()].some((row) => !row.hidden);
}

// One device.

function facts(...pairs) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of pairs) list.append(make("dt", {}, name), make("dd", {}, value));
  return list;
}

function card(title, ...content) {
  return make("section", { class: "card" }, make("h2", {}, title), ...content);
}

function bar(used, total) {
  const share = total > 0 ? Math.min(1, used / total) : 0;
  const fill = make("i", { class: share > 0.9 ? "full" : "" });
  fill.style.width = `${(share * 100).toFixed(1)}%`;
  return make("div", { class: "bar" }, fill);
}

function table(heads, lines) {
  const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", class: kind ?? "" }, text)));
  const body = lines.map((line) => make("tr", {}, ...line.map((text, n) => make("td", { class: heads[n][1] ?? "" }, text))));
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function healthCards(device) {
  const health = device.health;
  if (!health) return [card("Health", make("p", { class: "quiet" }, "No report yet."))];
  const used = health.memory_total_bytes - health.memory_available_bytes;
  const disk = health.disk_total_bytes - health.disk_free_bytes;
  const hot = health.temperature_celsius;
  const queue = Object.entries(health.queue).map(([state, n]) => [state.replaceAll("_", " "), whole(n)]);
  const up = health.escalations;
  const tones = { up: "good", down: "bad", unknown: "still" };
  const links = health.links.map((link) => [
    `${link.name}${link.zone === link.name ? "" : ` (${link.zone})`}`,
    make("span", { class: `pill ${tones[link.state] ?? "still"}` }, `${link.state} ${rough(link.since_ms)}`),
  ]);
  return [
    card("Board",
      facts(["Memory", `${bytes(used)} of ${bytes(health.memory_total_bytes)}`]), bar(used, health.memory_total_bytes),
      facts(["Disk", `${bytes(disk)} of ${bytes(health.disk_total_bytes)}`]), bar(disk, health.disk_total_bytes),
      facts(["Agent’s memory", bytes(health.memory_rss_bytes)], ["Load", health.load.toFixed(2)],
        ["Temperature", hot === null ? "no sensor" : `${hot.toFixed(1)} °C`], ["Agent up", span(health.uptime_ms)])),
    card("Queue", facts(...queue), queue.length === 0 ? make("p", { class: "quiet" }, "Empty.") : null),
    card("Escalations", facts(["sent", whole(up.sent)], ["answered", whole(up.answered)], ["failed", whole(up.failed)]),
      ...(links.length > 0 ? [make("h2", { class: "links" }, "Links"), facts(...links)] : [])),
  ];
}

function identity(device) {
  return card("Identity", facts(
    ["Board", device.board],
    ["Agent", device.agent_version],
    ["First seen", new Date(device.first_seen).toLocaleString()],
    ["Last seen", make("span", { "data-ago": device.last_seen }, ago(device.last_seen))],
    ["Reports every", device.health_interval_ms < 1000 ? ms(device.health_interval_ms) : span(device.health_interval_ms)],
    ...(device.api ? [["API", device.api]] : []),
    ["Public key", make("code", {}, device.public_key)]));
}

function showDetail(id) {
  const device = devices.get(id);
  const article = at("detail");
  const back = make("a", { class: "back", href: "#" }, "← All devices");
  if (!device) {
    article.replaceChildren(back, make("p", { class: "quiet" }, `No device ${id} ever said hello to this controller.`));
    return;
  }
  const tasks = (device.health?.tasks ?? []).map((task) => [
    task.task, whole(task.inferences), whole(task.failures), ms(task.p50_us / 1000), ms(task.p95_us / 1000), ms(task.p99_us / 1000),
  ]);
  const models = device.models.map((model) => [model.name, model.version, model.variant, model.runtime, model.task]);
  const late = p95(device);
  const inference = card("Inference",
    spark(latencies.get(id) ?? [], late === null ? "No latency yet" : `Latency, p95, now ${ms(late)}`, true),
    table([["Task"], ["Answered", "number"], ["Failed", "number"], ["p50", "number"], ["p95", "number"], ["p99", "number"]], tasks));
  inference.classList.add("wide");
  const inService = card("Models in service", table([["Bundle"], ["Version"], ["Variant"], ["Runtime"], ["Task"]], models));
  inService.classList.add("wide");
  const hadFocus = article.contains(document.activeElement);
  article.replaceChildren(back,
    make("div", { class: "head" }, make("h1", {}, device.id), pill(device),
      make("span", { class: "quiet" }, "for ", make("span", { "data-span": device.state_since }, rough(since(device.state_since))))),
    make("div", { class: "cards" }, inference, ...healthCards(device), identity(device), inService));
  if (hadFocus) back.focus();
}

/** The device that the address names, or null. */
const named = () => (location.hash.startsWith("#/") ? decodeURIComponent(location.hash.slice(2)) : null);

function showDevice(device) {
  tally();
  if (named() === device.id) showDetail(device.id);
  if (!rows.has(device.id)) show();
  else { showRow(device); noneFits(); }
}

function show() {
  const id = named();
  at("loading").hidden = true;
  at("detail").hidden = id === null;
  at("list").hidden = id !== null || devices.size === 0;
  at("empty").hidden = id !== null || devices.size > 0;
  showList();
  if (id !== null) showDetail(id);
  tally();
}

at("find").addEventListener("input", (event) => {
  view.find = event.target.value.trim().toLowerCase();
  for (const [id, row] of rows) row.hidden = !fits(devices.get(id));
  noneFits();
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    view.show = button.dataset.show;
    for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", String(other === button));
    for (const [id, row] of rows) row.hidden = !fits(devices.get(id));
    noneFits();
  });
}
addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
setInterval(() => {
  for (const element of document.querySelectorAll("[data-ago]")) element.textContent = ago(element.dataset.ago);
  for (const element of document.querySelectorAll("[data-span]")) element.textContent = rough(since(element.dataset.span));
  banner();
}, 1000);
connect();
