// What the server did between two moments: the page's arithmetic, without a page.

import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

import { PAGE } from "./server.mjs";

const { History, buckets, grownBy, quantile, rate, total } = await import(pathToFileURL(path.join(PAGE, "history.js")));

const moment = (seconds, ok, started = 1) => ({
  started,
  seconds,
  totals: {
    calls: [
      { code: "OK", value: ok },
      { code: "INTERNAL", value: 2 },
    ],
    time_bucket: [
      { le: "0.1", value: ok / 2 },
      { le: "1", value: ok },
      { le: "+Inf", value: ok },
    ],
  },
});

test("rates and latencies are of what happened in between", () => {
  const history = new History();
  for (const [seconds, calls] of [
    [10, 100],
    [11, 110],
    [12, 130],
    [12, 130],
    [13, 130],
  ])
    history.add(moment(seconds, calls));
  assert.equal(history.moments.length, 4, "a moment that is given twice counts once");
  assert.equal(total(history.last(), "calls"), 132);
  const spans = history.spans(2);
  assert.deepEqual(
    spans.map(([from, to]) => [from.seconds, to.seconds]),
    [
      [10, 11],
      [10, 12],
      [11, 13],
    ],
  );
  assert.equal(rate(spans[1], "calls", { code: "OK" }), 15);
  assert.deepEqual(grownBy(spans[1], "calls", "code"), [["OK", 30]]);
  const counts = buckets(spans[1], ["time_bucket"]);
  assert.deepEqual(counts, [
    [0.1, 15],
    [1, 15],
    [Infinity, 0],
  ]);
  assert.equal(quantile(0.5, counts), 0.1);
  assert.equal(quantile(0.75, counts), 0.55);
  assert.ok(Number.isNaN(quantile(0.5, buckets([history.last(), history.last()], ["time_bucket"]))));
  assert.equal(
    quantile(0.99, [
      [1, 1],
      [Infinity, 9],
    ]),
    1,
    "the last bucket has no end",
  );
});

test("what is old is forgotten, and another server is not mixed in", () => {
  const history = new History();
  for (let second = 0; second <= 400; second++) history.add(moment(second, second));
  assert.equal(history.moments[0].seconds, 100);
  history.add(moment(5, 5, 2));
  history.add(moment(401, 401));
  assert.deepEqual([history.last().seconds, history.servers.size], [401, 2]);
  for (let second = 6; second < 18; second++) history.add(moment(second, second, 2));
  assert.deepEqual([history.last().started, history.moments.length], [2, 1], "the first one is gone");
});
