//! The real pm2, with a home of its own, so that it knows nothing of another one and nothing is left of it.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import os from 'node:os';
import path from 'node:path';
import { endsWith } from './ends.mjs';
import { Gateway } from './gateway.mjs';
import { eventually } from './patience.mjs';
import { Program } from './program.mjs';

const PM2 = fileURLToPath(new URL('node_modules/pm2/bin/pm2', import.meta.url));
const ECOSYSTEM = fileURLToPath(new URL('../../deploy/pm2/ecosystem.config.cjs', import.meta.url));

export class Pm2 {
  /** Our ecosystem file as it stands, but for the program and what is said to it. */
  static app(env, changes = {}) {
    const [app] = createRequire(import.meta.url)(ECOSYSTEM).apps;
    return { ...app, script: Gateway.BINARY, env: { HOST: '127.0.0.1', ...env }, ...changes };
  }

  static async start(t) {
    const pm2 = new Pm2();
    pm2.home = await mkdtemp(path.join(os.tmpdir(), 'holdfast-pm2-'));
    // Its daemon leads a life of its own; it must not outlive a test that is broken off either.
    process.once('exit', () => pm2.#killDaemon());
    endsWith(t, async () => {
      await pm2.runs('kill');
      await rm(pm2.home, { recursive: true, force: true });
    });
    return pm2;
  }

  #killDaemon() {
    try {
      process.kill(Number(readFileSync(path.join(this.home, 'pm2.pid'), 'utf8')), 'SIGKILL');
    } catch {
      // It is gone, as it should be.
    }
  }

  /** `pm2 …`, to its end; returns what it says. */
  async runs(...args) {
    const env = { PM2_HOME: this.home, HOME: this.home, PM2_DISABLE_VERSION_CHECK: 'true', NO_COLOR: '1' };
    const { code, output } = await Program.run(process.execPath, [PM2, ...args], { env });
    if (code !== 0) throw new Error(`pm2 ${args.join(' ')} ended with ${code}:\n${output}`);
    return output;
  }

  /** `pm2 start` with an ecosystem file that has these apps. */
  async starts(...apps) {
    const file = path.join(this.home, `${apps[0].name}.config.cjs`);
    await writeFile(file, `module.exports = ${JSON.stringify({ apps })};`);
    return this.runs('start', file);
  }

  /** What `pm2 list` shows of an app. */
  async shows(name) {
    const lines = (await this.runs('jlist')).split('\n');
    const list = JSON.parse(lines.findLast((line) => line.startsWith('[')));
    return list
      .filter((process) => process.name === name)
      .map(({ pid, pm_id, pm2_env: { status, restart_time, exit_code, PORT, axm_monitor } }) => ({
        id: pm_id,
        figures: axm_monitor,
        pid,
        status,
        restarts: restart_time,
        code: exit_code,
        port: Number(PORT),
      }));
  }

  /** Waits until it shows this of an app. */
  becomes(what, name, look) {
    return eventually(what, async () => {
      const shown = await this.shows(name);
      return look(shown) && shown;
    });
  }

  /** What the process with this number of pm2's has printed. */
  async printed(name, id) {
    const files = ['out', 'error'].map((kind) => path.join(this.home, 'logs', `${name}-${kind}-${id}.log`));
    return (await Promise.all(files.map((file) => readFile(file, 'utf8')))).join('');
  }
}
