//! The development flow: pages of Vite's dev server, the gateway behind its proxy.

import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { Chromium } from './chromium.mjs';
import { Gateway } from './gateway.mjs';
import { Vite } from './vite.mjs';

/** A page of the rooms team: `useWebSocket` with a URL, no subprotocol, and nothing opened before the room is known. */
const PAGE = `
import { createElement, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { useWebSocket } from 'partysocket/react';

function Room() {
  const [room, setRoom] = useState();
  const [lines, setLines] = useState([]);
  const url = new URL('/__ws/websocket', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.searchParams.set('room_id', room ?? '');
  const tells = (line) => setLines((lines) => [...lines, line]);
  const socket = useWebSocket(url.toString(), undefined, {
    enabled: room !== undefined,
    onOpen: () => tells('open'),
    onMessage: ({ data }) => tells('message ' + data),
    onClose: ({ code, reason }) => tells('close ' + code + ' ' + reason),
    onError: () => tells('error'),
  });
  useEffect(() => void Object.assign(window, { setRoom, socket }));
  return createElement('pre', null, lines.join('\\n'));
}

createRoot(document.getElementById('root')).render(createElement(Room));
`;

suite('Vite', () => {
  let chromium;
  before(async () => (chromium = await Chromium.start()));
  after(() => chromium.stop());

  /** Checklist 51, 52, 53, 54, 55, 56, 59, 60, 128. */
  test('two pages of the dev server meet in a room behind its proxy', async (t) => {
    const gateway = await Gateway.startAgainable(t);
    const vite = await Vite.before(t, gateway.port, PAGE);
    const [own, other] = [await Page.open(t, chromium, vite), await Page.open(t, chromium, vite)];
    await gateway.holds(0);

    for (const page of [own, other]) {
      await page.enters('Zimmer 1');
      await page.shows(/^open\nmessage {"type":"hi".*}\nmessage {"type":"reset"}$/);
    }
    assert.equal((await gateway.asks('/api/rooms/Zimmer%201')).status, 200);
    await own.says({ type: 'publish', room: 'Zimmer 1', data: 'hello' });
    await other.shows(/\nmessage {"type":"message","room":"Zimmer 1","from":"ws_.*","data":"hello"}$/);

    await gateway.ends();
    await own.shows(/\nmessage {"type":"retry".*}\nclose 1012 restart/);
    await gateway.comesBack();
    await own.shows(/\nopen\nmessage {"type":"hi".*}\nmessage {"type":"reset"}$/);

    const rehearsed = await own.tab.fetch('/__ws/api/handshake?path=/websocket&room_id=');
    assert.equal(rehearsed.status, 400);
    assert.equal(JSON.parse(rehearsed.body).title, 'Missing or empty room_id query parameter');

    // Nobody who reaches the dev server passes for this machine, which alone may ask for that.
    assert.equal((await fetch(`${vite.origin}/__ws/api/debug/sockets`)).status, 401);
  });
});

class Page {
  static async open(t, chromium, vite) {
    const page = new Page();
    page.tab = await chromium.tab(t, vite.origin);
    await page.tab.page.waitForFunction(() => window.socket);
    return page;
  }

  enters(room) {
    return this.tab.page.evaluate((room) => window.setRoom(room), room);
  }

  says(frame) {
    return this.tab.page.evaluate((text) => window.socket.send(text), JSON.stringify(frame));
  }

  /** Waits until the page has written this. */
  async shows(pattern) {
    const text = () => this.tab.page.evaluate(() => document.body.innerText);
    try {
      await this.tab.page.waitForFunction(
        ([source, flags]) => new RegExp(source, flags).test(document.querySelector('pre')?.textContent),
        [pattern.source, pattern.flags],
        { timeout: 20_000 },
      );
    } catch (error) {
      throw new Error(`the page never showed ${pattern}, but:\n${await text()}\n${this.tab.console.join('\n')}`);
    }
  }
}
