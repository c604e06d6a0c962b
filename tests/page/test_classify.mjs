// One picture against labels.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { best, browser, says, visit } from "./browser.mjs";
import { Server, fixture, folder } from "./server.mjs";

let server;

before(async () => {
  const classifiers = path.join(folder, "classifiers");
  fs.mkdirSync(classifiers, { recursive: true });
  const animals = 'labels = ["dog", "cat", "owl"]\ntemplates = ["an emoji of {}"]\n';
  fs.writeFileSync(path.join(classifiers, "animals.toml"), animals);
  server = await Server.start([`--classifiers=${classifiers}`]);
});
after(async () => {
  await browser.close();
  await server.stop();
});

test("a sample, a file, other labels and a classifier of the server", async () => {
  await visit(server.url, async (page) => {
    // There is something to see at once.
    await best(page).filter({ hasText: "dog" }).waitFor();
    await page.click('#samples button[aria-label="pizza"]');
    await best(page).filter({ hasText: "pizza" }).waitFor();
    await page.setInputFiles("#choose-file", fixture("images/dog.png"));
    await best(page).filter({ hasText: "dog" }).waitFor();
    assert.match(await page.textContent("#result tbody tr:first-child td"), /^(99|100)\./);
    assert.match(await page.textContent("#timing"), /inference .* in all/);
    await page.fill("#labels", "pizza, hot dog\npizza");
    await page.locator("#result tbody tr").nth(1).waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 2);
    await page.fill("#template", "no place for the label");
    await says(page, "#result-state", "The template needs {}");
    await page.selectOption("#classifier", "animals");
    await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 3);
    assert.equal(await best(page).textContent(), "dog");
    const { classifier_id, labels } = page.calls.at(-1).postDataJSON();
    assert.deepEqual([classifier_id, labels], ["animals", undefined]);
  });
});

test("a picture is pasted, and dropped", async () => {
  await visit(server.url, async (page) => {
    await best(page).filter({ hasText: "dog" }).waitFor();
    for (const [event, name] of [
      ["paste", "cat"],
      ["drop", "car"],
    ]) {
      const content = fs.readFileSync(fixture(`images/${name}.png`)).toString("base64");
      await page.evaluate(
        ([event, name, content]) => {
          const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
          const carried = new DataTransfer();
          carried.items.add(new File([bytes], `${name}.png`, { type: "image/png" }));
          const made =
            event === "paste"
              ? new ClipboardEvent(event, { clipboardData: carried })
              : new DragEvent(event, { dataTransfer: carried });
          window.dispatchEvent(made);
        },
        [event, name, content],
      );
      await best(page).filter({ hasText: name }).waitFor();
    }
  });
});

test("a thousand edits are few requests", async () => {
  await visit(server.url, async (page) => {
    await page.click('#samples button[aria-label="owl"]');
    await best(page).filter({ hasText: "owl" }).waitFor();
    const before = page.calls.length;
    await page.evaluate(() => {
      const labels = document.getElementById("labels");
      for (let edit = 0; edit < 1000; edit++) {
        labels.value = `owl, car, edit ${edit}`;
        labels.dispatchEvent(new Event("input"));
      }
    });
    await says(page, "#result", "edit 999");
    assert.equal(page.calls.length - before, 1);
    // A template asks at once, and what was asked before is given up.
    const held = [];
    await page.route("**/v1/classify", (route) => held.push(route));
    const givenUp = page.waitForEvent("requestfailed");
    for (const template of ["a photo of a {}.", "{}"]) {
      const asked = page.waitForRequest("**/v1/classify");
      await page.click(`#templates button:text-is("${template}")`);
      await asked;
    }
    const request = await givenUp;
    assert.equal(request.failure().errorText, "net::ERR_ABORTED");
    assert.deepEqual(request.postDataJSON().templates, ["a photo of a {}."]);
    await page.fill("#labels", "owl");
    await page.unroute("**/v1/classify");
    await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 1);
  });
});

test("what is wrong with a picture is said", async () => {
  await visit(
    server.url,
    async (page) => {
      const broken = fs.readFileSync(fixture("images/dog.png")).subarray(0, 2000);
      await page.setInputFiles("#choose-file", { name: "broken.png", mimeType: "image/png", buffer: broken });
      await page.locator("#result-state.trouble").waitFor();
      assert.doesNotMatch(await page.textContent("#result-state"), /input\[|undefined|^$/);
      assert.ok(await page.isHidden("#result"));
      await page.setInputFiles("#choose-file", fixture("images/apple.png"));
      await best(page).filter({ hasText: "apple" }).waitFor();
      assert.equal(await page.locator("#result-state.trouble").count(), 0);
    },
    { allowed: ["status of 400"] },
  );
});

test("what the server would see otherwise than the page shows it is drawn anew", async () => {
  await visit(server.url, async (page) => {
    const sent = async (name) => {
      await page.setInputFiles("#choose-file", fixture(`parity/pictures/${name}`));
      await says(page, "#invite", name);
      await page.locator('#result[aria-busy="false"]').waitFor();
      const { input } = page.calls.at(-1).postDataJSON();
      return [Buffer.from(input[0].image, "base64"), await page.textContent("#picture-note")];
    };
    const [plain, nothing] = await sent("rgb.png");
    assert.deepEqual(plain, fs.readFileSync(fixture("parity/pictures/rgb.png")));
    assert.equal(nothing, "");
    const [opaque, laid] = await sent("alpha.png");
    assert.match(laid, /laid on white/);
    // The colour type of a PNG: RGB without alpha, or at least nothing that shows.
    assert.ok(opaque[25] === 2 || opaque[25] === 6);
    assert.notDeepEqual(opaque, fs.readFileSync(fixture("parity/pictures/alpha.png")));
    const [, turned] = await sent("444-exif.jpg");
    assert.match(turned, /EXIF/);
  });
});

test("nothing that is typed or named becomes a part of the page", async () => {
  await visit(server.url, async (page) => {
    const label = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    await page.fill("#labels", `${label}\ndog`);
    const name = "<b>bold<b>.png";
    await page.setInputFiles("#choose-file", {
      name,
      mimeType: "image/png",
      buffer: fs.readFileSync(fixture("images/dog.png")),
    });
    await says(page, "#invite", name);
    await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 2);
    assert.ok((await page.locator("#result .name").allTextContents()).includes(label));
    assert.equal(await page.locator("#result img, #result script, #invite b").count(), 0);
  });
});

test("the request can be copied, and gives the same answer elsewhere", async () => {
  await visit(server.url, async (page) => {
    const dog = fixture("images/dog.png");
    // Nothing in a label is a command.
    await page.fill("#labels", 'dog\n$(touch broken) `touch broken` "quoted" \\ it\'s\nпес');
    await page.setInputFiles("#choose-file", dog);
    await says(page, "#invite", "dog.png");
    await page.locator('#result[aria-busy="false"]').waitFor();
    const shown = await page.locator("#result tbody td:last-child").allTextContents();
    await page.click("#request summary");
    const place = fs.mkdtempSync(path.join(folder, "copied-"));
    fs.copyFileSync(dog, path.join(place, "dog.png"));
    const home = path.resolve("node_modules/.bin");
    const env = { ...process.env, PATH: `${home}:${process.env.PATH}` };
    const run = (program, ...rest) => execFileSync(program, rest, { cwd: place, encoding: "utf8", env });
    const copied = async (language) => {
      await page.click(`[data-language="${language}"]`);
      return page.textContent("#snippet");
    };
    const labels = ["dog", '$(touch broken) `touch broken` "quoted" \\ it\'s', "пес"];
    const same = (predictions) => {
      assert.deepEqual(
        predictions.map(({ similarity }) => similarity.toFixed(3)),
        shown,
      );
      assert.deepEqual(predictions.map(({ label }) => label).sort(), [...labels].sort());
    };
    same(JSON.parse(run("bash", "-c", await copied("curl"))).data[0].predictions);
    const printed = run("python3", "-c", await copied("python"))
      .trim()
      .split("\n");
    assert.deepEqual(
      printed.map((line) => line.split(" ")[1]),
      shown,
    );
    const grpc = (await copied("grpc"))
      .replace("127.0.0.1:50051", server.grpc)
      .replace("npx --yes @bufbuild/buf", "buf");
    same(JSON.parse(run("bash", "-c", grpc)).results[0].predictions.predictions);
    assert.deepEqual(fs.readdirSync(place), ["dog.png"]);
  });
});
