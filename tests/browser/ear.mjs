//! Hears what a WebSocket of any make has to say, one event after the other.

import assert from 'node:assert/strict';
import { soon } from './patience.mjs';

export class Ear {
  #heard = { open: [], message: [], close: [] };
  #waiting = { open: [], message: [], close: [] };

  /** Listens to anything that has `addEventListener`; with an ear of before it goes on with it. */
  static at(socket, ear = new Ear()) {
    socket.addEventListener('open', () => ear.hear('open', true));
    socket.addEventListener('message', ({ data }) => ear.hear('message', data));
    socket.addEventListener('close', ({ code, reason }) => ear.hear('close', { code, reason }));
    socket.addEventListener('error', () => {});
    return ear;
  }

  hear(kind, event) {
    const waiting = this.#waiting[kind].shift();
    waiting ? waiting(event) : this.#heard[kind].push(event);
  }

  async #next(kind) {
    if (this.#heard[kind].length > 0) return this.#heard[kind].shift();
    const next = new Promise((resolve) => this.#waiting[kind].push(resolve));
    return soon(() => `a WebSocket hears ${kind}`, next);
  }

  opens() {
    return this.#next('open');
  }

  /** The next frame, as it came. */
  text() {
    return this.#next('message');
  }

  /** The next frame, read. */
  async frame() {
    return JSON.parse(await this.text());
  }

  /** Code and reason of the next end. */
  closes() {
    return this.#next('close');
  }

  /** `hi`, then `reset`, and returns the first. */
  async isGreeted() {
    const hi = await this.frame();
    assert.equal(hi.evt, 'hi');
    assert.equal(hi.resumed, false);
    assert.match(hi.socketId, /^ws_/);
    assert.equal(await this.text(), '{"type":"reset"}');
    return hi;
  }

  /** What came and nobody has asked for yet. */
  get unread() {
    return this.#heard.message.length;
  }
}
