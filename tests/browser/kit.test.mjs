//! The shipped nginx/holdfast.conf in front of three instances on one Redis: clients of every make open a socket, name
//! their store, answer calls, and outlive the restart of the instance that they are on.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, before, suite, test } from 'node:test';
import * as esm from 'partysocket';
import WS from 'ws';
import { Chromium } from './chromium.mjs';
import { Ear } from './ear.mjs';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { Nginx } from './nginx.mjs';
import { Program } from './program.mjs';
import { Redis } from './redis.mjs';

const cjs = createRequire(import.meta.url)('partysocket');
const TOKEN = 'secret';

/** Three instances, and nginx before them. */
async function kit(t) {
  const settings = { REDIS_URL: (await Redis.start(t)).url, API_TOKEN: TOKEN, DRAIN_TIMEOUT: '3s' };
  const names = ['web1', 'web2', 'web3'];
  const gateways = await Promise.all(names.map((INSTANCE) => Gateway.startAgainable(t, { ...settings, INSTANCE })));
  const nginx = await Nginx.before(t, gateways.map(({ port }) => port));
  return { gateways: Object.fromEntries(names.map((name, nth) => [name, gateways[nth]])), nginx };
}

/** A call to a store, as one of the team's servers makes it; it waits for who is on the way. */
async function call(nginx, storeId, data) {
  const response = await fetch(nginx.http('/api/call'), {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
    body: JSON.stringify({ storeId, event: 'ask', data, whenOffline: 'wait', timeoutMs: 15_000 }),
  });
  return response.json();
}

/** With `ws` and the few lines that everybody writes around it. */
function plain(t, nginx, query) {
  const ear = new Ear();
  let socket;
  let timer;
  const open = () => {
    socket = new WS(nginx.ws(`/ws?${query}`));
    Ear.at(socket, ear);
    socket.on('close', () => (timer = setTimeout(open, 50)));
  };
  open();
  endsWith(t, () => {
    socket.removeAllListeners('close');
    clearTimeout(timer);
    socket.terminate();
  });
  return { ear, says: (frame) => socket.send(JSON.stringify(frame)) };
}

/** As a page imports it, or an older bundler requires it. */
const party = ({ PartySocket }) => (t, nginx, query) => {
  const patience = { minReconnectionDelay: 50, maxReconnectionDelay: 200 };
  const named = Object.fromEntries(new URLSearchParams(query));
  const socket = new PartySocket({ host: nginx.host, basePath: 'ws', query: named, WebSocket: WS, ...patience });
  endsWith(t, () => socket.close());
  return { ear: Ear.at(socket), says: (frame) => socket.send(JSON.stringify(frame)) };
};

suite('the shipped nginx/holdfast.conf', { concurrency: 2 }, () => {
  let chromium;
  before(async () => (chromium = await Chromium.start()));
  after(() => chromium.stop());

  /** A page's `new WebSocket`, opened again when it is closed. */
  async function page(t, nginx, query) {
    const tab = await chromium.tab(t);
    const ear = new Ear();
    const open = async () => (page.socket = await tab.connect(nginx.ws(`/ws?${query}`), [], ear));
    const page = { ear, says: (frame) => page.socket.says(frame), reopens: open };
    await open();
    return page;
  }

  const MAKES = {
    'a plain Node client': plain,
    'PartySocket, imported,': party(esm),
    'PartySocket, required,': party(cjs),
    'a page in Chromium': page,
  };
  for (const [make, opens] of Object.entries(MAKES)) {
    /** Checklist 50, 104, 113, 127, 278. */
    test(`${make} answers calls and outlives the restart of its instance`, async (t) => {
      const { gateways, nginx } = await kit(t);
      const client = await opens(t, nginx, 'user_id=ann');
      const selects = async () => {
        const { instance } = await client.ear.isGreeted();
        await client.says({ type: 'selectStore', data: { storeId: 's' } });
        assert.deepEqual(await client.ear.frame(), { type: 'storeSelected', data: { storeId: 's' } });
        return instance;
      };
      const answers = async (data) => {
        const frame = await client.ear.frame();
        assert.deepEqual([frame.type, frame.data], ['ask', data]);
        await client.says({ type: 'reply', callId: frame.callId, data: data + 1 });
      };
      const first = await selects();
      const asking = call(nginx, 's', 1);
      await answers(1);
      assert.deepEqual([(await asking).status, (await asking).result], ['replied', 2]);

      const ended = gateways[first].ends();
      assert.equal((await client.ear.frame()).type, 'retry');
      assert.deepEqual((({ code, reason }) => [code, reason])(await client.ear.closes()), [1012, 'restart']);
      const waiting = call(nginx, 's', 2);
      await client.reopens?.();
      const second = await selects();
      assert.notEqual(second, first);
      await answers(2);
      assert.deepEqual([(await waiting).status, (await waiting).result, (await waiting).instance], ['replied', 3, second]);
      await ended;
      await gateways[first].comesBack();
      const again = call(nginx, 's', 3);
      await answers(3);
      assert.equal((await again).status, 'replied');
    });
  }

  /** Checklist 50, 57, 128. */
  test('tabs of one room on three instances hear each other once', async (t) => {
    const { gateways, nginx } = await kit(t);
    const enter = (npm) => party(npm)(t, nginx, 'room_id=r');
    const tabs = [];
    const met = new Set();
    for (const npm of [esm, cjs, esm, cjs, esm, cjs]) {
      const tab = enter(npm);
      met.add((await tab.ear.isGreeted()).instance);
      tabs.push(tab);
    }
    assert.deepEqual([...met].sort(), Object.keys(gateways));
    tabs[0].says({ type: 'publish', room: 'r', data: 'hello' });
    for (const { ear, says } of tabs.slice(1)) {
      assert.equal((await ear.frame()).data, 'hello');
      says({ evt: 'ping' });
      assert.deepEqual(await ear.frame(), { evt: 'pong' }, 'nothing comes twice');
    }
  });

  /** Checklist 291. */
  test('ab finds nothing to complain of', async (t) => {
    const { nginx } = await kit(t);
    // -l: which of the three answers shows in the length of the answer.
    const { code, output } = await Program.run('ab', ['-q', '-l', '-n', '1000', '-c', '10', nginx.http('/health')]);
    assert.equal(code, 0, output);
    assert.match(output, /Complete requests: +1000\n/);
    assert.match(output, /Failed requests: +0\n/);
    assert.doesNotMatch(output, /Non-2xx/);
  });
});
