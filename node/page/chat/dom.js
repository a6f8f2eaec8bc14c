// Elements without HTML text: what a person or a model wrote is only ever text here.

/** An element; `on*` properties listen, `class` and `aria-*` are attributes, the rest are properties. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (key === 'class') made.className = value;
    else if (key.includes('-') || key === 'role') made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The element with this id: every page names the ones that its scripts use. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

export function button(label, onclick, properties = {}) {
  return element('button', { type: 'button', onclick, ...properties }, label);
}

/** Copies, also where the page is not served over TLS and the browser withholds its clipboard. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = element('textarea', { value: text, class: 'unseen' });
  document.body.append(field);
  field.select();
  const done = document.execCommand('copy');
  field.remove();
  if (!done) throw new Error('the browser does not let this page copy');
}

/** A button that copies, and says so for a moment. */
export function copyButton(label, text) {
  const made = button(label, async () => {
    await copy(text());
    made.textContent = 'Copied';
    setTimeout(() => (made.textContent = label), 1500);
  });
  return made;
}
