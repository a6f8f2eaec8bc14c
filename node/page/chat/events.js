// Server-sent events of a body that is read as it comes.

/** Without a byte for so long the connection is dead: the service sends a comment every 10 s. */
const SILENCE_MS = 25_000;

/** The stream ended before its `[DONE]`, or fell silent: its rest is asked for. */
export class Broken extends Error {}

/** The JSON of each event, until `[DONE]`. */
export async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '';
  try {
    for (;;) {
      const { value, done } = await silent(reader.read());
      if (done) throw new Broken('it ended in the middle');
      buffer += value;
      const frames = buffer.split('\n\n');
      buffer = frames.pop();
      for (const frame of frames) {
        const lines = frame.split('\n').filter((line) => line.startsWith('data:'));
        if (lines.length === 0) continue;
        const text = lines.map((line) => line.slice(5).trimStart()).join('\n');
        if (text === '[DONE]') return;
        yield JSON.parse(text);
      }
    }
  } catch (error) {
    if (error instanceof Broken) throw error;
    throw new Broken(error.message);
  } finally {
    reader.cancel().catch(() => {});
  }
}

function silent(reading) {
  let timer;
  const alarm = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Broken('it fell silent')), SILENCE_MS);
  });
  return Promise.race([reading, alarm]).finally(() => clearTimeout(timer));
}
