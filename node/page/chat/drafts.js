// What was typed and not sent, and what was sent and not yet taken: kept over reloads, for each person apart.

import { user } from './session.js';

const name = (what, conversation) => `klatch.${what}.${user() ?? ''}.${conversation ?? 'new'}`;

export const drafts = {
  read: (conversation) => localStorage.getItem(name('draft', conversation)) ?? '',
  keep(conversation, text) {
    if (text) localStorage.setItem(name('draft', conversation), text);
    else localStorage.removeItem(name('draft', conversation));
  },
};

/** Turns on their way, with their keys: sent again after a reload they are the same turns. */
export const unsent = {
  read(conversation) {
    try {
      return JSON.parse(localStorage.getItem(name('unsent', conversation))) ?? [];
    } catch {
      return [];
    }
  },
  add(turn) {
    const { conversation, text, model, onBusy, key } = turn;
    this.write(conversation, [...this.read(conversation), { conversation, text, model, onBusy, key }]);
  },
  remove(turn) {
    this.write(turn.conversation, this.read(turn.conversation).filter((other) => other.key !== turn.key));
  },
  write(conversation, turns) {
    if (turns.length > 0) localStorage.setItem(name('unsent', conversation), JSON.stringify(turns));
    else localStorage.removeItem(name('unsent', conversation));
  },
};

/** Of a conversation that was deleted. */
export function forget(conversation) {
  drafts.keep(conversation, '');
  unsent.write(conversation, []);
}
