//! Stands between a proxy and the gateway and writes down what the proxy sends.

import net from 'node:net';
import { endsWith } from './ends.mjs';

export class Recorder {
  /** One text per connection, in the order in which they were opened. */
  connections = [];

  /** Starts one in front of `port`; it ends with the test `t`. */
  static async before(t, port) {
    const recorder = new Recorder();
    const open = new Set();
    const server = net.createServer((proxy) => {
      const gateway = net.connect(port, '127.0.0.1');
      const nth = recorder.connections.push('') - 1;
      proxy.on('data', (bytes) => (recorder.connections[nth] += bytes.toString('latin1')));
      proxy.pipe(gateway).pipe(proxy);
      for (const socket of [proxy, gateway]) {
        open.add(socket);
        socket.on('error', () => {}).on('close', () => [proxy, gateway].forEach((end) => end.destroy()));
      }
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    endsWith(t, () => {
      server.close();
      open.forEach((socket) => socket.destroy());
    });
    recorder.port = server.address().port;
    return recorder;
  }
}
