//! Ports for those that cannot be told to pick one, or that must get the same one again.

import dgram from 'node:dgram';
import { readFileSync } from 'node:fs';
import net from 'node:net';

/** Below this the kernel gives no port to a connection or to `PORT=0`, so that one stays free once it is. */
const EPHEMERAL = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/)[0]);
const FIRST = 10_000;

/** A port that nobody listens on, and that no other fact is given while this process lives. */
export async function freePort() {
  return (await freePorts(1))[0];
}

/** So many in a row. */
export async function freePorts(count) {
  for (;;) {
    const first = FIRST + Math.floor(Math.random() * Math.max(EPHEMERAL - FIRST - count, 1_000));
    const ports = Array.from({ length: count }, (_, nth) => first + nth);
    const areOurs = await Promise.all(ports.map(async (port) => (await isReserved(port)) && (await isFree(port))));
    if (areOurs.every(Boolean)) return ports;
  }
}

/**
 * The rule of all our tests, tests/redis/src/port.rs too: whoever holds the UDP port of a number may listen on its TCP
 * port. The kernel gives it to one process only, and takes it back when that ends, however it ends.
 */
function isReserved(port) {
  return new Promise((resolve) => {
    const socket = dgram.createSocket('udp4').unref();
    socket.once('error', () => resolve(false));
    socket.bind(port, '127.0.0.1', () => resolve(true));
  });
}

function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
