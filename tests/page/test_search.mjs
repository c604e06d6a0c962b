// Many pictures, in the order of their similarity to a query.

import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";

import { best, browser, open, refusals, says, visit } from "./browser.mjs";
import { PICTURES, Server, fixture } from "./server.mjs";

let server;

before(async () => (server = await Server.start()));
after(async () => {
  await browser.close();
  await server.stop();
});

/** So many files, each picture again and again. */
function files(count) {
  return Array.from({ length: count }, (_, index) => {
    const name = PICTURES[index % PICTURES.length];
    return {
      name: `${name}-${index}.png`,
      mimeType: "image/png",
      buffer: fs.readFileSync(fixture(`images/${name}.png`)),
    };
  });
}

const done = (page, count) =>
  page.waitForFunction((count) => document.querySelectorAll("#grid .done").length === count, count, {
    timeout: 120_000,
  });

const embeddings = (page) => page.calls.filter((call) => call.url().endsWith("/v1/embeddings"));

const first = (page) => page.locator("#grid li:first-child .name");

test("hundreds of pictures, one of them broken, then queries", async () => {
  await visit(server.url, async (page) => {
    await open(page, "search");
    let [now, most] = [0, 0];
    const counted = (step) => (request) => {
      if (!request.url().endsWith("/v1/embeddings")) return;
      now += step;
      most = Math.max(most, now);
    };
    page.on("request", counted(1));
    page.on("requestfinished", counted(-1));
    const broken = {
      name: "broken.png",
      mimeType: "image/png",
      buffer: Buffer.from("\x89PNG\r\n\x1a\nno more", "latin1"),
    };
    const all = files(300);
    all.splice(100, 0, broken, { name: "words.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
    await page.setInputFiles("#add-files", all);
    await done(page, 300);
    assert.equal(await page.locator("#grid .failed").count(), 2);
    for (const words of await page.locator("#grid .failed .trouble").allTextContents()) assert.match(words, /\w+.*\.$/);
    await says(page, "#progress-text", "300 of 302 pictures embedded, 2 not.");
    assert.ok(most <= 2, `${most} calls at a time`);
    const uploads = embeddings(page).length;
    assert.ok(uploads >= 300 / 16 && uploads <= 60, `${uploads} calls`);
    for (const call of embeddings(page)) {
      assert.equal(call.headers()["clip-class"], "bulk");
      assert.ok(call.postDataJSON().input.length <= 16);
    }

    await page.fill("#query", "an emoji of guitar");
    await first(page).filter({ hasText: "guitar" }).waitFor();
    await says(page, "#order", "Most like “an emoji of guitar”");
    assert.match(await page.textContent("#grid li:first-child .number"), /^0\.[5-9]/);
    assert.equal(embeddings(page).length, uploads + 1, "a query is one call");
    assert.deepEqual(page.calls.at(-1).postDataJSON().input, [{ text: "an emoji of guitar" }]);
    const order = await page.locator("#grid .number").allTextContents();
    const numbers = order.filter(Boolean).map(Number);
    assert.equal(numbers.length, 300);
    assert.deepEqual(
      numbers,
      [...numbers].sort((a, b) => b - a),
    );

    await page.setInputFiles("#query-file", fixture("images/car.png"));
    await first(page).filter({ hasText: "car" }).waitFor();
    assert.equal(await page.textContent("#grid li:first-child .number"), "1.000");
    assert.equal(embeddings(page).length, uploads + 2);

    const cat = page.locator('#grid button[aria-label^="Find what is like cat"]').first();
    await cat.focus();
    await page.keyboard.press("Enter");
    await first(page).filter({ hasText: "cat" }).waitFor();
    assert.equal(embeddings(page).length, uploads + 2, "what is here already needs no call");
    assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /like cat/);

    await page.click("#clear");
    assert.equal(await page.locator("#grid li").count(), 0);
    assert.ok(await page.isVisible("#empty"));
  });
});

test("every format that the server reads", async () => {
  await visit(server.url, async (page) => {
    await open(page, "search");
    const names = fs.readdirSync(fixture("parity/pictures"));
    await page.setInputFiles(
      "#add-files",
      names.map((name) => fixture(`parity/pictures/${name}`)),
    );
    await page.waitForFunction(
      () => document.querySelector("#stop").hidden && !document.querySelector("#empty:not([hidden])"),
    );
    assert.equal(await page.locator("#grid .done").count(), names.length, await page.textContent("#grid"));
  });
});

test("a limit of calls is kept to", async () => {
  const slow = await Server.start(["--peer-limits=requests_per_second = 10, burst = 1"]);
  try {
    await visit(
      slow.url,
      async (page) => {
        await open(page, "search");
        const answers = [];
        page.on("response", (response) => response.url().endsWith("/v1/embeddings") && answers.push(response.status()));
        await page.setInputFiles("#add-files", files(80));
        await done(page, 80);
        assert.ok(answers.includes(429), "the limit was met");
        assert.ok(answers.filter((status) => status === 429).length <= answers.length / 2, `${answers}`);
        assert.equal(await page.locator("#grid .failed").count(), 0);
      },
      { allowed: refusals },
    );
  } finally {
    await slow.stop();
  }
});

test("it is stopped, and goes on", async () => {
  const one = await Server.start(["--max-concurrent-requests=1"]);
  try {
    await visit(
      one.url,
      async (page) => {
        await best(page).waitFor();
        await open(page, "search");
        const release = await one.hold();
        await page.setInputFiles("#add-files", files(40));
        await says(page, "#progress-text", /The server is busy.*Going on/);
        await page.click("#stop");
        await page.waitForFunction(() => document.querySelectorAll("#grid .failed").length === 40);
        release();
        await page.click("#again");
        await done(page, 40);
      },
      { allowed: refusals },
    );
  } finally {
    await one.stop();
  }
});
