import { StreamError, stream } from "../llm_pool/stream.js";
import { duration } from "./duration.js";

const $ = (id) => document.getElementById(id);
const turns = $("turns"), form = $("form"), question = $("question"), button = $("send");
let conversation = []; // messages for the model: each question that got an answer, and the answer, even if it was cut short
let running = null; // the answer that is being received

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else if (question.value.trim()) ask(question.value.trim());
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) form.requestSubmit();
});
question.addEventListener("input", resizeQuestion);
for (const suggestion of document.querySelectorAll(".suggestions button")) {
  suggestion.addEventListener("click", () => running || ask(suggestion.textContent));
}
$("fresh").addEventListener("click", () => {
  running?.abort();
  conversation = [];
  turns.replaceChildren();
  $("empty").hidden = false;
  $("fresh").hidden = true;
  question.focus();
});

async function ask(text) {
  $("empty").hidden = true;
  $("fresh").hidden = false;
  question.value = "";
  resizeQuestion();
  add("user-turn").querySelector(".text").textContent = text;
  const turn = add("answer-turn");
  turn.classList.add("waiting");
  scrollToEnd();

  const current = conversation; // "New conversation" may replace it before the answer ends
  const messages = [...current, { role: "user", content: text }];
  const shown = turn.querySelector(".text");
  let aborted = false;
  let pieces = 0;
  const answer = stream("/answer/", { messages }, {
    onReasoning: (piece) => showReasoning(turn, piece),
    onText: (piece) => {
      pieces += 1;
      turn.classList.replace("waiting", "streaming");
      keepInView(() => shown.append(piece));
    },
  });
  running = { abort: () => ((aborted = true), answer.abort()) };
  const own = running;
  button.classList.add("stop");
  button.firstElementChild.textContent = "Stop";
  let reply = null; // the model's turn, as a message for the next call
  try {
    const done = await answer.done;
    reply = done.message;
    showTiming(turn, done, pieces);
  } catch (error) {
    if (shown.textContent) reply = { role: "assistant", content: shown.textContent };
    if (aborted) showFacts(turn, [["", "Stopped. The call to the model was cancelled."]]);
    else showError(turn, error);
  } finally {
    if (running === own) running = null;
    turn.classList.remove("waiting", "streaming");
    button.classList.remove("stop");
    button.firstElementChild.textContent = "Send";
  }
  if (reply) current.push(messages.at(-1), reply);
  showPool();
}

function showReasoning(turn, piece) {
  const place = turn.querySelector(".reasoning");
  keepInView(() => {
    place.hidden = false;
    place.lastElementChild.append(piece);
  });
}

/** Shows the timing of the call below the answer. */
function showTiming(turn, { timing, usage, finish_reason: reason }, chunks) {
  const first = timing.first_token ?? timing.total;
  const tokens = usage?.output_tokens ?? chunks;
  const streaming = timing.total - first;
  const waited = first - timing.queued - timing.dialing;
  const list = [
    ["queued", "queued", duration(timing.queued)],
    timing.reused ? ["", "connection reused"] : ["dialed", "dialed in", duration(timing.dialing)],
    ["waited", "first token after", duration(first)],
    ["streamed", "total", duration(timing.total)],
  ];
  if (tokens > 1 && streaming > 0) list.push(["", "", `${((tokens - 1) / streaming).toFixed(0)} tokens/s`]);
  if (reason === "length") list.push(["", "cut at the token limit"]);
  const line = turn.querySelector(".timeline");
  const parts = [["queued", timing.queued], ["dialed", timing.dialing], ["waited", waited], ["streamed", streaming]];
  for (const [kind, seconds] of parts) {
    if (seconds < 0.0005) continue;
    const part = document.createElement("i");
    part.className = kind;
    part.style.flexGrow = seconds;
    line.append(part);
  }
  keepInView(() => {
    line.hidden = false;
    showFacts(turn, list);
  });
}

function showFacts(turn, list) {
  const place = turn.querySelector(".facts");
  for (const [kind, words, value] of list) {
    const item = document.createElement("li");
    if (kind) item.append(Object.assign(document.createElement("i"), { className: kind }));
    item.append(words);
    if (value) item.append(" ", Object.assign(document.createElement("strong"), { textContent: value }));
    place.append(item);
  }
  place.hidden = false;
}

function showError(turn, error) {
  const place = turn.querySelector(".trouble");
  place.textContent = error instanceof StreamError ? sentence(error) : `Something went wrong in the page: ${error.message}`;
  keepInView(() => (place.hidden = false));
}

const SENTENCES = {
  PoolTimeout: "All connections were busy for too long.",
  PoolFull: "Too many questions are waiting already.",
  ConnectFailed: "The model's server cannot be reached.",
  ConnectTimeout: "The model's server could not be reached in time.",
  DNSFailed: "The address of the model's server was not found.",
  ReadTimeout: "The model's server stopped sending.",
  StreamInterrupted: "The model's server closed the connection during the answer.",
};
const sentence = ({ code, message }) => [SENTENCES[code], message].filter(Boolean).join(" ");

async function showPool() {
  const response = await fetch("/stats/").catch(() => null);
  if (!response?.ok) return;
  const { requests, opened } = await response.json();
  const counted = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  $("pool").textContent = `${counted(requests, "request")} over ${counted(opened, "connection")}`;
}

function add(id) {
  const turn = $(id).content.firstElementChild.cloneNode(true);
  turns.append(turn);
  return turn;
}

/** Makes `change` and scrolls to the end, unless the user has scrolled up. */
function keepInView(change) {
  const page = document.scrollingElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
  change();
  if (atEnd) scrollToEnd();
}

function scrollToEnd() {
  const page = document.scrollingElement;
  page.scrollTop = page.scrollHeight;
}

function resizeQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}
