// Nothing that a person or a model writes becomes more than text and its layout; and what would, the browser refuses.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { nodes, opsUrl, url } from '../node.mjs';

const corpus = readFileSync(new URL('../xss.txt', import.meta.url), 'utf8').trim().split('\n');

/** What stands in the messages and has no business there. */
const intruders = (page) =>
  page.evaluate(() => {
    const own = new Set('LI H2 DIV P BUTTON UL OL STRONG EM DEL CODE PRE BLOCKQUOTE A BR HR SPAN H1 H3 H4 H5 H6 TABLE THEAD TBODY TR TH TD'.split(' '));
    const attributes = new Set('class hidden href title target rel start align tabindex role aria-label aria-busy type'.split(' '));
    const found = [];
    for (const node of document.querySelectorAll('#thread *')) {
      if (!own.has(node.nodeName)) found.push(node.outerHTML);
      for (const { name, value } of node.attributes) {
        if (!attributes.has(name)) found.push(`${name}=${value}`);
        if (name === 'href' && !/^(https?|mailto):/.test(value)) found.push(value);
      }
    }
    return found;
  });

test('each of the corpus, said by a person and by a model, is text', async () => {
  const chat = await person();
  await chat.page.evaluate(() => addEventListener('securitypolicyviolation', (event) => (window.hit = event.violatedDirective)));
  for (const [n, text] of corpus.entries()) {
    await chat.say(text, 'echo');
    await chat.asked.nth(n).waitFor();
  }
  await chat.page.waitForFunction((count) => document.querySelectorAll('.message.assistant').length === count, corpus.length);
  await chat.idle();
  assert.deepEqual(await chat.asked.locator('.body').allTextContents(), corpus);
  const look = async (when) => {
    assert.deepEqual(await intruders(chat.page), [], when);
    assert.equal(await chat.page.evaluate(() => window.hit), undefined, when);
  };
  await look('as it was streamed');
  await chat.page.reload();
  await chat.ready();
  await chat.page.waitForFunction((count) => document.querySelectorAll('.message').length >= count, 60);
  await look('as it was read again');
  await chat.done();
});

test('one text with all of the corpus, as a title too, is text', async () => {
  const chat = await person();
  await chat.ask(corpus.join('\n\n'), 'echo');
  assert.deepEqual(await intruders(chat.page), []);
  await chat.page.getByRole('button', { name: /^Rename/ }).first().click();
  await chat.page.getByLabel('Title', { exact: true }).fill('<img src=x onerror=window.hit=1>');
  await chat.page.keyboard.press('Enter');
  await chat.page.getByRole('heading', { level: 1, name: '<img src=x' }).waitFor();
  assert.equal(await chat.page.locator('#conversations img').count(), 0);
  assert.equal(await chat.page.evaluate(() => window.hit), undefined);
  await chat.done();
});

test('if it were more than text after all, the browser would not run it', async () => {
  const chat = await person();
  const refused = await chat.page.evaluate(async () => {
    const violated = [];
    addEventListener('securitypolicyviolation', (event) => violated.push(event.effectiveDirective));
    const script = document.createElement('script');
    try {
      script.text = 'window.hit = 1';
    } catch {
      violated.push('trusted script');
    }
    try {
      document.body.innerHTML = '<img src=x onerror="window.hit=1">';
    } catch {
      violated.push('trusted html');
    }
    const seen = new Promise((done) => {
      addEventListener('securitypolicyviolation', (event) => event.effectiveDirective === 'connect-src' && done());
    });
    await fetch('https://example.com/').catch(() => {});
    await seen;
    return violated;
  });
  assert.equal(await chat.page.evaluate(() => window.hit), undefined);
  for (const wall of ['trusted script', 'trusted html', 'connect-src']) assert.ok(refused.includes(wall), `${wall}: ${refused}`);
  await chat.context.close();
});

test('both pages and all their files have the policy, their types, and a tag by which they are asked for again', async () => {
  for (const [at, file] of [[nodes[0].url, 'chat/main.js'], [opsUrl, 'operators/main.js'], [url, 'vendor/purify.es.mjs']]) {
    for (const path of ['/', `/page/${file}`]) {
      const { headers, status } = await fetch(at + path);
      assert.equal(status, 200);
      assert.match(headers.get('content-security-policy'), /default-src 'none'/);
      assert.equal(headers.get('cache-control'), 'no-cache');
      assert.match(headers.get('content-type'), path === '/' ? /^text\/html/ : /^text\/javascript/);
      // The proxy squeezes them, and the tag is known all the same.
      if (at.startsWith('https')) assert.equal(headers.get('content-encoding'), 'gzip');
      const again = await fetch(at + path, { headers: { 'if-none-match': headers.get('etag') } });
      assert.equal(again.status, 304);
    }
  }
});
