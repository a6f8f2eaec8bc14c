// One turn: what was said, and the answer as it comes, whatever breaks on the way.
//
// The request has a key, and is sent again under it until the service has taken it: that makes one turn. Once its response has
// an id, a stream that broke is read on behind the last event that came. Nothing ends a turn but the service or the person.

import * as api from './api.js';
import { eventsOf } from './events.js';
import { Failure, inWords } from './failure.js';
import { randomKey } from './keys.js';

const WAIT_FIRST_MS = 200;
const WAIT_LAST_MS = 5_000;

export class Turn extends EventTarget {
  /** With an `id` it is there already, and followed; else it is sent. */
  constructor({ conversation, text, model, onBusy = 'enqueue', key = randomKey(), id = null }) {
    super();
    Object.assign(this, { conversation, text, model, onBusy, key, id });
    /** `sending`, then as the service says it; `failed` also where it refused to begin. */
    this.status = id ? 'in_progress' : 'sending';
    this.outputs = [];
    this.sequence = -1;
    this.link = 'whole';
    /** Times that the answer went on behind a break. */
    this.resumed = 0;
    this.error = null;
    this.stopping = false;
  }

  get open() {
    return ['sending', 'queued', 'in_progress'].includes(this.status);
  }

  get answer() {
    return this.outputs.filter((output) => output?.type === 'message').map((output) => output.text).join('\n\n');
  }

  get outputIds() {
    return this.outputs.filter(Boolean).map((output) => output.id);
  }

  /** Until the turn has ended, or the page goes on to another conversation. */
  async run(signal) {
    for (let failures = 0; this.open && !signal.aborted; ) {
      const before = this.sequence;
      try {
        for await (const event of eventsOf(await this.connect(signal))) {
          if (signal.aborted) return;
          this.take(event);
        }
        // A stream that is read on behind its end says `[DONE]` at once.
        if (this.open) throw new Failure({ message: 'its end was not told' });
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Failure && !error.passes) return this.end('failed', inWords(error), error.status === 404 && this.id);
        failures = this.sequence > before ? 1 : failures + 1;
        this.setLink(this.sequence >= 0 ? 'broken' : 'waiting');
        await api.pause(error.retryAfterMs ?? Math.min(WAIT_FIRST_MS * 2 ** (failures - 1), WAIT_LAST_MS));
      }
    }
  }

  async connect(signal) {
    const { id, sequence, conversation, text, model, onBusy, key } = this;
    if (!id) {
      const body = { model, conversation, input: text, stream: true, on_busy: onBusy };
      // It goes out, even if the person looks at another conversation the moment after.
      return api.attempt('POST', '/v1/responses', { body, key });
    }
    const from = sequence >= 0 ? `&starting_after=${sequence}` : '';
    return api.attempt('GET', `/v1/responses/${id}?stream=true${from}`, { signal });
  }

  take(event) {
    // What was sent again from the beginning has been seen.
    if (event.sequence_number <= this.sequence) return;
    if (this.link === 'broken') this.resumed += 1;
    this.sequence = event.sequence_number;
    this.link = 'whole';
    const output = this.outputs[event.output_index];
    switch (event.type) {
      case 'response.created':
      case 'response.queued':
      case 'response.in_progress':
        this.begun(event.response);
        break;
      case 'response.output_item.added':
        this.outputs[event.output_index] = { id: event.item.id, type: event.item.type, text: '', name: event.item.name };
        break;
      case 'response.output_text.delta':
      case 'response.function_call_arguments.delta':
        output.text += event.delta;
        break;
      case 'response.output_text.done':
        output.text = event.text;
        break;
      case 'response.completed':
      case 'response.incomplete':
      case 'response.failed':
        return this.ended(event.response);
    }
    this.changed();
  }

  begun(response) {
    const isNew = !this.id;
    this.id = response.id;
    this.model = response.model;
    this.status = response.status;
    if (isNew) this.dispatchEvent(new Event('accepted'));
    if (this.stopping && isNew) this.cancel();
  }

  ended(response) {
    const why = response.klatch?.incomplete_reason;
    this.reason = why ?? null;
    this.end(response.status, response.error?.message ?? null, false);
  }

  end(status, error, gone) {
    Object.assign(this, { status, error, link: 'whole', gone: Boolean(gone) });
    this.changed();
    this.dispatchEvent(new Event('ended'));
  }

  /** At the service; the end comes over the stream. A turn that is not taken yet is stopped as soon as it is. */
  async stop() {
    this.stopping = true;
    this.changed();
    if (this.id) await this.cancel();
  }

  async cancel() {
    try {
      await api.responses.cancel(this.id);
    } catch (error) {
      this.stopping = false;
      this.changed();
      this.dispatchEvent(new CustomEvent('refused', { detail: error }));
    }
  }

  setLink(link) {
    this.link = link;
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event('changed'));
  }
}
