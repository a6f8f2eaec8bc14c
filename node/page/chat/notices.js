// Errors that belong to no message, and the quiet line about the connection.

import { button, byId, element } from './dom.js';
import { inWords } from './failure.js';

const SHOWN_MAX = 3;

export function tell(error) {
  console.error(error);
  const notice = element('div', { class: 'notice' }, element('span', {}, inWords(error)));
  notice.append(button('✕', () => notice.remove(), { class: 'icon', 'aria-label': 'Dismiss' }));
  const list = byId('notices');
  list.append(notice);
  while (list.children.length > SHOWN_MAX) list.firstChild.remove();
}

/** Runs what a click began; what goes wrong is told. */
export const told = (work) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    tell(error);
    return undefined;
  }
};

export function tellLink(text) {
  const line = byId('link');
  if (line.textContent !== text) line.textContent = text;
}
