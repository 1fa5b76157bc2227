//! The lines of the README by which a page comes back, with the real PartySocket of the npm registry.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { PartySocket } from 'partysocket';
import WS from 'ws';
import { Ear } from './ear.mjs';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { Nginx } from './nginx.mjs';
import { eventually } from './patience.mjs';
import { blocks } from './readme.mjs';

/** Tries again sooner than a page would, so that nobody has to wait here. */
class Eager extends PartySocket {
  constructor(options) {
    super({ ...options, WebSocket: WS, minReconnectionDelay: 50, maxReconnectionDelay: 200 });
  }
}

/** A page with the README's lines in it. */
function page(t, host) {
  const [lines] = blocks('Coming back', 'js');
  const code = `${lines.replace('example.com', host)}\nreturn { socket, last };`;
  const reloads = [];
  const run = new Function('PartySocket', 'user', 'tab', 'reloadEverything', code);
  const { socket, last } = run(Eager, 'ann', 'tab', () => reloads.push(Date.now()));
  endsWith(t, () => socket.close());
  return { socket, last, reloads, ear: Ear.at(socket) };
}

suite('Coming back', { concurrency: true }, () => {
  for (const way of ['directly', 'through nginx']) {
    test(`a page is the same after its connection broke ${way}, and has missed nothing`, async (t) => {
      const gateway = await Gateway.start(t);
      const { host } = way === 'directly' ? gateway : await Nginx.before(t, gateway.port);
      const { socket, last, reloads, ear } = page(t, host);
      const { socketId } = await ear.isGreeted();
      const sends = async (data) => {
        const sent = await gateway.asks('/api/send', { json: { userId: 'ann', event: 'order', data, durable: true } });
        assert.equal(sent.status, 202, JSON.stringify(sent.json));
      };
      const hears = async (data) => {
        const frame = await ear.frame();
        assert.deepEqual([frame.type, frame.data], ['order', data]);
        assert.equal(last.seq, frame.seq);
      };
      await sends(1);
      await hears(1);
      for (const turn of [2, 3]) {
        // As a network breaks: without a word.
        socket._ws.terminate();
        await ear.closes();
        await sends(turn);
        const hi = await ear.frame();
        assert.deepEqual([hi.type, hi.socketId, hi.resumed], ['hi', socketId, true]);
        await hears(turn);
      }
      assert.equal(reloads.length, 1, 'it was new once');
      // What it has acknowledged is not kept.
      socket.close();
      await eventually('it has ended', async () => (await gateway.verdict(socketId)).state === 'closed');
    });
  }
});
