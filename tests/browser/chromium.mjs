//! A real Chromium, its tabs, and what their developer tools show.

import { createServer } from 'node:http';
import { chromium } from 'playwright-core';
import { Ear } from './ear.mjs';
import { endsWith } from './ends.mjs';
import { eventually } from './patience.mjs';

const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // Pages of strangers: names that lead to this machine, and nowhere else.
  '--host-resolver-rules=MAP *.test 127.0.0.1',
];

export class Chromium {
  #browser;
  #site;

  /** Starts one, and a server with an empty page for every address. */
  static async start() {
    const browser = await chromium.launch({
      executablePath: '/usr/bin/chromium',
      chromiumSandbox: process.getuid() !== 0,
      args: FLAGS,
    });
    const site = createServer((_, response) => {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>a page</title><link rel="icon" href="data:,">');
    });
    await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
    const self = new Chromium();
    self.#browser = browser;
    self.#site = site;
    return self;
  }

  async stop() {
    await this.#browser.close();
    this.#site.close();
    this.#site.closeAllConnections();
  }

  /** The origin of the pages of this host. */
  origin(host = 'localhost') {
    return `http://${host}:${this.#site.address().port}`;
  }

  /** A tab of its own profile, with a page of `origin`; it is closed when the test ends. */
  async tab(t, origin = this.origin()) {
    const context = await this.#browser.newContext({ ignoreHTTPSErrors: true });
    endsWith(t, () => context.close());
    return Tab.at(context, origin);
  }
}

export class Tab {
  #ears = [];
  /** What the console shows. */
  console = [];
  /** What the network panel shows of WebSocket handshakes: status and headers. */
  handshakes = [];
  /** What it shows of answers to requests, those too that the page may not read: status and URL. */
  answers = [];

  static async at(context, origin) {
    const tab = new Tab();
    const page = (tab.page = await context.newPage());
    page.on('pageerror', (error) => tab.console.push(`${error}`));
    page.on('console', (message) => tab.console.push(message.text()));
    const tools = await context.newCDPSession(page);
    await tools.send('Network.enable');
    tools.on('Network.webSocketHandshakeResponseReceived', ({ response }) => tab.handshakes.push(response));
    tools.on('Network.responseReceivedExtraInfo', ({ statusCode, headers }) => {
      tab.answers.push({ status: statusCode, headers });
    });
    await page.exposeFunction('tell', (nth, kind, event) => tab.#ears[nth].hear(kind, event));
    await page.goto(`${origin}/`);
    return tab;
  }

  /** `new WebSocket(url)` in the page. */
  async connect(url, protocols = [], ear = new Ear()) {
    const nth = this.#ears.push(ear) - 1;
    await this.page.evaluate(
      ({ nth, url, protocols }) => {
        const socket = new WebSocket(url, protocols);
        socket.binaryType = 'arraybuffer';
        const text = (data) => (typeof data === 'string' ? data : `${data.byteLength} bytes`);
        socket.onopen = () => window.tell(nth, 'open', { protocol: socket.protocol, extensions: socket.extensions });
        socket.onmessage = ({ data }) => window.tell(nth, 'message', text(data));
        socket.onclose = ({ code, reason, wasClean }) => window.tell(nth, 'close', { code, reason, wasClean });
        (window.sockets ??= [])[nth] = socket;
      },
      { nth, url, protocols },
    );
    const inPage = (does, what) => this.page.evaluate(does, { nth, what });
    return {
      ear: this.#ears[nth],
      says: (frame) => inPage(({ nth, what }) => window.sockets[nth].send(what), text(frame)),
      sendsBytes: (count) => inPage(({ nth, what }) => window.sockets[nth].send(new Uint8Array(what)), count),
      closes: (code, reason) => inPage(({ nth, what }) => window.sockets[nth].close(...what), [code, reason]),
    };
  }

  /** `fetch(url)` in the page: what it can read, or the error that it gets in its place. */
  fetch(url, options = {}) {
    return this.page.evaluate(
      async ({ url, options }) => {
        try {
          const response = await fetch(url, options);
          const { status, type, headers } = response;
          return { status, type, requestId: headers.get('x-request-id'), body: await response.text() };
        } catch (error) {
          return { error: `${error}` };
        }
      },
      { url, options },
    );
  }

  /** Waits for a line of the console. */
  shows(pattern) {
    return eventually(`the console shows ${pattern}`, () => this.console.find((line) => pattern.test(line)));
  }

  /** Waits for what the network panel shows of the first handshake. */
  handshake() {
    return eventually('the network panel shows a handshake', () => this.handshakes[0]);
  }
}

const text = (frame) => (typeof frame === 'string' ? frame : JSON.stringify(frame));
