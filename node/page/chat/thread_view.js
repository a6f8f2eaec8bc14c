// The messages of a conversation on the page, and what a screen reader is told of them.

import { byId, element } from './dom.js';
import { Message, showCall } from './message.js';
import { textOf } from './thread.js';

/** So close to the end, in pixels, a reader wants to see what comes. */
const AT_END_PX = 80;
/** What ends a sentence is worth saying aloud up to. */
const SENTENCE = /[.!?:;。！？]["'”’)]*\s|\n/g;

export class ThreadView {
  /** `actions` has `edit(item, text)`, `regenerate(item)`, `again(turn)`. */
  constructor(actions) {
    this.actions = actions;
    this.list = byId('thread');
    this.scroll = byId('scroll');
    this.latest = byId('latest');
    this.rows = new Map();
    this.spoken = new WeakMap();
    this.scheduled = false;
    this.sticks = true;
    this.scroll.addEventListener('scroll', () => this.scrolled());
    this.latest.addEventListener('click', () => this.toEnd());
    // The page grows and shrinks with a keyboard on a phone, and with pictures of text.
    new ResizeObserver(() => this.sticks && this.toEnd()).observe(this.scroll);
  }

  open(thread) {
    this.thread = thread;
    this.rows.clear();
    this.list.replaceChildren();
    this.sticks = true;
    this.draw();
  }

  /** At the next frame; a page that is not seen draws once it is. */
  update() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  draw() {
    const { thread } = this;
    const rows = thread ? this.rowsOf(thread) : [];
    const kept = new Set(rows);
    const shown = new Set(rows.map((row) => row.element));
    for (const [key, row] of this.rows) {
      if (!kept.has(row)) this.rows.delete(key);
    }
    for (const child of [...this.list.children]) {
      if (!shown.has(child)) child.remove();
    }
    rows.forEach((row, n) => {
      if (this.list.children[n] !== row.element) this.list.insertBefore(row.element, this.list.children[n] ?? null);
    });
    byId('welcome').hidden = Boolean(thread) && (!thread.loaded || rows.length > 0);
    byId('earlier').hidden = !thread?.hasEarlier;
    if (this.sticks) this.toEnd();
  }

  /** Items, the turns that left none behind the item that they came after, and the turns that are open. */
  rowsOf(thread) {
    const ended = (id) => thread.turns.filter((turn) => turn.behind === id).flatMap((turn) => this.turn(turn));
    const items = thread.items.flatMap((item) => [this.item(item), ...ended(item.id)]);
    const open = thread.turns.filter((turn) => turn.behind === undefined).flatMap((turn) => this.turn(turn));
    return [...ended(null), ...items, ...open];
  }

  row(key, make) {
    if (!this.rows.has(key)) this.rows.set(key, make());
    return this.rows.get(key);
  }

  item(item) {
    if (item.type !== 'message') return this.row(item.id, () => ({ element: showCall(item) }));
    // The row of the turn that it came from goes on, so that nothing jumps.
    const row = this.row(item.id, () => new Message(item.role));
    const isLast = item.role === 'assistant' && this.thread.items.at(-1) === item && !this.thread.running;
    const actions = { copy: true };
    if (item.role === 'user') actions.edit = () => this.edit(row, item);
    if (isLast) actions.regenerate = () => this.actions.regenerate(item);
    row.show({ text: textOf(item), ...this.noteOf(item), actions });
    return row;
  }

  noteOf(item) {
    const mark = this.thread.marks.get(item.id);
    const notes = [];
    if (item.status === 'incomplete') notes.push(mark?.reason === 'interrupted' ? 'interrupted' : 'stopped here');
    if (mark?.resumed) notes.push('the connection broke, and the answer went on');
    return { note: notes.join(' · ') };
  }

  async edit(row, item) {
    const text = await row.edit();
    if (text !== null) this.actions.edit(item, text);
  }

  turn(turn) {
    const asked = this.row(`${turn.key} asked`, () => new Message('user'));
    const actions = turn.status === 'failed' ? { again: () => this.actions.again(turn), copy: true } : {};
    if (turn.status === 'queued') actions.withdraw = () => turn.stop();
    if (turn.status === 'cancelled') actions.again = () => this.actions.again(turn);
    asked.show({ text: turn.text, ...askedNote(turn), actions });
    if (turn.status === 'queued' || (turn.status === 'sending' && this.thread.running !== turn)) return [asked];
    const calls = turn.outputs.filter((output) => output?.type === 'function_call');
    const answer = this.row(turn.outputIds[0] ?? `${turn.key} answer`, () => this.adopted(turn));
    answer.show({ text: turn.answer, ...answerNote(turn), writing: turn.open, actions: turn.answer ? { copy: true } : {} });
    this.say(turn);
    const shown = calls.map((call) =>
      this.row(`${call.id} ${call.text.length}`, () => ({ element: showCall({ ...call, arguments: call.text }) })),
    );
    const hasAnswer = turn.answer || turn.open || turn.error;
    return [asked, ...(hasAnswer ? [answer] : []), ...shown];
  }

  /** The row that waited for the first word, once its item has an id. */
  adopted(turn) {
    const waited = this.rows.get(`${turn.key} answer`);
    this.rows.delete(`${turn.key} answer`);
    return waited ?? new Message('assistant');
  }

  /** Sentence by sentence: word by word would stutter. */
  say(turn) {
    const said = this.spoken.get(turn) ?? -1;
    if (said < 0) {
      this.spoken.set(turn, 0);
      return this.announce('Answering…');
    }
    const rest = turn.answer.slice(said);
    const end = turn.open ? [...rest.matchAll(SENTENCE)].reduce((_, match) => match.index + match[0].length, 0) : rest.length;
    if (end === 0) return;
    this.spoken.set(turn, said + end);
    this.announce(rest.slice(0, end));
  }

  announce(text) {
    const region = byId('spoken');
    region.append(element('p', {}, text));
    while (region.children.length > 8) region.firstChild.remove();
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroll;
    this.sticks = scrollHeight - scrollTop - clientHeight < AT_END_PX;
    this.latest.hidden = this.sticks;
  }

  toEnd() {
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.sticks = true;
    this.latest.hidden = true;
  }

  /** Keeps what is read in its place while earlier messages come before it. */
  async keepPlace(work) {
    const { scrollHeight, scrollTop } = this.scroll;
    this.sticks = false;
    await work();
    this.draw();
    this.scroll.scrollTop = scrollTop + this.scroll.scrollHeight - scrollHeight;
  }

  lastEditable() {
    const item = this.thread?.items.findLast((one) => one.role === 'user');
    const row = item && this.rows.get(item.id);
    if (row) this.edit(row, item);
  }
}

function askedNote(turn) {
  if (turn.status === 'queued') return { note: turn.stopping ? 'is taken back…' : 'waits for its turn', noteKind: 'waits' };
  if (turn.status === 'sending') return { note: turn.link === 'waiting' ? 'no answer from the service; trying again…' : 'on its way…' };
  if (turn.status === 'cancelled') return { note: 'not answered: it was stopped' };
  return {};
}

function answerNote(turn) {
  if (turn.status === 'failed') return { note: `No answer: ${turn.error}`, noteKind: 'wrong' };
  if (turn.link === 'broken') return { note: 'connection lost; going on as soon as it is back…', noteKind: 'waits' };
  if (turn.stopping && turn.open) return { note: 'stopping…' };
  if (turn.resumed) return { note: 'the connection broke, and the answer went on' };
  return {};
}
