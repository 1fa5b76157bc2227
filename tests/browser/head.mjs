//! The head of an answer to a WebSocket handshake, byte for byte.

import net from 'node:net';
import { soon } from './patience.mjs';

/** The example of RFC 6455, section 1.3, and what has to be answered to it. */
export const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
export const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

const HANDSHAKE = [
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Version: 13',
  `Sec-WebSocket-Key: ${KEY}`,
];

/** Knocks at `target` with these header lines too; returns the answer's lines up to the empty one. */
export async function knock(port, target, lines = []) {
  const socket = net.connect(port, '127.0.0.1');
  const answer = new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      if (text.includes('\r\n\r\n')) resolve(text.slice(0, text.indexOf('\r\n\r\n')).split('\r\n'));
    });
    socket.on('error', reject).on('end', () => reject(new Error(`the connection ended after ${JSON.stringify(text)}`)));
  });
  const head = [`GET ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...HANDSHAKE, ...lines];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  try {
    return await soon(() => `an answer to ${target}`, answer);
  } finally {
    socket.destroy();
  }
}
