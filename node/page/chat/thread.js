// One conversation as it is known here: its items, and the turns that have not entered it yet.
//
// Items enter together when their turn ends, so a turn is shown until its items are there. What other clients do is asked
// for while the page is looked at.

import * as api from './api.js';
import { unsent } from './drafts.js';
import { Turn } from './turn.js';

const PAGE = 60;
/** Between two looks at what others do in the conversation. */
const LOOK_MS = 3_000;

export class Thread extends EventTarget {
  constructor(id) {
    super();
    this.id = id;
    this.metadata = {};
    this.items = [];
    this.turns = [];
    this.hasEarlier = false;
    this.loaded = false;
    /** By an item's id: what its turn went through, told quietly beside it. */
    this.marks = new Map();
    /** Responses that were followed: a list may still have one that has ended since. */
    this.seen = new Set();
    this.left = new AbortController();
  }

  /** Turns whose items may enter at any moment: they are taken together with their turn. */
  get pending() {
    return this.turns.some((turn) => turn.open || turn.settling);
  }

  get running() {
    return this.turns.find((turn) => turn.open);
  }

  async load() {
    const [conversation, page] = await Promise.all([api.conversations.read(this.id), api.items.newest(this.id, PAGE)]);
    this.metadata = conversation.metadata;
    this.items = page.items;
    this.hasEarlier = page.more;
    this.loaded = true;
    await this.follow(await api.responses.open(this.id));
    for (const kept of unsent.read(this.id)) this.begin(new Turn(kept));
    this.changed();
    this.watch();
  }

  /** A conversation that was just made here. */
  fresh(metadata) {
    Object.assign(this, { metadata, loaded: true });
    this.watch();
  }

  leave() {
    this.left.abort();
  }

  send(text, model, onBusy) {
    const turn = new Turn({ conversation: this.id, text, model, onBusy });
    unsent.add(turn);
    this.begin(turn);
  }

  begin(turn) {
    this.turns.push(turn);
    turn.addEventListener('changed', () => this.changed(turn));
    turn.addEventListener('accepted', () => {
      unsent.remove(turn);
      if (this.seen.has(turn.id)) this.drop(turn);
      this.seen.add(turn.id);
      this.changed();
    });
    turn.addEventListener('refused', (event) => this.dispatchEvent(new CustomEvent('refused', { detail: event.detail })));
    turn.addEventListener('ended', () => this.settle(turn).catch((error) => this.dispatchEvent(new CustomEvent('refused', { detail: error }))));
    turn.run(this.left.signal).catch((error) => turn.end('failed', String(error.message ?? error)));
    this.changed();
  }

  drop(turn) {
    this.turns = this.turns.filter((other) => other !== turn);
  }

  /** Its items are there now, unless it left none. */
  async settle(turn) {
    unsent.remove(turn);
    turn.settling = true;
    try {
      await this.take(turn);
    } finally {
      turn.settling = false;
    }
  }

  async take(turn) {
    if (turn.gone) {
      this.drop(turn);
      return this.changed();
    }
    // It leaves nothing in the conversation, and is shown where it was.
    turn.behind = this.items.at(-1)?.id ?? null;
    if (turn.status === 'failed') return;
    if (turn.status === 'cancelled' && turn.outputs.length === 0 && !(await this.hasEntered(turn))) return;
    await this.sync(turn);
  }

  /** Whether a turn that said nothing left what it was asked. */
  async hasEntered(turn) {
    const last = this.items.at(-1);
    const since = await api.items.since(this.id, last?.id);
    return since.some((item) => textOf(item) === turn.text);
  }

  /** Takes what has entered behind the last known item, in one step with the turn that it comes from. */
  async sync(turn = null) {
    const last = this.items.at(-1);
    const since = await api.items.since(this.id, last?.id);
    if (!turn && this.pending) return;
    // Another sync may have been faster.
    const known = new Set(this.items.map((item) => item.id));
    this.items.push(...since.filter((item) => !known.has(item.id)));
    if (turn) {
      const mark = { resumed: turn.resumed, status: turn.status, reason: turn.reason, model: turn.model };
      for (const id of turn.outputIds) this.marks.set(id, mark);
      this.drop(turn);
    }
    this.changed();
  }

  /** Turns that are open at the service and not known here. */
  async follow(open) {
    for (const response of open) {
      if (this.seen.has(response.id)) continue;
      const inputs = await api.responses.inputs(response.id);
      const text = inputs.filter((item) => item.role === 'user').map(textOf).join('\n\n');
      // Its own request may have been answered meanwhile.
      if (this.seen.has(response.id)) continue;
      this.seen.add(response.id);
      this.begin(new Turn({ conversation: this.id, text, model: response.model, id: response.id }));
    }
  }

  async watch() {
    while (!this.left.signal.aborted) {
      await this.nextLook();
      if (this.left.signal.aborted) return;
      try {
        await this.look();
      } catch (error) {
        if (error.status === 404) {
          this.dispatchEvent(new Event('gone'));
          return;
        }
        // Whatever it is, the next look may be better; what the person does tells its own errors.
      }
    }
  }

  async look() {
    const sending = this.turns.some((turn) => turn.status === 'sending');
    const open = await api.responses.open(this.id, { once: true });
    if (!sending) await this.follow(open);
    if (!this.pending) await this.sync();
  }

  /** A moment later, as long as the page is seen; at once when it comes back into sight. */
  nextLook() {
    return new Promise((wake) => {
      const done = () => {
        if (document.hidden && !this.left.signal.aborted) return;
        clearTimeout(timer);
        document.removeEventListener('visibilitychange', done);
        wake();
      };
      const timer = setTimeout(done, LOOK_MS);
      document.addEventListener('visibilitychange', done);
      this.left.signal.addEventListener('abort', done, { once: true });
    });
  }

  async loadEarlier() {
    const page = await api.items.before(this.id, this.items[0].id, PAGE);
    this.items.unshift(...page.items);
    this.hasEarlier = page.more;
    this.changed();
  }

  /** A new conversation that ends right before this item; its id. */
  async forkBefore(item) {
    let at = this.items.findIndex((other) => other.id === item.id);
    if (at === 0 && this.hasEarlier) {
      await this.loadEarlier();
      at = this.items.findIndex((other) => other.id === item.id);
    }
    const metadata = { ...this.metadata, branch_of: this.id };
    if (at <= 0) return (await api.conversations.create(metadata)).id;
    const fork = await api.conversations.fork(this.id, this.items[at - 1].id);
    await api.conversations.update(fork.id, metadata);
    return fork.id;
  }

  changed(turn = null) {
    this.dispatchEvent(new CustomEvent('changed', { detail: turn }));
  }
}

/** What an item says. */
export function textOf(item) {
  return (item.content ?? []).map((part) => part.text ?? part.refusal ?? '').join('\n\n');
}
