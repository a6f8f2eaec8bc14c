// A headless Chromium with a profile of its own, and the chat page as a person uses it: by what is to be seen, by labels and by keys.

import assert from 'node:assert/strict';
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { chromium } from 'playwright-core';
import { account, PATIENCE_MS, url } from './node.mjs';

const PROGRAM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  ...['--disable-component-update', '--disable-sync'],
];
export const PICTURES = new URL('../../target/page/', import.meta.url).pathname;

let browser;
let profile;

/** Started before the first test, ended behind the last. */
export function withBrowser() {
  before(async () => {
    mkdirSync(PICTURES, { recursive: true });
    profile = mkdtempSync(join(tmpdir(), 'klatch-chromium-'));
    // Where its home cannot be written it would complain of that alone.
    const env = { ...process.env, HOME: profile, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile };
    browser = await chromium.launch({ executablePath: PROGRAM, args: FLAGS, env, headless: true });
  });
  after(async () => {
    await browser?.close();
    rmSync(profile, { recursive: true, force: true });
  });
}

/** A browser of its own, as far as the page can tell; `done` fails where the page complained. */
export async function person(options = {}) {
  const { at = url, loggedIn = true, ...context } = options;
  const own = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1180, height: 780 }, ...context });
  own.setDefaultTimeout(PATIENCE_MS);
  // Granted where the browser knows it; headless ones hold the clipboard of their own.
  await own.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: at });
  const page = await own.newPage();
  const chat = new Chat(page, own, at);
  await page.goto(`${at}/`);
  if (loggedIn) await chat.logIn();
  return chat;
}

export class Chat {
  constructor(page, context, at) {
    Object.assign(this, { page, context, at, complaints: [] });
    page.on('pageerror', (error) => this.complaints.push(`page: ${error.message}`));
    page.on('dialog', (dialog) => this.complaints.push(`dialog: ${dialog.message()}`) && dialog.dismiss());
    page.on('console', (line) => /Content Security Policy|Trusted/.test(line.text()) && this.complaints.push(line.text()));
  }

  async logIn(name = account.name, password = account.password) {
    const { page } = this;
    await page.getByLabel('Name', { exact: true }).fill(name);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Log in', exact: true }).click();
    await this.ready();
  }

  ready() {
    return this.page.locator('html[data-ready]').waitFor({ state: 'attached' });
  }

  get field() {
    return this.page.getByRole('textbox', { name: 'Message' });
  }

  async model(name) {
    await this.page.getByLabel('Model').selectOption(name);
  }

  async fresh() {
    await this.page.getByRole('button', { name: 'New conversation' }).click();
    await this.page.getByText('What is on your mind?').waitFor();
  }

  async say(text, model) {
    if (model) await this.model(model);
    await this.field.fill(text);
    await this.field.press('Enter');
  }

  /** Says it, and waits until it is answered. */
  async ask(text, model) {
    const before = await this.answers.count();
    await this.say(text, model);
    await this.answers.nth(before).waitFor();
    await this.idle();
  }

  get messages() {
    return this.page.locator('.message');
  }

  get answers() {
    return this.page.locator('.message.assistant');
  }

  get asked() {
    return this.page.locator('.message.user');
  }

  get writing() {
    return this.page.locator('.message.writing');
  }

  get entries() {
    return this.page.locator('#conversations a');
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true });
  }

  /** Nothing is being answered or sent. */
  async idle() {
    await this.page.waitForFunction(() => document.querySelector('#stop').hidden && !document.querySelector('.message.writing'));
  }

  /** An answer that has begun to say something. */
  async begun(answer = this.answers.last()) {
    const body = answer.locator('.body');
    await body.filter({ hasText: /\S/ }).waitFor();
    return body;
  }

  texts() {
    return this.page.locator('.message .body').allInnerTexts();
  }

  get conversation() {
    return new URL(this.page.url()).hash.slice(1);
  }

  picture(name) {
    return this.page.screenshot({ path: join(PICTURES, `${name}.png`), animations: 'disabled', caret: 'initial' });
  }

  async done() {
    await this.context.close();
    assert.deepEqual(this.complaints, []);
  }
}

export const vendored = (name) => readFileSync(new URL(`../../node/page/vendor/${name}`, import.meta.url), 'utf8');
