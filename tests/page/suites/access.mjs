// For everyone: by keys alone, with a screen reader, on a phone, in the light and in the dark.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { api } from '../node.mjs';

const PHONE = { viewport: { width: 375, height: 720 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

const focused = (chat) => chat.page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.id);

test('all of it works by keys', async () => {
  const chat = await person();
  const { keyboard } = chat.page;
  assert.equal(await focused(chat), 'text', 'one can write at once');
  await keyboard.type('line one');
  await keyboard.press('Shift+Enter');
  await keyboard.type('line two');
  await chat.model('long');
  await chat.field.focus();
  await keyboard.press('Enter');
  await chat.begun();
  await keyboard.press('Escape');
  await chat.page.getByText('stopped here').waitFor();
  await chat.idle();
  assert.equal((await chat.texts())[0], 'line one\nline two');

  await chat.model('long');
  await chat.field.focus();
  await keyboard.type('more');
  await keyboard.press('Enter');
  await chat.begun(chat.answers.nth(1));
  await keyboard.type('now');
  await keyboard.press('Alt+Enter');
  await chat.page.getByText('interrupted').waitFor();
  await keyboard.press('Escape');
  await chat.idle();

  await keyboard.press('ArrowUp');
  assert.equal(await focused(chat), 'Edit your message');
  await keyboard.press('Escape');
  await keyboard.press('Control+k');
  assert.equal(await focused(chat), 'search');
  await keyboard.press('ArrowDown');
  assert.equal(await chat.page.evaluate(() => document.activeElement.closest('#conversations') !== null), true);
  await keyboard.press('Tab');
  assert.match(await focused(chat), /^Rename “/);
  await keyboard.press('Tab');
  assert.match(await focused(chat), /^Delete “/);
  await keyboard.press('Enter');
  await chat.page.getByRole('dialog', { name: 'Delete the conversation?' }).waitFor();
  await keyboard.press('Escape');
  assert.match(await focused(chat), /^Delete “/, 'the focus comes back');
  await keyboard.press('?');
  await chat.page.getByRole('dialog', { name: 'Keyboard shortcuts' }).waitFor();
  await keyboard.press('Escape');
  await keyboard.press('Control+Shift+O');
  await chat.page.getByText('What is on your mind?').waitFor();
  assert.equal(await focused(chat), 'text');
  await chat.done();
});

test('the order of the focus is that of the page, and the first stop skips to the field', async () => {
  const chat = await person();
  await chat.ask('hello', 'echo');
  await chat.page.evaluate(() => document.activeElement.blur());
  await chat.page.getByRole('link', { name: 'Skip to the message field' }).focus();
  await chat.page.keyboard.press('Enter');
  assert.equal(await focused(chat), 'text');
  const order = [];
  await chat.page.getByRole('link', { name: 'Skip to the message field' }).focus();
  while (order.at(-1) !== 'send' && order.length < 500) {
    await chat.page.keyboard.press('Tab');
    order.push(await focused(chat));
  }
  const places = ['new', 'search', 'Colours: as the system', 'log-out', 'text', 'model', 'send'].map((id) => order.indexOf(id));
  assert.ok(places.every((place, n) => place >= 0 && (n === 0 || place > places[n - 1])), order.join());
  await chat.done();
});

test('a screen reader is told roles, names, and the answer sentence by sentence', async () => {
  const chat = await person();
  await chat.page.evaluate(() => {
    window.told = [];
    const region = document.querySelector('#spoken');
    new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) => window.told.push(node.textContent)))).observe(region, { childList: true });
  });
  await chat.ask('First of all. Then more! And an end', 'echo');
  await chat.page.waitForFunction(() => window.told.join('').includes('an end'));
  const told = await chat.page.evaluate(() => window.told);
  assert.equal(told[0], 'Answering…');
  assert.equal(told.slice(1).join(''), 'First of all. Then more! And an end');
  assert.ok(told.length < 6, `not word by word: ${told}`);
  for (const [role, name] of [
    ['navigation', 'Conversations'],
    ['log', 'Messages'],
    ['form', 'Write a message'],
    ['textbox', 'Message'],
    ['combobox', 'Model'],
    ['searchbox', 'Search conversations by title'],
  ]) {
    assert.equal(await chat.page.getByRole(role, { name, exact: true }).count(), 1, `${role} ${name}`);
  }
  const nameless = await chat.page.evaluate(() =>
    [...document.querySelectorAll('button, a[href], input, textarea, select')]
      .filter((one) => !one.closest('dialog:not([open])'))
      .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
      .map((one) => one.outerHTML),
  );
  assert.deepEqual(nameless, []);
  assert.equal(await chat.page.locator('#conversations [aria-current=page]').count(), 1);
  await chat.done();
});

test('the colours have contrast, in the light and in the dark', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const chat = await person({ colorScheme });
    await chat.ask('some **words** and `code`', 'echo');
    const poor = await chat.page.evaluate(() => {
      const pixels = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const read = (colour) => {
        pixels.clearRect(0, 0, 1, 1);
        pixels.fillStyle = colour;
        pixels.fillRect(0, 0, 1, 1);
        return [...pixels.getImageData(0, 0, 1, 1).data];
      };
      const light = ([r, g, b]) => {
        const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
      };
      const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
          const colour = read(getComputedStyle(at).backgroundColor);
          if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
      };
      const found = [];
      for (const node of document.querySelectorAll('body *')) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.checkVisibility({ visibilityProperty: true })) continue;
        const [one, other] = [light(read(getComputedStyle(node).color)), light(behind(node))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) found.push(`${node.className || node.nodeName} ${contrast.toFixed(2)}`);
      }
      return [...new Set(found)];
    });
    assert.deepEqual(poor, [], colorScheme);
    await chat.done();
  }
});

test('the colours follow the system until the person says otherwise', async () => {
  const chat = await person({ colorScheme: 'dark' });
  const paper = () => chat.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await paper();
  await chat.page.getByRole('button', { name: 'Colours: as the system' }).click();
  const light = await paper();
  assert.notEqual(light, dark);
  await chat.page.reload();
  await chat.ready();
  assert.equal(await paper(), light);
  await chat.page.getByRole('button', { name: 'Colours: light' }).click();
  assert.equal(await paper(), dark);
  await chat.done();
});

test('it fits a phone, with the list behind a button', async () => {
  const chat = await person(PHONE);
  await chat.ask(`A ${'very '.repeat(30)}long sentence, and ${'x'.repeat(200)}\n\n\`\`\`\n${'code '.repeat(60)}\n\`\`\``, 'echo');
  const fits = () => chat.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
  assert.ok(await fits());
  assert.equal(await chat.entries.first().isVisible(), false);
  await chat.button('Conversations').click();
  await chat.entries.first().waitFor();
  assert.ok(await fits());
  assert.equal(await chat.button('Conversations').getAttribute('aria-expanded'), 'true');
  await chat.entries.nth(1).click();
  await chat.page.waitForFunction(() => !document.querySelector('#app').classList.contains('with-sidebar'));
  for (const name of ['Send', 'Conversations']) {
    const box = await chat.button(name).boundingBox();
    assert.ok(box.height >= 32 && box.x >= 0 && box.x + box.width <= 375, `${name} ${JSON.stringify(box)}`);
  }
  await chat.done();
});

const QUESTION = 'How do I read a stream again where it broke?';
const ANSWER = `Keep the **sequence number** of the last event, and ask for what comes behind it:

\`\`\`python
for event in client.responses.retrieve(
    response.id, stream=True, starting_after=last
):
    print(event.type)
\`\`\`

| the stream | what comes |
|---|---|
| goes on | the rest, as it is made |
| has ended | the rest, at once |

The numbers never change, *on any node*, so nothing is shown twice.`;

test('pictures', async () => {
  const items = (...said) => said.map(([role, text]) => ({ role, content: text }));
  const titles = ['Words for a toast', 'Why bread rises', 'A name for a cat', 'Notes on the night train', 'Streams, read again'];
  const chat = await person({ colorScheme: 'light' });
  for (const title of titles) await api('POST', '/v1/conversations', { metadata: { title } });
  const { data } = (await api('GET', '/v1/conversations?limit=1')).body;
  await api('POST', `/v1/conversations/${data[0].id}/items`, { items: items(['user', QUESTION], ['assistant', ANSWER]) });
  for (const [name, options] of [['light', { colorScheme: 'light' }], ['dark', { colorScheme: 'dark' }], ['phone', { colorScheme: 'light', ...PHONE }]]) {
    const shown = await person(options);
    await shown.page.goto(`${shown.at}/#${data[0].id}`);
    await shown.answers.first().waitFor();
    if (name === 'dark') {
      await shown.say('And if the node dies in the middle of it?', 'long');
      await shown.begun(shown.answers.nth(1));
    }
    await shown.picture(name);
    if (name === 'dark') {
      await shown.button('Stop').click();
      await shown.idle();
    }
    await shown.done();
  }
  await chat.button('Log out').click();
  await chat.page.getByLabel('Password').waitFor();
  await chat.picture('login');
  await chat.done();
});
