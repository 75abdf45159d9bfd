import { StreamError, events } from "../llm_pool/stream.js";
import { duration } from "./duration.js";

const $ = (id) => document.getElementById(id);
const CALLS = Number($("agent").dataset.calls);
const WAYS = ["client", "pool"];
const NAMES = { client: "new client", pool: "pool" };
const SVG = "http://www.w3.org/2000/svg";
let calls = { client: [], pool: [] };

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const distance = new FormData(event.target).get("distance");
  calls = { client: [], pool: [] };
  $("trouble").hidden = true;
  $("verdict").textContent = "";
  $("run").disabled = true;
  for (const way of WAYS) $(`${way}-note`).textContent = "warming up …";
  draw();
  try {
    await run(distance);
  } catch (error) {
    $("trouble").textContent = error instanceof StreamError ? error.message : `Something went wrong: ${error.message}`;
    $("trouble").hidden = false;
    for (const way of WAYS) if (!calls[way].length) $(`${way}-note`).textContent = "not run";
  } finally {
    $("run").disabled = false;
    $("run").textContent = "Run again";
  }
});
new ResizeObserver(drawPlot).observe($("plot"));

async function run(distance) {
  for await (const event of events("/agent/run/", { distance })) {
    const data = JSON.parse(event.data);
    if (event.name === "failed") throw new StreamError(`A call failed and ended the run (${data.error}): ${data.message}`);
    if (event.name === "done") return showVerdict();
    calls[data.way].push(data);
    draw();
  }
  throw new StreamError("The run ended before its last call.");
}

const total = (way) => calls[way].reduce((sum, call) => sum + call.seconds, 0);

function draw() {
  // Leave room for the calls that are still to come, at the mean time of those that have ended.
  const expected = WAYS.map((way) => (calls[way].length ? (total(way) / calls[way].length) * CALLS : 0));
  const scale = 100 / Math.max(...expected, 0.001);
  for (const way of WAYS) {
    drawTrack($(`${way}-track`), calls[way], scale);
    if (calls[way].length === 0) {
      $(`${way}-total`).textContent = "–";
      continue;
    }
    const dialed = calls[way].filter((call) => call.dialed).length;
    $(`${way}-total`).textContent = duration(total(way));
    $(`${way}-note`).textContent =
      `${calls[way].length} of ${CALLS} calls, ${dialed} new connection${dialed === 1 ? "" : "s"}`;
  }
  drawPlot();
}

function drawTrack(track, list, scale) {
  while (track.children.length > list.length) track.lastChild.remove();
  list.forEach((call, index) => {
    const part = track.children[index] ?? track.appendChild(document.createElement("i"));
    part.style.width = `${call.seconds * scale}%`;
    part.title = `Call ${call.number}: ${duration(call.seconds)}${call.dialed ? ", new connection" : ""}`;
  });
}

function drawPlot() {
  const plot = $("plot");
  $("chart").hidden = !calls.client.length;
  if ($("chart").hidden) return;
  const { width, height } = plot.getBoundingClientRect();
  const left = 34, bottom = 20, top = 8;
  const top_ms = niceTop(Math.max(0, ...[...calls.client, ...calls.pool].map((call) => call.seconds * 1000)));
  const y = (ms) => top + (height - top - bottom) * (1 - ms / top_ms);
  const group = (width - left) / CALLS;
  const bar = Math.max(2, Math.min(14, group * 0.36));
  plot.replaceChildren();
  for (let step = 0; step <= 4; step += 1) {
    const ms = (top_ms / 4) * step;
    shape("line", { x1: left, x2: width, y1: y(ms), y2: y(ms) });
    shape("text", { x: left - 7, y: y(ms) + 4, "text-anchor": "end" }, String(ms));
  }
  for (let number = 1; number <= CALLS; number += 1) {
    const middle = left + group * (number - 0.5);
    if (number === 1 || number % 5 === 0) shape("text", { x: middle, y: height - 3, "text-anchor": "middle" }, number);
    WAYS.forEach((way, side) => {
      const call = calls[way][number - 1];
      if (!call) return;
      const ms = call.seconds * 1000;
      const x = middle + (side ? 0.75 : -bar - 0.75);
      const rect = shape("rect", { class: way, x, y: y(ms), width: bar, height: y(0) - y(ms), rx: Math.min(2, bar / 3) });
      rect.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: `Call ${number}, ${NAMES[way]}: ${duration(call.seconds)}` }));
    });
  }

  function shape(tag, attributes, text) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    plot.append(element);
    return element;
  }
}

/** Returns the lowest round number, divisible by four, that is at least `ms`. */
function niceTop(ms) {
  const tops = [4, 8, 12, 20, 40, 60, 80, 100, 120, 160, 200, 240, 320, 400, 600, 800, 1000, 1200, 1600, 2000, 4000];
  return tops.find((value) => value >= ms) ?? Math.ceil(ms / 4000) * 4000;
}

function showVerdict() {
  const saved = total("client") - total("pool");
  const times = (total("client") / total("pool")).toFixed(1);
  $("verdict").textContent =
    saved > 0
      ? `The pool saved ${duration(saved)} of ${duration(total("client"))}: ${times} times as fast.`
      : "No time was saved in this run.";
}
