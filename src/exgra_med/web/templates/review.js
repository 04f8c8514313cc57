// The page of a review. Texts of data and models are set as text, never as markup.
"use strict";
const byId = (name) => document.getElementById(name);
const WORDS = { accept: "accepted", reject: "rejected", unsure: "unsure" };
let verdicts = [];
let number = 0;
let shown = null; // the answer on the page
let saved = ""; // its note, as it is stored

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The review is not running any more. Start it again; what was judged is stored.");
  }
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

function problem(error) {
  byId("problem").textContent = error ? error.message : "";
  byId("problem").hidden = !error;
  if (error) byId("problem").scrollIntoView({ block: "nearest" });
}

function fill(element, pieces, mark) {
  element.replaceChildren(...pieces.map(([text, differs]) => {
    const part = document.createElement(differs ? mark : "span");
    part.textContent = text;
    return part;
  }));
}

function progress() {
  const done = verdicts.filter(Boolean).length;
  const parts = Object.keys(WORDS).map((each) => `${verdicts.filter((v) => v === each).length} ${WORDS[each]}`);
  byId("bar").max = verdicts.length;
  byId("bar").value = done;
  byId("counts").textContent = `${done} of ${verdicts.length} judged: ${parts.join(", ")}.`;
}

function verdict() {
  const now = verdicts[number];
  byId("verdict").textContent = now ? WORDS[now] : "not judged yet";
  byId("verdict").className = `verdict ${now}`;
  for (const each of Object.keys(WORDS)) byId(each).setAttribute("aria-pressed", String(each === now));
}

function pictures(answer) {
  const parts = [];
  for (let which = 0; which < answer.pictures; which += 1) {
    const image = document.createElement("img");
    image.alt = `Picture ${which + 1} of the question`;
    image.src = `pictures/${number}/${which}`;
    image.addEventListener("error", () => {
      const text = document.createElement("p");
      text.textContent = "This picture cannot be shown.";
      image.replaceWith(text);
    });
    parts.push(image);
  }
  if (!parts.length) {
    const text = document.createElement("p");
    text.textContent = answer.missing;
    parts.push(text);
  }
  byId("pictures").parentElement.classList.toggle("no-picture", !answer.pictures);
  byId("pictures").replaceChildren(...parts);
}

function signs(answer) {
  if (!answer.signs.length) {
    const text = document.createElement("p");
    text.textContent = "The check saw no sign of a fault.";
    byId("signs").replaceChildren(text);
    return;
  }
  const list = document.createElement("ul");
  for (const [kind, detail] of answer.signs) {
    const line = document.createElement("li");
    const name = document.createElement("strong");
    name.textContent = kind;
    line.append(name, `: ${detail}`);
    list.append(line);
  }
  byId("signs").replaceChildren(list);
}

async function show(wanted) {
  const answer = await ask(`answers/${wanted}`);
  // On a phone the next picture would be out of sight, above.
  const main = document.querySelector("main");
  if (shown && scrollY > main.offsetTop) main.scrollIntoView();
  number = wanted;
  shown = answer;
  saved = answer.note;
  verdicts[number] = answer.verdict;
  history.replaceState(null, "", `#${number + 1}`);
  const part = answer.turn ? `, answer ${answer.turn + 1}` : "";
  byId("where").textContent = `${number + 1} of ${verdicts.length} · ${answer.id}${part}`;
  byId("question").textContent = answer.question;
  fill(byId("answer"), answer.answer, "del");
  fill(byId("extended"), answer.extended, "ins");
  byId("note").value = answer.note;
  pictures(answer);
  signs(answer);
  verdict();
  progress();
  byId("back").disabled = number === 0;
  byId("next").disabled = number === verdicts.length - 1;
}

async function store(given) {
  const note = byId("note").value;
  await ask(`judgements/${number}`, { verdict: given, note });
  saved = note;
  verdicts[number] = given;
  verdict();
  progress();
}

async function keepNote() {
  if (shown && byId("note").value !== saved) await store(verdicts[number]);
}

// One thing after the other. While an answer is judged or loaded, further keys do nothing: pressed
// twice, a key must not judge the next answer unseen. A note waits its turn.
let busy = false;
let last = Promise.resolve();
function queued(what) {
  last = last.then(what).then(() => problem(null), problem);
  return last;
}
function act(what) {
  if (busy || !shown) return;
  busy = true;
  queued(what).finally(() => { busy = false; });
}

const judge = (given) => act(async () => {
  await store(given);
  const place = number + 1;
  if (number < verdicts.length - 1) await show(number + 1);
  const left = verdicts.filter((each) => !each).length;
  byId("status").textContent = `${place} ${WORDS[given]}, stored.${left ? "" : " All are judged."}`;
});

const go = (wanted) => act(async () => {
  if (wanted < 0 || wanted >= verdicts.length) return;
  await keepNote();
  await show(wanted);
  byId("status").textContent = "";
});

function nextOpen() {
  const behind = verdicts.findIndex((each, place) => !each && place > number);
  return behind >= 0 ? behind : verdicts.findIndex((each) => !each);
}

const KEYS = {
  a: () => judge("accept"), r: () => judge("reject"), u: () => judge("unsure"),
  ArrowRight: () => go(number + 1), j: () => go(number + 1),
  ArrowLeft: () => go(number - 1), k: () => go(number - 1),
  g: () => go(nextOpen()),
  n: () => byId("note").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.target === byId("note")) {
    if (event.key === "Escape") byId("note").blur();
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
for (const each of Object.keys(WORDS)) byId(each).addEventListener("click", () => judge(each));
byId("back").addEventListener("click", () => go(number - 1));
byId("next").addEventListener("click", () => go(number + 1));
let waiting = 0;
byId("note").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => queued(keepNote), 600);
});
byId("note").addEventListener("blur", () => queued(keepNote));
addEventListener("pagehide", () => queued(keepNote));

async function open() {
  const overview = await ask("answers");
  verdicts = overview.verdicts;
  byId("title").textContent = overview.title;
  document.title = `Review of ${overview.title}`;
  byId("rater").textContent = `${overview.rater} judges.`;
  const asked = Number(location.hash.slice(1));
  const first = verdicts.findIndex((each) => !each);
  await show(asked >= 1 && asked <= verdicts.length ? asked - 1 : Math.max(0, first));
}
open().catch(problem);
