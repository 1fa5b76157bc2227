//! Command lines, typed as a user types them.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { Program } from './program.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const HOLDFAST = fileURLToPath(new URL('.', `file://${Gateway.BINARY}`));
const PATH = `${HERE}node_modules/.bin:${HOLDFAST}:${process.env.PATH}`;

export const CTRL_C = '\x03';

/** Types a command line into a terminal of its own. */
export function terminal(t, line) {
  const program = new Program('script', ['-qfec', line, '/dev/null'], {
    cwd: HERE,
    env: { PATH, TERM: 'xterm', npm_config_offline: 'true' },
    input: true,
  });
  endsWith(t, async () => {
    if (!program.end) program.types(CTRL_C);
    await program.ends().catch(() => program.stop());
  });
  return program;
}

/** Runs a command line that ends by itself. */
export async function shell(line, env = {}) {
  const { code, output } = await Program.run('sh', ['-c', line], { env: { PATH, ...env } });
  assert.equal(code, 0, output);
  return output;
}
