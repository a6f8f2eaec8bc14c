// The chat page: puts its parts together, and knows which conversation is shown. The address names it, so that a reload, a
// link and the browser's own history lead to it.

import * as api from './api.js';
import { Composer } from './composer.js';
import { askToLogIn } from './credentials.js';
import { showShortcuts } from './dialogs.js';
import { byId } from './dom.js';
import { forget } from './drafts.js';
import { Failure } from './failure.js';
import { tell, told, tellLink } from './notices.js';
import { accessToken, begin, logOut, user } from './session.js';
import { Sidebar, titleFrom } from './sidebar.js';
import { Thread, textOf } from './thread.js';
import { ThreadView } from './thread_view.js';

const SHORTCUTS = [
  { keys: ['Enter'], does: 'send; while an answer is written, wait for it' },
  { keys: ['Shift', 'Enter'], does: 'a new line' },
  { keys: ['Alt', 'Enter'], does: 'send now, and interrupt the answer' },
  { keys: ['Esc'], does: 'stop the answer' },
  { keys: ['↑'], does: 'in an empty field: edit your last message' },
  { keys: ['Ctrl', 'K'], does: 'search the conversations' },
  { keys: ['Ctrl', 'Shift', 'O'], does: 'a new conversation' },
  { keys: ['?'], does: 'these shortcuts' },
];

let thread = null;
const view = new ThreadView({ edit, regenerate, again });
const sidebar = new Sidebar((id) => go(id));
const composer = new Composer({ send: told(send), stop, retry: told(() => composer.loadModels()), editLast: () => view.lastEditable() });

function go(id) {
  if (location.hash.slice(1) === (id ?? '')) show();
  else location.hash = id ?? '';
}

function named() {
  return location.hash.match(/^#(conv_[0-9a-f]+)$/)?.[1] ?? null;
}

/** Shows the conversation that the address names. */
const show = told(async () => {
  const id = named();
  closeSidebar();
  if (thread && thread.id === id) return;
  if (!id) {
    attach(null);
    composer.focus();
    return;
  }
  const opened = new Thread(id);
  attach(opened);
  try {
    await opened.load();
  } catch (error) {
    if (error.status !== 404) throw error;
    if (thread === opened) leaveGone(opened);
  }
  composer.focus();
});

function attach(opened) {
  thread?.leave();
  thread = opened;
  view.open(opened);
  sidebar.show(opened?.id ?? null);
  composer.open(opened?.id ?? null);
  head();
  refreshed();
  if (!opened) return;
  opened.addEventListener('changed', () => opened === thread && refreshed());
  opened.addEventListener('refused', (event) => tell(event.detail));
  opened.addEventListener('gone', () => opened === thread && leaveGone(opened));
}

function leaveGone(opened) {
  forget(opened.id);
  tell(new Failure({ status: 404 }));
  sidebar.gone(opened.id);
}

function refreshed() {
  view.update();
  const running = thread?.running;
  composer.show(running);
  tellLink(running?.link === 'broken' ? 'Reconnecting…' : '');
  if (thread?.loaded) head();
}

function head() {
  const title = thread ? (thread.metadata.title ?? (thread.loaded ? 'Untitled' : '…')) : 'New conversation';
  if (byId('title').textContent !== title) byId('title').textContent = title;
  document.title = thread ? `${title} · Klatch` : 'Klatch';
  const origin = thread?.metadata.branch_of;
  byId('origin').hidden = !origin;
  if (origin) byId('origin').href = `#${origin}`;
}

async function send(text, model, onBusy) {
  const target = thread ?? (await made(text));
  target.send(text, model, onBusy);
  view.toEnd();
}

/** A conversation is made when the first thing is said in it. */
async function made(text) {
  try {
    const conversation = await api.conversations.create({ title: titleFrom(text) });
    const fresh = new Thread(conversation.id);
    fresh.fresh(conversation.metadata);
    // What was typed meanwhile is meant for it.
    const draft = composer.field.value;
    composer.set('');
    enter(fresh);
    composer.set(draft);
    sidebar.add(conversation);
    return fresh;
  } catch (error) {
    if (!composer.field.value) composer.set(text);
    throw error;
  }
}

function enter(opened) {
  attach(opened);
  history.pushState(null, '', `#${opened.id}`);
}

function stop() {
  thread?.running?.stop();
}

/** The conversation up to before this message, and there another one. */
const branch = told(async (item, text) => {
  const id = await thread.forkBefore(item);
  const opened = new Thread(id);
  enter(opened);
  await opened.load();
  opened.send(text, composer.model, 'enqueue');
  sidebar.add(await api.conversations.read(id));
});

function edit(item, text) {
  return branch(item, text);
}

function regenerate(answer) {
  const at = thread.items.findIndex((item) => item.id === answer.id);
  const asked = thread.items.slice(0, at).findLast((item) => item.role === 'user');
  if (asked) branch(asked, textOf(asked));
}

function again(turn) {
  thread.drop(turn);
  thread.send(turn.text, composer.model, 'enqueue');
}

const narrow = matchMedia('(max-width: 760px)');

/** It is always there where there is room. */
function openSidebar() {
  if (narrow.matches) {
    byId('app').classList.add('with-sidebar');
    byId('shade').hidden = false;
    byId('open-sidebar').setAttribute('aria-expanded', 'true');
  }
  byId('search').focus();
}

function closeSidebar() {
  if (!byId('app').classList.contains('with-sidebar')) return;
  byId('app').classList.remove('with-sidebar');
  byId('shade').hidden = true;
  byId('open-sidebar').setAttribute('aria-expanded', 'false');
  byId('open-sidebar').focus();
}

function pressed(event) {
  if (event.isComposing || document.querySelector('dialog[open]')) return;
  const ctrl = event.ctrlKey || event.metaKey;
  const typing = event.target.matches('input, textarea, select');
  const does = {
    k: ctrl && (() => { openSidebar(); byId('search').select(); }),
    o: ctrl && event.shiftKey && (() => go(null)),
    '?': !typing && (() => showShortcuts(SHORTCUTS)),
    escape: () => (byId('app').classList.contains('with-sidebar') ? closeSidebar() : stop()),
  }[event.key.toLowerCase()];
  if (!does) return;
  event.preventDefault();
  does();
}

/** Whoever logs in as someone else sees their own conversations, and nothing of these. */
async function logInAgain(why) {
  const before = byId('who').textContent;
  await askToLogIn(why);
  if (before && before !== user()) {
    location.assign('/');
    await new Promise(() => {});
  }
}

async function start() {
  begin(logInAgain, () => location.reload());
  api.waiting.tell = (yes) => tellLink(yes ? 'Waiting for the service…' : '');
  byId('open-sidebar').addEventListener('click', openSidebar);
  byId('close-sidebar').addEventListener('click', closeSidebar);
  byId('shade').addEventListener('click', closeSidebar);
  byId('help').addEventListener('click', () => showShortcuts(SHORTCUTS));
  byId('earlier').addEventListener('click', told(() => view.keepPlace(() => thread.loadEarlier())));
  byId('log-out').addEventListener('click', told(async () => {
    await logOut().catch(tell);
    location.assign('/');
  }));
  addEventListener('keydown', pressed);
  addEventListener('hashchange', show);
  addEventListener('popstate', show);
  sidebar.renamed = (changed) => {
    thread.metadata = changed.metadata;
    head();
  };
  await accessToken();
  byId('who').textContent = user();
  await Promise.all([composer.loadModels(), sidebar.load()].map((work) => work.catch(tell)));
  await show();
  document.documentElement.dataset.ready = 'true';
}

told(start)();
