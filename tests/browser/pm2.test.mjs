//! Under the real pm2 and behind the real nginx, each with the file that we ship: started, reloaded under calls, killed,
//! drained, and wrong.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { suite, test } from 'node:test';
import WS from 'ws';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { Nginx } from './nginx.mjs';
import { eventually, soon } from './patience.mjs';
import { Pm2 } from './pm2.mjs';
import { freePorts } from './port.mjs';
import { Program } from './program.mjs';
import { Redis } from './redis.mjs';

const API_TOKEN = 't0ken';

/** One of the team's own servers, which asks through nginx, each time on a connection of its own. */
class Server {
  constructor(nginx) {
    this.nginx = nginx;
  }

  async asks(target, json) {
    const headers = { authorization: `Bearer ${API_TOKEN}`, 'content-type': 'application/json' };
    const asked = http.request(this.nginx.http(target), { agent: false, method: json ? 'POST' : 'GET', headers });
    asked.end(json && JSON.stringify(json));
    const [response] = await once(asked, 'response');
    const said = await text(response);
    // A proxy's own words are no JSON.
    const isJson = response.headers['content-type']?.includes('json');
    return { status: response.statusCode, json: isJson ? JSON.parse(said) : said };
  }
}

/** A page of one user that answers every call, and comes back whenever it is told to go. */
class Shop {
  static async opens(t, nginx, user) {
    const shop = new Shop(nginx, user);
    endsWith(t, () => {
      shop.isOver = true;
      shop.socket.close();
    });
    shop.comes();
    await shop.isBack();
    return shop;
  }

  /** Of every connection that it had. */
  ids = [];
  closes = [];

  constructor(nginx, user) {
    Object.assign(this, { nginx, user });
  }

  comes() {
    const socket = (this.socket = new WS(this.nginx.ws(`/ws?user_id=${this.user}`)));
    socket.on('error', () => {});
    socket.on('message', (text) => {
      const { type, callId, socketId } = JSON.parse(text);
      if (socketId && type === 'hi') this.ids.push(socketId);
      if (callId && type !== 'cancel') socket.send(JSON.stringify({ type: 'reply', callId, data: this.user }));
    });
    socket.on('close', (code) => {
      if (socket.wasOpen) this.closes.push(code);
      if (!this.isOver) setTimeout(() => this.comes(), 20);
    });
    socket.on('open', () => (socket.wasOpen = true));
  }

  isBack(times = 0) {
    return eventually(`${this.user} is connected`, () => this.ids.length > times && this.socket.readyState === WS.OPEN);
  }
}

suite('pm2', { concurrency: true }, () => {
  /** CONTRACT section 1. */
  test('the channel of NODE_CHANNEL_FD says ready', async (t) => {
    const env = { PATH: process.env.PATH, HOST: '127.0.0.1', PORT: '0', pm_id: '0', kill_timeout: '3000' };
    const child = spawn(Gateway.BINARY, [], { env, stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    const ended = once(child, 'exit');
    t.after(() => child.kill('SIGKILL'));
    const [word] = await soon(() => 'a word on the channel', once(child, 'message'));
    assert.equal(word, 'ready');
    child.kill('SIGTERM');
    assert.deepEqual(await ended, [0, null]);
  });

  /** Checklist 29, 44, 213 (what `pm2 list` and `pm2 monit` show), 214, 221, 276. */
  test('three instances are reloaded one by one, no call that waits is lost, and every end has its verdict', async (t) => {
    const [pm2, redis, ports] = await Promise.all([Pm2.start(t), Redis.start(t), freePorts(3)]);
    await pm2.starts(Pm2.app({ PORT: ports[0], REDIS_URL: redis.url, WHY_TTL: '5m', API_TOKEN }));
    // pm2 came back, so all are ready: it waited for their word.
    for (const port of ports) {
      assert.equal((await fetch(`http://127.0.0.1:${port}/health/ready`)).status, 200, `${port}`);
    }
    const shown = await pm2.shows('holdfast');
    assert.deepEqual(shown.map(({ port, status }) => [port, status]), ports.map((port) => [port, 'online']));

    const nginx = await Nginx.before(t, ports);
    const server = new Server(nginx);
    const instances = async () => (await server.asks('/api/instances')).json;
    const before = (await instances()).instances;
    assert.deepEqual(
      before.map(({ pid, restarts, manager, address }) => [pid, restarts, manager, address]),
      shown.map(({ pid, port }) => [pid, 0, 'pm2', `127.0.0.1:${port}`]),
    );
    before.forEach(({ instance }, nth) => assert.ok(instance.endsWith(`-${nth}:${ports[nth]}`), instance));

    const shops = await Promise.all([0, 1, 2, 3, 4, 5].map((nth) => Shop.opens(t, nginx, `user${nth}`)));
    await pm2.becomes('it shows the sockets (pm2 monit)', 'holdfast', (shown) => {
      return shown.reduce((sum, { figures }) => sum + (figures.Sockets?.value ?? 0), 0) === shops.length;
    });
    let [isOver, asked] = [false, 0];
    const failures = [];
    const callers = shops.map(async ({ user }) => {
      while (!isOver) {
        const call = { userId: user, event: 'look', whenOffline: 'wait', timeoutMs: 15_000 };
        const { status, json: said } = await server.asks('/api/call', call);
        asked += 1;
        if (status !== 200 || said.result !== user) failures.push([status, said]);
      }
    });
    const told = await pm2.runs('reload', 'holdfast', '--parallel', '1');
    isOver = true;
    await Promise.all(callers);
    assert.deepEqual(failures, []);
    assert.ok(asked > 20, `${asked} calls`);
    assert.equal(told.match(/\(\d\) ✓/g).length, 3, told);

    const after = await instances();
    assert.deepEqual(
      after.instances.map(({ instance, restarts }) => [instance, restarts]),
      before.map(({ instance }) => [instance, 1]),
    );
    assert.deepEqual(after.drift, []);
    assert.deepEqual((await pm2.shows('holdfast')).map(({ restarts }) => restarts), [1, 1, 1]);
    const ends = shops.flatMap(({ ids, closes }) => ids.slice(0, closes.length));
    assert.ok(ends.length >= shops.length, 'each of them was on an instance that was restarted');
    for (const id of ends) {
      const { json } = await server.asks(`/api/sockets/${id}`);
      const { cause, closeCode, restarts, sentence } = json.verdict ?? {};
      assert.deepEqual([cause, closeCode, restarts], ['instance_restart', 1012, 1], JSON.stringify(json));
      assert.match(sentence, /with 1012: instance restart \(restart\); \S+ is back, restart 1$/);
    }
    assert.deepEqual([...new Set(shops.flatMap(({ closes }) => closes))], [1012]);

    const log = await pm2.printed('holdfast', 0);
    for (const restarts of [0, 1]) {
      assert.match(log, new RegExp(`INFO instance starts .*-0:${ports[0]}.* manager="pm2" restarts=${restarts} configuration="\\w{8}"`));
    }
    // One time in front of each line, not two.
    assert.doesNotMatch(log, /^\S*\d\d:\d\d:\d\d\S*\s+\S*\d\d:\d\d:\d\d/m);

    // Killed, it comes back, and counts on; sent away, it stays away until it is asked for.
    process.kill((await pm2.shows('holdfast'))[0].pid, 'SIGKILL');
    await pm2.becomes('it is started again', 'holdfast', ([first]) => first.restarts === 2 && first.status === 'online');
    const { instance } = before[1];
    const drain = ['drain', instance, '--wait', '--url', `http://127.0.0.1:${ports[2]}`];
    const drained = await Program.run(Gateway.BINARY, drain, { env: { API_TOKEN } });
    assert.equal(drained.code, 0, drained.output);
    const [, gone] = await pm2.becomes('it stays away', 'holdfast', ([, second]) => second.status === 'stopped');
    assert.deepEqual([gone.code, gone.restarts], [79, 1]);
    await pm2.runs('start', String(gone.id));
    assert.equal((await fetch(`http://127.0.0.1:${ports[1]}/health/ready`)).status, 200);
  });

  /** Checklist 274, 276. */
  test('what cannot get better is not started again, and what will do harm is warned of', async (t) => {
    const pm2 = await Pm2.start(t);
    const wrong = Pm2.app({ PORT: '0', WS_PING_INTERVAL: 'often' }, { name: 'wrong', instances: 1 });
    const hasty = Pm2.app({ PORT: '0' }, { name: 'hasty', instances: 1, kill_timeout: undefined });
    await pm2.starts(wrong, hasty);
    const [stopped] = await pm2.shows('wrong');
    assert.deepEqual([stopped.status, stopped.code, stopped.restarts], ['stopped', 78, 0]);
    assert.match(await pm2.printed('wrong', stopped.id), /WS_PING_INTERVAL=often/);
    const [online] = await pm2.shows('hasty');
    assert.equal(online.status, 'online');
    assert.match(await pm2.printed('hasty', online.id), /kill_timeout of pm2 is 1600 ms, .* DRAIN_TIMEOUT=10s .* kill_timeout: 15000/);
  });
});
