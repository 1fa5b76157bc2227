//! Calls as the README shows them: its ten lines in a page, its command lines in two terminals.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { Chromium } from './chromium.mjs';
import { Gateway } from './gateway.mjs';
import { eventually } from './patience.mjs';
import { blocks, section } from './readme.mjs';
import { shell, terminal } from './terminal.mjs';

const npm = (file) => readFileSync(new URL(`node_modules/partysocket/dist/${file}`, import.meta.url), 'utf8');
const party = ({ host }) => `new PartySocket({ host: '${host}', basePath: 'ws', query: { store_id: 's' } })`;
const required = (file) => `(() => { const module = { exports: {} }, { exports } = module; ${npm(file)}; return module.exports; })()`;

/** What puts a `socket` into a page. */
const MAKES = {
  'a plain WebSocket': (page, gateway) =>
    page.addScriptTag({ content: `var socket = new WebSocket('${gateway.ws('/ws?store_id=s')}');` }),

  'an imported PartySocket': async (page, gateway) => {
    await page.route('**/partysocket/*', (route) => {
      const file = new URL(route.request().url()).pathname.split('/').pop();
      return route.fulfill({ contentType: 'text/javascript', body: npm(file) });
    });
    const content = `import { PartySocket } from '/partysocket/index.js'; window.socket = ${party(gateway)};`;
    await page.addScriptTag({ type: 'module', content });
    await page.waitForFunction(() => window.socket);
  },

  'a required PartySocket': (page, gateway) => {
    const require = `const require = () => ${required('ws.cjs')};`;
    const content = `var socket = (() => { ${require} const { PartySocket } = ${required('index.cjs')}; return ${party(gateway)}; })();`;
    return page.addScriptTag({ content });
  },
};

suite('Answering a call', { concurrency: 3 }, () => {
  let chromium;
  before(async () => (chromium = await Chromium.start()));
  after(() => chromium.stop());

  for (const [name, make] of Object.entries(MAKES)) {
    /** A page with the README's lines, and what it says. */
    async function page(t) {
      const gateway = await Gateway.start(t);
      const tab = await chromium.tab(t);
      const said = [];
      tab.page.on('websocket', (socket) => socket.on('framesent', ({ payload }) => said.push(JSON.parse(payload))));
      await make(tab.page, gateway);
      const [code, ...more] = blocks('Answering a call', 'js');
      assert.equal(more.length, 0);
      await tab.page.addScriptTag({ content: code });
      await gateway.holds(1);
      return { gateway, tab, said };
    }

    test(`${name} answers, and tells how far it is`, async (t) => {
      const { gateway, tab, said } = await page(t);
      const { status, json } = await gateway.asks('/api/sync/orders', { json: { storeId: 's', since: 5 } });
      assert.deepEqual([status, json.result], [200, { orders: 3, since: 5 }]);
      const { callId } = json;
      await eventually('the browser tells what the page has said', () => said.length === 2);
      assert.deepEqual(said, [
        { type: 'progress', callId, data: { read: 1 } },
        { type: 'reply', callId, data: { orders: 3, since: 5 } },
      ]);
      assert.deepEqual(tab.console, []);
    });

    test(`${name} says that it failed, whatever the reason`, async (t) => {
      const { gateway, tab } = await page(t);
      await tab.page.evaluate(() => {
        handlers.throws = () => { throw new Error('no rights'); };
        handlers.rejects = async () => Promise.reject('too late');
        handlers.unspeakable = () => 1n;
      });
      const failures = { throws: /^Error: no rights$/, rejects: /^too late$/, unspeakable: /BigInt/, unknown: /not a function/ };
      for (const [event, failure] of Object.entries(failures)) {
        const { status, json } = await gateway.asks('/api/call', { json: { storeId: 's', event } });
        assert.deepEqual([status, json.code], [409, 'call_failed']);
        assert.match(json.failure, failure);
      }
      assert.deepEqual(tab.console, []);
    });

    test(`${name} answers a repeated callId from its cache`, async (t) => {
      const { gateway, tab, said } = await page(t);
      await tab.page.evaluate(() => {
        window.calls = [];
        window.repeat = () => socket.dispatchEvent(new MessageEvent('message', { data: window.calls[0] }));
        socket.addEventListener('message', ({ data }) => data.includes('"callId"') && window.calls.push(data));
        window.runs = 0;
        handlers.count = async () => {
          window.runs += 1;
          await new Promise((resolve) => (window.finish = resolve));
          return window.runs;
        };
      });
      const asking = gateway.asks('/api/call', { json: { storeId: 's', event: 'count' } });
      await tab.page.waitForFunction(() => window.finish && window.calls.length === 1);
      // Again while it is at work, and again when it is done.
      await tab.page.evaluate(() => { window.repeat(); window.finish(); });
      const { status, json } = await asking;
      assert.deepEqual([status, json.result], [200, 1]);
      await tab.page.evaluate(() => window.repeat());
      await eventually('each repeat is answered', () => said.length === 3);
      const reply = { type: 'reply', callId: json.callId, data: 1 };
      assert.deepEqual(said, [reply, reply, reply]);
      assert.equal(await tab.page.evaluate(() => window.runs), 1);
      await eventually('the gateway drops what nobody waits for', async () => {
        return /^holdfast_replies_late_total 2$/m.test((await gateway.asks('/metrics')).text);
      });
    });

    test(`${name} that is reloaded during its call is socket_lost at the caller`, async (t) => {
      const { gateway, tab } = await page(t);
      await tab.page.evaluate(() => {
        handlers.forever = () => new Promise(() => (window.began = true));
      });
      const asking = gateway.asks('/api/call', { json: { storeId: 's', event: 'forever' } });
      await tab.page.waitForFunction(() => window.began);
      await tab.page.reload();
      const { status, json } = await asking;
      assert.deepEqual([status, json.code, json.delivered], [502, 'socket_lost', true]);
      assert.equal(json.verdict.cause, 'client_closed');
    });
  }
});

suite('Asking a client', { concurrency: true }, () => {
  const here = (gateway, line) => line.replaceAll('127.0.0.1:8080', gateway.host);

  /** Types the reply that the README shows, with the callId that the terminal shows. */
  async function replies(user, verb) {
    const [, callId] = await user.says(new RegExp(`< {"type":"${verb}","callId":"(c_[^"]+)","storeId":"meonutrition","data":`));
    const [reply] = blocks('Asking a client', 'json');
    user.types(reply.replace('c_…', callId));
  }

  test('the command lines work as printed', async (t) => {
    const gateway = await Gateway.start(t);
    const [wscat, call, sync] = blocks('Asking a client', 'sh').map((line) => here(gateway, line));
    const user = terminal(t, wscat);
    await user.says(/< {"type":"reset"}/);
    for (const [curl, verb] of [[call, 'ask'], [sync, 'sync_orders']]) {
      const [answer] = await Promise.all([shell(curl.replace('curl ', 'curl -s ')), replies(user, verb)]);
      const { status, result } = JSON.parse(answer);
      assert.deepEqual([status, result], ['replied', 'yes'], answer);
    }
  });

  test('so do those of holdfast', async (t) => {
    const gateway = await Gateway.start(t);
    const [wscat] = blocks('Asking a client', 'sh').map((line) => here(gateway, line));
    const user = terminal(t, wscat);
    await user.says(/< {"type":"reset"}/);
    const env = { PORT: String(gateway.port) };
    const lines = {
      ask: `holdfast call --user test123 --event ask --data '{"question":"ready?"}'`,
      sync_orders: 'holdfast sync orders --store meonutrition',
    };
    const readme = section('Asking a client');
    for (const [verb, line] of Object.entries(lines)) {
      assert.ok(readme.includes(line), line);
      const [answer] = await Promise.all([shell(line, env), replies(user, verb)]);
      assert.match(answer, /^"yes"$/m);
    }
    const send = `holdfast send --all --data '"hello"'`;
    assert.ok(readme.includes(send));
    await shell(send, env);
    await user.says(/< {"type":"message","data":"hello"}/);
  });
});
