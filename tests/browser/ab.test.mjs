//! ApacheBench, which speaks HTTP/1.0 and counts what it does not like.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gateway } from './gateway.mjs';
import { Program } from './program.mjs';

for (const keepalive of [[], ['-k']]) {
  const line = ['-n', '1000', '-c', '10', ...keepalive];

  /** Checklist 117, 256, 291. The gateway is fresh, so that the digits of its uptime do not change meanwhile. */
  test(`ab ${line.join(' ')} http://yourserver/health fails nothing`, async (t) => {
    const gateway = await Gateway.start(t, { LOG_LEVEL: 'info' });
    const { code, output } = await Program.run('ab', [...line, gateway.http('/health')]);
    assert.equal(code, 0, output);
    assert.match(output, /^Complete requests: +1000$/m, output);
    assert.match(output, /^Failed requests: +0$/m, output);
    assert.doesNotMatch(output, /Non-2xx responses|Write errors/, output);
    if (keepalive.length > 0) assert.match(output, /^Keep-Alive requests: +1000$/m, output);
  });
}
