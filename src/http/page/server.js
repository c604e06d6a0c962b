// What the server is, and what it does now: drawn from its totals, which are asked for each second.

import { Trouble, events, once } from "./api.js";
import { Columns, Lines } from "./charts.js";
import { $, bytes, el, many, percent, short, time, whole } from "./dom.js";
import { History, WINDOW, buckets, grown, grownBy, quantile, rate, total } from "./history.js";

/** Milliseconds between two looks, while somebody sees it and while another view is open. */
const OFTEN = 1000;
const SELDOM = 5000;
/** Seconds over which rates and latencies are taken. */
const SMOOTH = 5;
const MINUTE = 60;

const LINE = "Totals of all callers, taken each second while you look, for the last five minutes.";

const REQUESTS = "clip_requests_total";
const LATENCY = ["clip_request_duration_seconds_bucket", "clip_stream_input_duration_seconds_bucket"];
const REJECTIONS = "clip_rejections_total";
const ROWS = "clip_batch_rows_sum";
const SIZES = "clip_batch_rows_bucket";
const BATCHES = "clip_batches_total";
const QUEUE = "clip_queue_rows";
const WORKERS = "clip_workers";
const PREPARED = "clip_preprocess_queue_rows";

/** What a call ended with if it was answered, or was wrong by the client's own doing. */
const ANSWERED = [
  "OK",
  "INVALID_ARGUMENT",
  "OUT_OF_RANGE",
  "NOT_FOUND",
  "CANCELLED",
  "UNAUTHENTICATED",
  "UNIMPLEMENTED",
];

const CLOSED = {
  idle: "a worker was free",
  best_size: "as many as run best together",
  delay: "waited as long as it may",
  deadline: "just in time for a deadline",
  drain: "the server leaves",
};

const REFUSED = {
  concurrent_requests: "too many calls at a time",
  streams: "too many streams",
  bytes_in_flight: "too many bytes of requests",
  response_bytes_in_flight: "too many bytes of answers",
  queue_full: "the queue was full",
  deadline: "it would have been late",
  label_fills: "too many new label sets",
  stream_labels: "too many labels of streams",
  caller_requests: "a caller's rate",
  caller_rows: "a caller's rows",
  caller_concurrency: "a caller's calls at a time",
  caller_streams: "a caller's streams",
};

const history = new History();
let timer;

const calls = new Lines(
  "Calls a second",
  [
    { key: "answered", name: "answered" },
    { key: "failed", name: "failed" },
  ],
  short,
);
const latency = new Lines(
  "Latency",
  [
    { key: 0.5, name: "p50" },
    { key: 0.95, name: "p95" },
    { key: 0.99, name: "p99" },
  ],
  time,
  { log: true },
);
const modalities = [
  { key: "image", name: "pictures" },
  { key: "text", name: "texts" },
];
const rows = new Lines("Rows a second", modalities, short);
const queue = new Lines("Waiting", [...modalities, { key: "prepared", name: "in preprocessing" }], short);
const sizes = new Columns("Rows of a batch, last minute", modalities, (mean) =>
  mean > 0 ? `mean ${short(mean)}` : "–",
);
const closed = bars("Why they closed");
// Beside what is answered it would be lost, or the other way round.
const refused = new Lines("Refused a second", [{ key: "refused", name: "calls and inputs" }], short);
const reasons = bars("Why, last five minutes");

export function start() {
  queue.node.append(el("p", { id: "room", class: "note room" }));
  const cells = [[calls], [latency], [rows], [queue], [sizes, closed], [refused, reasons]];
  $("charts").append(...cells.map((cell) => el("div", { class: "panel" }, ...cell.map(({ node }) => node))));
  document.addEventListener("visibilitychange", look);
  events.addEventListener("key", look);
  look();
}

/** Looks now, and from then on. */
export async function look() {
  clearTimeout(timer);
  // What nobody sees is not asked for.
  if (document.hidden) return;
  try {
    const { json } = await once("page/live", { quiet: true });
    history.add(json);
    if (!$("server").hidden) show();
  } catch (error) {
    $("server-line").textContent = error instanceof Trouble ? error.message : String(error);
    // What comes back may be another one.
    if (error.away) history.forget();
    // It begins anew with a key, and until then would only be refused.
    if (error.status === 401) return;
  }
  clearTimeout(timer);
  timer = setTimeout(look, $("server").hidden ? SELDOM : OFTEN);
}

function values(pair) {
  const codes = new Set((pair[1].totals[REQUESTS] ?? []).map(({ code }) => code));
  const spent = { answered: 0, refused: 0, failed: 0 };
  for (const code of codes) {
    const kind = ANSWERED.includes(code) ? "answered" : code === "RESOURCE_EXHAUSTED" ? "refused" : "failed";
    spent[kind] += rate(pair, REQUESTS, { code });
  }
  // Inputs of streams among them, whose calls go on.
  spent.refused = Math.max(spent.refused, rate(pair, REJECTIONS));
  const counts = buckets(pair, LATENCY);
  return {
    calls: spent,
    latency: Object.fromEntries([0.5, 0.95, 0.99].map((share) => [share, quantile(share, counts)])),
    rows: { image: rate(pair, ROWS, { modality: "image" }), text: rate(pair, ROWS, { modality: "text" }) },
    queue: {
      image: total(pair[1], QUEUE, { modality: "image" }),
      text: total(pair[1], QUEUE, { modality: "text" }),
      prepared: total(pair[1], PREPARED),
    },
  };
}

function show() {
  const last = history.last();
  if (!last) return;
  const points = history.spans(SMOOTH).map((pair) => ({ ago: last.seconds - pair[1].seconds, values: values(pair) }));
  // It begins with a minute, so that there is something to see at once.
  const known = last.seconds - history.moments[0].seconds;
  const span = [MINUTE, 2 * MINUTE, WINDOW].find((each) => each >= known) ?? WINDOW;
  for (const [chart, key] of [
    [calls, "calls"],
    [refused, "calls"],
    [latency, "latency"],
    [rows, "rows"],
    [queue, "queue"],
  ]) {
    chart.update(
      points.map(({ ago, values }) => ({ ago, values: values[key] })),
      span,
    );
  }
  const minute = history.since(MINUTE);
  if (minute) {
    sizes.update(...batchSizes(minute));
    closed.update(grownBy(minute, BATCHES, "close_reason"), CLOSED, "No batch ran.");
  }
  const all = history.since(WINDOW);
  if (all) reasons.update(grownBy(all, REJECTIONS, "reason"), REFUSED, "Nothing was refused.");
  now(points.at(-1)?.values, last);
  const several = history.servers.size;
  const which = several > 1 ? ` ${whole(several)} servers answer here in turn: this is one of them.` : "";
  const leaving = total(last, "clip_draining") > 0 ? " It is leaving, and takes no new calls soon." : "";
  const version = last.totals.clip_build_info?.[0].version;
  $("server-line").textContent = `clipd ${version}. ${LINE}${which}${leaving}`;
}

function batchSizes(pair) {
  const by = Object.fromEntries(modalities.map(({ key }) => [key, buckets(pair, [SIZES], { modality: key })]));
  const used = Math.max(
    4,
    ...modalities.flatMap(({ key }) => by[key].map(([, count], place) => (count > 0 ? place : 0))),
  );
  const groups = by.image.slice(0, used + 1).map(([upper], place) => {
    const lower = (by.image[place - 1]?.[0] ?? 0) + 1;
    const name = upper === Infinity ? `${lower}+` : lower === upper ? `${upper}` : `${lower}–${upper}`;
    return { name, values: { image: by.image[place][1], text: by.text[place]?.[1] ?? 0 } };
  });
  const mean = (modality) => grown(pair, ROWS, { modality }) / grown(pair, "clip_batch_rows_count", { modality });
  return [groups, { image: mean("image"), text: mean("text") }];
}

/** The figures of this moment. */
function now(values, moment) {
  const facts = [
    ["Calls a second", short(values?.calls.answered ?? NaN)],
    ["Median latency", time(values?.latency[0.5] ?? NaN)],
    ["99 % within", time(values?.latency[0.99] ?? NaN)],
    ["Rows a second", short(values ? values.rows.image + values.rows.text : NaN)],
    ["Rows waiting", whole(total(moment, QUEUE))],
    ["Calls in flight", whole(total(moment, "clip_requests_in_flight"))],
    ["Refused a second", short(values?.calls.refused ?? NaN)],
    ["Workers ready", `${whole(total(moment, WORKERS, { state: "ready" }))} of ${whole(total(moment, WORKERS))}`],
  ];
  pairs($("now"), facts);
}

/** A table of counts by reason. */
function bars(title) {
  const id = title.replace(/\W+/g, "-").toLowerCase();
  const body = el("tbody");
  const none = el("p", { class: "note" });
  const head = el(
    "thead",
    { class: "hidden" },
    el("tr", {}, ...["Reason", "Share", "Count"].map((text) => el("th", { scope: "col" }, text))),
  );
  const table = el("table", { class: "bars", "aria-labelledby": id, hidden: true }, head, body);
  const node = el("div", { class: "reasons" }, el("h3", { id }, title), table, none);
  const update = (counts, words, nothing) => {
    const all = counts.reduce((sum, [, count]) => sum + count, 0);
    const sorted = [...counts].sort(([, a], [, b]) => b - a);
    const rows = sorted.map(([reason, count]) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.setProperty("--share", (count / all).toFixed(4));
      const name = el("span", { class: "name", title: reason }, words[reason] ?? reason);
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, name, bar),
        el("td", {}, percent(count / all)),
        el("td", {}, whole(count)),
      );
    });
    body.replaceChildren(...rows);
    table.hidden = rows.length === 0;
    none.textContent = rows.length === 0 ? nothing : "";
  };
  return { node, update };
}

/** What does not change: `model` as `/v1/models` has it. */
export function serve(model) {
  const { limits } = model;
  const [rows, calls] = [many(limits.queue_rows, "row"), many(limits.concurrent_requests, "call")];
  $("room").textContent = `There is room for ${rows} of each kind, and for ${calls} at a time.`;
  pairs($("model-facts"), [
    ["Model", model.id],
    ["Fingerprint", model.fingerprint],
    ["Device", model.device ?? "–"],
    ["Precision", model.precision ?? "–"],
    ["Engine", model.engine ?? "–"],
    ["Embedding", many(model.embedding_size, "number")],
    ["Pictures", `${model.image_width} × ${model.image_height} pixels`],
    ["Texts", many(model.context_length, "token")],
    ["Classifiers", model.classifiers.join(", ") || "none"],
  ]);
  pairs($("limit-facts"), [
    ["A request", `${bytes(limits.message_bytes)}, ${many(limits.inputs, "input")}`],
    ["An answer", bytes(limits.response_bytes)],
    ["A picture", `${bytes(limits.image_bytes)}, ${short(limits.image_pixels / 1e6)} megapixels`],
    ["A text", bytes(limits.text_bytes)],
    ["Labels", `${whole(limits.labels)}, with templates ${whole(limits.prompts)}`],
    ["Rows that wait", `${whole(limits.queue_rows)} of each kind`],
    ["Calls at a time", whole(limits.concurrent_requests)],
    ["Time of a call", time(limits.timeout_seconds)],
  ]);
}

function pairs(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
