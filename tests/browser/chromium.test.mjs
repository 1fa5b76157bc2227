//! A real browser, with a page of the machine's own and with a page of a stranger.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { Chromium } from './chromium.mjs';
import { Gateway } from './gateway.mjs';
import { Nginx, UPGRADES } from './nginx.mjs';
import { eventually } from './patience.mjs';
import { freePort } from './port.mjs';
import { rebound } from './rebound.mjs';

suite('Chromium', { concurrency: 3 }, () => {
  let chromium;
  before(async () => (chromium = await Chromium.start()));
  after(() => chromium.stop());

  /** A gateway behind nginx. */
  async function behindNginx(t, settings) {
    const gateway = await Gateway.start(t, settings);
    return { gateway, nginx: await Nginx.before(t, gateway.port) };
  }

  /** Checklist 10, 54, 82, 97, 104, 133, 146, 175. */
  test('new WebSocket(url) opens through nginx, and is greeted and answered', async (t) => {
    const { gateway, nginx } = await behindNginx(t, { INSTANCE: 'web1' });
    const tab = await chromium.tab(t);
    const { ear, says } = await tab.connect(nginx.ws('/websocket?room_id=test-room'));
    assert.deepEqual(await ear.opens(), { protocol: '', extensions: '' });
    const { socketId } = await ear.isGreeted();

    const { status, headers } = await tab.handshake();
    assert.equal(status, 101);
    assert.match(headers['x-request-id'], /^r_/);
    assert.equal(headers['x-holdfast-instance'], 'web1');
    assert.equal(headers['Sec-WebSocket-Extensions'], undefined);

    for (const key of ['evt', 'type']) {
      await says(`{"${key}":"ping"}`);
      assert.equal(await ear.text(), `{"${key}":"pong"}`);
    }
    await says({ type: 'getSocketId' });
    assert.deepEqual(await ear.frame(), { type: 'getSocketId', data: socketId });
    assert.equal((await gateway.asks(`/api/sockets/${socketId}`)).status, 200);
    assert.deepEqual(tab.console, []);
  });

  /** Checklist 104: the nearest console that a user finds is that of the gateway's own page. */
  test('new WebSocket(url) opens from the console of the page at /', async (t) => {
    const gateway = await Gateway.start(t);
    const tab = await chromium.tab(t, gateway.http(''));
    const { ear } = await tab.connect(gateway.ws('/websocket?room_id=test-room'));
    const seen = () => (ear.unread > 0 ? 'greeted' : tab.console[0]);
    assert.equal(await eventually('the page is greeted, or its console says why not', seen), 'greeted');
  });

  /** Checklist 144, 146, 155, 175. */
  test('two tabs meet at /ws/AB12C', async (t) => {
    const { gateway, nginx } = await behindNginx(t);
    const [first, second] = [await chromium.tab(t), await chromium.tab(t)];
    const own = await first.connect(nginx.ws('/ws/AB12C'));
    const other = await second.connect(nginx.ws('/ws/AB12C'));
    const { socketId } = await own.ear.isGreeted();
    await other.ear.isGreeted();
    assert.equal((await first.handshake()).status, 101);

    await own.says({ type: 'publish', room: 'AB12C', data: { move: 'e4' } });
    const heard = { type: 'message', room: 'AB12C', from: socketId, data: { move: 'e4' } };
    assert.deepEqual(await other.ear.frame(), heard);
    await own.sendsBytes(70);
    assert.equal(await other.ear.text(), '70 bytes');
    await gateway.logs(/WebSocket upgrade request for room: AB12C, user: anonymous/);
  });

  /** Checklist 49, 96, 114, 120, 144, 145, 153, 154. */
  test('with reject=close the close event says why', async (t) => {
    const { nginx } = await behindNginx(t);
    const tab = await chromium.tab(t);
    const reasons = {
      '/websocket?reject=close': 'Missing room_id query parameter',
      '/websocket?room_id&reject=close': 'Missing or empty room_id query parameter',
      '/websocket?room_id=%20&reject=close': 'Missing or empty room_id query parameter',
      '/ws/:code?reject=close': 'Invalid match code',
      '/ws/AB12?reject=close': 'Invalid match code',
    };
    for (const [target, reason] of Object.entries(reasons)) {
      const { ear } = await tab.connect(nginx.ws(target));
      await ear.opens();
      assert.deepEqual(await ear.closes(), { code: 1008, reason, wasClean: true }, target);
      assert.equal(ear.unread, 0);
    }
    assert.deepEqual(tab.console, [], 'nothing went wrong as far as the console knows');
  });

  /** Checklist 49, 113, 145: a browser hides why a handshake failed, and its console names but the status. */
  test('without it the page sees 1006, the console the status, and /api/handshake the reason', async (t) => {
    const { nginx } = await behindNginx(t);
    const tab = await chromium.tab(t);
    const { ear } = await tab.connect(nginx.ws('/websocket?room_id='));
    assert.deepEqual(await ear.closes(), { code: 1006, reason: '', wasClean: false });
    await tab.shows(/Unexpected response code: 400/);

    const asked = await tab.fetch(nginx.http('/api/handshake?path=/websocket&room_id='));
    assert.equal(asked.status, 400, JSON.stringify(asked));
    const { title, error, hint, requestId } = JSON.parse(asked.body);
    assert.equal(title, 'Missing or empty room_id query parameter');
    assert.equal(error, 'room_id parameter is required and must not be empty');
    assert.ok(hint);
    assert.equal(asked.requestId, requestId, 'a page can read the id by which the log is searched');
  });

  /** Checklist 94, 139, 142: with and without cookies, simple and preflighted. */
  test('a page of an allowed origin can read what /api/handshake says', async (t) => {
    const gateway = await Gateway.start(t);
    const tab = await chromium.tab(t);
    const url = gateway.http('/api/handshake?path=/ws/AB12C&user_id=a');
    const preflighted = { headers: { 'X-API-Key': 'nk_x', Authorization: 'Bearer x' } };
    for (const options of [{}, { credentials: 'include' }, preflighted, { ...preflighted, credentials: 'include' }]) {
      const { status, body, error } = await tab.fetch(url, options);
      assert.equal(status, 200, error);
      assert.deepEqual(JSON.parse(body), { ok: true, userId: 'a', storeId: null, rooms: ['AB12C'] });
    }
  });

  /** Checklist 94, 139, 232. */
  test('an origin is allowed by CORS_ORIGINS, and only it', async (t) => {
    const origin = chromium.origin('app.test');
    const { gateway, nginx } = await behindNginx(t, { CORS_ORIGINS: `https://example.com, ${origin}` });
    const allowed = await chromium.tab(t, origin);
    const { ear } = await allowed.connect(nginx.ws('/ws?user_id=a'));
    await ear.isGreeted();
    assert.equal((await allowed.fetch(gateway.http('/api/handshake?path=/ws'))).status, 200);

    const local = await chromium.tab(t);
    const refused = await local.connect(nginx.ws('/ws?user_id=a'));
    assert.equal((await refused.ear.closes()).code, 1006);
  });

  /** Checklist 94, 141, 145: a stranger is not even told on the socket. */
  test('a page of a stranger gets 1006, whatever it asks for', async (t) => {
    const { gateway, nginx } = await behindNginx(t);
    const tab = await chromium.tab(t, chromium.origin('stranger.test'));
    for (const query of ['user_id=a', 'user_id=a&reject=close']) {
      const { ear } = await tab.connect(nginx.ws(`/ws?${query}`));
      assert.deepEqual(await ear.closes(), { code: 1006, reason: '', wasClean: false });
      await tab.shows(/Unexpected response code: 403/);
      tab.console.length = 0;
    }
    await gateway.logs(/WebSocket upgrade failed: Origin not allowed: .*stranger\.test/);
    await gateway.holds(0);
  });

  /** Checklist 94, 192. */
  test('a page of a stranger reads nothing and changes nothing', async (t) => {
    const gateway = await Gateway.start(t);
    const own = await chromium.tab(t);
    const { ear } = await own.connect(gateway.ws('/ws?user_id=a'));
    const { socketId } = await ear.isGreeted();

    const stranger = await chromium.tab(t, chromium.origin('stranger.test'));
    const push = { method: 'POST', body: '{"user_id":"a","data":"spam"}' };
    const attempts = [
      ['/api/debug/sockets', {}],
      ['/api/debug/sockets', { credentials: 'include' }],
      ['/api/handshake?path=/ws', {}],
      ['/health', {}],
      ['/sse/push', push],
      ['/sse/push', { ...push, headers: { 'content-type': 'application/json' } }],
      [`/api/sockets/${socketId}`, { method: 'DELETE' }],
    ];
    for (const [target, options] of attempts) {
      const { error } = await stranger.fetch(gateway.http(target), options);
      assert.match(`${error}`, /Failed to fetch/, target);
    }
    const blind = await stranger.fetch(gateway.http('/sse/push'), { ...push, mode: 'no-cors' });
    assert.equal(blind.type, 'opaque');
    assert.deepEqual(new Set(stranger.answers.slice(1).map(({ status }) => status)), new Set([403]));

    assert.equal(ear.unread, 0);
    assert.equal((await gateway.asks(`/api/sockets/${socketId}`)).status, 200);
  });

  /**
   * CONTRACT section 5: a stranger's name, rebound to this machine, sends no `Origin` for what is its own; and over
   * plain HTTP no `Sec-Fetch-Site` either, so that the server plane goes by the `Host` alone.
   */
  test('a page on a rebound name gets nothing of the server plane, and no socket', async (t) => {
    const gateway = await Gateway.start(t);
    const host = `rebound.test:${await rebound(t, gateway.port)}`;
    const tab = await chromium.tab(t, `http://${host}`);
    for (const target of ['/api/debug/sockets', '/api/sockets', '/api/users/a', '/metrics']) {
      const { status, body } = await tab.fetch(target);
      assert.equal(status, 401, `${target}: ${body}`);
    }
    const { ear } = await tab.connect(`ws://${host}/ws?user_id=a`);
    assert.equal((await ear.closes()).code, 1006);
  });

  /** A gateway behind an nginx with TLS that serves a page of its own too, for whatever name. */
  async function behindTls(t) {
    const port = String(await freePort());
    const nginx = await Nginx.beforeWithTls(t, port, `
      location = / { default_type text/html; return 200 '<!doctype html><link rel="icon" href="data:,">'; }
      location / { proxy_pass http://gateway; ${UPGRADES} }`);
    const own = `app.test:${nginx.port}`;
    const gateway = await Gateway.start(t, { PORT: port, CORS_ORIGINS: `https://${own}` });
    return { gateway, own, strange: `rebound.test:${nginx.port}` };
  }

  /** Checklist 51, 94. */
  test('an https page opens wss://, and reads what stands under its own address', async (t) => {
    const { own } = await behindTls(t);
    const tab = await chromium.tab(t, `https://${own}`);
    const { ear } = await tab.connect(`wss://${own}/websocket?room_id=r`);
    await ear.isGreeted();
    assert.equal((await tab.fetch('/api/handshake?path=/ws')).status, 200);
    assert.equal((await tab.fetch('/health')).status, 200);
  });

  /** CONTRACT section 5: `Sec-Fetch-Site` without `Origin` has the `Host` checked. */
  test('an https page under a name that is not allowed reads nothing', async (t) => {
    const { strange } = await behindTls(t);
    const tab = await chromium.tab(t, `https://${strange}`);
    for (const target of ['/health', '/openapi.json', '/api/sockets']) {
      const { status, body } = await tab.fetch(target);
      assert.equal(status, 403, `${target}: ${body}`);
      assert.equal(JSON.parse(body).title, 'Origin not allowed');
    }
    const { ear } = await tab.connect(`wss://${strange}/ws?user_id=a`);
    assert.equal((await ear.closes()).code, 1006);
  });

  /** The same for the doors that answer with JSON. */
  test('an https page under a name that is not allowed cannot rehearse a handshake', async (t) => {
    const { strange } = await behindTls(t);
    const tab = await chromium.tab(t, `https://${strange}`);
    assert.equal((await tab.fetch('/api/handshake?path=/ws&user_id=a')).status, 403);
  });

  /** Checklist 112, 113, 115. */
  test('the close event of a kick and of a restart says why', async (t) => {
    const { gateway, nginx } = await behindNginx(t);
    const tab = await chromium.tab(t);
    const kicked = await tab.connect(nginx.ws('/ws?user_id=a'));
    const { socketId } = await kicked.ear.isGreeted();
    await gateway.asks(`/api/sockets/${socketId}?reason=${encodeURIComponent('schöner Tag')}`, { method: 'DELETE' });
    assert.deepEqual(await kicked.ear.closes(), { code: 4403, reason: 'kicked: schöner Tag', wasClean: true });

    const restarted = await tab.connect(nginx.ws('/ws?user_id=a'));
    await restarted.ear.isGreeted();
    await gateway.ends();
    assert.equal((await restarted.ear.frame()).type, 'retry');
    assert.deepEqual(await restarted.ear.closes(), { code: 1012, reason: 'restart', wasClean: true });
    assert.deepEqual(tab.console, []);
  });

  /** Checklist 16, 129. */
  test('a page that closes, and a tab that is closed, leave a verdict and no ghost', async (t) => {
    const { gateway, nginx } = await behindNginx(t);
    const tab = await chromium.tab(t);
    const closing = await tab.connect(nginx.ws('/ws?user_id=a'));
    const left = await tab.connect(nginx.ws('/ws?user_id=a'));
    const [first, second] = [await closing.ear.isGreeted(), await left.ear.isGreeted()];
    await closing.closes(4000, 'enough');
    assert.deepEqual(await closing.ear.closes(), { code: 4000, reason: 'enough', wasClean: true });
    const { cause, closeCode, reason } = await gateway.verdict(first.socketId);
    assert.deepEqual({ cause, closeCode, reason }, { cause: 'client_closed', closeCode: 4000, reason: 'enough' });

    await tab.page.close();
    const ended = await gateway.verdict(second.socketId);
    assert.deepEqual([ended.cause, ended.closeCode], ['client_closed', 1001]);
    await gateway.holds(0);
  });
});
