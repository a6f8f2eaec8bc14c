// Where messages are written: the field, the model, and what can be done while an answer is being written.

import * as api from './api.js';
import { byId, element } from './dom.js';
import { drafts } from './drafts.js';

const MODEL = 'klatch.model';
const FIELD_PX_MAX = 240;

export class Composer {
  /** `send(text, model, onBusy)`, `stop()`, `editLast()`, and `retry()` where the models could not be read. */
  constructor({ send, stop, editLast, retry }) {
    this.field = byId('text');
    this.conversation = null;
    this.actions = { send, stop, editLast, retry };
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.submit('enqueue');
    });
    byId('interrupt').addEventListener('click', () => this.submit('interrupt'));
    byId('stop').addEventListener('click', () => stop());
    byId('model').addEventListener('change', () => localStorage.setItem(MODEL, this.model));
    this.field.addEventListener('input', () => {
      drafts.keep(this.conversation, this.field.value);
      this.fit();
    });
    this.field.addEventListener('keydown', (event) => this.key(event));
  }

  async loadModels() {
    const names = await api.models();
    const kept = localStorage.getItem(MODEL);
    const chosen = [kept, 'eliza', names[0]].find((name) => names.includes(name));
    byId('model').replaceChildren(...names.map((name) => element('option', { value: name, selected: name === chosen }, name)));
    byId('model-label').hidden = names.length < 2;
  }

  get model() {
    return byId('model').value;
  }

  key(event) {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.submit(event.altKey && this.busy ? 'interrupt' : 'enqueue');
    }
    if (event.key === 'ArrowUp' && !this.field.value) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  submit(onBusy) {
    const text = this.field.value;
    if (!text.trim()) return;
    if (!this.model) {
      this.actions.retry();
      return;
    }
    this.set('');
    this.actions.send(text, this.model, onBusy);
  }

  /** Shows what can be done now. */
  show(running) {
    this.busy = Boolean(running);
    byId('stop').hidden = !running;
    byId('stop').disabled = Boolean(running?.stopping);
    byId('interrupt').hidden = !running;
    byId('send').textContent = running ? 'Queue' : 'Send';
    byId('send').title = running ? 'Answered after this answer (Enter)' : 'Send (Enter)';
    const hint = running ? 'Enter waits for this answer; Alt+Enter interrupts it' : '';
    if (byId('hint').textContent !== hint) byId('hint').textContent = hint;
  }

  open(conversation) {
    this.conversation = conversation;
    this.field.value = drafts.read(conversation);
    this.fit();
  }

  set(text) {
    this.field.value = text;
    drafts.keep(this.conversation, text);
    this.fit();
  }

  fit() {
    this.field.style.height = 'auto';
    this.field.style.height = `${Math.min(this.field.scrollHeight, FIELD_PX_MAX)}px`;
  }

  focus() {
    this.field.focus();
  }
}
