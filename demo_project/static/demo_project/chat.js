import { UserError, duration, post } from "./events.js";

const $ = (id) => document.getElementById(id);
const turns = $("turns"), form = $("form"), question = $("question"), button = $("send");
let conversation = []; // messages for the model: each question that got an answer, and the answer, even if it was cut short
let running = null; // the AbortController of the answer that is being received

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
  const answer = { text: "", done: null };
  const control = (running = new AbortController());
  button.classList.add("stop");
  button.firstElementChild.textContent = "Stop";
  try {
    await receive(messages, turn, answer, control.signal);
  } catch (error) {
    if (control.signal.aborted) showFacts(turn, [["", "Stopped. The call to the model was cancelled."]]);
    else showError(turn, error);
  } finally {
    if (running === control) running = null;
    turn.classList.remove("waiting", "streaming");
    button.classList.remove("stop");
    button.firstElementChild.textContent = "Send";
  }
  if (answer.text) current.push(messages.at(-1), { role: "assistant", content: answer.text });
  showPool();
}

async function receive(messages, turn, answer, signal) {
  const place = turn.querySelector(".text");
  let chunks = 0;
  for await (const { name, data } of post("/answer/", { messages }, signal)) {
    if (name === "failed") throw new UserError(sentence(data.error, data.message));
    if (name === "done") {
      answer.done = data;
      showTiming(turn, data, chunks);
      return;
    }
    if (!data.text) continue;
    chunks += 1;
    answer.text += data.text;
    turn.classList.replace("waiting", "streaming");
    keepInView(() => place.append(data.text));
  }
  throw new UserError("The answer ended before it was complete.");
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
  place.textContent = error instanceof UserError ? error.message : `Something went wrong in the page: ${error.message}`;
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
const sentence = (name, message) => [SENTENCES[name], message || name].filter(Boolean).join(" ");

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
