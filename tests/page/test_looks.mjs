// How each view looks at three widths, in light and in dark, to be looked at under target/page; what axe-core says of
// it; and whether it is of use without a mouse.

import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";

import { WIDTHS, best, browser, look, open, says, visit } from "./browser.mjs";
import { Server, fixture } from "./server.mjs";

let server;

before(async () => (server = await Server.start()));
after(async () => {
  await browser.close();
  await server.stop();
});

for (const width of Object.keys(WIDTHS).map(Number)) {
  for (const colorScheme of ["light", "dark"]) {
    test(`${width} pixels, ${colorScheme}`, async () => {
      await visit(
        server.url,
        async (page) => {
          await says(page, "#state", "connected");
          await page.click('#samples button[aria-label="octopus"]');
          await best(page).filter({ hasText: "octopus" }).waitFor();
          await look(page, `classify-${width}-${colorScheme}`);
          await page.click("#request summary");
          await look(page, `request-${width}-${colorScheme}`);

          await open(page, "search");
          await look(page, `empty-${width}-${colorScheme}`);
          await page.click("#add-samples");
          const broken = fs.readFileSync(fixture("images/dog.png")).subarray(0, 2000);
          await page.setInputFiles("#add-files", { name: "broken.png", mimeType: "image/png", buffer: broken });
          await page.waitForFunction(() => document.querySelectorAll("#grid .done").length === 12);
          await page.fill("#query", "an emoji of an animal");
          await says(page, "#order", "Most like");
          await look(page, `search-${width}-${colorScheme}`);

          await open(page, "server");
          await page.waitForFunction(() => document.querySelector(".line.series-0")?.getAttribute("d").includes("L"));
          await look(page, `server-${width}-${colorScheme}`);
        },
        { width, colorScheme },
      );
    });
  }
}

test("all of it by keyboard", async () => {
  await visit(server.url, async (page) => {
    await says(page, "#state", "connected");
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to the content");
    await page.keyboard.press("Enter");
    // The first in the content is the picture's button; then come the samples.
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Choose a picture");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
    await best(page).filter({ hasText: "cat" }).waitFor();
    assert.equal(await page.getAttribute('#samples button[aria-label="cat"]', "aria-pressed"), "true");
    await page.focus("#labels");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("cat\nwolf");
    await page.waitForFunction(() => document.querySelectorAll("#result tbody tr").length === 2);
    await page.focus('nav a[href="#search"]');
    await page.keyboard.press("Enter");
    await page.locator("#search").waitFor({ state: "visible" });
    assert.equal(await page.getAttribute('nav a[href="#search"]', "aria-current"), "page");
  });
});
