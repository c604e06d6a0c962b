// Speaks to the server: with a key if it asks for one, and again where it says later. What is wrong is a Trouble, in
// words. The key is in this module's memory and nowhere else.

/** Why a call has no answer. */
export class Trouble extends Error {
  /**
   * `later`: milliseconds after which the same call may succeed; undefined: it would not.
   * `away`: nobody answered. `status`: of HTTP, 0 if there was none.
   */
  constructor(message, { status = 0, later, away = false } = {}) {
    super(message);
    Object.assign(this, { status, later, away });
  }
}

/** Hears `answered` with the fingerprint of each answer, `away` and `key`. */
export const events = new EventTarget();

const LONGEST_WAIT = 10_000;

let key = "";
/** Asks the person for a key; there is one question at a time. */
let ask = async () => "";
let asking = null;

/** `question(wrong)` gives the key that a person types, or nothing. */
export function askWith(question) {
  ask = question;
}

export const hasKey = () => key !== "";

export function enterKey() {
  return askOnce();
}

function askOnce() {
  asking ??= ask(key !== "")
    .then((typed) => {
      if (!typed) throw new Trouble("This server answers only those who have a key.", { status: 401 });
      key = typed;
      events.dispatchEvent(new Event("key"));
    })
    .finally(() => (asking = null));
  return asking;
}

/**
 * The answer to one request, as it is: `{ json, headers }`. `post` is what to send; without it, it is a GET.
 * `quiet`: do not ask a person for a key.
 */
export async function once(path, { post, headers = {}, signal, quiet = false } = {}) {
  for (;;) {
    const used = key;
    const response = await request(path, { post, headers, signal });
    const fingerprint = response.headers.get("clip-fingerprint");
    events.dispatchEvent(new CustomEvent("answered", { detail: fingerprint }));
    if (response.ok) return { json: await read(response), headers: response.headers };
    if (response.status === 401 && !quiet) {
      // Another call may have asked meanwhile.
      if (used === key) await askOnce();
      continue;
    }
    throw await trouble(response);
  }
}

/** As `once`, but again until there is an answer, or a trouble that time does not mend. `waiting` hears of each. */
export async function call(path, options = {}) {
  for (let tries = 1; ; tries++) {
    try {
      return await once(path, options);
    } catch (error) {
      if (error.later === undefined) throw error;
      const wait = delay(error, tries);
      options.waiting?.(error, wait);
      await sleep(wait, options.signal);
    }
  }
}

/** Milliseconds until try number `tries` + 1: at least what the server says, longer each time, and not all at once. */
export function delay(error, tries) {
  const wait = Math.max(error.later, 100 * 2 ** Math.min(tries, 10));
  return Math.max(error.later, Math.min(wait, LONGEST_WAIT) * (0.75 + Math.random() / 2));
}

export function sleep(ms, signal) {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      failed(signal.reason);
    });
  });
}

async function request(path, { post, headers, signal }) {
  const all = new Headers(headers);
  if (key) all.set("authorization", `Bearer ${key}`);
  if (post) all.set("content-type", "application/json");
  try {
    return await fetch(path, {
      method: post ? "POST" : "GET",
      headers: all,
      body: post && JSON.stringify(post),
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    // A key with other characters cannot be sent at all; that is the only header a person types.
    events.dispatchEvent(new Event("away"));
    throw new Trouble("The server does not answer.", { later: 500, away: true });
  }
}

async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The answer broke off.", { later: 500, away: true });
  }
}

const WORDS = {
  413: "This is more than the server takes in one request.",
  429: "The server is busy.",
  502: "What is before the server cannot reach it.",
  503: "The server is starting or stopping.",
  504: "The server did not finish in time.",
};

/** With a capital letter, and an end. */
export const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

const LATER = [429, 502, 503, 504];

async function trouble(response) {
  const { status, headers } = response;
  const said = await response.json().then(
    (body) => body.error?.message,
    () => undefined,
  );
  // A person sees which picture it is about.
  const about = said?.replace(/^input\[\d+\][\w.]*: /, "");
  const words = [WORDS[status], about && sentence(about)].filter(Boolean).join(" ") || `The server answered ${status}.`;
  if (!LATER.includes(status)) return new Trouble(words, { status });
  const later = Number(headers.get("retry-after-ms")) || Number(headers.get("retry-after")) * 1000 || 500;
  return new Trouble(words, { status, later });
}
