// Signs drawn in the colour of the text around them: no font has all of them.

const PATHS = {
  rename: 'M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4',
  remove: 'M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5',
  branch: 'M7 4v16M7 13c7 0 10-2 10-7M14.5 8.5 17 6l2.5 2.5',
};

export function icon(name) {
  const made = (kind, attributes) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', kind);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const drawing = made('svg', { viewBox: '0 0 24 24', class: 'sign', 'aria-hidden': 'true' });
  drawing.append(made('path', { d: PATHS[name] }));
  return drawing;
}
