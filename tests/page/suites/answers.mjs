// Answers: as they come, as Markdown, stopped, queued, interrupted, written anew; and what went wrong, in words.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { api } from '../node.mjs';

const MARKDOWN = `# A title

Some *emphasis*, **weight**, ~~regret~~ and \`code\`, and https://example.com/.

1. one
2. two

- [x] done

> said

| a | b |
|---|--:|
| 1 | 2 |

\`\`\`rust
fn main() { println!("<b>"); }
\`\`\``;

test('an answer comes word by word, as Markdown, and can be copied whole or in its code', async () => {
  const chat = await person();
  await chat.say('one two three four five', 'slow');
  const body = await chat.begun();
  const early = (await body.innerText()).length;
  await chat.page.waitForFunction((so) => document.querySelector('.assistant .body').innerText.length > so, early);
  assert.ok(await chat.writing.isVisible());
  await chat.idle();

  await chat.ask(MARKDOWN, 'echo');
  const answer = chat.answers.nth(1);
  for (const [selector, text] of [
    ['h1', 'A title'],
    ['em', 'emphasis'],
    ['strong', 'weight'],
    ['del', 'regret'],
    ['ol > li:nth-child(2)', 'two'],
    ['blockquote', 'said'],
    ['td[align=right]', '2'],
    ['pre code.language-rust', 'fn main() { println!("<b>"); }'],
    ['a[href="https://example.com/"][rel~=noopener]', 'https://example.com/'],
  ]) {
    assert.equal((await answer.locator(`.body ${selector}`).innerText()).trim(), text, selector);
  }
  assert.match(await answer.locator('.body').innerText(), /☑ done/);
  await answer.getByRole('button', { name: 'Copy code' }).click();
  await answer.getByRole('button', { name: 'Copied' }).waitFor();
  const pasted = () => chat.page.evaluate(() => navigator.clipboard.readText());
  assert.equal((await pasted()).trim(), 'fn main() { println!("<b>"); }');
  await answer.getByRole('button', { name: 'Copy', exact: true }).click();
  await chat.page.waitForFunction(async () => (await navigator.clipboard.readText()).startsWith('# A title'));
  assert.equal((await pasted()).trim(), MARKDOWN);
  await chat.done();
});

test('Stop stops at the service, and what was said stays', async () => {
  const chat = await person();
  await chat.say('never ending', 'long');
  await chat.begun();
  const [open] = (await api('GET', `/v1/conversations/${chat.conversation}/responses`)).body.data;
  assert.equal(open.status, 'in_progress');
  await chat.button('Stop').click();
  await chat.idle();
  await chat.page.getByText('stopped here').waitFor();
  assert.equal((await api('GET', `/v1/responses/${open.id}`)).body.status, 'cancelled');
  const { data } = (await api('GET', `/v1/conversations/${chat.conversation}/items`)).body;
  assert.equal((await chat.answers.innerText()).includes(data[0].content[0].text.trim()), true);
  assert.deepEqual((await api('GET', `/v1/conversations/${chat.conversation}/responses`)).body.data, []);
  await chat.done();
});

test('what is said while an answer is written waits for it, and is seen to wait', async () => {
  const chat = await person();
  await chat.say('first', 'long');
  await chat.begun();
  assert.ok(await chat.button('Queue').isVisible());
  await chat.say('second', 'echo');
  await chat.page.getByText('waits for its turn').waitFor();
  assert.equal(await chat.answers.count(), 1);
  await chat.say('never mind', 'echo');
  await chat.asked.filter({ hasText: 'never mind' }).getByRole('button', { name: 'Do not send' }).click();
  await chat.page.getByText('not answered: it was stopped').waitFor();
  await chat.answers.nth(1).waitFor();
  await chat.idle();
  const items = (await api('GET', `/v1/conversations/${chat.conversation}/items?order=asc`)).body.data;
  const said = items.map((item) => item.content[0].text.trim());
  assert.deepEqual([said[0], said[2], said[3], said.length], ['first', 'second', 'second', 4]);
  await chat.done();
});

test('what interrupts an answer is answered at once, and the text so far stays', async () => {
  const chat = await person();
  await chat.say('on and on', 'long');
  await chat.begun();
  await chat.model('echo');
  await chat.field.fill('enough');
  await chat.button('Interrupt').click();
  await chat.page.getByText('interrupted', { exact: false }).first().waitFor();
  await chat.answers.nth(1).filter({ hasText: 'enough' }).waitFor();
  await chat.idle();
  const items = (await api('GET', `/v1/conversations/${chat.conversation}/items?order=asc`)).body.data;
  assert.deepEqual(items.map((item) => item.status), ['completed', 'incomplete', 'completed', 'completed']);
  assert.equal((await chat.texts()).length, 4);
  await chat.done();
});

test('an earlier message is written anew in a copy, and the original stays', async () => {
  const chat = await person();
  await chat.ask('one', 'echo');
  await chat.ask('two');
  await chat.ask('three');
  const original = chat.conversation;
  await chat.asked.nth(1).hover();
  await chat.asked.nth(1).getByRole('button', { name: 'Edit' }).click();
  const field = chat.page.getByLabel('Edit your message');
  assert.equal(await field.inputValue(), 'two');
  await field.fill('another two');
  await field.press('Enter');
  await chat.answers.nth(1).filter({ hasText: 'another two' }).waitFor();
  await chat.idle();
  assert.notEqual(chat.conversation, original);
  assert.deepEqual(await chat.texts(), ['one', 'one', 'another two', 'another two']);
  const { metadata } = (await api('GET', `/v1/conversations/${chat.conversation}`)).body;
  assert.deepEqual(metadata, { title: 'one', branch_of: original });
  await chat.page.getByRole('link', { name: 'from an earlier one' }).click();
  await chat.asked.filter({ hasText: 'three' }).waitFor();
  assert.deepEqual(await chat.texts(), ['one', 'one', 'two', 'two', 'three', 'three']);

  // The very first has nothing before it.
  await chat.asked.nth(0).hover();
  await chat.asked.nth(0).getByRole('button', { name: 'Edit' }).click();
  await chat.page.getByLabel('Edit your message').fill('zero');
  await chat.page.getByLabel('Edit your message').press('Enter');
  await chat.answers.filter({ hasText: 'zero' }).waitFor();
  assert.deepEqual(await chat.texts(), ['zero', 'zero']);
  await chat.done();
});

test('an answer is made anew by another model', async () => {
  const chat = await person();
  await chat.ask('How do you do?', 'echo');
  const original = chat.conversation;
  await chat.model('eliza');
  await chat.button('Answer anew').click();
  await chat.page.waitForFunction((id) => location.hash.length > 1 && location.hash !== `#${id}`, original);
  await chat.answers.first().waitFor();
  await chat.idle();
  const [asked, answer] = await chat.texts();
  assert.equal(asked, 'How do you do?');
  assert.notEqual(answer, 'How do you do?');
  await chat.done();
});

test('an answer that failed says so, and can be tried again', async () => {
  const chat = await person();
  await chat.say('please', 'failing');
  await chat.page.getByText(/^No answer:/).waitFor();
  await chat.model('echo');
  await chat.button('Try again').click();
  await chat.answers.filter({ hasText: 'please' }).waitFor();
  await chat.idle();
  assert.deepEqual(await chat.texts(), ['please', 'please']);
  await chat.done();
});

test('a refusal is told in words, with the request, and a pause of the service is waited for', async () => {
  const chat = await person();
  const answer = (status, error, headers = {}) => (route) =>
    route.fulfill({ status, headers: { 'x-request-id': 'req_seen', ...headers }, contentType: 'application/json', body: JSON.stringify({ error }) });
  await chat.page.route('**/v1/responses', answer(413, { message: 'too large', code: 'body_too_large' }));
  await chat.say('something', 'echo');
  await chat.page.getByText('This message is too long. (Request req_seen)').waitFor();
  await chat.page.unroute('**/v1/responses');

  let refused = 0;
  await chat.page.route('**/v1/responses', (route) => {
    refused += 1;
    return refused > 2 ? route.continue() : answer(503, { message: 'away' }, { 'retry-after-ms': '20' })(route);
  });
  await chat.button('Try again').click();
  await chat.answers.filter({ hasText: 'something' }).waitFor();
  await chat.idle();
  assert.equal(refused, 3);
  assert.deepEqual(await chat.texts(), ['something', 'something']);
  await chat.done();
});

test('a call of a function is shown plainly', async () => {
  const chat = await person();
  const conversation = (await api('POST', '/v1/conversations', { metadata: { title: 'tools' } })).body.id;
  const tools = [{ type: 'function', name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } }];
  await api('POST', '/v1/responses', { model: 'tools', conversation, input: 'How is it?', tools });
  await chat.page.goto(`${chat.at}/#${conversation}`);
  await chat.page.getByText('weather({"city":"Paris"})').waitFor();
  await chat.done();
});
