// Servers that are busy, locked, gone and back, and watched.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { absence, best, browser, look, open, refusals, says, visit } from "./browser.mjs";
import { MODEL, PAGE, PICTURES, Server, fixture, folder, key } from "./server.mjs";

let server;

before(async () => (server = await Server.start(["--max-concurrent-requests=1"])));
after(async () => {
  await browser.close();
  await server.stop();
});

test("an overloaded server is waited for", async () => {
  await visit(
    server.url,
    async (page) => {
      await best(page).waitFor();
      const release = await server.hold();
      await page.click('#samples button[aria-label="rocket"]');
      await says(page, "#result-state", /The server is busy.*Trying again\./);
      release();
      await best(page).filter({ hasText: "rocket" }).waitFor();
      assert.equal(await page.textContent("#result-state"), "");

      await open(page, "server");
      await says(page, "#charts", "too many calls at a time");
      await page.waitForFunction(() => document.querySelector(".line.series-0").getAttribute("d").includes("L"));
      assert.match(
        await page.getAttribute(".chart svg", "aria-label"),
        /^Calls a second, now: answered [\d.]+, failed/,
      );
      const facts = await page.textContent("#model-facts");
      for (const fact of ["emoji-clip", "fp32", "cpu", "onnxruntime", "64 × 64 pixels"])
        assert.ok(facts.includes(fact), fact);
      assert.ok((await page.textContent("#now")).includes("1 of 1"));
    },
    { allowed: refusals },
  );
});

test("a key is asked for, a wrong one is refused, and none is kept", async () => {
  const { file, secret } = key();
  const locked = await Server.start([`--api-keys=${file}`]);
  try {
    await visit(
      locked.url,
      async (page) => {
        await says(page, "#key-dialog", "This server asks for a key");
        await look(page, "key");
        await page.keyboard.press("Escape");
        await says(page, "#notice", "answers only those who have a key");
        await page.click("#key-button");
        for (const wrong of ["wrong", "clé"]) {
          await page.fill("#key", wrong);
          await page.keyboard.press("Enter");
          await says(page, "#key-trouble", /does not know this key|cannot be/);
        }
        await page.fill("#key", secret);
        await page.keyboard.press("Enter");
        await page.click('#samples button[aria-label="apple"]');
        await best(page).filter({ hasText: "apple" }).waitFor();
        assert.ok(await page.isHidden("#key-dialog"));
        await page.click("#request summary");
        await says(page, "#snippet", "$CLIPD_API_KEY");
        const place = fs.mkdtempSync(path.join(folder, "keyed-"));
        fs.copyFileSync(path.join(PAGE, "samples/apple.webp"), path.join(place, "apple.webp"));
        const env = {
          ...process.env,
          CLIPD_API_KEY: secret,
          PATH: `${path.resolve("node_modules/.bin")}:${process.env.PATH}`,
        };
        for (const [language, shell] of [
          ["curl", "bash"],
          ["python", "python3"],
          ["grpc", "bash"],
        ]) {
          await page.click(`[data-language="${language}"]`);
          const snippet = (await page.textContent("#snippet")).replace("127.0.0.1:50051", locked.grpc);
          const run = snippet.replace("npx --yes @bufbuild/buf", "buf");
          assert.match(execFileSync(shell, ["-c", run], { cwd: place, encoding: "utf8", env }), /apple/, language);
        }
        assert.ok(!(await page.content()).includes(secret));
        await open(page, "server");
        await page.waitForFunction(() => document.querySelector(".line.series-0")?.getAttribute("d").includes("L"));

        const kept = await page.evaluate(async () => [
          localStorage.length,
          sessionStorage.length,
          document.cookie,
          (await indexedDB.databases()).length,
          (await caches.keys()).length,
        ]);
        assert.deepEqual(kept, [0, 0, "", 0, 0]);
        await page.reload();
        await says(page, "#key-dialog", "This server asks for a key");
      },
      { allowed: refusals },
    );
  } finally {
    await locked.stop();
  }
});

test("a server goes away and comes back, with another model", async () => {
  // The embedded one, which resizes otherwise.
  const another = path.join(folder, "another");
  fs.cpSync(MODEL, another, { recursive: true });
  const config = path.join(another, "open_clip_config.json");
  fs.writeFileSync(config, fs.readFileSync(config, "utf8").replace('"bicubic"', '"bilinear"'));
  let mortal = await Server.start();
  try {
    await visit(
      mortal.url,
      async (page) => {
        await open(page, "search");
        const files = PICTURES.map((name) => fixture(`images/${name}.png`));
        const done = (count) =>
          page.waitForFunction((count) => document.querySelectorAll("#grid .done").length === count, count);
        await page.setInputFiles("#add-files", files);
        await done(8);
        await mortal.kill();
        await page.setInputFiles("#add-files", fixture("images/pizza.jpg"));
        await page.fill("#query", "an emoji of pizza");
        await says(page, "#notice", "The server does not answer");
        await says(page, "#state", "no answer");
        await look(page, "away");
        mortal = await Server.start([], mortal.address);
        await done(9);
        await says(page, "#order", "Most like “an emoji of pizza”: pizza");
        await says(page, "#state", "connected");
        assert.ok(!(await page.isVisible("#notice.shown")));

        const embeddings = () => page.calls.filter((call) => call.headers()["clip-class"] === "bulk").length;
        const before = embeddings();
        await mortal.kill();
        mortal = await Server.start([`--model=${another}`], mortal.address);
        await page.fill("#query", "another query");
        await says(page, "#order", "Most like “another query”");
        await done(9);
        await says(page, "#served", "another");
        assert.ok(embeddings() > before, "embeddings of two models do not mix");
      },
      { allowed: absence },
    );
  } finally {
    await mortal.kill();
  }
});

test("the page can be switched off, and says nothing of itself then", async () => {
  const without = await Server.start(["--no-page"]);
  try {
    for (const path of ["", "page/main.js", "page/live"]) {
      assert.equal((await fetch(without.url + path)).status, 404, path);
    }
  } finally {
    await without.stop();
  }
});

test("its files are small", () => {
  const all = fs.readdirSync(PAGE, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const served = all.filter(({ name }) => !name.endsWith(".md"));
  const total = served.reduce(
    (sum, { parentPath, path, name }) => sum + fs.statSync(`${parentPath ?? path}/${name}`).size,
    0,
  );
  assert.ok(total < 150_000, `${total} bytes`);
});
