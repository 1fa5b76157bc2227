//! The real PartySocket of the npm registry, as a page imports it and as an older bundler requires it.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { suite, test } from 'node:test';
import * as esm from 'partysocket';
import WS from 'ws';
import { Ear } from './ear.mjs';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { Nginx } from './nginx.mjs';

const cjs = createRequire(import.meta.url)('partysocket');

/** Tries again sooner than a page would, so that nobody has to wait here. */
const EAGER = { minReconnectionDelay: 50, maxReconnectionDelay: 200 };

/** A tab: a PartySocket, and what it hears. */
class Tab {
  /** `new PartySocket({…})`, with nothing but the address, the path and the query. */
  static party(t, { PartySocket }, host, basePath, query, options = {}) {
    return new Tab(t, new PartySocket({ host, basePath, query, WebSocket: WS, ...options }));
  }

  /** What `useWebSocket(url, undefined, …)` makes: a URL, and no subprotocol. */
  static url(t, { WebSocket }, url, options = {}) {
    return new Tab(t, new WebSocket(url, undefined, { WebSocket: WS, ...options }));
  }

  constructor(t, socket) {
    this.socket = socket;
    this.ear = Ear.at(socket);
    endsWith(t, () => socket.close());
  }

  says(frame) {
    this.socket.send(JSON.stringify(frame));
  }
}

suite('PartySocket', { concurrency: true }, () => {
  for (const [form, npm] of [['imported', esm], ['required', cjs]]) {
    for (const way of ['directly', 'through nginx']) {
      for (const door of ['websocket', '__ws/websocket']) {
        /** Checklist 50, 52, 56, 57, 58, 82, 118, 128. */
        test(`${form}, it meets the other tabs of its room ${way} at /${door}`, async (t) => {
          const gateway = await Gateway.start(t);
          const { host } = way === 'directly' ? gateway : await Nginx.before(t, gateway.port);
          const enter = () => Tab.party(t, npm, host, door, { room_id: 'test-room-123' });
          const [own, second, third] = [enter(), enter(), enter()];
          const { socketId } = await own.ear.isGreeted();
          await second.ear.isGreeted();
          await third.ear.isGreeted();

          for (const data of [{ move: 1 }, { move: 2 }]) own.says({ type: 'publish', room: 'test-room-123', data });
          for (const { ear } of [second, third]) {
            for (const data of [{ move: 1 }, { move: 2 }]) {
              assert.deepEqual(await ear.frame(), { type: 'message', room: 'test-room-123', from: socketId, data });
            }
          }
          own.says({ type: 'getSocketId' });
          assert.equal((await own.ear.frame()).data, socketId, 'a publisher does not hear itself');
        });
      }
    }

    for (const signal of ['SIGTERM', 'SIGKILL']) {
      /** Checklist 50, 113, 127, 129, 228. */
      test(`${form}, it comes back by itself after ${signal}`, async (t) => {
        const gateway = await Gateway.startAgainable(t);
        const enter = () => Tab.party(t, npm, gateway.host, 'websocket', { room_id: 'r' }, EAGER);
        const [own, other] = [enter(), enter()];
        const before = await own.ear.isGreeted();
        await other.ear.isGreeted();

        await gateway.ends(signal);
        for (const { ear } of [own, other]) {
          if (signal === 'SIGTERM') assert.equal((await ear.frame()).type, 'retry');
          const { code, reason } = await ear.closes();
          assert.equal(code, signal === 'SIGTERM' ? 1012 : 1006);
          if (signal === 'SIGTERM') assert.equal(reason, 'restart');
        }
        await gateway.comesBack();
        const after = await own.ear.isGreeted();
        await other.ear.isGreeted();
        assert.notEqual(after.socketId, before.socketId);
        await gateway.holds(2);

        own.says({ type: 'publish', room: 'r', data: 'again' });
        assert.equal((await other.ear.frame()).data, 'again');
      });
    }
  }

  /** Checklist 113, 127, 228. */
  test('with its own patience it comes back through nginx', async (t) => {
    const gateway = await Gateway.startAgainable(t);
    const nginx = await Nginx.before(t, gateway.port);
    const tab = Tab.party(t, esm, nginx.host, 'websocket', { room_id: 'r' });
    await tab.ear.isGreeted();
    await gateway.ends();
    assert.equal((await tab.ear.frame()).type, 'retry');
    assert.deepEqual(await tab.ear.closes(), { code: 1012, reason: 'restart' });
    await gateway.comesBack();
    await tab.ear.isGreeted();
  });

  /** Checklist 53. */
  test('a room keeps its name however its URL was encoded', async (t) => {
    const gateway = await Gateway.start(t);
    const name = 'Zimmer 1+2/ä&=🂡';
    const pluses = Tab.party(t, esm, gateway.host, 'websocket', { room_id: name });
    const percents = Tab.url(t, esm, gateway.ws(`/websocket?room_id=${encodeURIComponent(name)}`));
    await pluses.ear.isGreeted();
    const { socketId } = await percents.ear.isGreeted();
    percents.says({ type: 'publish', room: name, data: 1 });
    assert.deepEqual(await pluses.ear.frame(), { type: 'message', room: name, from: socketId, data: 1 });
  });

  /** Checklist 54. */
  test('no subprotocol is spoken that was not asked for', async (t) => {
    const gateway = await Gateway.start(t);
    const silent = Tab.url(t, esm, gateway.ws('/websocket?room_id=r'));
    await silent.ear.isGreeted();
    assert.equal(silent.socket.protocol, '');
    const asking = Tab.party(t, esm, gateway.host, 'websocket', { room_id: 'r' }, { protocols: ['chat', 'other'] });
    await asking.ear.isGreeted();
    assert.equal(asking.socket.protocol, 'chat');
  });

  /** Checklist 55, 110. */
  test('it waits closed until its room is known', async (t) => {
    const gateway = await Gateway.start(t);
    const tab = Tab.party(t, esm, gateway.host, 'websocket', {}, { startClosed: true });
    tab.socket.updateProperties({ query: { room_id: 'late' } });
    tab.socket.reconnect();
    await tab.ear.isGreeted();
    await gateway.holds(1);
    assert.equal((await gateway.asks('/api/rooms/late')).status, 200);
  });

  /** What a tab without a room is told, and what it asked for. Checklist 49, 57, 61, 83, 85, 104, 119, 120. */
  const ROOMLESS = {
    'no room_id': [{}, 'Missing room_id query parameter'],
    'an empty room_id': [{ room_id: '' }, 'Missing or empty room_id query parameter'],
    'a blank room_id': [{ room_id: ' \u00a0' }, 'Missing or empty room_id query parameter'],
    'a room_id that nobody has set': [{ room_id: 'undefined' }, 'Invalid room_id query parameter'],
  };
  for (const [fault, [query, reason]] of Object.entries(ROOMLESS)) {
    for (const [form, npm] of [['imported', esm], ['required', cjs]]) {
      test(`${form}, with ${fault} it sees 1008 and why`, async (t) => {
        const gateway = await Gateway.start(t);
        const stops = { shouldReconnectOnClose: ({ code }) => code !== 1008 };
        const tab = Tab.party(t, npm, gateway.host, 'websocket', { ...query, reject: 'close' }, stops);
        await tab.ear.opens();
        assert.deepEqual(await tab.ear.closes(), { code: 1008, reason });
        assert.equal(tab.ear.unread, 0, 'no hi for somebody who is not let in');
        await gateway.logs(new RegExp(`WebSocket upgrade failed: ${reason}`));
        await gateway.holds(0);
      });
    }
  }

  /** Checklist 35, 112, 115. */
  test('a close that says stop can be heeded', async (t) => {
    const gateway = await Gateway.start(t);
    const stops = { ...EAGER, shouldReconnectOnClose: ({ code }) => code < 4400 || code === 4429 };
    const tab = Tab.party(t, esm, gateway.host, 'websocket', { room_id: 'r' }, stops);
    const { socketId } = await tab.ear.isGreeted();
    await gateway.asks(`/api/sockets/${socketId}?reason=enough`, { method: 'DELETE' });
    assert.deepEqual(await tab.ear.closes(), { code: 4403, reason: 'kicked: enough' });
    assert.equal(tab.socket.shouldReconnect, false);
    assert.equal((await gateway.verdict(socketId)).cause, 'kicked');
    await gateway.holds(0);
  });

  /** Checklist 113, 129. */
  test('a tab that goes leaves no ghost', async (t) => {
    const gateway = await Gateway.start(t);
    const tab = Tab.party(t, esm, gateway.host, 'websocket', { room_id: 'r' });
    const { socketId } = await tab.ear.isGreeted();
    tab.socket.close();
    assert.equal((await gateway.verdict(socketId)).cause, 'client_closed');
    tab.socket.reconnect();
    await tab.ear.isGreeted();
    await gateway.holds(1);
  });

  /** Checklist 253: the id that PartySocket gives its tab, told as `client_id`, keeps a reconnecting tab alone. */
  test('a tab with a client_id replaces itself', async (t) => {
    const gateway = await Gateway.start(t);
    const query = { room_id: 'r', user_id: 'u', client_id: 'tab-1' };
    const first = Tab.party(t, esm, gateway.host, 'websocket', query, { shouldReconnectOnClose: () => false });
    await first.ear.isGreeted();
    const again = Tab.party(t, esm, gateway.host, 'websocket', query);
    await again.ear.isGreeted();
    assert.deepEqual(await first.ear.closes(), { code: 4409, reason: 'replaced by a newer connection' });
    await gateway.holds(1);
  });
});
