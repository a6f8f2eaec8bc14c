// Logging in, staying logged in, and being logged out without losing what was typed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { token } from '../node.mjs';

/** As if its time had passed. */
const expire = (chat, change) =>
  chat.page.evaluate((changed) => {
    const session = JSON.parse(localStorage.getItem('klatch.session'));
    localStorage.setItem('klatch.session', JSON.stringify({ ...session, ...changed }));
  }, change);

test('a wrong password is told with the request, and a right one opens the page', async () => {
  const chat = await person({ loggedIn: false });
  await chat.page.getByLabel('Name', { exact: true }).fill('ann');
  await chat.page.getByLabel('Password').fill('wrong');
  await chat.button('Log in').click();
  await chat.page.getByRole('alert').filter({ hasText: /not right.*Request \S+/ }).waitFor();
  await chat.page.keyboard.press('Escape');
  assert.ok(await chat.page.getByRole('dialog').isVisible(), 'there is no way around the login');
  await chat.logIn();
  await chat.page.reload();
  await chat.ready();
  assert.ok(await chat.field.isVisible(), 'a reload asks for nothing');
  await chat.button('Log out').click();
  await chat.page.getByLabel('Password').waitFor();
  assert.equal(await chat.page.evaluate(() => localStorage.getItem('klatch.session')), null);
  await chat.done();
});

test('a token from elsewhere opens the page, in its tab only', async () => {
  const chat = await person({ loggedIn: false });
  await chat.button('I have an access token').click();
  const field = chat.page.getByLabel('Access token');
  await field.fill('no.token.atall');
  await chat.button('Go on').click();
  await chat.page.locator('#token-wrong').filter({ hasText: /\S/ }).waitFor();
  await field.fill(token);
  await chat.button('Go on').click();
  await chat.ready();
  assert.equal(await chat.page.evaluate(() => localStorage.getItem('klatch.session')), null);
  await chat.done();
});

test('an access token is renewed once, by one of the tabs, before it expires', async () => {
  const chat = await person();
  const other = await chat.context.newPage();
  const asked = [];
  chat.context.on('request', (request) => request.url().endsWith('/auth/refresh') && asked.push(request));
  await other.goto(`${chat.at}/`);
  await other.locator('html[data-ready]').waitFor({ state: 'attached' });
  await expire(chat, { expiresAt: 0 });
  const read = (page) => page.evaluate(async () => (await import('/page/chat/api.js')).models());
  const [one, two] = await Promise.all([read(chat.page), read(other)]);
  assert.deepEqual(one, two);
  assert.equal(asked.length, 1);
  await chat.ask('still here', 'echo');
  assert.deepEqual(await chat.texts(), ['still here', 'still here']);
  await chat.done();
});

test('a login that ended asks again, and what was typed and sent is not lost', async () => {
  const chat = await person();
  await chat.ask('before', 'echo');
  await expire(chat, { access: 'x.y.z', refresh: 'nothing', expiresAt: 0 });
  await chat.say('sent without a login');
  await chat.page.getByText('What you typed is still here').waitFor();
  await chat.logIn();
  await chat.answers.nth(1).waitFor();
  await chat.idle();
  assert.deepEqual(await chat.texts(), ['before', 'before', 'sent without a login', 'sent without a login']);
  await chat.field.fill('half a thought');
  await chat.page.reload();
  await chat.ready();
  assert.equal(await chat.field.inputValue(), 'half a thought');
  await chat.done();
});
