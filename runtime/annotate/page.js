// The page: asks the desk for its state, sends one action after the other, and shows what came back.

import { View, maskLayer } from "./view.js";

const COLOURS = ["#ff40a0", "#ffb000", "#39c5ff", "#8ce99a", "#b197fc", "#ff8a5c", "#f4f062", "#5ce1c9", "#d0d4dc"];
const $ = (id) => document.getElementById(id);
const view = new View($("view"));
const layers = new Map();   // mask layers of accepted objects, by id
let state = null, shown = null, loaded = null, queue = Promise.resolve(), waiting = 0, era = 0, sure = null, noteTimer = 0;

const colourOf = (name) => COLOURS[state.classes.indexOf(name) % COLOURS.length];
const text = (id, value) => { $(id).textContent = value; };

function note(message, bad = false) {
  text("note", message);
  $("note").className = bad ? "shown bad" : "shown";
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => { $("note").className = bad ? "bad" : ""; }, bad ? 6000 : 3500);
}

function busy(change) {
  waiting += change;
  document.body.dataset.busy = waiting ? "1" : "0";
}

// Actions go one by one, each with the turn that the one before left behind. After a failure the waiting ones are
// dropped, because the page has changed since. An action that depends on the state is a function, which returns the
// action when it is next, or nothing.
function act(action, said) {
  const mine = era;
  busy(1);
  queue = queue.then(() => {
    if (mine !== era) return null;
    const now = typeof action === "function" ? action() : action;
    return now ? send(now, said) : null;
  }).catch(fail).finally(() => busy(-1));
}

async function send(action, said) {
  const response = await fetch("act", {
    method: "POST",
    headers: { "Content-Type": "application/json" },   // without it, the server takes the body for a form of another page
    body: JSON.stringify({ turn: state.turn, do: action }),
  });
  await take(response, said);
}

async function take(response, said) {
  if (!response.headers.get("content-type")?.includes("json")) throw new Error(`${response.status}: see the terminal of maskrt annotate`);
  const answer = await response.json();
  if (answer.error) {
    era++;
    view.pending = [];
  }
  apply(answer.state);
  if (response.status === 409) note("This page was behind, and nothing was done: another browser was faster. Look, then go on.", true);
  else if (answer.error) note(answer.error, true);
  else if (said) note(said);
}

function fail(error) {
  era++;
  view.pending = [];
  view.draw();
  const gone = error instanceof TypeError;   // fetch throws it when nobody answers
  note(gone ? "maskrt annotate does not answer: is it still running?" : `Failed: ${error.message}`, true);
}

function refresh() {
  busy(1);
  queue = queue.then(() => fetch("state")).then((response) => take(response)).catch(fail).finally(() => busy(-1));
}

async function loadPicture() {
  const index = state.index;
  if (loaded === shown) return;   // after two moves at once, the first picture is skipped
  loaded = shown;
  view.show(null);
  if (state.problem) return;
  const response = await fetch(`picture/${index}`);
  if (!response.ok) throw new Error(await response.text());
  const picture = await createImageBitmap(await response.blob());
  if (index !== state.index) return;
  view.show(picture);
  await send({ kind: "prepare" });
}

function apply(next) {
  state = next;
  const place = `${state.index} ${state.name}`;
  if (place !== shown) {
    shown = place;
    layers.clear();
    busy(1);
    queue = queue.then(loadPicture).catch(fail).finally(() => busy(-1));
  }
  showPicture();
  showPanel();
  showObjects();
  document.body.dataset.turn = state.turn;
}

function showPicture() {
  view.mask = state.mask && maskLayer(state.mask, colourOf(state.chosen));
  view.dots = state.clicks;
  view.pending = view.pending.filter(([x, y]) => !state.clicks.some((click) => click[0] === x && click[1] === y));
  view.box = state.box;
  $("problem").hidden = !state.problem;
  text("problem", state.problem ?? "");
  text("name", state.name);
  $("name").title = state.name;
  text("position", `${state.index + 1} / ${state.count} · ${state.counters.annotated} with objects`);
  $("progress").firstElementChild.style.width = `${(100 * state.counters.annotated) / state.count}%`;
  $("previous").disabled = state.index === 0;
  $("next").disabled = state.index === state.count - 1;
  $("save").classList.toggle("unsaved", state.unsaved);
  $("save").disabled = !state.unsaved;
}

function showPanel() {
  const counters = state.counters, started = state.mask !== null;
  text("clicks", state.clicks.length);
  $("clicks").parentElement.classList.toggle("failed", state.clicks.length >= state.failed_clicks);
  text("area", started ? state.mask.counts.reduce((sum, n, i) => sum + (i % 2 ? n : 0), 0).toLocaleString("en") : "–");
  text("ms", counters.last_ms === null ? "–" : Math.round(counters.last_ms));
  for (const id of ["accept", "undo", "reset"]) $(id).disabled = !started;
  text("accepted", counters.accepted);
  text("mean", counters.clicks_per_object === null ? "–" : counters.clicks_per_object.toFixed(1));
  text("failures", counters.failures);
  text("failures-label", `Failures (${state.failed_clicks} clicks or more)`);
  text("steps", counters.steps);
  text("skipped", counters.skipped_steps);
  $("classes").replaceChildren(...state.classes.map((name, at) => {
    const button = element("button", "", [swatch(name), element("span", "", name)]);
    if (at < 9) button.append(element("kbd", "", at + 1));
    button.setAttribute("aria-pressed", name === state.chosen);
    button.addEventListener("click", () => act({ kind: "choose", name }));
    return button;
  }));
}

function showObjects() {
  view.objects = state.objects.map((object) => {
    if (!layers.has(object.id)) layers.set(object.id, maskLayer(object.mask, colourOf(object.name)));
    return { id: object.id, layer: layers.get(object.id) };
  });
  view.draw();
  text("objects-count", state.objects.length ? `(${state.objects.length})` : "");
  $("no-objects").hidden = state.objects.length > 0;
  $("objects").replaceChildren(...state.objects.map(objectLine));
}

function objectLine(object) {
  const clicks = object.clicks === 1 ? "1 click" : `${object.clicks} clicks`;
  const remove = element("button", "", "×");
  remove.title = "Delete this object";
  remove.setAttribute("aria-label", `Delete object ${object.number}`);
  remove.addEventListener("click", () => {
    if (remove.className) {
      act({ kind: "delete", id: object.id }, `Object ${object.number} deleted`);
      return;
    }
    remove.className = "sure";
    remove.textContent = "delete?";
    setTimeout(() => { remove.className = ""; remove.textContent = "×"; }, 3000);
  });
  const line = element("li", "", [
    element("span", "number", object.number), swatch(object.name), element("span", "what", object.name),
    element("small", "", clicks), remove,
  ]);
  line.title = `${object.area.toLocaleString("en")} pixels`;
  line.addEventListener("pointerenter", () => { view.lit = object.id; view.draw(); });
  line.addEventListener("pointerleave", () => { view.lit = null; view.draw(); });
  return line;
}

function element(tag, name, content) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...(Array.isArray(content) ? content : [content]));
  return made;
}

function swatch(name) {
  const made = element("i", "swatch", "");
  made.style.background = colourOf(name);
  return made;
}

// A move that would drop clicks needs a second key press.
function move(step) {
  const index = state.index + step;
  if (index < 0 || index >= state.count) {
    note(step > 0 ? "This is the last picture." : "This is the first picture.");
  } else if (state.mask !== null && sure !== `${state.turn} ${index}`) {
    sure = `${state.turn} ${index}`;
    note(`This object is not accepted yet: Enter keeps it; ${step > 0 ? "N" : "P"} again drops it.`, true);
  } else {
    return { kind: "show", index };
  }
  return null;
}

function help(open) {
  $("help").hidden = !open;
  if (open) $("help-close").focus();
}

function hide() {
  view.hidden = !view.hidden;
  view.draw();
  note(view.hidden ? "Masks are hidden: V shows them." : "Masks are shown.");
}

const accept = () => act({ kind: "accept" }, "Accepted and saved");
const undo = () => act({ kind: "undo" });
const reset = () => act({ kind: "reset" });
const go = (step) => act(() => move(step));
const save = () => act({ kind: "save" }, "Decoders saved");
const KEYS = {
  enter: accept, z: undo, backspace: undo, r: reset, s: save, n: () => go(1), arrowright: () => go(1), p: () => go(-1),
  arrowleft: () => go(-1), h: () => help($("help").hidden), "?": () => help($("help").hidden), f: () => view.fit(), v: hide,
};
const BUTTONS = {
  accept, undo, reset, save, next: () => go(1), previous: () => go(-1), "help-button": () => help(true),
  "help-close": () => help(false),
};

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (!state) return;
  if (!$("help").hidden) {
    if (key === "escape" || key === "h") help(false);
    return;
  }
  // A button that has the focus (Tab) keeps Enter and Space for itself.
  if ((key === "enter" || key === " ") && event.target.closest?.("button")) return;
  if (key === " ") {
    event.preventDefault();
    view.space = true;
    document.body.classList.add("moving");
    return;
  }
  if ((event.ctrlKey || event.metaKey) && key === "z") {
    event.preventDefault();
    return undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;   // Ctrl-R reloads, Ctrl-P prints
  if (/^[1-9]$/.test(key) && state.classes[key - 1] !== undefined) return act({ kind: "choose", name: state.classes[key - 1] });
  if (KEYS[key]) {
    event.preventDefault();
    if (!event.repeat || key === "z" || key === "backspace") KEYS[key]();
  }
});
document.addEventListener("keyup", (event) => {
  if (event.key !== " ") return;
  view.space = false;
  document.body.classList.remove("moving");
});
// A mouse click moves no focus, so the keys go on working.
document.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
for (const [id, work] of Object.entries(BUTTONS)) $(id).addEventListener("click", work);
$("help").addEventListener("click", (event) => { if (event.target === $("help")) help(false); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && state) refresh(); });

view.onclick = (x, y, positive) => {
  view.pending.push([x, y, positive]);
  view.draw();
  act({ kind: "click", x, y, positive });
};
view.onbox = (x0, y0, x1, y1) => act({ kind: "box", x0, y0, x1, y1 });

refresh();
