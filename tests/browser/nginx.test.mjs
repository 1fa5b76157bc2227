//! A real nginx in front: what it must be told, and what it must not change.

import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import WS from 'ws';
import { Ear } from './ear.mjs';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { ACCEPT, KEY, knock } from './head.mjs';
import { Nginx, UPGRADES } from './nginx.mjs';
import { sleep } from './patience.mjs';
import { Recorder } from './recorder.mjs';

/** Opens a socket that is closed when the test ends. */
function connect(t, url, options) {
  const socket = new WS(url, options);
  endsWith(t, () => socket.terminate());
  return { socket, ear: Ear.at(socket) };
}

/** What differs from one answer to the next, by what it has to look like. */
function masked(lines) {
  return lines.map((line) =>
    line
      .replace(/: r_[0-9a-f]{32}$/, ': <request id>')
      .replace(/: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/, ': <date>')
      .replace(/^Server: nginx\/\S+.*$/, 'Server: <nginx>'),
  );
}

suite('nginx', { concurrency: true }, () => {
  /** Checklist 95, 97, 149, 152, 156, 159, 170. */
  test('a 101 has these header lines and no others', async (t) => {
    const gateway = await Gateway.start(t, { INSTANCE: 'web1' });
    const nginx = await Nginx.before(t, gateway.port);
    assert.deepEqual(masked(await knock(gateway.port, '/ws?user_id=a')), [
      'HTTP/1.1 101 Switching Protocols',
      'connection: Upgrade',
      'upgrade: websocket',
      `sec-websocket-accept: ${ACCEPT}`,
      'x-request-id: <request id>',
      'x-holdfast-instance: web1',
      'date: <date>',
    ]);
    assert.deepEqual(masked(await knock(nginx.port, '/ws?user_id=a')), [
      'HTTP/1.1 101 Switching Protocols',
      'Server: <nginx>',
      'Date: <date>',
      'Connection: upgrade',
      'upgrade: websocket',
      `sec-websocket-accept: ${ACCEPT}`,
      'x-request-id: <request id>',
      'x-holdfast-instance: web1',
    ]);
    const lines = ['Origin: http://localhost:3000', 'Sec-WebSocket-Protocol: chat', 'X-Request-Id: mine-1'];
    const asked = masked(await knock(gateway.port, '/ws?user_id=a', lines));
    assert.deepEqual(asked.slice(4), [
      'sec-websocket-protocol: chat',
      'x-request-id: mine-1',
      'x-holdfast-instance: web1',
      'date: <date>',
    ]);
  });

  /** Checklist 69, 147, 150, 169. */
  test('20 headers of the client arrive as they were sent', async (t) => {
    const gateway = await Gateway.start(t);
    const recorder = await Recorder.before(t, gateway.port);
    const nginx = await Nginx.before(t, recorder.port);
    const own = Array.from({ length: 19 }, (_, nth) => `X-Custom-${nth}: "quoted",  a=b; ${'x'.repeat(nth * 10)}.`);
    const lines = [...own, 'X-Request-Id: the-20th'];

    const answer = await knock(nginx.port, '/ws/AB12C?user_id=a%20b', lines);
    assert.equal(answer[0], 'HTTP/1.1 101 Switching Protocols');
    assert.ok(answer.includes('x-request-id: the-20th'), 'the gateway has read the last of them');

    const [request] = recorder.connections;
    const arrived = request.slice(0, request.indexOf('\r\n\r\n')).split('\r\n');
    assert.equal(arrived[0], 'GET /ws/AB12C?user_id=a%20b HTTP/1.1');
    assert.deepEqual(arrived.filter((line) => /^X-(?!Forwarded)/.test(line)), lines);
    for (const line of ['Upgrade: websocket', 'Connection: upgrade', `Sec-WebSocket-Key: ${KEY}`]) {
      assert.ok(arrived.includes(line), `${line} in ${arrived.join('\n')}`);
    }
    await gateway.logs(/WebSocket upgrade request for room: AB12C, user: a b request_id="the-20th"/);
  });

  /** Checklist 78, 93, 102, 151, 160, 165, 233. */
  test('a location that drops the upgrade is told the lines that it lacks', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port, `
      location / { proxy_pass http://gateway; }
      location /eleven/ { proxy_pass http://gateway/; proxy_http_version 1.1; proxy_set_header Connection ""; }`);
    for (const target of ['/ws?user_id=a', '/eleven/ws?user_id=a', '/connect', '/ws/AB12C', '/websocket?room_id=r']) {
      const { status, headers, body } = await refusal(connect(t, nginx.ws(target)).socket);
      assert.equal(status, 426, body);
      assert.equal(headers.upgrade, 'websocket');
      const { title, detail, hint } = JSON.parse(body);
      assert.equal(title, 'Expected Upgrade: websocket');
      assert.match(detail, /Expected WebSocket upgrade request/);
      assert.ok(hint.includes('proxy_set_header Upgrade $http_upgrade;'), hint);
      assert.ok(hint.includes('proxy_set_header Connection "upgrade";'), hint);
    }
    await gateway.logs(/WebSocket upgrade failed: Expected Upgrade: websocket/);
  });

  /** Checklist 160: who sends no handshake at all hears nothing of proxies. */
  test('a request that is no handshake is told to use ws://', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port);
    const response = await fetch(nginx.http('/connect'));
    assert.equal(response.status, 426);
    const { hint } = await response.json();
    assert.doesNotMatch(hint, /nginx/);
    assert.match(hint, /ws:\/\//);
  });

  /** Checklist 68, 69. */
  test('a rewritten path reaches the same door', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port, `
      location /live { rewrite ^ /connect break; proxy_pass http://gateway; ${UPGRADES} }
      location /game/ { proxy_pass http://gateway/__ws/; ${UPGRADES} }`);
    for (const target of ['/live?room_id=r', '/game/websocket?room_id=r', '/game/ws/AB12C']) {
      await connect(t, nginx.ws(target)).ear.isGreeted();
    }
    await gateway.holds(3);
  });

  /** A head that has begun must be whole in 5 s, but between two requests a connection may rest for longer. */
  test('its pool of connections is not cut while it rests', async (t) => {
    const gateway = await Gateway.start(t, { API_TOKEN: 'secret' });
    const recorder = await Recorder.before(t, gateway.port);
    const nginx = await Nginx.before(t, recorder.port);
    const asks = async (target, status) => {
      const response = await fetch(nginx.http(target), { headers: { authorization: 'Bearer secret' } });
      await response.arrayBuffer();
      assert.equal(response.status, status);
    };
    for (let nth = 0; nth < 20; nth += 1) await asks('/health', 200);
    await asks('/api/sockets/ws_nobody', 404);
    await sleep(6_500);
    await asks('/health', 200);
    assert.equal(recorder.connections.length, 1);
  });

  /** Checklist 231, 279: nginx cuts what is silent for `proxy_read_timeout`, 60 s unless told; pings come sooner. */
  test('pings keep a silent socket open', async (t) => {
    const gateway = await Gateway.start(t, { WS_PING_INTERVAL: '1s' });
    const nginx = await Nginx.before(t, gateway.port, `
      location / { proxy_pass http://gateway; ${UPGRADES} proxy_read_timeout 3s; }`);
    const { socket, ear } = connect(t, nginx.ws('/ws?user_id=a'));
    await ear.isGreeted();
    await sleep(6_000);
    socket.send('{"evt":"ping"}');
    assert.equal(await ear.text(), '{"evt":"pong"}');
  });

  /** Checklist 56, 132. */
  test('frames of every size pass in both directions, in order', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port);
    const [own, other] = [connect(t, nginx.ws('/websocket?room_id=r')), connect(t, nginx.ws('/websocket?room_id=r'))];
    await own.ear.isGreeted();
    await other.ear.isGreeted();
    const sizes = [0, 1, 125, 126, 127, 65_535, 65_536];
    for (const size of sizes) own.socket.send(Buffer.alloc(size, 'x'));
    for (const size of sizes) assert.equal((await other.ear.text()).length, size);
    own.socket.send(Buffer.alloc(65_537));
    assert.deepEqual(await own.ear.closes(), { code: 1009, reason: 'message larger than 65536 bytes' });
  });

  /** Checklist 192: behind a proxy everybody looks local, so nobody is served without a token. */
  test('through nginx the server plane wants a token', async (t) => {
    const forwarded = `location / { proxy_pass http://gateway; ${UPGRADES}
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }`;
    const open = await Gateway.start(t);
    const shut = await Nginx.before(t, open.port, forwarded);
    const refused = await fetch(shut.http('/api/debug/sockets'));
    assert.equal(refused.status, 401);
    assert.match((await refused.json()).hint, /API_TOKEN/);

    const guarded = await Gateway.start(t, { API_TOKEN: 'secret' });
    const nginx = await Nginx.before(t, guarded.port, forwarded);
    const headers = { authorization: 'Bearer secret' };
    const { status } = await fetch(nginx.http('/api/debug/sockets'), { headers });
    assert.equal(status, 200);
  });

  /** The lines of the hint, word for word, and no others: `Host` is the gateway's, and nothing says "forwarded". */
  const HINTED = `location / { proxy_pass http://GATEWAY;
    proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }`;

  /** CONTRACT section 5. */
  test('the lines of the hint alone do not open the server plane to everybody', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port, HINTED.replace('GATEWAY', gateway.host));
    await connect(t, nginx.ws('/ws?user_id=a')).ear.isGreeted();
    for (const target of ['/api/debug/sockets', '/metrics']) {
      assert.equal((await fetch(nginx.http(target))).status, 401, target);
    }
  });

  /** CONTRACT sections 2 and 5: `/` is a door with an upgrade, and a page without. */
  test('the lines of the hint alone leave the page at / where it is', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port, HINTED.replace('GATEWAY', gateway.host));
    assert.equal((await fetch(gateway.http('/'))).status, 200);
    assert.equal((await fetch(nginx.http('/'))).status, 200);
  });

  /** Checklist 113: nobody sees 1006 because of a restart. */
  test('a drain reaches the client as 1012', async (t) => {
    const gateway = await Gateway.start(t);
    const nginx = await Nginx.before(t, gateway.port);
    const { ear } = connect(t, nginx.ws('/ws?user_id=a'));
    await ear.isGreeted();
    await gateway.ends();
    const retry = await ear.frame();
    assert.equal(retry.type, 'retry');
    assert.ok(retry.afterMs > 0);
    assert.deepEqual(await ear.closes(), { code: 1012, reason: 'restart' });
  });
});

/** The HTTP answer to a handshake that failed. */
async function refusal(socket) {
  const response = await new Promise((resolve, reject) => {
    socket.once('unexpected-response', (_, response) => resolve(response));
    socket.once('open', () => reject(new Error('it was let in')));
  });
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode, headers: response.headers, body };
}
