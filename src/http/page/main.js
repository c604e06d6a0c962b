// Begins: asks what is served, opens the views, and says how the server is. Each view is a module of its own.

import { askWith, call, enterKey, events, hasKey } from "./api.js";
import * as classify from "./classify.js";
import { $ } from "./dom.js";
import { dropped } from "./pictures.js";
import * as search from "./search.js";
import * as server from "./server.js";

const VIEWS = { classify: "Classify", search: "Search", server: "Server" };

/** Of the model that is served; it changes where another server answers. */
let fingerprint;
let started = false;

function view() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "classify";
}

function open() {
  for (const name of Object.keys(VIEWS)) {
    $(name).hidden = name !== view();
    const link = document.querySelector(`nav a[href="#${name}"]`);
    if (name === view()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[view()]} · clipd`;
  scrollTo({ top: 0, behavior: "instant" });
  if (started) server.look();
}

// Its text changes with the state, so that nobody needs to see a colour.
function state(text, kind) {
  $("state").textContent = text;
  $("state").dataset.kind = kind;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").classList.toggle("shown", text !== "");
}

/** Asks what is served, and tells those who show it. */
async function meet() {
  const { json } = await call("v1/models", {
    waiting: ({ message }) => notice(`${message} Trying again.`),
  });
  const [model] = json.data;
  $("served").textContent = [model.id, model.device, model.precision].filter(Boolean).join(" · ");
  if (!started) {
    started = true;
    classify.start(model);
    search.start(model);
    server.start();
  } else if (fingerprint !== model.fingerprint) {
    classify.serve(model);
    search.serve(model);
  }
  fingerprint = model.fingerprint;
  server.serve(model);
}

let meeting = false;

/** Meets the server, once at a time. */
async function greet() {
  if (meeting) return;
  meeting = true;
  try {
    await meet();
    notice("");
  } catch (error) {
    state("no answer for us", "bad");
    notice(error.message);
  } finally {
    meeting = false;
  }
}

let gone = false;

events.addEventListener("away", () => {
  gone = true;
  state("no answer", "bad");
  notice("The server does not answer. This page tries again until it does.");
});

events.addEventListener("answered", ({ detail }) => {
  state("connected", "good");
  if (!started) return;
  notice("");
  // Another one may have come back, and another one may answer behind the same address.
  if (gone || (detail && detail !== fingerprint)) greet();
  gone = false;
});

events.addEventListener("key", () => {
  $("key-button").hidden = true;
  greet();
});

/** Shows the dialog, and gives what is typed; nothing if it is closed. */
function question(wrong) {
  const dialog = $("key-dialog");
  $("key-trouble").textContent = wrong ? "The server does not know this key." : "";
  $("key").value = "";
  dialog.showModal();
  $("key").focus();
  return new Promise((done) => {
    let typed = "";
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      typed = $("key").value.trim();
      dialog.close();
    };
    $("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      $("key").value = "";
      $("key-button").hidden = typed !== "";
      done(typed);
    };
  });
}

/** Files for the view that is open. */
function take(files) {
  if (files.length === 0 || !started) return;
  if (view() === "search") search.take(files);
  else {
    location.hash = "#classify";
    classify.take(files);
  }
}

function listen() {
  addEventListener("hashchange", open);
  askWith(question);
  $("key-button").onclick = () => enterKey().catch(() => {});
  addEventListener("dragover", (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    $("veil").classList.add("shown");
  });
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) $("veil").classList.remove("shown");
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    $("veil").classList.remove("shown");
    take(await dropped(event.dataTransfer, search.MOST_PICTURES));
  });
  addEventListener("paste", ({ clipboardData }) => {
    const files = [...clipboardData.files].filter(({ type }) => type.startsWith("image/"));
    take(files);
  });
}

listen();
open();
greet();
