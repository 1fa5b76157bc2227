//! Ports for those that cannot be told to pick one, or that must get the same one again.

import { readFileSync } from 'node:fs';
import net from 'node:net';

/** Below this the kernel gives no port to a connection or to `PORT=0`, so that one stays free once it is. */
const EPHEMERAL = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
const FIRST = 10_000;

/** A port that nobody listens on. */
export async function freePort() {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * Math.max(EPHEMERAL - FIRST, 1_000));
    if (await isFree(port)) return port;
  }
}

export function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
