import { Trouble, duration, post } from "./events.js";

const $ = (id) => document.getElementById(id);
const turns = $("turns"), form = $("form"), question = $("question"), button = $("send");
let conversation = []; // what the model is sent: every turn that both sides have ended
let running = null; // the AbortController of the answer under way

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
question.addEventListener("input", fit);
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
  fit();
  add("user-turn").querySelector(".text").textContent = text;
  const turn = add("answer-turn");
  turn.classList.add("waiting");
  scrollToEnd();

  const mine = conversation; // a new conversation may begin meanwhile: this answer is not part of it
  const messages = [...mine, { role: "user", content: text }];
  const answer = { text: "", done: null };
  const control = (running = new AbortController());
  button.classList.add("stop");
  button.firstElementChild.textContent = "Stop";
  try {
    await receive(messages, turn, answer, control.signal);
  } catch (error) {
    if (control.signal.aborted) facts(turn, [["", "Stopped. The call to the model was cancelled."]]);
    else trouble(turn, error);
  } finally {
    if (running === control) running = null;
    turn.classList.remove("waiting", "streaming");
    button.classList.remove("stop");
    button.firstElementChild.textContent = "Send";
  }
  if (answer.text) mine.push(messages.at(-1), { role: "assistant", content: answer.text });
  showPool();
}

async function receive(messages, turn, answer, signal) {
  const place = turn.querySelector(".text");
  let chunks = 0;
  for await (const { name, data } of post("/answer/", { messages }, signal)) {
    if (name === "error") throw new Trouble(inWords(data.error, data.message));
    if (name === "done") {
      answer.done = data;
      account(turn, data, chunks);
      return;
    }
    if (!data.text) continue;
    chunks += 1;
    answer.text += data.text;
    turn.classList.replace("waiting", "streaming");
    keepInView(() => place.append(data.text));
  }
  throw new Trouble("The answer ended before the model said that it was done.");
}

/** Writes below the answer what the pool did for it. */
function account(turn, { timing, usage, finish_reason: reason }, chunks) {
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
    facts(turn, list);
  });
}

function facts(turn, list) {
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

function trouble(turn, error) {
  const place = turn.querySelector(".trouble");
  place.textContent = error instanceof Trouble ? error.message : `Something went wrong in the page: ${error.message}`;
  keepInView(() => (place.hidden = false));
}

const WORDS = {
  PoolTimeout: "All connections were busy for too long.",
  PoolFull: "Too many questions are waiting already.",
  ConnectFailed: "The model's server cannot be reached.",
  ConnectTimeout: "The model's server cannot be reached in time.",
  DNSFailed: "The model's server has no address.",
  ReadTimeout: "The model's server has gone silent.",
  StreamInterrupted: "The model's server broke off in mid-answer.",
};
const inWords = (name, message) => [WORDS[name], message || name].filter(Boolean).join(" ");

async function showPool() {
  const response = await fetch("/stats/").catch(() => null);
  if (!response?.ok) return;
  const { requests, opened } = await response.json();
  const many = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  $("pool").textContent = `${many(requests, "request")} over ${many(opened, "connection")}`;
}

function add(id) {
  const turn = $(id).content.firstElementChild.cloneNode(true);
  turns.append(turn);
  return turn;
}

/** Scrolls on with what is added, unless the user has scrolled up to read. */
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

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}
