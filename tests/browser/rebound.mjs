//! A stranger's name that first leads to the stranger's page, and from then on to a gateway of this machine.

import net from 'node:net';
import { endsWith } from './ends.mjs';

const PAGE = '<!doctype html><title>a page</title><link rel="icon" href="data:,">';
const ANSWER = `HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n${PAGE}`;

/** The port under which `/` is the stranger's, and all else the gateway's on `port`, to the byte. */
export async function rebound(t, port) {
  const open = new Set();
  const server = net.createServer((browser) => {
    open.add(browser);
    browser.on('error', () => {});
    browser.once('data', (head) => {
      if (head.toString('latin1').startsWith('GET / ')) return browser.end(ANSWER);
      const gateway = net.connect(port, '127.0.0.1');
      gateway.on('error', () => browser.destroy());
      gateway.write(head);
      browser.pipe(gateway).pipe(browser);
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  endsWith(t, () => {
    server.close();
    open.forEach((socket) => socket.destroy());
  });
  return server.address().port;
}
