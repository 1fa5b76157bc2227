//! The word that pm2 waits for (`wait_ready`): it starts its programs with a channel of Node's, as this does.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { suite, test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { soon } from './patience.mjs';

suite('pm2', () => {
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
});
