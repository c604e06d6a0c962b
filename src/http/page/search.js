// Pictures in the order of their similarity to a text or another picture. Embeddings are asked for a few pictures at a
// time, as work that gives way to others, and stay here; so a new query costs one text.

import { Trouble, call, delay, once, sentence, sleep } from "./api.js";
import { $, el, many, settled, still, whole } from "./dom.js";
import { base64, ready, sample, samples, thumbnail } from "./pictures.js";

export const MOST_PICTURES = 2000;

/** Pictures of one call: at first, and at most. It is halved where the server has no room again and again. */
const FIRST_CALL = 8;
const LARGEST_CALL = 16;
/** Bytes of the files of one call, unless one alone has more. */
const CALL_BYTES = 2_000_000;
const CALLS_AT_A_TIME = 2;
const PAUSE = 300;

// States of a picture.
const WAITING = "waiting";
const SENT = "sent";
const DONE = "done";
const FAILED = "failed";

let model;
/** `{ name, file, state, vector, trouble, similarity, tile }` */
let pictures = [];
/** `{ name, vector }`; null: none. */
let query = null;
let stopped = new AbortController();
let running = 0;
let size = FIRST_CALL;
let refusals = 0;
/** Nothing is sent before: milliseconds of `performance.now()`. */
let notBefore = 0;
let hint = "";

export function start(served) {
  model = served;
  if (model.id === "emoji-clip") $("query").placeholder += ", such as “an emoji of fruit”";
  $("add").onclick = () => $("add-files").click();
  $("add-files").onchange = () => {
    take([...$("add-files").files]);
    $("add-files").value = "";
  };
  $("add-samples").onclick = async () => {
    try {
      take(await Promise.all(samples.map(sample)));
    } catch (error) {
      tell(error.message);
    }
  };
  $("clear").onclick = clear;
  $("stop").onclick = stop;
  $("again").onclick = again;
  $("query-form").onsubmit = (event) => {
    event.preventDefault();
    ask();
  };
  $("query").oninput = settled(PAUSE, ask);
  $("query-choose").onclick = () => $("query-file").click();
  $("query-file").onchange = () => {
    const [file] = $("query-file").files;
    if (file) askByPicture(file);
    $("query-file").value = "";
  };
}

/** Another model answers from now on: embeddings of two models do not mix. */
export function serve(served) {
  model = served;
  const known = pictures.filter(({ state }) => state === DONE);
  known.forEach((picture) => put(picture, WAITING));
  query = null;
  if (pictures.length > 0) {
    hint = "The server has another model now, so the pictures are embedded again.";
    pump();
    ask();
  }
}

export function take(files) {
  const room = MOST_PICTURES - pictures.length;
  for (const file of files.slice(0, room)) {
    const picture = { name: file.name, file, tile: tile(file.name) };
    put(picture, WAITING);
    pictures.push(picture);
    picture.tile.firstChild.onclick = () => askLike(picture);
    $("grid").append(picture.tile);
  }
  if (files.length > room) tell(`This page holds ${many(MOST_PICTURES, "picture")}; the others were left out.`);
  if (stopped.signal.aborted) stopped = new AbortController();
  pump();
}

function tile(name) {
  const image = el("img", { alt: "", width: 160, height: 160 });
  const caption = el("p", {}, el("span", { class: "number" }), el("span", { class: "name", title: name }, name));
  return el("li", {}, el("button", {}, image), caption, el("p", { class: "trouble" }));
}

/** Moves a picture into a state, and shows it. */
function put(picture, state, { vector, trouble } = {}) {
  Object.assign(picture, { state, vector, trouble, similarity: undefined });
  const { tile, name } = picture;
  tile.className = state;
  const [button, , said] = tile.children;
  button.disabled = state !== DONE;
  button.setAttribute("aria-label", state === DONE ? `Find what is like ${name}` : `${name}, ${trouble ?? state}`);
  said.textContent = trouble ?? "";
}

/** Sends what waits, as long as there may be another call. */
function pump() {
  while (running < CALLS_AT_A_TIME && !stopped.signal.aborted) {
    const most = Math.min(size, model.limits.inputs);
    const some = pictures.filter(({ state }) => state === WAITING).slice(0, most);
    if (some.length === 0) break;
    some.forEach((picture) => put(picture, SENT));
    running++;
    send(some, stopped.signal).finally(() => {
      running--;
      pump();
    });
  }
  progress();
}

async function send(some, signal) {
  try {
    await sleep(Math.max(0, notBefore - performance.now()), signal);
    const sent = await encoded(some);
    if (sent.length === 0) return;
    const { json } = await once("v1/embeddings", {
      post: { input: sent.map(({ image }) => ({ image })), encoding_format: "base64" },
      headers: { "clip-class": "bulk", "clip-partial": "true" },
      signal,
    });
    json.data.forEach(({ embedding, error }, index) => {
      const { picture } = sent[index];
      if (error) put(picture, FAILED, { trouble: sentence(error.message) });
      else put(picture, DONE, { vector: numbers(embedding) });
    });
    refusals = 0;
    hint = "";
    size = Math.min(LARGEST_CALL, size + 1);
    orderSoon();
  } catch (error) {
    unsent(
      some.filter(({ state }) => state === SENT),
      error,
      signal,
    );
  }
}

/** Files as base64, as many as one call has room for; the others wait on. */
async function encoded(some) {
  const sent = [];
  // As base64 it is a third more.
  const most = Math.min(CALL_BYTES, model.limits.message_bytes / 2);
  let total = 0;
  for (const picture of some) {
    try {
      const { blob } = await ready(picture.file, model.limits);
      if (sent.length > 0 && total + blob.size > most) {
        put(picture, WAITING);
        continue;
      }
      total += blob.size;
      sent.push({ picture, image: await base64(blob) });
      const image = picture.tile.querySelector("img");
      if (!image.getAttribute("src")) image.src = (await thumbnail(blob)) ?? "";
    } catch (error) {
      put(picture, FAILED, { trouble: error.message });
    }
  }
  return sent;
}

/** What to do with pictures of a call that has no answer. */
function unsent(some, error, signal) {
  if (signal.aborted) {
    some.forEach((picture) => put(picture, FAILED, { trouble: "Stopped." }));
  } else if (error.later !== undefined) {
    const wait = delay(error, ++refusals);
    notBefore = performance.now() + wait;
    hint = `${error.message} Going on in a moment.`;
    if (!error.away && refusals > 2) size = Math.max(1, size >> 1);
    some.forEach((picture) => put(picture, WAITING));
  } else if (error.status === 413 && some.length > 1) {
    size = some.length >> 1;
    some.forEach((picture) => put(picture, WAITING));
  } else {
    const trouble = error instanceof Trouble ? error.message : String(error);
    some.forEach((picture) => put(picture, FAILED, { trouble }));
    // Without a key none of the others would fare better.
    if (error.status === 401) stop();
  }
}

function stop() {
  stopped.abort(new Trouble("Stopped."));
  for (const picture of pictures) {
    if (picture.state === WAITING) put(picture, FAILED, { trouble: "Stopped." });
  }
  hint = "";
  progress();
}

function again() {
  if (stopped.signal.aborted) stopped = new AbortController();
  pictures.filter(({ state }) => state === FAILED).forEach((picture) => put(picture, WAITING));
  pump();
}

function clear() {
  stopped.abort(new Trouble("Removed."));
  for (const { tile } of pictures) URL.revokeObjectURL(tile.querySelector("img").src);
  pictures = [];
  $("grid").replaceChildren();
  tell("");
  progress();
}

function progress() {
  const count = (wanted) => pictures.filter(({ state }) => state === wanted).length;
  const [done, failed] = [count(DONE), count(FAILED)];
  const left = pictures.length - done - failed;
  $("progress").hidden = left === 0 && failed === 0;
  $("progress-bar").hidden = $("stop").hidden = left === 0;
  $("again").hidden = left > 0 || failed === 0;
  $("progress-bar").max = Math.max(1, pictures.length);
  $("progress-bar").value = done + failed;
  const parts = [`${whole(done)} of ${many(pictures.length, "picture")} embedded`];
  if (failed > 0) parts.push(`${whole(failed)} not`);
  $("progress-text").textContent = `${parts.join(", ")}. ${left > 0 ? hint : ""}`;
  $("empty").hidden = pictures.length > 0;
  $("clear").hidden = pictures.length === 0;
}

/** Little-endian floats in base64. */
function numbers(packed) {
  const text = atob(packed);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, at) => view.getFloat32(at * 4, true));
}

let asking = new AbortController();

async function ask() {
  const text = $("query").value.trim();
  asking.abort();
  show(null);
  if (!text) return settle(null);
  // Enter, after the pause that asked already.
  if (text === query?.name) return;
  await look(text, { text });
}

async function askByPicture(file) {
  try {
    const { blob } = await ready(file, model.limits);
    $("query").value = "";
    show(await thumbnail(blob));
    await look(file.name, { image: await base64(blob) });
  } catch (error) {
    tell(error.message);
  }
}

function askLike({ name, vector, tile }) {
  asking.abort();
  $("query").value = "";
  show(tile.querySelector("img").src);
  settle({ name, vector });
  scrollTo({ top: 0, behavior: still.matches ? "instant" : "smooth" });
}

/** The picture that is searched by. */
function show(source) {
  $("query-picture").hidden = !source;
  if (source) $("query-picture").src = source;
}

/** Embeds one input, and orders by it. */
async function look(name, input) {
  asking.abort();
  const mine = (asking = new AbortController());
  try {
    const { json } = await call("v1/embeddings", {
      post: { input: [input], encoding_format: "base64" },
      signal: mine.signal,
      waiting: (trouble) => tell(`${trouble.message} Trying again.`),
    });
    settle({ name, vector: numbers(json.data[0].embedding) });
  } catch (error) {
    if (!mine.signal.aborted) tell(error instanceof Trouble ? error.message : String(error));
  }
}

function settle(found) {
  query = found;
  order();
}

const orderSoon = settled(100, () => {
  if (query) order();
});

/** Both have unit length, so this is the cosine. */
const cosine = (a, b) => a.reduce((sum, x, at) => sum + x * b[at], 0);

function order() {
  if (!query) {
    pictures.forEach((picture) => (picture.similarity = undefined));
  } else {
    for (const picture of pictures) {
      picture.similarity = picture.vector && cosine(query.vector, picture.vector);
    }
  }
  // Those without a number stay behind, in the order in which they came.
  const rank = ({ similarity }) => similarity ?? -2;
  const ordered = query ? [...pictures].sort((a, b) => rank(b) - rank(a)) : pictures;
  const best = ordered[0]?.similarity;
  for (const { tile, similarity } of ordered) {
    tile.querySelector(".number").textContent = similarity === undefined ? "" : similarity.toFixed(3);
    // How near it is to the best.
    tile.style.setProperty("--share", similarity === undefined ? 0 : Math.max(0, similarity / best).toFixed(3));
  }
  glide(() => $("grid").replaceChildren(...ordered.map(({ tile }) => tile)));
  const found = ordered.slice(0, 3).filter(({ similarity }) => similarity !== undefined);
  const names = found.map(({ name, similarity }) => `${name} ${similarity.toFixed(3)}`);
  tell(names.length > 0 ? `Most like “${query.name}”: ${names.join(", ")}.` : "");
}

function tell(text) {
  $("order").textContent = text;
}

/** Tiles that are to be seen glide to where `move` puts them, and the one with the focus keeps it. */
function glide(move) {
  const focused = $("grid").contains(document.activeElement) ? document.activeElement : null;
  const seen = still.matches ? [] : [...$("grid").children].slice(0, 60);
  const before = seen.map((tile) => tile.getBoundingClientRect());
  move();
  focused?.focus({ preventScroll: true });
  seen.forEach((tile, index) => {
    const now = tile.getBoundingClientRect();
    const [x, y] = [before[index].x - now.x, before[index].y - now.y];
    if ((x || y) && now.top < innerHeight) {
      const from = { transform: `translate(${x}px, ${y}px)` };
      tile.animate([from, { transform: "none" }], { duration: 320, easing: "cubic-bezier(.2,.7,.2,1)" });
    }
  });
}
