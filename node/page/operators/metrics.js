// Prometheus' text format, as far as this page needs it: the sum of a metric over its labels.

const LINE = /^([A-Za-z_:][\w:]*)(\{[^}]*\})? (\S+)/;

/** Name → samples of `{ labels, value }`; labels as they are written. */
export function parse(text) {
  const samples = new Map();
  for (const line of text.split('\n')) {
    const match = LINE.exec(line);
    if (!match) continue;
    const [, name, labels = '', value] = match;
    if (!samples.has(name)) samples.set(name, []);
    samples.get(name).push({ labels, value: Number(value) });
  }
  return samples;
}

/** A counter that was never counted up is not there: it is 0. */
export function total(samples, name, labelled = '') {
  const fitting = (samples.get(name) ?? []).filter((sample) => sample.labels.includes(labelled));
  return fitting.reduce((sum, sample) => sum + sample.value, 0);
}
