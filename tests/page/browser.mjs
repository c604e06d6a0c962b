// A browser, and pages in it that may do nothing which the page must not: whatever a test is about, no request leaves
// for elsewhere, no policy is violated, and no script fails.

import assert from "node:assert/strict";

import axe from "axe-core";
import { chromium } from "playwright-core";

export const WIDTHS = { 360: 740, 1280: 860, 2560: 1300 };

export const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // Chromium's own sandbox does not work for root.
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});

/** Gives `use` a page at `url`, with the calls that it makes as `page.calls`, and checks it afterwards. */
export async function visit(url, use, { width = 1280, colorScheme = "light", allowed = [] } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: WIDTHS[width] },
    colorScheme,
    reducedMotion: "reduce",
    // The narrow one is a phone.
    isMobile: width < 500,
    hasTouch: width < 500,
  });
  const page = await context.newPage();
  const [elsewhere, wrong] = [[], []];
  page.calls = [];
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith(`blob:${url}`)) elsewhere.push(request.url());
    if (request.method() === "POST") page.calls.push(request);
  });
  page.on("pageerror", (error) => wrong.push(error.stack));
  page.on("console", (message) => {
    const text = message.text();
    if (message.type() === "error" && !allowed.some((each) => text.includes(each))) wrong.push(text);
  });
  try {
    await page.goto(url);
    // Until it knows what is served, or asks for a key.
    await page.locator("#samples li, dialog[open]").first().waitFor();
    await use(page);
    assert.deepEqual(elsewhere, []);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** What the server says to a busy or unknown client is in the console of the browser too. */
export const refusals = ["status of 401", "status of 429", "status of 503"];
export const absence = [
  "ERR_CONNECTION_REFUSED",
  "ERR_CONNECTION_RESET",
  "ERR_EMPTY_RESPONSE",
  "ERR_SOCKET_NOT_CONNECTED",
];

export async function open(page, view) {
  await page.click(`nav a[href="#${view}"]`);
  await page.locator(`#${view}`).waitFor({ state: "visible" });
}

/**
 * Takes a picture of what is to be seen, for those who look at it under target/page/looks, and checks what a program can
 * check: axe-core finds no serious violation, nothing is wider than the window, and nothing moves.
 */
export async function look(page, name) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  const found = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(found, [], name);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${name} is ${wide} pixels wider than the window`);
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0, `${name} moves`);
  await page.screenshot({ path: `looks/${name}.png` });
}

/** Waits until the text of an element is as `pattern` says. */
export const says = (page, selector, pattern) =>
  page.locator(selector).filter({ hasText: pattern }).waitFor({ state: "visible" });

export const best = (page) => page.locator("#result tbody tr:first-child .name");
