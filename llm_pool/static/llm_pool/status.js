const $ = (id) => document.getElementById(id);
const MAX_AGE = 8000; // milliseconds; older data is not shown as live

const PLOTS = [
  { title: "Connections in use", format: percent, max: 1, lines: [["utilization", "utilization", "one"]] },
  { title: "Callers waiting", format: whole, min: 4, lines: [["waiting", "waiting", "two"]] },
  {
    title: "Calls per second", format: rate, min: 1,
    lines: [["requests", "all", "one"], ["queued", "queued", "two"], ["failed", "no connection", "three"]],
  },
  { title: "Wait for a connection", format: duration, lines: [["wait_p50", "median", "one"], ["wait_p95", "95 %", "two"]] },
  { title: "First byte of the answer", format: duration, lines: [["first_byte_p50", "median", "one"], ["first_byte_p95", "95 %", "two"]] },
  { title: "Whole answer", format: duration, lines: [["total_p50", "median", "one"], ["total_p95", "95 %", "two"]] },
];

let overview = JSON.parse($("overview").textContent);
let receivedAt = Date.now();
let failed = false; // whether a request has failed since then
const cards = new Map(); // alias -> { root, plots }

// Data from the server

function listen() {
  const source = new EventSource(document.body.dataset.events);
  let done = false; // the server ended the stream as intended, and the browser reconnects
  source.addEventListener("message", (event) => receive(JSON.parse(event.data)));
  source.addEventListener("done", () => { done = true; });
  source.addEventListener("error", () => {
    const refused = source.readyState === EventSource.CLOSED; // as by a proxy's 502, or at too many open streams
    if (refused) load().then(receive, fail).then(() => setTimeout(listen, overview.tick * 1000));
    else if (!done) fail();
    done = false;
  });
}

async function poll() {
  const data = await load().catch(() => null);
  setTimeout(poll, overview.tick * 1000);
  if (data) receive(data);
  else fail();
}

async function load() {
  const response = await fetch(document.body.dataset.data);
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

function receive(data) {
  overview = data;
  receivedAt = Date.now();
  failed = false;
  render();
  renderFeed();
}

function fail() {
  failed = true;
  renderFeed();
}

function renderFeed() {
  const age = Date.now() - receivedAt;
  const live = !failed && age <= MAX_AGE;
  $("feed").classList.toggle("live", live);
  $("feed").textContent = live ? "live" : `no news for ${duration(Math.ceil(age / 1000))}`;
}

setInterval(renderFeed, 500);

// The page

function render() {
  const { pools, workers, scope } = overview;
  const machine = `${workers.length} ${workers.length === 1 ? "worker" : "workers"} of this machine`;
  $("scope").textContent = {
    machine,
    process: `Process ${workers[0].worker} only: the default cache is not shared between processes`,
    unreachable: `Process ${workers[0].worker} only: the cache cannot be reached`,
  }[scope];
  $("none").hidden = pools.length > 0;
  for (const pool of pools) renderPool(cards.get(pool.alias) ?? addCard(pool.alias), pool);
  for (const [alias, card] of cards) {
    if (!pools.some((pool) => pool.alias === alias)) {
      card.root.remove();
      cards.delete(alias);
    }
  }
  $("workers").hidden = scope !== "machine";
  const row = (each) => [[each.worker], [each.in_use, "n"], [each.connections, "n"], [each.waiting, "n"], [whole(each.requests), "n"], [duration(each.up), "n"]];
  fill($("workers").querySelector("tbody"), workers.map(row));
}

function addCard(alias) {
  const root = $("pool").content.cloneNode(true).firstElementChild;
  root.querySelector("h2").textContent = alias;
  $("pools").append(root);
  const card = { root, plots: PLOTS.map((plot) => addPlot(root.querySelector(".plots"), plot)) };
  cards.set(alias, card);
  return card;
}

function renderPool({ root, plots }, { now, series, connections }) {
  const unused = !now.requests && !connections.length;
  root.classList.toggle("unused", unused);
  const [level, state] = stateOf(now, unused);
  const verdict = root.querySelector(".verdict");
  verdict.className = `verdict ${level}`;
  verdict.textContent = state;
  const strong = Object.assign(document.createElement("strong"), { textContent: percent(now.utilization) });
  root.querySelector(".used").replaceChildren(strong, `${now.in_use} of ${now.max_connections} connections in use`);
  const bar = root.querySelector(".bar");
  bar.className = `bar ${level}`;
  bar.setAttribute("aria-valuenow", Math.round(now.utilization * 100));
  bar.firstElementChild.style.width = `${now.utilization * 100}%`;

  const failures = Object.values(now.dial_failures).reduce((sum, each) => sum + each, 0);
  const gauges = [
    ["Idle", now.idle], ["Dialing", now.dialing], ["Streams", now.streams],
    ["Waiting", now.waiting, now.waiting], ["Longest wait", now.longest_wait ? duration(now.longest_wait) : "–"],
    ["Requests", whole(now.requests)], ["Reused", now.requests ? percent(now.reused / now.requests) : "–"],
    ["Queued", whole(now.queued)], ["Pool timeouts", now.pool_timeouts, now.pool_timeouts],
    ["Refused", now.refused, now.refused], ["Failed dials", failures, failures], ["Replays", now.replays],
    ["Cancelled", whole(now.cancelled)], ["Leaks", now.leaks_suspected, now.leaks_suspected],
    ["Tokens in", whole(now.input_tokens)], ["Tokens out", whole(now.output_tokens)],
  ];
  root.querySelector(".gauges").replaceChildren(...gauges.map(([name, value, bad]) => {
    const box = document.createElement("div");
    box.className = bad ? "bad" : "";
    box.append(Object.assign(document.createElement("dt"), { textContent: name }));
    box.append(Object.assign(document.createElement("dd"), { textContent: value }));
    return box;
  }));
  const failure = root.querySelector(".failure");
  failure.hidden = !now.dial_failure;
  failure.textContent = `Last failed dial: ${now.dial_failure}`;

  for (const plot of plots) plot.show(series);
  fill(root.querySelector("tbody"), connections.map((each) => [
    [each.origin], [each.state, each.state === "in use" ? "state busy" : "state"], [duration(each.age), "n"],
    [each.streams, "n"], [each.loop], [each.worker, "n"],
  ]));
  const open = now.connections - now.dialing - connections.length;
  root.querySelector(".more").textContent = connections.length ? (open > 0 ? `and ${open} more` : "") : "None is open.";
}

function stateOf(now, unused) {
  if (now.unreachable) return ["bad", "cannot connect"];
  if (now.waiting && now.utilization >= 1) return ["bad", "exhausted"];
  if (now.utilization >= 0.8) return ["warm", "nearly full"];
  return ["", unused ? "not used yet" : "has room"];
}

function fill(body, rows) {
  const names = [...body.closest("table").querySelectorAll("th")].map((head) => head.textContent);
  body.replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map(([textContent, className = ""], column) => {
      const cell = Object.assign(document.createElement("td"), { textContent, className });
      cell.dataset.name = names[column]; // for a narrow screen, which hides the table's head
      return cell;
    }));
    return row;
  }));
}

// Plots

const HEIGHT = 160, LEFT = 44, RIGHT = 4, TOP = 8, BOTTOM = 20;

function addPlot(place, plot) {
  const figure = $("plot").content.cloneNode(true).firstElementChild;
  figure.querySelector("figcaption").textContent = plot.title;
  place.append(figure);
  const svg = figure.querySelector("svg");
  svg.setAttribute("aria-label", plot.title);
  let series = null, hovered = null;

  function draw() {
    if (!series) return;
    const width = svg.clientWidth || 400;
    const values = plot.lines.map(([name]) => series[name]);
    const length = values[0].length;
    const top = plot.max ?? roundUp(Math.max(plot.min ?? 0, ...values.flat().filter((value) => value !== null)) || 0.01);
    const x = (index) => LEFT + (index / (length - 1)) * (width - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    svg.replaceChildren();
    for (const value of [0, top / 2, top]) {
      add(svg, "line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) });
      add(svg, "text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, plot.format(value));
    }
    const minutes = (length * overview.tick) / 60;
    for (const minute of Array.from({ length: minutes + 1 }, (_, index) => index)) {
      const anchor = minute === 0 ? "end" : minute === minutes ? "start" : "middle";
      const place = x((length - 1) * (1 - minute / minutes));
      add(svg, "text", { x: place, y: HEIGHT - 3, "text-anchor": anchor }, ["now", `−${minute}`, `−${minute} min`][(minute > 0) + (minute === minutes)]);
    }
    plot.lines.forEach(([, , color], number) => {
      for (const run of runs(values[number])) {
        const line = run.map(([index, value]) => `${x(index).toFixed(1)},${y(Math.min(value, top)).toFixed(1)}`).join("L");
        const [first, last] = [x(run[0][0]), x(run.at(-1)[0])].map((place) => place.toFixed(1));
        if (number === 0) add(svg, "path", { class: `area ${color}`, d: `M${first},${y(0)}L${line}L${last},${y(0)}Z` });
        add(svg, "path", { class: color, d: `M${line}${run.length === 1 ? "h.1" : ""}` });
      }
    });
    if (hovered !== null) add(svg, "line", { class: "cursor", x1: x(hovered), x2: x(hovered), y1: TOP, y2: HEIGHT - BOTTOM });
    const at = hovered ?? length - 1;
    const items = plot.lines.map(([, label, color], number) => {
      const item = document.createElement("li");
      item.append(Object.assign(document.createElement("i"), { className: color }), label);
      const value = values[number][at];
      item.append(Object.assign(document.createElement("strong"), { textContent: value === null ? "–" : plot.format(value) }));
      return item;
    });
    if (hovered !== null) {
      items.push(Object.assign(document.createElement("li"), { className: "time", textContent: `${duration((length - 1 - at) * overview.tick)} ago` }));
    }
    figure.querySelector(".legend").replaceChildren(...items);
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const length = series[plot.lines[0][0]].length;
    const part = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    hovered = Math.round(Math.min(1, Math.max(0, part)) * (length - 1));
    draw();
  });
  svg.addEventListener("pointerleave", () => {
    hovered = null;
    draw();
  });
  new ResizeObserver(draw).observe(svg);
  return { show: (data) => { series = data; draw(); } };
}

/** The runs of values without a gap, as lists of [index, value]. */
function runs(values) {
  const found = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null) run = null;
    else if (run) run.push([index, value]);
    else found.push((run = [[index, value]]));
  });
  return found;
}

function add(place, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  place.append(element);
}

/** The next of 1, 2, 4, 6, 8, 10, 20, ...: half of it makes a round label, too. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 4, 6, 8].find((step) => step * power >= value * 0.999) ?? 10) * power;
}

// Numbers as text

function percent(value) { return `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`; }
function whole(value) { return Math.round(value).toLocaleString("en"); }
function rate(value) { return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 }); }

function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${Number((seconds * 1e3).toPrecision(seconds < 0.01 ? 2 : 3))} ms`;
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

$("scriptless").remove();
render();
renderFeed();
if (document.body.dataset.feed === "events") listen();
else poll();
