// One message on the page: a person's, shown as it was typed, or an answer, shown as Markdown.

import { button, copyButton, element } from './dom.js';
import { Rendering } from './markdown.js';

const NAMES = { user: 'You', assistant: 'Answer', system: 'Instruction', developer: 'Instruction' };

/** A message that can be told something new; `actions` are `{ edit, regenerate, again }`, as far as they make sense. */
export class Message {
  constructor(role) {
    this.role = role;
    this.text = null;
    this.heading = element('h2', { class: 'unseen' }, `${NAMES[role] ?? role}:`);
    this.body = element('div', { class: 'body' });
    this.note = element('p', { class: 'note', hidden: true });
    this.tools = element('div', { class: 'tools' });
    this.element = element('li', { class: `message ${role}` }, this.heading, this.body, this.note, this.tools);
    this.rendering = role === 'assistant' ? new Rendering(this.body) : null;
  }

  show({ text, note = '', noteKind = '', writing = false, actions = {} }) {
    if (text !== this.text) {
      this.text = text;
      if (this.rendering) this.rendering.show(text);
      else this.body.textContent = text;
    }
    this.element.classList.toggle('writing', writing);
    if (writing) this.element.setAttribute('aria-busy', 'true');
    else this.element.removeAttribute('aria-busy');
    this.element.classList.toggle('empty', !text);
    if (this.note.textContent !== note) this.note.textContent = note;
    this.note.hidden = !note;
    this.note.className = `note ${noteKind}`;
    this.offer(actions);
  }

  offer(actions) {
    const names = Object.keys(actions).join();
    this.actions = actions;
    if (names === this.offered) return;
    this.offered = names;
    const tool = (name, label, title) => name in actions && button(label, () => this.actions[name](), { title, class: 'quiet' });
    const copy = 'copy' in actions && copyButton('Copy', () => this.text);
    if (copy) copy.classList.add('quiet');
    const offered = [
      copy,
      tool('edit', 'Edit', 'Write this anew, in a copy of the conversation up to here'),
      tool('regenerate', 'Answer anew', 'Ask again, in a copy of the conversation up to here'),
      tool('again', 'Try again', 'Send it once more'),
      tool('withdraw', 'Do not send', 'Takes it out of the queue'),
    ];
    this.tools.replaceChildren(...offered.filter(Boolean));
  }

  /** Resolves with the new text, or null. */
  edit() {
    return new Promise((done) => {
      const field = element('textarea', { value: this.text, rows: 3, 'aria-label': 'Edit your message' });
      const finish = (value) => {
        form.replaceWith(this.body);
        this.tools.hidden = false;
        done(value);
      };
      const form = element(
        'form',
        {
          class: 'edit',
          onsubmit: (event) => {
            event.preventDefault();
            if (field.value.trim()) finish(field.value);
          },
          onkeydown: (event) => {
            if (event.key === 'Escape') {
              event.stopPropagation();
              finish(null);
            }
            if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              form.requestSubmit();
            }
          },
        },
        field,
        element('div', { class: 'buttons' }, button('Cancel', () => finish(null)), element('button', { type: 'submit', class: 'primary' }, 'Send')),
      );
      this.body.replaceWith(form);
      this.tools.hidden = true;
      field.focus();
    });
  }
}

/** A function call or its output: shown plainly, since this page has no tools. */
export function showCall(item) {
  const isCall = item.type === 'function_call';
  const text = isCall ? `${item.name}(${item.arguments})` : String(item.output ?? '');
  const label = isCall ? 'asks for a tool' : 'answer of a tool';
  return element('li', { class: 'call' }, element('span', {}, label), element('code', {}, text));
}
