// Questions to the person, as modal dialogs of the browser: it keeps the focus inside, and gives it back.

import { byId, element } from './dom.js';

/** The new text, or null. */
export const askText = (title, value, yes) => ask({ title, value, yes });

export const askYes = async (title, text, yes) => (await ask({ title, text, yes })) !== null;

function ask({ title, text = '', value = null, yes }) {
  const [dialog, field] = [byId('ask'), byId('ask-value')];
  byId('ask-title').textContent = title;
  byId('ask-text').textContent = text;
  byId('ask-text').hidden = !text;
  byId('ask-label').hidden = value === null;
  byId('ask-yes').textContent = yes;
  byId('ask-yes').classList.toggle('danger', value === null);
  field.value = value ?? '';
  field.required = value !== null;
  return new Promise((done) => {
    let answer = null;
    byId('ask-form').onsubmit = (event) => {
      event.preventDefault();
      answer = field.value.trim();
      if (answer || value === null) dialog.close();
    };
    byId('ask-no').onclick = () => dialog.close();
    dialog.onclose = () => done(answer);
    dialog.showModal();
    (value === null ? byId('ask-no') : field).focus();
    field.select();
  });
}

export function showShortcuts(shortcuts) {
  const dialog = byId('shortcuts');
  const rows = shortcuts.map(({ keys, does }) =>
    element('div', {}, element('dt', {}, ...keys.map((key) => element('kbd', {}, key))), element('dd', {}, does)),
  );
  byId('shortcuts-list').replaceChildren(...rows);
  byId('shortcuts-close').onclick = () => dialog.close();
  dialog.showModal();
}
