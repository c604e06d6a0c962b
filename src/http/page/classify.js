// One picture against labels: asks again whenever either changes, and never for two things at a time.

import { Trouble, call, hasKey } from "./api.js";
import { $, el, many, percent, settled, time } from "./dom.js";
import { base64, ready, sample, samples } from "./pictures.js";
import { body, languages } from "./snippets.js";

/** Labels that are shown of an answer. */
const SHOWN = 40;
/** A person who types pauses for longer than this. */
const PAUSE = 250;

const FIRST_LABELS = "dog, cat, owl, octopus, pizza, apple, car, bicycle, airplane, rocket, guitar, umbrella";
const EMOJI = "an emoji of {}";
const PHOTO = "a photo of a {}.";
const TEMPLATES = [PHOTO, EMOJI, "a drawing of a {}.", "{}"];

let model;
/** `{ name, image, origin }`: the file's name, and its base64. */
let picture;
let asking = new AbortController();
let language = "curl";

export function start(served) {
  $("labels").value = FIRST_LABELS.replaceAll(", ", "\n");
  for (const template of TEMPLATES) {
    const chip = el("button", { type: "button", "aria-pressed": "false" }, template);
    chip.onclick = () => {
      $("template").value = template;
      changed();
    };
    $("templates").append(chip);
  }
  for (const each of samples) {
    const button = el("button", { "aria-label": each.name, "aria-pressed": "false" });
    button.append(el("img", { src: each.url, alt: "", width: 64, height: 64, loading: "lazy" }));
    button.onclick = () => show(() => sample(each), button);
    $("samples").append(el("li", {}, button));
  }
  for (const [button, input] of [
    ["choose", "choose-file"],
    ["photograph", "photograph-file"],
  ]) {
    $(button).onclick = () => $(input).click();
    $(input).onchange = () => {
      const [file] = $(input).files;
      if (file) show(async () => file);
      $(input).value = "";
    };
  }
  const soon = settled(PAUSE, ask);
  for (const id of ["labels", "template"]) {
    $(id).oninput = () => {
      describe();
      soon();
    };
  }
  $("classifier").onchange = changed;
  $("request").ontoggle = describe;
  for (const button of document.querySelectorAll("[data-language]")) {
    button.onclick = () => {
      language = button.dataset.language;
      describe();
    };
  }
  $("copy").onclick = copy;
  const trying = served.id === "emoji-clip";
  $("template").value = trying ? EMOJI : PHOTO;
  serve(served);
  // Whoever tries the embedded model sees at once what it does.
  if (trying) $("samples").querySelector("button").click();
}

/** What scores are, by the model's score function. */
const SCORES = {
  softmax: "Scores are shares of 100 % among these labels",
  sigmoid: "Scores are probabilities, of each label by itself",
};

/** From now on this model answers. */
export function serve(served) {
  model = served;
  const similarities = "similarities are cosines, -1 to 1, and depend on no other label";
  $("result-words").textContent = `${SCORES[model.score_function]}; ${similarities}.`;
  const chosen = $("classifier").value;
  const names = model.classifiers.map((name) => el("option", { value: name }, `${name}, of the server`));
  $("classifier").replaceChildren(el("option", { value: "" }, "my own"), ...names);
  $("classifier").value = model.classifiers.includes(chosen) ? chosen : "";
  $("classifier-field").hidden = names.length === 0;
  changed();
}

/** What is dropped or pasted here. */
export const take = (files) => show(async () => files[0]);

let showing = 0;

async function show(get, button) {
  const turn = ++showing;
  for (const each of $("samples").querySelectorAll("button")) {
    each.setAttribute("aria-pressed", String(each === button));
  }
  try {
    const file = await get();
    const { name, blob, note } = await ready(file, model.limits);
    const image = await base64(blob);
    // A later one may have been faster.
    if (turn !== showing) return;
    URL.revokeObjectURL($("shown").src);
    $("shown").src = URL.createObjectURL(blob);
    $("shown").alt = `The picture ${name}`;
    $("shown").onerror = () => ($("shown").hidden = true);
    $("shown").hidden = false;
    $("stage").classList.add("full");
    $("choose").classList.remove("primary");
    $("invite").textContent = name;
    $("picture-note").textContent = note;
    picture = { name: name || "picture", image };
    changed();
  } catch (error) {
    if (turn !== showing) return;
    $("picture-note").textContent = error.message;
  }
}

function changed() {
  describe();
  ask();
}

/** `{ labels, template, classifier }` as the page has them now. */
function asked() {
  const labels = $("labels")
    .value.split(/[\n,]/)
    .map((label) => label.trim())
    .filter(Boolean);
  return { labels: [...new Set(labels)], template: $("template").value, classifier: $("classifier").value };
}

/** What follows from the fields without asking the server. */
function describe() {
  const { labels, template, classifier } = asked();
  $("own-labels").hidden = classifier !== "";
  $("label-count").textContent = many(labels.length, "label");
  for (const chip of $("templates").children) {
    chip.setAttribute("aria-pressed", String(chip.textContent === template));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  if (!$("request").open) return;
  const origin = new URL(".", document.baseURI).href;
  const file = picture?.name ?? "picture.jpg";
  $("snippet").textContent = languages[language]({ labels, template, classifier, origin, file, keyed: hasKey() });
  const notes = [];
  if (language === "grpc") notes.push("50051 is the usual port of gRPC; this page does not know another.");
  if (hasKey()) notes.push("The key is taken from the environment.");
  $("snippet-note").textContent = notes.join(" ");
}

/** Why there is nothing to ask for. */
function missing({ labels, template, classifier }) {
  if (!picture) return "Choose a picture, or one of the samples.";
  if (classifier) return "";
  if (labels.length === 0) return "Write down some labels.";
  if (labels.length > model.limits.labels) return `The server takes ${many(model.limits.labels, "label")} at most.`;
  return template.includes("{}") ? "" : "The template needs {}, which stands for the label.";
}

/** Asks for what the page shows now, and gives up what was asked before. */
async function ask() {
  asking.abort();
  const mine = (asking = new AbortController());
  const now = asked();
  const why = missing(now);
  if (why) return nothing(why);
  $("result").ariaBusy = "true";
  const begun = performance.now();
  const slow = setTimeout(() => say("Asking …"), 400);
  try {
    const { json, headers } = await call("v1/classify", {
      post: { ...body(now, picture.image), top_k: SHOWN },
      signal: mine.signal,
      waiting: (trouble) => {
        clearTimeout(slow);
        say(`${trouble.message} Trying again.`);
      },
    });
    const took = (performance.now() - begun) / 1e3;
    // There is no later request, since that would have ended this one.
    answer(json.data[0].predictions);
    say("");
    timing(headers.get("server-timing"), took);
  } catch (error) {
    if (mine.signal.aborted) return;
    nothing(error instanceof Trouble ? error.message : String(error), true);
  } finally {
    clearTimeout(slow);
  }
}

function say(text, wrong = false) {
  $("result-state").textContent = text;
  $("result-state").classList.toggle("trouble", wrong);
}

/** There is no answer, since `why`. */
function nothing(why, wrong = false) {
  $("result").ariaBusy = "false";
  $("result").hidden = $("result-words").hidden = true;
  $("result-more").textContent = $("timing").textContent = "";
  say(why, wrong);
}

function answer(predictions) {
  const rows = predictions.map(({ label, score, similarity }, place) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", score.toFixed(4));
    bar.style.setProperty("--near", Math.max(0, similarity).toFixed(4));
    return el(
      "tr",
      { class: place === 0 ? "best" : "" },
      el("th", { scope: "row" }, el("span", { class: "name" }, label), bar),
      el("td", {}, percent(score)),
      el("td", {}, similarity.toFixed(3)),
    );
  });
  $("result").tBodies[0].replaceChildren(...rows);
  $("result").ariaBusy = "false";
  $("result").hidden = $("result-words").hidden = false;
  const { labels, classifier } = asked();
  const rest = classifier ? 0 : labels.length - predictions.length;
  $("result-more").textContent = rest > 0 ? `And ${many(rest, "label")} with less.` : "";
}

/** `stages` as the header `server-timing` has them. */
function timing(stages, took) {
  const told = [...(stages ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(
    ([, stage, ms]) => `${stage} ${time(Number(ms) / 1e3)}`,
  );
  $("timing").textContent = [...told, `${time(took)} in all`].join(" · ");
}

async function copy() {
  let done = "Copied";
  try {
    await navigator.clipboard.writeText($("snippet").textContent);
  } catch {
    // Only pages that came over TLS or from this machine may copy.
    getSelection().selectAllChildren($("snippet"));
    done = "Selected: copy it with your keyboard";
  }
  $("copy").textContent = done;
  setTimeout(() => ($("copy").textContent = "Copy"), 2000);
}
