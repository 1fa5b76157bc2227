//! A Redis for a fleet, empty and its own.

import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { endsWith } from './ends.mjs';
import { freePort } from './port.mjs';
import { Program } from './program.mjs';

export class Redis {
  static async start(t) {
    const redis = new Redis();
    const folder = await mkdtemp(path.join(os.tmpdir(), 'holdfast-redis-'));
    let program;
    endsWith(t, async () => {
      await program?.stop();
      await rm(folder, { recursive: true, force: true });
    });
    do {
      redis.port = await freePort();
      const settings = ['--port', String(redis.port), '--bind', '127.0.0.1', '--save', '', '--dir', folder];
      program = new Program('redis-server', settings);
    } while ((await program.says(/Ready to accept|Address already in use/))[0] !== 'Ready to accept');
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }
}
